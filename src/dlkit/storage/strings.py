"""Many strings as one block of bytes: a million of them are two arrays and not a million objects."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np

from dlkit.storage.arrays import ArrayWriter, SharedArray

__all__ = ["PackedStrings", "StringsWriter", "offsets_of"]

Array = np.ndarray[Any, Any]
_PIECE = 1 << 20  # bytes that are joined before they are stored; from here on, workers share what they are sent
_STEP = 4096  # strings that exist as Python objects at a time while one iterates


class PackedStrings(Sequence[str]):
    """Strings as UTF-8 bytes and where each begins and ends; a selection shares the bytes.

    Half surrogates, which file names and DataFrames may hold, survive.

    Args:
        blob: The bytes of all strings, uint8; a mapped file travels to other processes as its path.
        offsets: int64 [N + 1]: string i is `blob[offsets[i]:offsets[i + 1]]`.

    >>> strings = PackedStrings.of(["one", "둘", ""])
    >>> strings[1], len(strings), strings.select(np.array([2, 0])).tolist()
    ('둘', 3, ['', 'one'])
    """

    __slots__ = ("_blob", "_ends", "_sent", "_starts")

    def __init__(self, blob: Array | SharedArray, offsets: Array) -> None:
        self._blob = blob if isinstance(blob, SharedArray) else SharedArray(blob)
        self._starts, self._ends = offsets[:-1], offsets[1:]
        self._sent: tuple[Any, ...] | None = None

    @classmethod
    def of(cls, strings: Iterable[str]) -> PackedStrings:
        """Pack strings.

        Args:
            strings: In any number.
        """
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        blob = np.frombuffer(bytearray(b"".join(encoded)), dtype=np.uint8)
        return cls(blob, offsets_of(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))))

    @classmethod
    def of_arrow(cls, array: Any) -> PackedStrings:
        """The buffers of an Arrow `array` of strings without nulls, as they are."""
        _, offsets, blob = array.buffers()
        width = np.int64 if str(array.type).startswith("large") else np.int32
        if offsets is None or len(array) == 0:
            return cls.of(())
        bounds = np.frombuffer(offsets, dtype=width)[array.offset : array.offset + len(array) + 1]
        data = np.frombuffer(blob, dtype=np.uint8) if blob is not None else np.zeros(0, dtype=np.uint8)
        return cls(data, bounds.astype(np.int64))

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self.select(index).tolist()
        place = range(len(self))[index]
        return _decoded(self._blob.array[self._starts[place] : self._ends[place]].tobytes())

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), _STEP):
            yield from self[begin : begin + _STEP]

    def __repr__(self) -> str:
        first = "".join(f"{text[:40]!r}, " for text in self[:2])
        return f"PackedStrings([{first}...], {len(self):,} in all)" if len(self) > 2 else f"PackedStrings({self[:]!r})"

    def tolist(self) -> list[str]:
        """All strings as Python objects, for a moment."""
        if not self._is_whole():
            data = self._blob.array
            bounds = zip(self._starts.tolist(), self._ends.tolist(), strict=True)
            return [_decoded(data[begin:end].tobytes()) for begin, end in bounds]
        blob, offsets = self.arrays()
        whole, places = blob.tobytes(), offsets.tolist()
        if whole.isascii():
            text = whole.decode("ascii")
            return [text[begin:end] for begin, end in pairwise(places)]
        return [_decoded(whole[begin:end]) for begin, end in pairwise(places)]

    def select(self, indices: Array | slice) -> PackedStrings:
        """Some of the strings, which share this object's bytes.

        Args:
            indices: Whole numbers [K], or a slice.
        """
        return _selection(self._blob, self._starts[indices], self._ends[indices])

    def arrays(self) -> tuple[Array, Array]:
        """The bytes of these strings and nothing else, uint8, and their offsets in them, int64 [N + 1]."""
        if not len(self) or not self._is_whole():
            pieces = [self._blob.array[begin:end] for begin, end in self._runs()]
            return np.concatenate([self._blob.array[:0], *pieces]), offsets_of(self._ends - self._starts)
        base, end = int(self._starts[0]), int(self._ends[-1])
        return self._blob.array[base:end], np.append(self._starts, end) - base

    @property
    def num_bytes(self) -> int:
        """How many bytes of UTF-8 the strings have in all."""
        return int((self._ends - self._starts).sum())

    def digest(self) -> str:
        """64 hexadecimal digits that are equal for equal strings in equal order."""
        digest = hashlib.sha256((self._ends - self._starts).astype("<i8").tobytes())
        for begin, end in self._runs():
            digest.update(self._blob.array[begin:end].data)
        return digest.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._blob.path is not None:  # a file is opened again where it is needed
            return _selection, (self._blob, self._starts, self._ends)
        if self._sent is None:
            blob, offsets = self.arrays()
            self._sent = blob, offsets
            if blob.nbytes > _PIECE:
                from torch import from_numpy

                # Tensors are moved to memory that all workers share, where an array would be copied to each.
                self._sent = from_numpy(blob.copy()), from_numpy(offsets)
        return _received, self._sent

    def _is_whole(self) -> bool:
        """Whether the strings lie one after the other."""
        return bool((self._starts[1:] == self._ends[:-1]).all())

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Strings that lie one after the other, as few pieces."""
        breaks = np.flatnonzero(self._starts[1:] != self._ends[:-1]) + 1
        if len(self):
            firsts, lasts = np.append(0, breaks), np.append(breaks, len(self)) - 1
            yield from zip(self._starts[firsts].tolist(), self._ends[lasts].tolist(), strict=True)


