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

import numpy as np

from dlkit._files import cache_dir
from dlkit._opening import open_regular, regular
from dlkit.errors import ArgumentError, DataError

__all__ = [
    "Buffer",
    "contents",
    "detect_encoding",
    "first_bad_byte",
    "is_packed",
    "local_path",
    "to_utf8",
    "unpacked",
]

Buffer = Any  # bytes, mmap or memoryview: whatever numpy and Arrow read without a copy

_PIECE = 1 << 24
# A table packs 3 to 30 times; an archive beyond this, and beyond a gigabyte, is made to fill the memory.
_MOST_RATIO, _ALWAYS_ALLOWED = 400, 1 << 30
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


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


def detect_encoding(data: Buffer, origin: str) -> str:
    """The codec that reads `data`: by byte order mark, as UTF-8, UTF-16 without mark, cp949, and latin-1 at last.

    UTF-8 is nearly impossible to hit by accident, so it goes first; cp949 (which contains euc-kr) is believed only
    when the text then consists of Hangul; cp1252 is latin-1 with printable characters where that has none.

    >>> detect_encoding("가나다".encode("cp949"), "x"), detect_encoding("é,1".encode("latin-1"), "x")
    ('cp949', 'latin-1')
    """
    head = bytes(data[:4096])
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if (wide := _utf16_without_mark(head)) is not None:
        return wide
    if first_bad_byte(data) is None:
        return "utf-8"
    raw = bytes(data)
    if _mostly_utf8(raw):
        bad = first_bad_byte(data)
        line = raw[:bad].count(b"\n") + 1
        raise DataError(
            f"{origin} is UTF-8 but for some damaged bytes, the first in line {line}; "
            "repair it, or give encoding='latin-1' (or what it is) to read it as it stands"
        )
    if 0 in raw:
        raise DataError(f"{origin} is neither UTF-8 nor marked as UTF-16 and holds zero bytes; give encoding=...")
    if _is_korean(raw):
        return "cp949"
    return "cp1252" if _is_windows(raw) else "latin-1"


def is_ascii(data: Buffer) -> bool:
    """Whether no byte has its highest bit set; a pass at the speed of memory."""
    array = np.frombuffer(data, dtype=np.uint8)
    whole = len(array) // 8 * 8
    joined = np.bitwise_or.reduce(array[:whole].view(np.uint64), initial=0)
    return not int(joined) & 0x8080808080808080 and not bool((array[whole:] & 0x80).any())


def first_bad_byte(data: Buffer) -> int | None:
    """The place of the first byte that is not UTF-8."""
    if is_ascii(data):
        return None
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        kept = len(decoder.getstate()[0])
        try:
            decoder.decode(bytes(piece), final=start + _PIECE >= len(data))
        except UnicodeDecodeError as error:
            return done - kept + error.start
        done += len(piece)
    return None


def _utf16_without_mark(head: bytes) -> str | None:
    """ASCII characters as UTF-16 have a zero in every second byte, which no other text has."""
    pairs = max(len(head) // 2, 1)
    if head[1::2].count(0) / pairs > 0.3 and head[::2].count(0) == 0:
        return "utf-16-le"
    if head[::2].count(0) / pairs > 0.3 and head[1::2].count(0) == 0:
        return "utf-16-be"
    return None


def _mostly_utf8(raw: bytes) -> bool:
    text = raw.decode("utf-8", "replace")
    strange = text.count("\ufffd")
    foreign = sum(1 for character in text if character > "\x7f")
    return foreign - strange >= 20 * strange


def _is_korean(raw: bytes) -> bool:
    try:
        text = raw.decode("cp949")
    except UnicodeDecodeError:
        return False
    foreign = [character for character in text if character > "\x7f"]
    hangul = sum("가" <= character <= "힣" or "\u3131" <= character <= "\u318e" for character in foreign)
    return hangul >= 0.7 * len(foreign)


def _is_windows(raw: bytes) -> bool:
    if not any(0x80 <= byte <= 0x9F for byte in set(raw)):
        return False
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return True


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
