"""From a path, URL or archive to UTF-8 bytes, with the encoding found and said."""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import mmap
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit

from dlkit._files import cache_dir
from dlkit._opening import open_regular, regular
from dlkit.datasets.tables._encodings import Buffer, detect_encoding, first_bad_byte
from dlkit.errors import ArgumentError, DataError

__all__ = [
    "contents",
    "is_packed",
    "local_path",
    "to_utf8",
    "unpacked",
]

_PIECE = 1 << 24
# A table packs 3 to 30 times; an archive beyond this, and beyond a gigabyte, is made to fill the memory.
_MOST_RATIO, _ALWAYS_ALLOWED = 400, 1 << 30


def local_path(source: str | os.PathLike[str]) -> Path:
    """The file that `source` names; a URL is fetched into the cache folder first (once)."""
    text = os.fspath(source)
    if isinstance(text, str) and "://" in text:
        # Imported here: a table on the disk needs no network code.
        from dlkit.download import fetch

        name = Path(unquote(urlsplit(text).path)).name or "table"
        folder = cache_dir() / "tables" / hashlib.sha256(text.encode()).hexdigest()[:16]
        return Path(fetch([text], folder / name))
    path = Path(text).expanduser()
    if path.is_dir():
        raise ArgumentError(
            f"{path} is a folder; give the files, for example sorted(Path({str(path)!r}).glob('*.csv'))"
        )
    regular(path)
    return path


def contents(path: Path) -> Buffer:
    """The bytes of a file, unpacked where it is gzip, bzip2, xz or a zip archive of one file."""
    if regular(path).st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)")
    with open_regular(path) as file:
        if is_packed(file):
            return b"".join(unpacked(path))
        # Pages come from the system's cache as they are read, and the table is never in memory twice.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def is_packed(file: IO[bytes]) -> bool:
    """Whether an open file is an archive."""
    head = file.read(6)
    file.seek(0)
    return head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"PK\x03\x04"))


def unpacked(path: Path) -> Iterator[bytes]:
    """The bytes of a file, or of the one file packed in it, in pieces.

    Raises:
        DataError: a damaged archive, one with several files, or one that would fill the memory.
    """
    size, total = regular(path).st_size, 0
    try:
        with open_regular(path) as file, _opened(file, path) as stream:
            while piece := stream.read(_PIECE):
                total += len(piece)
                if total > max(_ALWAYS_ALLOWED, _MOST_RATIO * size):
                    raise DataError(f"{path} ({size:,} bytes) unpacks to more than {total:,} bytes; that is no table")
                yield piece
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}") from error


def _opened(file: IO[bytes], path: Path) -> IO[bytes]:
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(file)
    if head.startswith(b"PK\x03\x04"):
        archive = zipfile.ZipFile(file)
        names = [name for name in archive.namelist() if not name.endswith("/") and not _is_litter(name)]
        if "xl/workbook.xml" in names:
            raise DataError(f"{path} is an Excel workbook; read it with pandas.read_excel and give the DataFrame")
        if len(names) != 1:
            raise DataError(f"{path} holds {len(names)} files, not one: {', '.join(names[:8])}; unpack it first")
        return archive.open(names[0])
    return file


def _is_litter(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith(".")


def to_utf8(data: Buffer, encoding: str, origin: str) -> tuple[Buffer, str]:
    """The same text as UTF-8 without a byte order mark, and the name of the encoding it had.

    Args:
        data: The file's bytes.
        encoding: A codec's name, or "auto".
        origin: The file, for errors.
    """
    name = detect_encoding(data, origin) if encoding == "auto" else _known(encoding)
    if name in ("utf-8", "utf-8-sig", "ascii"):
        if encoding != "auto" or name == "utf-8-sig":
            _check_utf8(data, origin, name)
        mark = bytes(data[:3]) == codecs.BOM_UTF8
        return (memoryview(data)[3:] if mark else data), name
    try:
        text = str(memoryview(data), name)
    except UnicodeError as error:
        raise DataError(f"{origin} is not {name}: {error}") from error
    return text.removeprefix("\ufeff").encode("utf-8", "surrogatepass"), name


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError as error:
        raise ArgumentError(f"encoding={encoding!r} is no encoding that Python knows; 'auto' finds it") from error


def _check_utf8(data: Buffer, origin: str, name: str) -> None:
    if (bad := first_bad_byte(data)) is not None:
        line = bytes(data[:bad]).count(b"\n") + 1
        raise DataError(f"{origin}, line {line}: byte {data[bad]:#04x} is not {name}; encoding='auto' finds what it is")


class _View(io.RawIOBase):
    """A file over bytes that lie somewhere else already: nothing is copied but what is read."""

    def __init__(self, data: Buffer) -> None:
        self._data, self._position = memoryview(data), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._data[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def text_stream(data: Buffer) -> io.TextIOWrapper:
    """UTF-8 bytes as text lines with their line ends untouched, as the csv module wants them."""
    return io.TextIOWrapper(io.BufferedReader(_View(data)), encoding="utf-8", errors="surrogatepass", newline="")
