"""Zip, tar and packed single files as one stream of members; what they claim is checked in `archives`."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import os
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, cast

from dlkit._encodings import find_name_encoding
from dlkit._filekinds import HEAD, kind_of
from dlkit._opening import open_regular
from dlkit.download.disk import disk_error
from dlkit.errors import ArchiveError, DlkitError, UnsafeArchiveError

_CHUNK = 1 << 20
_MAX_HEADER = 1 << 20  # bytes; tarfile reads a long-name header into memory whole, however long it claims to be
_MAX_TAIL = 64 << 20  # bytes of padding behind the end of a tar; tar itself writes 10 kB
_MOST_DEFLATE = 1032  # times smaller is the most that deflate, of gzip and zip, can make anything
_UTF8 = 0x800  # the flag of a zip's name that is in UTF-8
_MAX_TARGET = 4096  # bytes in a symbolic link, as on Linux

_Opener = Callable[[IO[bytes]], Any]
_PACKERS: dict[bytes, _Opener] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_SUFFIXES = (*_TAR_SUFFIXES, ".zip", *_PACKED_SUFFIXES)

Kind = Literal["file", "folder", "symlink", "hardlink", "special"]
Chunks = Generator[bytes, None, None]  # to be closed, because an open file depends on it


def _nothing() -> Chunks:
    yield from ()


@dataclass(frozen=True, kw_only=True)
class Member:
    """What an archive says about one of its members; nothing of it is checked yet."""

    name: str
    kind: Kind
    target: str = ""  # of a link
    size: int = 0  # bytes, as the archive claims; 0 where it does not say
    executable: bool = False
    chunks: Chunks = field(default_factory=_nothing)


def plain_name(archive: str) -> str:
    """The file name without the ending that says what kind of archive it is; itself where there is none.

    >>> plain_name("letters.tar.gz")
    'letters'
    """
    suffix = next((suffix for suffix in _SUFFIXES if archive.lower().endswith(suffix)), "")
    return archive.removesuffix(archive[len(archive) - len(suffix) :]) if suffix else archive


def members(archive: Path, encoding: str = "auto") -> Generator[Member, None, None]:
    """What is in the archive, one after the other; the chunks of each are to be read before continuing. To be closed.

    Names in a zip that do not say their encoding are in `encoding`; "auto" finds out.
    """
    with open_regular(archive, ArchiveError) as file, _parsing(archive):
        head = file.read(HEAD)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        yield from _zip_members(archive, encoding)
        return
    opener = next((opener for magic, opener in _PACKERS.items() if head.startswith(magic)), None)
    with _parsing(archive), _unpacking(archive, opener) as file:
        block = file.read(tarfile.BLOCKSIZE)
    if _is_tar_header(block) or (archive.name.lower().endswith(_TAR_SUFFIXES) and not any(block)):
        yield from _tar_members(archive, opener)
    elif opener is not None:
        yield _single_member(archive, opener)
    else:
        kind = kind_of(head)
        what = "" if kind is None else f", but {kind.name}; {kind.advice}".removesuffix("; ")
        raise ArchiveError(f"{archive} was not unpacked: it is not a zip, tar, gzip, bzip2 or xz file{what}")


def claimed_sizes(archive: Path) -> Iterator[tuple[str, int]]:
    """The names and sizes of the files in an archive that says them all at once, as a zip does; nothing for others.

    Raises:
        UnsafeArchiveError: it claims more than it can hold.
    """
    with open_regular(archive, ArchiveError) as source:
        if not source.read(4).startswith((b"PK\3\4", b"PK\5\6")):
            return
        size = source.seek(0, os.SEEK_END)
        with _parsing(archive), zipfile.ZipFile(source) as file:
            infos = file.infolist()
        if sum(info.compress_size for info in infos) > size:
            raise UnsafeArchiveError(
                f"{archive} was not unpacked: its members overlap, so it claims more than it holds"
            )
        for info in infos:
            _check_ratio(archive, info)
            yield info.filename, info.file_size


def _check_ratio(archive: Path, info: zipfile.ZipInfo) -> None:
    most = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _MOST_DEFLATE}.get(info.compress_type)
    if most is not None and info.file_size > most * info.compress_size + 1024 and not info.flag_bits & 1:
        raise UnsafeArchiveError(
            f"{archive} was not unpacked: its member {info.filename[:200]!r} claims {info.file_size:,} bytes, and "
            f"{info.compress_size:,} packed ones cannot hold them"
        )


@contextlib.contextmanager
def _parsing(archive: Path) -> Iterator[None]:
    """Parsers of hostile bytes raise whatever they like: struct.error, RecursionError, AssertionError, ..."""
    try:
        yield
    except DlkitError:
        raise
    except Exception as error:
        # "Invalid argument" is a place before the file's beginning, which a damaged archive names.
        if isinstance(error, OSError) and error.errno not in (None, 0, errno.EINVAL):
            raise disk_error(error, archive, "read") from error
        raise ArchiveError(
            f"{archive} was not unpacked: it is damaged, cut off or of a kind that is not supported "
            f"({type(error).__name__}: {error})"
        ) from error


def _chunks(archive: Path, open_member: Callable[[], contextlib.AbstractContextManager[IO[bytes]]]) -> Chunks:
    with _parsing(archive), open_member() as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@contextlib.contextmanager
def _unpacking(archive: Path, opener: _Opener | None) -> Iterator[IO[bytes]]:
    """The bytes of the file, or those that are packed in it."""
    with open_regular(archive, ArchiveError) as file:
        if opener is None:
            yield file
        else:
            with opener(file) as unpacked:
                yield unpacked


def _single_member(archive: Path, opener: _Opener) -> Member:
    name = archive.stem if archive.suffix.lower() in _PACKED_SUFFIXES else archive.name
    return Member(name=name, kind="file", chunks=_chunks(archive, lambda: _unpacking(archive, opener)))


def _zip_members(archive: Path, encoding: str) -> Iterator[Member]:
    with open_regular(archive, ArchiveError) as source, _parsing(archive), zipfile.ZipFile(source) as file:
        infos = file.infolist()
        for info, name in zip(infos, _zip_names(archive, infos, encoding), strict=True):
            yield _zip_member(archive, file, info, name)


def _zip_names(archive: Path, infos: Sequence[zipfile.ZipInfo], encoding: str) -> list[str]:
    """The names as they were written: zipfile takes all that are not marked as UTF-8 for cp437.

    Programs of Windows write them in the code page of the country, and some with backslashes between folders; a name
    with those is checked as any other.
    """
    # zipfile cuts names at a NUL, too: the name before that is to be seen and refused.
    names = [info.orig_filename for info in infos]
    legacy = [not info.flag_bits & _UTF8 and not name.isascii() for info, name in zip(infos, names, strict=True)]
    if any(legacy):
        raw = b"\n".join(name.encode("cp437") for name, old in zip(names, legacy, strict=True) if old)
        codec, certain = find_name_encoding(raw) if encoding == "auto" else (encoding, True)
        read = iter(raw.decode(codec).split("\n"))
        names = [next(read) if old else name for name, old in zip(names, legacy, strict=True)]
        if not certain:
            example = next(name for name, old in zip(names, legacy, strict=True) if old)
            warnings.warn(
                f"{archive} does not say which encoding its names have, and is read as {codec} ({example}); if that is "
                "wrong: dlkit.download.extract(..., encoding=...)",
                UserWarning,
                stacklevel=2,
            )
    return [name.replace("\\", "/") for name in names]


def _zip_member(archive: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Member:
    mode = info.external_attr >> 16  # of a Unix file; 0 in archives from elsewhere
    if stat.S_ISLNK(mode):
        return Member(name=name, kind="symlink", target=_zip_link(file, info))
    kind: Kind = "special"
    if name.endswith("/") or stat.S_ISDIR(mode):
        kind = "folder"
    elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
        kind = "file"
    chunks = _chunks(archive, lambda: file.open(info))
    return Member(name=name, kind=kind, size=info.file_size, executable=bool(mode & 0o100), chunks=chunks)


def _zip_link(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    with file.open(info) as content:
        target = content.read(_MAX_TARGET + 1)
    if len(target) > _MAX_TARGET:
        raise zipfile.BadZipFile(f"the link {info.filename[:100]!r} is longer than {_MAX_TARGET} bytes")
    return target.decode("utf-8", "surrogateescape")


def _is_tar_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


class _TarSource:
    """The bytes of a tar for `tarfile`, which believes what headers say about their own length and position."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell
        self.header_left: int | None = _MAX_HEADER  # None while a member's data is read
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if self.header_left is not None:
            self.header_left -= size
            if size < 0 or self.header_left < 0:
                raise tarfile.ReadError(f"a header of more than {_MAX_HEADER} bytes")
        self.last = self._file.read(size)
        return self.last

    def seek(self, position: int) -> int:
        if position < self._file.tell():
            raise tarfile.ReadError("a header that points backwards")  # once an endless loop, CVE-2025-8194
        return self._file.seek(position)

    def seekable(self) -> bool:
        return True


