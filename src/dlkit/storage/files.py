"""Files that are whole or not there: atomic writing, hashing, locks between processes, the cache folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_CHUNK = 1 << 20


def cache_dir() -> Path:
    """The folder for downloads and prepared copies: `DLKIT_HOME`, else the platform's user cache folder."""
    if home := os.environ.get("DLKIT_HOME"):
        return Path(home).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "dlkit"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dlkit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlkit"


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The file's SHA-256 as 64 hexadecimal digits, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make renames in `folder` durable; folders cannot be opened on Windows, where NTFS journals them."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` only when the block ends well, and is then on the disk for good.

    The temporary file lies in the same folder, because a rename across file systems is a copy. An existing file at
    `path` is replaced in one step; when the block raises, it is untouched and the temporary file is removed.
    """
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private; a shared cache wants the usual rights
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


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
        """Take the lock; wait up to `timeout` seconds (None: for ever, 0: not at all) and say whether it was got."""
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
            try:
                _lock(file)
            except OSError as error:
                file.close()
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                    raise  # a file system without locks, say: waiting would last for ever
                return False
            self._file = file
            _held.add(self)
        return True


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

    def _lock(file: IO[Any]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[Any]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_forget_in_child)
