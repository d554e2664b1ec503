"""What dlkit keeps on this machine: listed, measured and cleared, whatever kind it is of.

Everything is below one folder, `DLKIT_HOME`, in a folder for each kind. An entry is a folder there, or the files
whose names are alike up to the first dot, locks and half-written ones included. A file that a process has locked or
mapped is in use, and its entry stays. Others may add and remove entries at any moment: what is gone is not counted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dlkit.errors import ArgumentError
from dlkit.storage.files import KINDS, home, home_of, locks

__all__ = ["Cleared", "Entry", "clear", "entries", "make_room"]

#: Kinds that are made again by themselves, without a network, when they are missing.
_MADE_AGAIN = ("decoded", "features", "scans", "text")
#: Such entries go when room is needed and no process has opened them for so long.
_UNUSED = timedelta(days=7)


@dataclass(frozen=True)
class Entry:
    """One thing that is kept.

    Attributes:
        kind: Such as "decoded" or "weights".
        name: Of its folder or files.
        paths: The folder, or the files.
        size: Bytes.
        used: When it was last written or opened, in seconds since 1970.
    """

    kind: str
    name: str
    paths: tuple[Path, ...]
    size: int
    used: float

    @property
    def age(self) -> timedelta:
        """How long ago it was last written or opened."""
        return timedelta(seconds=max(0.0, time.time() - self.used))

    @property
    def purpose(self) -> str:
        """What it is for."""
        return KINDS[self.kind]


@dataclass(frozen=True)
class Cleared:
    """What `clear` did.

    Attributes:
        removed: The entries that are gone, or would be.
        in_use: Those that had to stay, because a process uses them or may not remove them.
    """

    removed: tuple[Entry, ...]
    in_use: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes that were freed, or would be."""
        return sum(entry.size for entry in self.removed)


def entries(kinds: Iterable[str] | None = None) -> list[Entry]:
    """All that is kept, kind by kind, the longest unused first.

    Args:
        kinds: Such as `["features"]`; None for all.

    Raises:
        ArgumentError: a kind that is not there.

    >>> [entry for entry in entries(["scans"]) if entry.age.days > 365]
    []
    """
    found = []
    for kind in _checked(kinds):
        together: dict[str, list[Path]] = {}
        for path in _inside(home_of(kind)):
            name = path.name if path.is_dir() else path.name.lstrip(".").partition(".")[0]
            together.setdefault(name, []).append(path)
        of_kind = [_entry(kind, name, paths) for name, paths in together.items()]
        found += sorted((entry for entry in of_kind if entry is not None), key=lambda entry: entry.used)
    return found


def clear(
    kinds: Iterable[str] | None = None,
    *,
    older_than: timedelta | None = None,
    keep_bytes: int | None = None,
    dry_run: bool = False,
) -> Cleared:
    """Remove what is kept; what a process uses stays. Everything is made or fetched again when it is next needed.

    Args:
        kinds: Such as `["features"]`; None for all.
        older_than: Only what was last written or opened longer ago.
        keep_bytes: Only as much as it takes to get below so many bytes, the longest unused first.
        dry_run: Say what would be removed and remove nothing.

    Raises:
        ArgumentError: a kind that is not there, or a negative number.
    """
    found = entries(kinds)
    if (older_than is not None and older_than < timedelta(0)) or (keep_bytes is not None and keep_bytes < 0):
        raise ArgumentError("older_than and keep_bytes must not be negative")
    if older_than is not None:
        found = [entry for entry in found if entry.age > older_than]
    if keep_bytes is not None:
        found = _longest_unused(found, sum(entry.size for entry in entries(kinds)) - keep_bytes)
    removed, in_use = list[Entry](), list[Entry]()
    for entry in found:
        (removed if _remove(entry, dry_run=dry_run) else in_use).append(entry)
    return Cleared(tuple(removed), tuple(in_use))


def make_room(wanted: int, folder: Path) -> None:
    """Where a disk has fewer free bytes than wanted, remove what can be made again and is long unused.

    Args:
        wanted: Bytes that are to be free.
        folder: On the disk; nothing happens where it is not below `home()`.
    """
    if not folder.is_relative_to(home()):
        return
    lacking = wanted - shutil.disk_usage(folder).free
    if lacking <= 0:
        return
    old = [entry for entry in entries(_MADE_AGAIN) if entry.age > _UNUSED]
    for entry in _longest_unused(old, lacking):
        _remove(entry)


def _checked(kinds: Iterable[str] | None) -> list[str]:
    if isinstance(kinds, str):
        kinds = [kinds]
    wanted = list(KINDS if kinds is None else kinds)
    if strange := [kind for kind in wanted if kind not in KINDS]:
        raise ArgumentError(f"dlkit keeps nothing called {strange[0]!r}; the kinds are {', '.join(KINDS)}")
    return wanted


def _longest_unused(found: Iterable[Entry], size: int) -> list[Entry]:
    """As many as it takes to free so many bytes."""
    chosen = []
    for entry in sorted(found, key=lambda entry: entry.used):
        if size <= 0:
            break
        chosen.append(entry)
        size -= entry.size
    return chosen


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            for folder, _, names in os.walk(path):
                yield from (Path(folder, name) for name in names)
        else:
            yield path


def _entry(kind: str, name: str, paths: list[Path]) -> Entry | None:
    size, used, count = 0, 0.0, 0
    for file in _files(paths):
        with contextlib.suppress(OSError):
            status = file.lstat()
            size, used, count = size + status.st_size, max(used, status.st_mtime), count + 1
    return Entry(kind, name, tuple(paths), size, used) if count else None


def _remove(entry: Entry, *, dry_run: bool = False) -> bool:
    """Remove an entry, unless one of its files is locked or mapped; small files, which say what is valid, go first."""
    with contextlib.ExitStack() as held:
        sizes = dict[Path, int]()
        for file in _files(entry.paths):
            try:
                opened = held.enter_context(open(file, "rb"))
                if not locks(opened):
                    return False
                sizes[file] = os.fstat(opened.fileno()).st_size
            except FileNotFoundError:  # gone meanwhile
                continue
            except OSError:
                return False
        if dry_run:
            return True
        try:
            for file in sorted(sizes, key=sizes.__getitem__):
                file.unlink(missing_ok=True)
            for path in entry.paths:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
        except OSError:
            return False
    return True
