"""Decoded pixels on disk: filled by whoever decodes first, mapped by every worker, rank and later run.

Two files per rule of decoding, both only ever appended to: `pixels-*.bin` holds pixels one image after the other,
`index-*.bin` an entry of 48 bytes per image, written after its pixels. Appending happens under a lock between
processes. So a kill leaves at most pixels that no entry points to, half an entry at the end is cut off by the next
writer, and a full disk is undone and ends the filling, not the training. An entry carries checksums of itself and of
its pixels, which are compared when a process first reads it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import struct
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

from dlkit import _files
from dlkit.errors import ArgumentError

__all__ = ["PixelCache", "open_cache"]

Pixels = npt.NDArray[np.uint8]

# Key, offset, height, width, channels, CRC-32 of the pixels; then CRC-32 of all that, and four zeros.
_FIELDS = struct.Struct("<16sQIIII")
_ENTRY = np.dtype(
    [
        ("key", "V16"),
        ("offset", "<u8"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("channels", "<u4"),
        ("pixels_crc", "<u4"),
        ("entry_crc", "<u4"),
        ("zero", "<u4"),
    ]
)
_UNKNOWN, _ABSENT = -1, -2
# A dictionary of a million keys would be 200 MB in every worker; sorted arrays are 24.
_DICTIONARY_UP_TO = 50_000


def open_cache(
    where: str | os.PathLike[str] | None, *, size: int, rule: str, budget: int | None = None
) -> PixelCache | None:
    """The cache that an argument `cache=` means.

    Args:
        where: None for none; "auto": in the cache folder; "memory": in memory, gone with the process; else a folder.
        size: The number of images.
        rule: By what rule the pixels are made.
        budget: How many bytes the pixels may take; None for half of what is free.

    Raises:
        ArgumentError: the folder cannot be made.
    """
    if where is None:
        return None
    if budget is not None and (not isinstance(budget, int) or budget < 1):
        raise ArgumentError(f"cache_bytes must be a whole number of bytes above 0, not {budget!r}")
    if where == "memory":
        shared = Path("/dev/shm")
        folder = Path(tempfile.mkdtemp(prefix="dlkit-pixels-", dir=shared if shared.is_dir() else None))
        cache = PixelCache(folder, size, rule, budget)
        weakref.finalize(cache, _remove, folder, os.getpid())
        return cache
    folder = _files.cache_dir() / "images" if where == "auto" else Path(os.path.abspath(where))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"cache={str(where)!r}: the folder {folder} cannot be made: {error.strerror}") from error
    return PixelCache(folder, size, rule, budget)


class PixelCache:
    """Pixels by file; made by `open_cache`.

    Args:
        folder: Where the two files lie.
        size: The number of images of the dataset.
        rule: By what rule the pixels are made.
        budget: How many bytes the pixels may take; None for half of what is free.

    Attributes:
        folder: Where the two files lie.
        budget: How many bytes the pixels may take.
        full: Why nothing more is kept; empty while the cache takes more.
    """

    def __init__(self, folder: Path, size: int, rule: str, budget: int | None = None) -> None:
        self.folder, self.size, self.rule, self.full = folder, size, rule, ""
        name = hashlib.sha256(rule.encode()).hexdigest()[:12]
        self._pixels, self._index = folder / f"pixels-{name}.bin", folder / f"index-{name}.bin"
        self._lock = folder / f"lock-{name}"
        self.budget = (shutil.disk_usage(folder).free + self.used) // 2 if budget is None else budget
        self._said_too_small = False
        self._start()

    def _start(self) -> None:
        """What each process has of its own."""
        self._pid = os.getpid()
        self._waiting: deque[tuple[int, bytes, Pixels]] = deque()
        self._entries = np.empty(0, _ENTRY)
        self._by_key: dict[bytes, int] = {}
        self._sorted = np.empty(0, "<u8")
        self._damaged: set[int] = set()
        self._order = np.empty(0, np.int64)
        self._map: Any = np.empty(0, np.uint8)
        self._slots: npt.NDArray[np.int64] | None = None
        self._checked: npt.NDArray[np.bool_] = np.empty(0, np.bool_)

    def __getstate__(self) -> dict[str, Any]:
        own = ("_pid", "_waiting", "_entries", "_by_key", "_sorted", "_order", "_map", "_slots", "_checked", "_damaged")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def used(self) -> int:
        """How many bytes the pixels take."""
        return _size(self._pixels)

    def begin(self) -> None:
        """Learn what others have added; to be called before each batch, by one thread."""
        if self._pid != os.getpid():
            self._start()
        if self._slots is None:
            self._slots = np.full(self.size, _UNKNOWN, np.int64)
        count = _size(self._index) // _ENTRY.itemsize
        if count > len(self._entries):
            self._learn(count)
        elif count < len(self._entries):  # somebody emptied the folder
            self._start()
            self.begin()

    def _learn(self, count: int) -> None:
        known = len(self._entries)
        new = np.fromfile(self._index, _ENTRY, count - known, offset=known * _ENTRY.itemsize)
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

    def get(self, row: int, path_of: Callable[[int], Path]) -> Pixels | None:
        """The kept pixels of an image [H, W, C], None where there are none, or the file has changed.

        Args:
            row: The image's place in the dataset.
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

    def _kept(self, slot: int) -> Pixels | None:
        entry = self._entries[slot]
        shape = int(entry["height"]), int(entry["width"]), int(entry["channels"])
        start, count = int(entry["offset"]), shape[0] * shape[1] * shape[2]
        if start + count > len(self._map):
            self._map = _mapped(self._pixels)
        if start + count > len(self._map):
            self._damaged.add(slot)
            return None
        flat: Pixels = self._map[start : start + count]
        if not self._checked[slot]:
            packed = _FIELDS.pack(bytes(entry["key"]), start, *shape, int(entry["pixels_crc"]))
            if zlib.crc32(packed) != entry["entry_crc"] or zlib.crc32(flat.data) != entry["pixels_crc"]:
                self._damaged.add(slot)  # it is decoded and written anew, and the newest entry of a key counts
                return None
            self._checked[slot] = True
        return flat.reshape(shape)

    def key(self, path: Path, status: os.stat_result) -> bytes:
        """What an image is found by: its path, size and time stamp. (The rule is in the name of the files.)

        Args:
            path: The file.
            status: Its state when it was read.
        """
        text = f"{status.st_size} {status.st_mtime_ns} ".encode() + os.fsencode(path)
        return hashlib.blake2b(text, digest_size=16).digest()

    def put(self, row: int, key: bytes, pixels: Pixels) -> None:
        """Keep an image's pixels, with the next `flush`. Any thread may do it.

        Args:
            row: The image's place in the dataset.
            key: From `key`.
            pixels: uint8 [H, W, C].
        """
        if not self.full:
            self._waiting.append((row, key, pixels))

    def flush(self) -> None:
        """Write what waits; by one thread, after the batch. A disk that takes no more is said once, in a warning."""
        waiting = list(self._waiting)
        self._waiting.clear()
        if not waiting or self.full:
            return
        try:
            with _files.FileLock(self._lock):
                self.begin()
                self._append([item for item in waiting if self._is_missing(item[1])])
        except OSError as error:
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            self._stop(f"{reason}; what is kept stays of use, the rest is decoded in every epoch")

    def _is_missing(self, key: bytes) -> bool:
        slot = self._find(key)
        return slot == _ABSENT or slot in self._damaged

    def _append(self, items: list[tuple[int, bytes, Pixels]]) -> None:
        if not items:
            return
        need = sum(pixels.nbytes for _, _, pixels in items)
        self._say_if_too_small(need // len(items))
        if self.used + need > self.budget:
            self._stop(
                f"its {self.budget:,} bytes are used up by {len(self._entries):,} of {self.size:,} images; the others "
                "are decoded in every epoch (a smaller cache_side=, a larger cache_bytes= or another folder helps)"
            )
            return
        entries = b""
        with open(self._pixels, "ab", buffering=0) as file:
            start = file.tell()
            try:
                for _, key, pixels in items:
                    offset = file.tell()
                    _write_all(file.fileno(), np.ascontiguousarray(pixels).data.cast("B"))
                    packed = _FIELDS.pack(key, offset, *pixels.shape, zlib.crc32(np.ascontiguousarray(pixels).data))
                    entries += packed + struct.pack("<II", zlib.crc32(packed), 0)
            except OSError:
                file.truncate(start)
                raise
        with open(self._index, "ab", buffering=0) as file:
            start = file.tell() // _ENTRY.itemsize * _ENTRY.itemsize
            file.truncate(start)  # half an entry of a writer that was killed
            try:
                _write_all(file.fileno(), memoryview(entries))
            except OSError:
                file.truncate(start)
                raise

    def _say_if_too_small(self, each: int) -> None:
        expected = self.used + each * max(0, self.size - len(self._entries))
        if expected > self.budget and not self._said_too_small:
            self._said_too_small = True
            warnings.warn(
                f"the pixel cache in {self.folder} would need about {expected / 1e9:,.3g} GB and may take "
                f"{self.budget / 1e9:,.3g} GB: about {100 * self.budget // expected} % of the images will be kept; a "
                "smaller cache_side=, a larger cache_bytes= or cache= on a larger disk keeps all",
                UserWarning,
                stacklevel=2,
            )

    def _stop(self, reason: str) -> None:
        self.full = reason
        warnings.warn(f"the pixel cache in {self.folder} takes no more: {reason}", UserWarning, stacklevel=2)


def _write_all(descriptor: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(descriptor, data) :]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _mapped(path: Path) -> Any:
    """Copy on write: what torch would warn about in a read-only array cannot happen, and the file stays untouched."""
    return np.asarray(np.memmap(path, np.uint8, mode="c")) if _size(path) else np.empty(0, np.uint8)


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
