"""From a path, URL or archive to UTF-8 bytes, with the encoding found and said."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import hashlib
import io
import lzma
import mmap
import os
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, cast
from urllib.parse import unquote, urlsplit

from dlkit._encodings import Buffer, detect_encoding, first_bad_byte
from dlkit._filekinds import HEAD, kind_of
from dlkit._opening import open_regular, regular
from dlkit._textfiles import check_lines, check_text
from dlkit.errors import ArgumentError, DataError
from dlkit.storage.files import home_of

__all__ = [
    "byte_stream",
    "contents",
    "damage",
    "encoding_of",
    "fetched_path",
    "is_packed",
    "known_codec",
    "most_bytes",
    "text_stream",
    "to_utf8",
    "unpacked",
    "utf8_pieces",
    "without_mark",
]

_UTF8 = ("utf-8", "utf-8-sig", "ascii")
_PIECE = 1 << 24
# A table packs 3 to 30 times; an archive beyond this, and beyond 128 MB, is made to fill the memory.
_MOST_RATIO, _ALWAYS_ALLOWED = 200, 1 << 27
_MOST_DEFLATE = 1032  # times smaller is the most that gzip can make anything
_MARKS = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}
_PACKERS = {"a gzip file": "gzip", "a bzip2 file": "bzip2", "an xz file": "xz", "a zip archive": "zip"}


def fetched_path(source: str | os.PathLike[str]) -> Path:
    """The file that `source` names; a URL is fetched into the cache folder first (once)."""
    text = os.fspath(source)
    if isinstance(text, str) and "://" in text:
        # Imported here: a table on the disk needs no network code.
        from dlkit.download import fetch

        name = Path(unquote(urlsplit(text).path)).name or "table"
        folder = home_of("tables") / hashlib.sha256(text.encode()).hexdigest()[:16]
        return Path(fetch([text], folder / name))
    path = Path(text).expanduser()
    if path.is_dir():
        raise ArgumentError(
            f"{path} is a folder; give the files, for example sorted(Path({str(path)!r}).glob('*.csv'))"
        )
    regular(path)
    return path


def contents(path: Path, wanted: str = "a table", allowed: Collection[str] = (), *, copy: Path | None = None) -> Buffer:
    """The bytes of a file of text, unpacked where it is gzip, bzip2, xz or a zip archive of one file.

    Args:
        path: The file.
        wanted: What errors say was expected.
        allowed: Families of `FileKind` that are text enough.
        copy: Where its bytes lie unpacked already.

    Raises:
        DataError: it is empty, of another kind, or has a line that no text has.
    """
    if regular(path).st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)")
    with open_regular(copy or path) as file:
        # Pages come from the system's cache as they are read, and the table is never in memory twice.
        data = (
            _joined(unpacked(path, wanted))
            if copy is None and is_packed(file)
            else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        )
    check_text(bytes(data[:HEAD]), path, wanted, allowed)
    check_lines(data, path)
    return data


def _joined(pieces: Iterable[bytes]) -> bytearray:
    """The pieces as one, without both in memory at the end."""
    data = bytearray()
    for piece in pieces:
        data += piece
    return data


def is_packed(file: IO[bytes]) -> bool:
    """Whether an open file is an archive."""
    head = file.read(HEAD)
    file.seek(0)
    return _packer(head) is not None


def _packer(head: bytes) -> str | None:
    """What a file is packed with, if with something that is unpacked here."""
    kind = kind_of(head)
    return _PACKERS.get(kind.name) if kind is not None else None


def most_bytes(size: int) -> int:
    """How many bytes a table may have that is packed in some."""
    return max(_ALWAYS_ALLOWED, _MOST_RATIO * size)


def unpacked(path: Path, wanted: str = "a table") -> Iterator[bytes]:
    """The bytes of a file, or of the one file packed in it, in pieces.

    Raises:
        DataError: a damaged archive, one with several files, or one that would fill the memory.
    """
    size, total = regular(path).st_size, 0
    most = most_bytes(size)
    try:
        with open_regular(path) as file, _opened(file, path, wanted) as (stream, claimed):
            if claimed > most:
                raise DataError(
                    f"{path} ({size:,} bytes) says it unpacks to {claimed:,} bytes: not {wanted}, or damaged"
                )
            while piece := stream.read(_PIECE):
                total += len(piece)
                if total > most:
                    raise DataError(
                        f"{path} ({size:,} bytes) unpacks to more than {most:,} bytes, which is not {wanted}"
                    )
                yield piece
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}") from error


@contextlib.contextmanager
def _opened(file: IO[bytes], path: Path, wanted: str) -> Iterator[tuple[IO[bytes], int]]:
    """The bytes to read, and how many the archive says there are; 0 where it does not say."""
    head = file.read(HEAD)
    file.seek(0)
    packer = _packer(head)
    if packer == "zip":
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not _is_litter(name)]
            check_text(b"PK\x03\x04" + " ".join(names[:100]).encode("utf-8", "replace"), path, wanted, ("archive",))
            if len(names) != 1:
                raise DataError(f"{path} holds {len(names)} files, not one: {', '.join(names[:8])}; unpack it first")
            with archive.open(names[0]) as stream:
                yield stream, archive.getinfo(names[0]).file_size
    elif packer == "gzip":
        file.seek(-4, os.SEEK_END)
        claimed = int.from_bytes(file.read(4), "little")  # of the last part, modulo 4 GiB: at least so many
        size, _ = file.tell(), file.seek(0)
        claimed = claimed if claimed <= _MOST_DEFLATE * size else 0  # no claim, but the end of a file that is cut off
        with gzip.GzipFile(fileobj=file) as stream:
            yield cast(IO[bytes], stream), claimed
    elif packer is not None:
        with bz2.BZ2File(file) if packer == "bzip2" else lzma.LZMAFile(file) as stream:
            yield stream, 0
    else:
        check_text(head, path, wanted)
        yield file, 0


def _is_litter(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith(".")


def to_utf8(data: Buffer, encoding: str, origin: str, *, lenient: bool = False) -> tuple[Buffer, str]:
    """The same text as UTF-8 without a byte order mark, and the name of the encoding it had.

    Args:
        data: The file's bytes.
        encoding: A codec's name, or "auto".
        origin: The file, for errors.
        lenient: Keep bytes that are not of that encoding as what `damage` finds, for their rows to be left out.

    Raises:
        DataError: there are such bytes, and `lenient` is False.
    """
    name, plain = encoding_of(data, encoding, origin, lenient=lenient)
    if plain:
        return without_mark(data), name
    return without_mark(b"".join(utf8_pieces(data, name, origin, lenient=lenient))), name


def utf8_pieces(data: Buffer, name: str, origin: str, *, lenient: bool = False) -> Iterator[bytes]:
    """A text as UTF-8, in pieces.

    Args:
        data: The file's bytes.
        name: The codec.
        origin: The file, for errors.
        lenient: As for `to_utf8`.

    Raises:
        DataError: there are bytes that are not of that encoding, and `lenient` is False.
    """
    decoder = codecs.getincrementaldecoder(name)("surrogateescape" if lenient else "strict")
    try:
        for start in range(0, len(data), _PIECE):
            text = decoder.decode(bytes(data[start : start + _PIECE]), start + _PIECE >= len(data))
            yield text.encode("utf-8", "surrogatepass")
    except UnicodeError as error:
        raise DataError(f"{origin} is not {name}: {error}") from error


def encoding_of(data: Buffer, encoding: str, origin: str, *, lenient: bool = False) -> tuple[str, bool]:
    """The codec of a text, and whether its bytes are UTF-8 as they are, a byte order mark aside.

    Args:
        data: The file's bytes.
        encoding: A codec's name, or "auto".
        origin: The file, for errors.
        lenient: Whether bytes that are not UTF-8 may be in a text that is said to be.

    Raises:
        DataError: there are such bytes, and `lenient` is False.
    """
    name = detect_encoding(data, origin) if encoding == "auto" else known_codec(encoding)
    if name in ("utf-16", "utf-32") and not bytes(data[:4]).startswith(_MARKS[name]):
        name += "-le"  # as nearly all programs write it
    if name not in _UTF8:
        return name, False
    if (encoding != "auto" or name == "utf-8-sig") and not lenient:
        _check_utf8(data, origin, name)
    return name, not lenient or first_bad_byte(data) is None


def without_mark(data: Buffer) -> Buffer:
    """UTF-8 bytes behind a byte order mark."""
    return memoryview(data)[3:] if bytes(data[:3]) == codecs.BOM_UTF8 else data


def damage(text: str) -> str | None:
    """What UTF-8 cannot hold in a text, to follow "has"; None where it can hold all.

    >>> damage("fine"), damage("caf\\udce9")
    (None, 'the byte 0xe9 after 3 characters, which is not of its encoding')
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:  # what `surrogateescape` makes of a byte
            return f"the byte {code - 0xDC00:#04x} after {error.start} characters, which is not of its encoding"
        return f"half a surrogate pair (U+{code:04X}) after {error.start} characters, which is not a character"
    return None


def known_codec(encoding: str) -> str:
    """The usual name of a codec.

    Raises:
        ArgumentError: there is no such codec.
    """
    try:
        return codecs.lookup(encoding).name
    except LookupError as error:
        raise ArgumentError(f"encoding={encoding!r} is not an encoding that Python knows; 'auto' finds it") from error


def _check_utf8(data: Buffer, origin: str, name: str) -> None:
    if (bad := first_bad_byte(data)) is not None:
        line = bytes(data[:bad]).count(b"\n") + 1
        raise DataError(f"{origin}, line {line}: byte {data[bad]:#04x} is not {name}; encoding='auto' finds what it is")


def text_stream(data: Buffer, newline: str = "") -> io.TextIOWrapper:
    """UTF-8 bytes as text lines with their line ends untouched.

    Args:
        data: What `to_utf8` gives.
        newline: As for `open`: "" ends lines as the csv module wants them, "\\n" at nothing else.
    """
    return io.TextIOWrapper(byte_stream(data), encoding="utf-8", errors="surrogatepass", newline=newline)


def byte_stream(data: Buffer) -> IO[bytes]:
    """Bytes that are in memory as a file."""
    import pyarrow as pa

    return cast(IO[bytes], pa.BufferReader(pa.py_buffer(data)))
