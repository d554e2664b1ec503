"""Decoded arrays on disk: filled by the process that decodes first, mapped by every worker, rank and later run.

A folder per rule of decoding with two files, both only ever appended to: `arrays-*.bin` holds the numbers of one array
after the other, `index-*.bin` an entry of 76 bytes for each, written after its numbers. Appending happens under a lock
between processes. So a kill leaves at most numbers that no entry points to, half an entry at the end is cut off by the
next writer, and a full disk is undone and ends the filling, not the training. An entry carries checksums of itself and
of its numbers, which are compared when a process first reads it.

A file that changes gets a new entry, and its old array stays behind. When more than half of the bytes are such
leftovers, the next process to open the cache copies the others into a new pair of files with the next number; its index
appears last and makes it the valid one, so a kill in between leaves the old pair valid. A process that still reads the
old pair keeps its arrays until the next batch and then continues with the new one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import warnings
import weakref
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlkit._language import Message
from dlkit.errors import ArgumentError
from dlkit.storage import appended
from dlkit.storage.caches import make_room
from dlkit.storage.files import FileLock, folder_for

__all__ = ["ArrayCache", "open_cache"]

Array = npt.NDArray[Any]

_KINDS = ("arrays", "index")
_UNKNOWN, _ABSENT = -1, -2
# A dictionary of a million keys would be 200 MB in every worker; sorted arrays are 24.
_DICTIONARY_UP_TO = 50_000
#: A cache with fewer bytes of leftovers is not worth copying.
_RECLAIM_FROM = 1 << 20


def open_cache(
    where: str | os.PathLike[str] | None, *, size: int, rule: str, budget: int | None = None
) -> ArrayCache | None:
    """The cache that an argument `cache=` means.

    Args:
        where: None for none; "auto": in the cache folder; "memory": in memory, gone with the process; else a folder.
        size: The number of files.
        rule: What arrays are made by; another rule has its own files.
        budget: How many bytes the arrays may take; None for half of what is free.

    Raises:
        ArgumentError: the folder cannot be made.
    """
    kept = folder_for(where, "decoded")
    if where is None:
        return None
    if budget is not None and (not isinstance(budget, int) or budget < 1):
        raise ArgumentError(f"cache_bytes must be a whole number of bytes above 0, not {budget!r}")
    if kept is None:
        shared = Path("/dev/shm")
        folder = Path(tempfile.mkdtemp(prefix="dlkit-arrays-", dir=shared if shared.is_dir() else None))
        cache = ArrayCache(folder, size, rule, budget)
        weakref.finalize(cache, _remove, folder, os.getpid())
        return cache
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"cache={str(where)!r}: the folder {kept} cannot be made: {error.strerror}") from error
    return ArrayCache(kept, size, rule, budget)


class ArrayCache:
    """Arrays by file; made by `open_cache`.

    Args:
        folder: Holds a folder for each rule, in which its two files lie.
        size: The number of files of the dataset.
        rule: What arrays are made by; another rule has its own files.
        budget: How many bytes the arrays may take; None for half of what is free.

    Attributes:
        folder: Where the two files lie.
        budget: How many bytes the arrays may take.
        full: Why nothing more is kept; empty while the cache takes more.
    """

    def __init__(self, folder: Path, size: int, rule: str, budget: int | None = None) -> None:
        self.folder, self.size, self.full = folder / hashlib.sha256(rule.encode()).hexdigest()[:12], size, ""
        self._lock = self.folder / "lock"
        self._given_budget, self._said_too_small = budget, False
        with contextlib.suppress(OSError):  # one that may only be read
            self.folder.mkdir(exist_ok=True)
        self._start()
        self.budget = self._allowed()
        with contextlib.suppress(OSError):
            self._lock.touch()  # when it was last opened
            self._reclaim()

    def _allowed(self) -> int:
        if self._given_budget is not None:
            return self._given_budget
        return (shutil.disk_usage(self.folder.parent).free + self.used) // 2

    def _start(self) -> None:
        """What each process has of its own."""
        self._pid, self._generation = os.getpid(), self._newest()
        self._waiting: deque[appended.Item] = deque()
        self._entries = np.empty(0, appended.ENTRY)
        self._by_key: dict[bytes, int] = {}
        self._sorted = np.empty(0, "<u8")
        self._damaged: set[int] = set()
        self._order = np.empty(0, np.int64)
        self._map: Any = np.empty(0, np.uint8)
        self._slots: npt.NDArray[np.int64] | None = None
        self._checked: npt.NDArray[np.bool_] = np.empty(0, np.bool_)

    def __getstate__(self) -> dict[str, Any]:
        shared = ("folder", "size", "full", "budget", "_lock", "_given_budget", "_said_too_small")
        return {name: self.__dict__[name] for name in shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def _numbers(self) -> Path:
        return self.folder / f"arrays-{self._generation}.bin"

    @property
    def _index(self) -> Path:
        return self.folder / f"index-{self._generation}.bin"

    def _newest(self) -> int:
        """The number of the valid pair: the highest that has an index."""
        numbers = [path.stem.rpartition("-")[2] for path in self.folder.glob("index-*.bin")]
        return max((int(number) for number in numbers if number.isdigit()), default=0)

    @property
    def used(self) -> int:
        """How many bytes the arrays take."""
        return appended.size_of(self._numbers)

    def begin(self) -> None:
        """Learn what others have added; to be called before each batch, by one thread."""
        if self._pid != os.getpid():
            self._start()
        if self._slots is None:
            self._slots = np.full(self.size, _UNKNOWN, np.int64)
        count = appended.size_of(self._index) // appended.ENTRY.itemsize
        if count > len(self._entries):
            self._learn(count)
        elif count < len(self._entries):  # somebody emptied the folder
            self._start()
            self.begin()

    def _learn(self, count: int) -> None:
        known = len(self._entries)
        new = np.fromfile(self._index, appended.ENTRY, count - known, offset=known * appended.ENTRY.itemsize)
        self._entries = np.concatenate([self._entries, new])
        self._checked = np.concatenate([self._checked, np.zeros(len(new), np.bool_)])
        if self._slots is not None:
            self._slots[self._slots == _ABSENT] = _UNKNOWN
            if self._damaged:
                self._slots[np.isin(self._slots, list(self._damaged))] = _UNKNOWN
        self._by_key.update(zip([bytes(key) for key in new["key"]], range(known, count), strict=True))
        if len(self._by_key) > _DICTIONARY_UP_TO:
            prefixes = self._entries["key"].copy().view("<u8")[::2]
            self._order = np.argsort(prefixes, kind="stable")
            self._sorted, self._by_key = prefixes[self._order], {}

    def _find(self, key: bytes) -> int:
        """The newest entry with this key."""
        if (found := self._by_key.get(key)) is not None:
            return found
        prefix = np.frombuffer(key, "<u8")[0]
        place = int(np.searchsorted(self._sorted, prefix, side="right")) - 1
        while place >= 0 and self._sorted[place] == prefix:
            if bytes(self._entries[self._order[place]]["key"]) == key:
                return int(self._order[place])
            place -= 1
        return _ABSENT

    def get(self, row: int, path_of: Callable[[int], Path]) -> Array | None:
        """The kept array of a file, None where there is none, or the file has changed.

        Args:
            row: The file's place in the dataset.
            path_of: Gives its file; asked only when this process sees the row for the first time.
        """
        assert self._slots is not None
        slot = int(self._slots[row])
        if slot == _UNKNOWN:
            path = path_of(row)
            try:
                slot = self._find(self.key(path, os.stat(path)))
            except OSError:
                return None  # reading it will say what is wrong
            self._slots[row] = slot
        return self._kept(slot) if slot >= 0 else None

    def _kept(self, slot: int) -> Array | None:
        entry = self._entries[slot]
        start, count = int(entry["offset"]), int(entry["nbytes"])
        if start + count > len(self._map):
            self._map = appended.mapped(self._numbers)
        if start + count > len(self._map):
            self._damaged.add(slot)
            return None
        flat = self._map[start : start + count]
        if not self._checked[slot]:
            if not appended.sound(entry, flat):
                self._damaged.add(slot)  # it is decoded and rewritten, and the newest entry of a key counts
                return None
            self._checked[slot] = True
        return appended.array_of(entry, flat)

    def key(self, path: Path, status: os.stat_result) -> bytes:
        """What an array is found by: its file's path, size and time stamp. (The rule is in the name of the files.)

        Args:
            path: The file.
            status: Its state when it was read.
        """
        text = f"{status.st_size} {status.st_mtime_ns} ".encode() + os.fsencode(path)
        return hashlib.blake2b(text, digest_size=16).digest()

    def put(self, path: Path, key: bytes, array: Array) -> None:
        """Keep the `array` of the file at `path` under its `key`, with the next `flush`. Any thread may do it."""
        if not self.full and array.ndim <= appended.MOST_DIMENSIONS:
            self._waiting.append((key, zlib.crc32(os.fsencode(path)), array))

    def flush(self) -> None:
        """Write what waits; by one thread, after the batch. A disk that takes no more is said once, in a warning."""
        waiting = list(self._waiting)
        self._waiting.clear()
        if not waiting or self.full:
            return
        try:
            with FileLock(self._lock):
                if self._newest() != self._generation:
                    self._start()
                self.begin()
                self._append([item for item in waiting if self._is_missing(item[0])])
        except OSError as error:
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            self._stop(f"{reason}; cached files remain usable, the rest is decoded in every epoch")

    def _is_missing(self, key: bytes) -> bool:
        slot = self._find(key)
        return slot == _ABSENT or slot in self._damaged

    def _append(self, items: list[appended.Item]) -> None:
        if not items:
            return
        need = sum(array.nbytes for _, _, array in items)
        if self.used + need > self.budget and self._given_budget is None:
            make_room(self.used + 2 * need, self.folder)
            self.budget = self._allowed()
        self._say_if_too_small(need // len(items))
        if self.used + need > self.budget:
            self._stop(
                f"its {self.budget:,} bytes are used up by {len(self._entries):,} of {self.size:,} files; the others "
                "are decoded in every epoch (a larger cache_bytes=, another folder, or for images a smaller "
                "cache_side= helps)"
            )
            return
        appended.append(self._numbers, self._index, items)

    def _reclaim(self) -> None:
        """Copy what is still of use to a new pair where most is not; safe to be killed at any moment."""
        if appended.size_of(self._numbers) < _RECLAIM_FROM:
            return
        lock = FileLock(self._lock)
        if not lock.acquire(timeout=0):
            return  # somebody writes: another time
        try:
            self._start()
            self._remove_older()
            self.begin()
            kept = appended.useful(self._entries, self.used)
            length = int(kept["nbytes"].sum())
            if 2 * length < self.used and self.used - length >= _RECLAIM_FROM:
                following = (self.folder / f"{kind}-{self._generation + 1}.bin" for kind in _KINDS)
                appended.copy(kept, self._numbers, *following)
                self._start()
                self._remove_older()
        finally:
            lock.release()

    def _remove_older(self) -> None:
        """What a compaction, or one that was killed, has left."""
        for path in self.folder.glob("*-*.bin"):
            number = path.stem.rpartition("-")[2]
            if number.isdigit() and int(number) < self._generation:
                with contextlib.suppress(OSError):  # Windows keeps files that somebody reads
                    path.unlink()

    def _say_if_too_small(self, each: int) -> None:
        expected = self.used + each * max(0, self.size - len(self._entries))
        if expected > self.budget and not self._said_too_small:
            self._said_too_small = True
            warnings.warn(
                Message(
                    "the cache in {folder} would need about {needed:,.3g} GB and may take {budget:,.3g} GB: about "
                    "{share} % of the files will be kept; a larger cache_bytes=, a larger disk, or for images a "
                    "smaller cache_side= keeps all",
                    folder=self.folder,
                    needed=expected / 1e9,
                    budget=self.budget / 1e9,
                    share=100 * self.budget // expected,
                ),
                UserWarning,
                stacklevel=2,
            )

    def _stop(self, reason: str) -> None:
        self.full = reason
        told = Message("the cache in {folder} takes no more: {reason}", folder=self.folder, reason=reason)
        warnings.warn(told, UserWarning, stacklevel=2)


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
