"""What the disk refuses gets its path into the message: full disks, missing rights, locks, removal."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dlkit._files import FileLock
from dlkit.errors import DownloadError


def disk_error(error: OSError, path: str | os.PathLike[str], doing: str) -> DownloadError:
    """The error for a full disk, a missing right and the like, with the path and a way out; `errno` stays set."""
    advice = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "; free some space there, or use another folder (DLKIT_HOME moves dlkit's cache)"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "; use a folder that you may write to (DLKIT_HOME moves dlkit's cache)"
    failure = DownloadError(f"cannot {doing} {os.fspath(path)}: {error.strerror or error}{advice}")
    failure.errno = error.errno
    return failure


@contextlib.contextmanager
def disk_trouble(path: str | os.PathLike[str], doing: str) -> Iterator[None]:
    """Say which path it was when the disk refuses something inside the block."""
    try:
        yield
    except DownloadError:
        raise
    except OSError as error:
        raise disk_error(error, path, doing) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file at `path`, waiting for as long as somebody else does."""
    lock = FileLock(path)
    with disk_trouble(path.parent, "write to"):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def remove(path: Path) -> None:
    """Remove whatever is at `path`, if anything, without following a link."""
    with disk_trouble(path, "remove"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
