"""Files that are whole or not there: atomic writing, hashing, locks between processes, the cache folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from dlkit._language import Message
from dlkit.errors import ArgumentError

_CHUNK = 1 << 20

#: What dlkit keeps, each kind in its own folder below `home`, and what it is for.
KINDS: dict[str, str] = {
    "decoded": Message("pixels and other arrays decoded from files, for later epochs and runs"),
    "features": Message("what the frozen part of a model gave for each sample"),
    "notmnist": Message("the data set notMNIST"),
    "scans": Message("which files a large folder holds, and how long recordings are"),
    "tables": Message("tables fetched from addresses, and copies in UTF-8"),
    "text": Message("texts as the numbers of a vocabulary"),
    "weights": Message("downloaded weights of models"),
}


def home() -> Path:
    """The folder for all that dlkit keeps: `DLKIT_HOME`, else `dlkit` in the platform's cache folder of the user.

    That is `$XDG_CACHE_HOME`, else `~/.cache`; on macOS `~/Library/Caches`; on Windows `%LOCALAPPDATA%`.
    """
    if given := os.environ.get("DLKIT_HOME"):
        return Path(os.path.abspath(Path(given).expanduser()))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "dlkit"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dlkit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlkit"


def home_of(kind: str) -> Path:
    """The folder for one kind of what dlkit keeps; it need not exist.

    Args:
        kind: One of `KINDS`.
    """
    assert kind in KINDS
    return home() / kind


def folder_for(cache: str | os.PathLike[str] | None, kind: str) -> Path | None:
    """The folder that an argument `cache=` means; None where nothing is kept beyond the process.

    Args:
        cache: "auto" for dlkit's own place, a folder, or "memory" or None for none.
        kind: One of `KINDS`.

    Raises:
        ArgumentError: anything else.
    """
    if cache is None or cache == "memory":
        return None
    if not isinstance(cache, str | os.PathLike):
        raise ArgumentError(f"cache must be 'auto', 'memory', a folder, or None for none, not {cache!r}")
    return home_of(kind) if cache == "auto" else Path(os.path.abspath(Path(cache).expanduser()))


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The file's SHA-256 as 64 hexadecimal digits, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync_file(path: str | os.PathLike[str]) -> None:
    """See to it that what was written to the file at `path`, by whichever way, is on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make renames in `folder` durable; folders cannot be opened on Windows, where NTFS journals them."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(out: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Refuse a place for results before anything is computed for it; nothing is left there.

    Args:
        out: The file to write; it may be there, and its folder must be.
        folder: It is a folder, which is made with all above it.

    Raises:
        ArgumentError: it is the other of file and folder, or the disk or its permissions do not allow it.
    """
    path = Path(out).expanduser()
    if folder:
        place = next(each for each in (path, *path.absolute().parents) if each.exists())
        if not place.is_dir():
            raise ArgumentError(f"out={str(path)!r}: {place} is a file; name a folder")
    elif path.is_dir():
        raise ArgumentError(f"out={str(path)!r}: this is a folder; name a file in it")
    elif not (place := path.parent).is_dir():
        raise ArgumentError(f"out={str(path)!r}: there is no folder {place}")
    try:
        if path.is_file():
            with open(path, "ab"):
                return
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ArgumentError(f"out={str(path)!r}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` only when the block ends well, and is then on the disk for good.

    The temporary file is in the same folder, because a rename across file systems is a copy. An existing file at
    `path` is replaced in one step; when the block raises, it is untouched and the temporary file is removed.
    """
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private; a shared cache wants the usual rights
        give_name(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def give_name(temporary: str | os.PathLike[str], path: Path) -> None:
    """Give the complete file at `temporary` its name, in the same folder, for good; one that has it is replaced."""
    sync_file(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_json(path: str | os.PathLike[str], document: Any) -> None:
    """Write `document` as JSON that people can read, whole or not at all."""
    text = json.dumps(document, ensure_ascii=False, indent=1)
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # half a character has the same escape in JSON


def kept_file(kind: str, name: str, pieces: Callable[[], Iterable[bytes]]) -> Path:
    """A file of one of `KINDS` in the cache folder; where it is not there one process makes it, whole or not at all."""
    path = home_of(kind) / name
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            mark_used(path)
        else:
            with atomic_write(path) as file:
                file.writelines(pieces())
    return path


def _umask() -> int:
    mask = os.umask(0o077)  # the only portable way to read it is to set it
    os.umask(mask)
    return mask


class FileLock:
    """A lock between processes that vanishes with its process, however that ends, and is not passed on to children.

    The kernel holds it (`flock`, on Windows `LockFile`), so a killed process leaves nothing to clean up. A forked child
    (a DataLoader worker) would share it and keep it alive after the parent's death; it therefore closes its copy
    of the file right after the fork. Also excludes threads and other holders inside one process.

    >>> import tempfile, pathlib
    >>> with FileLock(pathlib.Path(tempfile.mkdtemp()) / "lock") as lock:
    ...     lock.held
    True
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: IO[bytes] | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock now."""
        return self._file is not None

    def acquire(self, timeout: float | None = None) -> bool:
        """Take the lock; wait up to `timeout` seconds (None: forever, 0: not at all) and say whether it was got."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._try():
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(0.02 if deadline is None else min(0.02, max(0.0, deadline - time.monotonic())))

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _try(self) -> bool:
        if self.held:
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _opening:
            file = open(self.path, "ab")  # noqa: SIM115  (kept open: closing it is what releases the lock)
            if not locks(file) or not _is_still(file, self.path):
                file.close()
                return False
            self._file = file
            _held.add(self)
        return True


def locks(file: IO[Any], *, shared: bool = False) -> bool:
    """Lock an open file until it is closed, here and wherever it was inherited, unless others exclude it.

    Args:
        file: Open.
        shared: Exclude only those who want it for themselves; not on Windows, where a mapped file cannot go anyway.
    """
    try:
        _lock(file, shared)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            raise  # a file system without locks, say: waiting would last forever
        return False
    return True


def mapped(path: Path, dtype: Any, *, mode: Literal["r", "c"] = "r") -> Any:
    """The numbers in a file, read page by page when they are used; `clear` leaves it alone meanwhile.

    Args:
        path: The file, with nothing but the numbers in it.
        dtype: Their type.
        mode: "r" gives a read-only array, "c" one whose changes stay in this process.

    Raises:
        OSError: there is no such file, or it is just being removed.
    """
    with open(path, "rb") as file:
        # What maps a file holds a duplicate of its descriptor, and with that the lock.
        with contextlib.suppress(OSError):  # a file system without locks, where nothing is cleared either
            if not locks(file, shared=True):
                file.close()
        if file.closed:
            raise FileNotFoundError(errno.ENOENT, "is being removed", str(path))
        if os.fstat(file.fileno()).st_size == 0:  # nothing cannot be mapped
            return np.zeros(0, dtype=dtype)
        return np.asarray(np.memmap(file, dtype=dtype, mode=mode))


def mark_used(path: Path) -> None:
    """Note that something kept, one of whose files is at `path`, was opened and does not count as long unused."""
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(path)


def _is_still(file: IO[Any], path: Path) -> bool:
    """Whether a path leads to an open file: it may have been removed between opening and locking."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


# Locks of this process, so that forked children can let go of them; guarded against a fork in the middle of `_try`.
_held: weakref.WeakSet[FileLock] = weakref.WeakSet()
_opening = threading.Lock()


def _forget_in_child() -> None:
    for lock in _held:
        lock.release()
    _held.clear()
    _opening.release()


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _lock(file: IO[Any], shared: bool) -> None:
        if not shared:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[Any], shared: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)

    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_forget_in_child)