def _tar_members(archive: Path, opener: _Opener | None) -> Iterator[Member]:
    with _parsing(archive), _unpacking(archive, opener) as file:
        source = _TarSource(file)
        # gzip packs at most so much; bzip2 and xz have no bound, so there the limits and the disk decide.
        ratio = 1 if opener is None else _MOST_DEFLATE if opener is gzip.open else 0
        most = ratio * archive.stat().st_size
        tar: Any = tarfile.TarFile(fileobj=cast(Any, source), encoding="utf-8", errors="surrogateescape")
        while (info := tar.next()) is not None:
            tar.members.clear()  # it would keep them all, a kilobyte each
            source.header_left = None
            if most and info.isreg() and not info.issparse() and info.size > most:
                raise UnsafeArchiveError(
                    f"{archive} was not unpacked: its member {info.name[:200]!r} claims {info.size:,} bytes, and the "
                    "whole archive cannot hold them"
                )
            yield _tar_member(archive, tar, info)
            source.header_left = _MAX_HEADER
        if source.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end of the archive
            raise tarfile.ReadError(f"neither a header nor the end mark at byte {tar.offset}")
        _read_to_end(file)


def _tar_member(archive: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    kind: Kind = "special"
    if info.isreg():
        kind = "file"
    elif info.isdir():
        kind = "folder"
    elif info.issym():
        kind = "symlink"
    elif info.islnk():
        kind = "hardlink"
    chunks = _chunks(archive, lambda: cast(IO[bytes], tar.extractfile(info)))
    executable = bool(info.mode & 0o100)
    return Member(name=info.name, kind=kind, target=info.linkname, size=info.size, executable=executable, chunks=chunks)


def _read_to_end(file: IO[bytes]) -> None:
    """The checksums of gzip and its like come at the very end, behind the end mark of the tar."""
    left = _MAX_TAIL
    while chunk := file.read(_CHUNK):
        left -= len(chunk)
        if left < 0:
            raise tarfile.ReadError(f"more than {_MAX_TAIL} bytes behind its end mark")