def _selection(blob: SharedArray, starts: Array, ends: Array) -> PackedStrings:
    strings = PackedStrings(blob, np.zeros(1, dtype=np.int64))
    strings._starts, strings._ends = starts, ends
    return strings


def _received(blob: Any, offsets: Any) -> PackedStrings:
    return PackedStrings(np.asarray(blob), np.asarray(offsets))


def _decoded(encoded: bytes) -> str:
    return encoded.decode("utf-8", "surrogatepass")


def offsets_of(lengths: Array) -> Array:
    """Where pieces of these `lengths` begin when they lie one after the other, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


class StringsWriter:
    """Collects strings; beyond `budget` bytes they go to a file in `folder`.

    >>> writer = StringsWriter(folder=Path("unused")); writer.append(b"a"); writer.append(b"bc"); writer.finish()[:]
    ['a', 'bc']

    Args:
        budget: Bytes to hold in memory.
        folder: Where the file lies; it is made when it is needed.
    """

    def __init__(self, *, budget: int = 1 << 30, folder: Path) -> None:
        self._blocks = ArrayWriter(np.uint8, budget=budget, folder=folder)
        self._lengths = array("q")
        self._pending: list[bytes] = []
        self._waiting = 0

    def append(self, encoded: bytes) -> None:
        """Add one string, `encoded` as UTF-8."""
        self._lengths.append(len(encoded))
        self._pending.append(encoded)
        self._waiting += len(encoded)
        if self._waiting > _PIECE:
            self._flush()

    def extend(self, blob: Array, lengths: Array) -> None:
        """Add strings that lie one after the other in the uint8 `blob`; `lengths` are their numbers of bytes."""
        self._flush()
        self._blocks.append(blob)
        self._lengths.frombytes(lengths.astype(np.int64).tobytes())

    def finish(self) -> PackedStrings:
        """All strings; nothing can be added any more."""
        self._flush()
        return PackedStrings(self._blocks.finish(".texts"), offsets_of(np.array(self._lengths, dtype=np.int64)))

    def _flush(self) -> None:
        if self._pending:
            self._blocks.append(np.frombuffer(b"".join(self._pending), dtype=np.uint8))
            self._pending, self._waiting = [], 0
