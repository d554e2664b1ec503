"""What the disk refuses gets its path into the message: full disks, missing rights, locks, removal."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dlkit.errors import DownloadError
from dlkit.storage.files import FileLock


def check_room(path: Path, needed: int, keep_free: int | None, doing: str) -> None:
    """Refuse to fill a disk, before or while something is written to it.

    Args:
        path: What is written; its folder is there.
        needed: Bytes still to be written.
        keep_free: Bytes of the disk that must stay free; None for 1 GB, or 1 % of a small disk.
        doing: For the error, such as "download to".

    Raises:
        DownloadError: there is not so much room; `errno` is that of a full disk.
    """
    with disk_trouble(path, doing):
        disk = shutil.disk_usage(path.parent)
    kept = min(1 << 30, disk.total // 100) if keep_free is None else keep_free
    if needed > disk.free - kept:
        reason = (
            f"No space left on device: {needed:,} more bytes are needed, {disk.free:,} are free, "
            f"and {kept:,} of them stay free (DownloadLimits(keep_free=))"
        )
        raise disk_error(OSError(errno.ENOSPC, reason), path, doing)


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
