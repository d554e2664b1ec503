"""Files that come from elsewhere are opened here: a regular file, or an error that says what is in its place."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO

from dlkit.errors import DataError, DataNotFoundError, DlkitError

__all__ = ["name_of", "open_regular", "regular"]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# A pipe that is opened without O_NONBLOCK waits for a writer, forever if there is none.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def regular(
    path: str | os.PathLike[str], failure: type[DlkitError] = DataError, *, noun: str = "file"
) -> os.stat_result:
    """The status of a regular file, for readers of other libraries, which open a path themselves.

    Args:
        path: The file; links are followed.
        failure: The error for what is there but is not a file, or cannot be looked at.
        noun: What errors call what was expected, such as "model file".

    Raises:
        DataNotFoundError: there is nothing at `path`.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise _refusal(path, error, failure, noun) from error
    return _checked(status, path, failure)


def open_regular(
    path: str | os.PathLike[str], failure: type[DlkitError] = DataError, *, noun: str = "file", buffering: int = -1
) -> IO[bytes]:
    """A regular file, opened for reading bytes. Nothing else is opened, so nothing can wait or act on being opened.

    Args:
        path: The file; links are followed.
        failure: The error for what is there but is not a file, or may not be read.
        noun: What errors call what was expected, such as "model file".
        buffering: As for `open`.

    Raises:
        DataNotFoundError: there is nothing at `path`.

    >>> open_regular("/dev/null")
    Traceback (most recent call last):
    dlkit.errors.DataError: /dev/null is a device, not a file; give a regular file, or write its content to one first
    """
    regular(path, failure, noun=noun)  # first, because opening some devices does something
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        raise _refusal(path, error, failure, noun) from error
    try:
        _checked(os.fstat(descriptor), path, failure)  # again: another thing may have taken its place
    except BaseException:
        os.close(descriptor)
        raise
    return open(descriptor, "rb", buffering=buffering)


def name_of(file: IO[bytes], path: str | os.PathLike[str]) -> str:
    """A name by which a library that opens files itself gets the very file that is open here.

    By its path it would get whatever has taken its place since then, and wait at a pipe.

    Args:
        file: From `open_regular`.
        path: Its path, where the system has no such names.
    """
    name = f"/proc/self/fd/{file.fileno()}"
    return name if os.path.exists(name) else os.fspath(path)


def _checked(status: os.stat_result, path: str | os.PathLike[str], failure: type[DlkitError]) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        raise failure(
            f"{_shown(path)} is {kind}, not a file; give a regular file"
            + ("" if kind == "a folder" else ", or write its content to one first")
        )
    return status


def _refusal(
    path: str | os.PathLike[str], error: OSError | ValueError, failure: type[DlkitError], noun: str
) -> DlkitError:
    number = getattr(error, "errno", errno.ENOENT)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return DataNotFoundError(f"there is no {noun} {_shown(path)} (looked for {os.path.abspath(path)})")
    if number == errno.ELOOP:
        return failure(f"{_shown(path)} is a symbolic link that leads to itself; remove it, or let it lead to a file")
    return failure(f"{_shown(path)} cannot be read: {getattr(error, 'strerror', None) or error}")


def _shown(path: str | os.PathLike[str]) -> str:
    return os.fsdecode(path)
