"""Unpack archives that may be hostile: nothing outside the folder, nothing over the limits, all of it or nothing.

`tarfile` and `zipfile` only parse here. Every name is checked and every byte is written and counted by this module,
so the same rules hold on every Python and for every format. The one idea behind it: while files are written the new
folder holds no link at all, so no write can pass through one; links are made last and then followed step by step.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NoReturn

from dlkit._opening import regular
from dlkit.download.disk import check_room, disk_trouble, locked, remove
from dlkit.download.limits import USUAL_LIMITS, DownloadLimits
from dlkit.download.members import Chunks, Member, claimed_sizes, members
from dlkit.errors import ArchiveError, ArgumentError, UnsafeArchiveError
from dlkit.storage.files import sync_file, sync_folder

__all__ = ["extract"]

_CHUNK = 1 << 20
_MAX_DEPTH = 100  # folders below each other: shutil.rmtree and its like recurse once per level
_MAX_HOPS = 40  # links on the way to one file: where Linux gives up, too
_LOOK_EACH = 64 << 20  # bytes after which the disk is asked again how much room it has
_SYNC_EACH = 100  # up to so many files one fsync each; for more, one sync of everything is many times faster
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)\s*(\..*)?", re.IGNORECASE)


def extract(
    archive: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    limits: DownloadLimits = USUAL_LIMITS,
    encoding: str = "auto",
) -> Path:
    """Unpack an archive into the new folder `to`, or change nothing at all.

    Zip, tar (plain, or packed with gzip, bzip2 or xz) and single files packed with gzip, bzip2 or xz; the content says
    which. A single file comes out in the folder, under the archive's name without its last ending. Files get the rights
    that new files usually get, executable ones stay executable; owners, times and special bits are not taken over.
    Hard links come out as copies. Where an archive holds a file twice the later one wins, as with `tar`.

    Everything is written to a temporary folder beside `to`, which gets its name only when all of it is on the disk.
    Several processes may call this at once; the temporary folder of one that was killed is removed by the next.

    Args:
        archive: The archive file.
        to: The folder to make; it must not exist, or be empty. Missing folders above it are made.
        limits: How much may come out.
        encoding: Of the names in a zip that do not say theirs, such as cp949; "auto" finds out, with a warning where
            that is a guess.

    Returns:
        `to`, as a `Path`.

    Raises:
        DataNotFoundError: There is no file `archive`.
        ArgumentError: `to` exists already and is not an empty folder.
        UnsafeArchiveError: A member has an absolute path, a drive letter, `..` or in a tar a backslash, is a device, a
            link that leaves the folder, would be written through a link, or is more than `limits` allow; it is named.
        ArchiveError: The archive is damaged, cut off, encrypted or of no known kind.
        DownloadError: The disk is full or the folder may not be written to; the path is named.

    >>> import pathlib, tempfile, zipfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with zipfile.ZipFile(folder / "letters.zip", "w") as file:
    ...     file.writestr("A/a.txt", "hello")
    >>> (extract(folder / "letters.zip", folder / "letters") / "A" / "a.txt").read_text()
    'hello'
    """
    archive, to = Path(archive).expanduser(), Path(to).expanduser()
    if to.name in ("", ".."):
        raise ArgumentError(f"to={str(to)!r} has no name of its own; give the path of the folder to make")
    if encoding != "auto":
        try:
            codecs.lookup(encoding)
        except LookupError as error:
            raise ArgumentError(f"encoding={encoding!r} is not an encoding that Python knows") from error
    with unpack_lock(to):
        if os.path.lexists(to) and not (to.is_dir() and not to.is_symlink() and not any(to.iterdir())):
            raise ArgumentError(f"{archive} was not unpacked to {to}: that exists; remove it or name another folder")
        with staged(archive, to, limits, encoding) as folder:
            put_in_place(folder, to)
    return to


def unpack_lock(to: Path) -> contextlib.AbstractContextManager[None]:
    """The lock of those who make the folder `to`."""
    return locked(to.with_name(f".{to.name}.lock"))


@contextlib.contextmanager
def staged(archive: Path, to: Path, limits: DownloadLimits, encoding: str = "auto") -> Iterator[Path]:
    """A temporary folder beside `to` with everything from `archive`, checked and on the disk, for the block to rename.

    Removed at the end where it was not renamed. The caller holds `unpack_lock(to)`, so whatever is found under the
    temporary name was left by a process that died.
    """
    regular(archive, ArchiveError, noun="archive")
    folder = to.with_name(f".{to.name}.unpacking")
    remove(folder)
    try:
        with disk_trouble(folder, f"unpack {archive} in"):
            folder.mkdir()
        sandbox = _Sandbox(folder, archive, limits)
        sandbox.refuse_claims(claimed_sizes(archive))
        with contextlib.closing(members(archive, encoding)) as found:
            for member in found:
                sandbox.add(member)
        sandbox.finish()
        yield folder
    finally:
        remove(folder)


def put_in_place(folder: Path, to: Path) -> None:
    """Give a staged folder its name, for good."""
    with disk_trouble(to, "make"):
        if to.is_dir():
            to.rmdir()  # it is empty; only POSIX lets a folder be renamed onto it
        folder.rename(to)
        sync_folder(to.parent)


class _Sandbox:
    """The folder that members are written to: checks every name, counts every byte, makes the links last."""

    def __init__(self, root: Path, archive: Path, limits: DownloadLimits) -> None:
        self._root = str(root)
        self._archive = archive
        self._limits = limits
        self._folders: set[tuple[str, ...]] = {()}
        self._links: dict[tuple[str, ...], Member] = {}
        self._unsynced: list[str] = []
        self._num_bytes = 0
        self._looked_at = 0  # bytes that were written when the disk was last asked for its room
        self._num_members = 0

    def add(self, member: Member) -> None:
        """Write one member; a symbolic link is only noted."""
        if problem := _name_problem(member.name):
            self._refuse(member, problem)
        parts = _split(member.name)
        if not parts and member.kind != "folder":
            self._refuse(member, "stands for the folder itself but is not a folder")
        if self._links and any(parts[:depth] in self._links for depth in range(1, len(parts) + 1)):
            self._refuse(member, "would be written through a link of the same archive")
        with self._naming(member.name):
            if member.kind == "folder":
                self._make_folders(parts, member)
            elif member.kind == "file":
                self._write(parts, member, member.chunks)
            elif member.kind == "hardlink":
                self._write(parts, member, self._linked_file(parts, member))
            elif member.kind == "symlink":
                self._note_link(parts, member)
            else:
                self._refuse(member, "is a device, a pipe or another special file")

    def refuse_claims(self, sizes: Iterable[tuple[str, int]]) -> None:
        """Refuse an archive that says of itself that it is larger than the limits or the disk allow.

        Args:
            sizes: Names and sizes of its files, as far as it says them before it is read through.
        """
        total = 0
        for name, size in sizes:
            total += size
            if total > self._limits.max_bytes:
                self._refuse(Member(name=name, kind="file"), self._beyond("max_bytes"))
        check_room(Path(self._root), total, self._limits.keep_free, f"unpack {self._archive} to")

    def _refuse_claim(self, member: Member) -> None:
        """The same for one file, whose size is known when its turn comes."""
        if self._num_bytes + member.size > self._limits.max_bytes:
            self._refuse(member, self._beyond("max_bytes"))
        if member.size >= _LOOK_EACH:
            check_room(Path(self._root), member.size, self._limits.keep_free, f"unpack {self._archive} to")

    def _beyond(self, limit: str) -> str:
        allowed = getattr(self._limits, limit)
        return f"goes beyond {limit}={allowed}; if you trust the archive, raise it in limits="

    def finish(self) -> None:
        """Make the links, follow each of them, and see to it that everything is on the disk."""
        for parts, link in self._links.items():
            self._make_link(parts, link)
        for parts, link in self._links.items():
            if not self._stays_inside(parts):
                self._refuse(link, f"is a link that leaves the folder or leads in a circle (to {_shown(link.target)})")
        self._sync()

    def _path(self, parts: tuple[str, ...]) -> str:
        return os.path.join(self._root, *parts)

    def _refuse(self, member: Member, why: str) -> NoReturn:
        raise UnsafeArchiveError(f"{self._archive} was not unpacked: its member {_shown(member.name)} {why}")

    @contextlib.contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        with disk_trouble(self._path(_split(name)), "write"):
            try:
                yield
            except OSError as error:
                if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
                    raise
                raise ArchiveError(
                    f"{self._archive} was not unpacked: this file system cannot hold its member {_shown(name)} "
                    f"({error.strerror}); unpack it to a shorter path or on another file system"
                ) from error

    def _count(self, member: Member, *, num_bytes: int = 0, num_members: int = 0) -> None:
        self._num_bytes += num_bytes
        self._num_members += num_members
        for used, limit in ((self._num_bytes, "max_bytes"), (self._num_members, "max_members")):
            if used > getattr(self._limits, limit):
                self._refuse(member, self._beyond(limit))
        if self._num_bytes - self._looked_at >= _LOOK_EACH:
            self._looked_at = self._num_bytes
            check_room(Path(self._root), 0, self._limits.keep_free, f"unpack {self._archive} to")

    def _make_folders(self, parts: tuple[str, ...], member: Member) -> None:
        for depth in range(1, len(parts) + 1):
            folder = parts[:depth]
            if folder in self._folders:
                continue
            self._count(member, num_members=1)
            try:
                os.mkdir(self._path(folder))
            except FileExistsError:
                self._refuse(member, f"needs the folder {_shown('/'.join(folder))}, where another member is already")
            self._folders.add(folder)

    def _write(self, parts: tuple[str, ...], member: Member, chunks: Chunks) -> None:
        self._make_folders(parts[:-1], member)
        self._count(member, num_members=1)
        path = self._path(parts)
        self._refuse_claim(member)
        with contextlib.closing(chunks), self._create(path, member) as file:
            for chunk in chunks:
                self._count(member, num_bytes=len(chunk))
                file.write(chunk)
        if member.executable:
            mode = stat.S_IMODE(os.lstat(path).st_mode)
            os.chmod(path, mode | (mode & 0o444) >> 2)  # may be run by whoever may read it
        if len(self._unsynced) <= _SYNC_EACH:
            self._unsynced.append(path)

    def _create(self, path: str, member: Member) -> IO[bytes]:
        with contextlib.suppress(FileExistsError):
            return open(path, "xb")
        if self._folds_case() or not stat.S_ISREG(os.lstat(path).st_mode):
            self._refuse(member, "is where another member is already (perhaps with other capitals)")
        os.unlink(path)  # the later one wins, with nothing left of the earlier one, such as the right to be run
        return open(path, "xb")

    def _folds_case(self) -> bool:
        """Whether `a` and `A` are one name on this file system, so that a name seen twice may mean two files."""
        parent, name = os.path.split(self._root)
        return os.path.lexists(os.path.join(parent, name.upper()))

    def _linked_file(self, parts: tuple[str, ...], member: Member) -> Chunks:
        source = _split(member.target)
        path = self._path(source)
        if _name_problem(member.target) or source == parts or not _is_file(path):
            self._refuse(member, f"is a hard link to {_shown(member.target)}, which is not a file that came before it")
        return _file_chunks(path)

    def _note_link(self, parts: tuple[str, ...], member: Member) -> None:
        if problem := _path_problem(member.target):
            self._refuse(member, f"is a link to {_shown(member.target)}, {problem}")
        self._make_folders(parts[:-1], member)
        self._count(member, num_members=1)
        self._links[parts] = member

    def _make_link(self, parts: tuple[str, ...], link: Member) -> None:
        with self._naming(link.name):
            try:
                os.symlink(link.target, self._path(parts))
            except FileExistsError:
                self._refuse(link, "is a link where another member is already (perhaps with other capitals)")

    def _stays_inside(self, link: tuple[str, ...]) -> bool:
        """Follow a path as the system would, through every link on the way: no step may go above the root."""
        todo, here, hops = list(reversed(link)), list[str](), 0
        while todo:
            part = todo.pop()
            if part == "..":
                if not here:
                    return False
                here.pop()
            elif part not in ("", "."):
                target = _link_target(self._path((*here, part)))
                if target is None:
                    here.append(part)
                    continue
                hops += 1
                if hops > _MAX_HOPS:
                    return False
                todo.extend(reversed(target.split("/")))
        return True

    def _sync(self) -> None:
        with disk_trouble(self._root, "write"):
            if len(self._unsynced) <= _SYNC_EACH or not hasattr(os, "sync"):
                for path in self._unsynced:
                    sync_file(path)
            else:
                os.sync()
            sync_folder(self._root)


def _split(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _name_problem(name: str, *, windows: bool = sys.platform == "win32") -> str:
    """Why no member may have this name, or nothing."""
    if problem := _path_problem(name):
        return f"has {problem}"
    parts = _split(name)
    if ".." in parts:
        return "would leave the folder through '..'"
    if len(parts) > _MAX_DEPTH:
        return f"lies more than {_MAX_DEPTH} folders deep"
    if windows and any(_WINDOWS_DEVICE.fullmatch(part) or part[-1] in ". " or ":" in part for part in parts):
        return "has a name that Windows does not allow"
    return ""


def _path_problem(path: str) -> str:
    """What in a path means another place on some system, whatever stands around it; or nothing."""
    if path.startswith("/"):
        return "an absolute path"
    if "\\" in path:
        return "a backslash in its path"
    if re.match("[A-Za-z]:", path.lstrip("./")):
        return "a Windows drive in its path"
    if "\0" in path:
        return "a NUL character in its path"
    try:
        os.fsencode(path)
    except UnicodeError:
        return "a character in its path that this system cannot write"
    return ""


def _shown(name: str) -> str:
    return repr(name if len(name) <= 200 else f"{name[:150]}...{name[-40:]}")


def _is_file(path: str) -> bool:
    return os.path.lexists(path) and stat.S_ISREG(os.lstat(path).st_mode)


def _file_chunks(path: str) -> Chunks:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _link_target(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:  # no link, or nothing there
        return None
