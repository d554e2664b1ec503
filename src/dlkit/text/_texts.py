"""Many texts as one block of bytes: a million of them are two arrays and not a million objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from dlkit.storage.arrays import Block, BlockWriter
from dlkit.storage.files import cache_dir

__all__ = ["Texts", "TextsWriter"]

Array = np.ndarray[Any, Any]


class Texts(Sequence[str]):
    """Texts as UTF-8 bytes and where each begins; a selection shares the bytes.

    >>> texts = Texts.of(["one", "둘", ""])
    >>> texts[1], len(texts), list(texts.select(np.array([2, 0])))
    ('둘', 3, ['', 'one'])
    """

    def __init__(self, block: Block, starts: Array, lengths: Array) -> None:
        self._block, self._starts, self._lengths = block, starts, lengths

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Pack texts; one with half a surrogate pair is refused with a UnicodeEncodeError."""
        writer = TextsWriter()
        for text in texts:
            writer.append(text)
        return writer.finish()

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._text(place) for place in range(*index.indices(len(self)))]
        return self._text(range(len(self))[index])

    def __iter__(self) -> Iterator[str]:
        return map(self._text, range(len(self)))

    def __repr__(self) -> str:
        first = "".join(f"{text[:40]!r}, " for text in self[:2])
        return f"Texts([{first}...], {len(self):,} in all)" if len(self) > 2 else f"Texts({list(self)!r})"

    def _text(self, place: int) -> str:
        start = self._starts[place]
        return self._block.array[start : start + self._lengths[place]].tobytes().decode()

    def select(self, indices: Array) -> Texts:
        """The texts at `indices`, which share this object's bytes."""
        return Texts(self._block, self._starts[indices], self._lengths[indices])

    @property
    def num_bytes(self) -> int:
        """How many bytes of UTF-8 the texts have in all."""
        return int(self._lengths.sum())

    def digest(self) -> str:
        """64 hexadecimal digits that are equal for equal texts in equal order."""
        digest = hashlib.sha256(self._lengths.astype("<i8").tobytes())
        for begin, end in _runs(self._starts, self._lengths):
            digest.update(self._block.array[begin:end].data)
        return digest.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._block.path is not None:  # a file is opened again where it is needed
            return Texts, (self._block, self._starts, self._lengths)
        pieces = [self._block.array[begin:end] for begin, end in _runs(self._starts, self._lengths)]
        own = np.concatenate(pieces) if pieces else self._block.array[:0]
        return Texts, (Block(own), np.cumsum(self._lengths) - self._lengths, self._lengths)


def _runs(starts: Array, lengths: Array) -> Iterator[tuple[int, int]]:
    """Texts that lie one after the other, as few pieces."""
    if not len(starts):
        return
    breaks = np.flatnonzero(starts[1:] != starts[:-1] + lengths[:-1]) + 1
    firsts, lasts = np.append(0, breaks), np.append(breaks, len(starts)) - 1
    yield from zip(starts[firsts].tolist(), (starts[lasts] + lengths[lasts]).tolist(), strict=True)


class TextsWriter:
    """Collects texts; beyond `budget` bytes they go to a file in `folder`.

    >>> writer = TextsWriter(); writer.append("a"); writer.append("bc"); list(writer.finish())
    ['a', 'bc']
    """

    def __init__(self, *, budget: int = 1 << 30, folder: Path | None = None) -> None:
        self._blocks = BlockWriter(np.uint8, budget=budget, folder=folder or cache_dir() / "text")
        self._lengths: list[int] = []
        self._pending: list[bytes] = []
        self._waiting = 0

    def append(self, text: str) -> None:
        """Add one text.

        Raises:
            UnicodeEncodeError: half a surrogate pair, which UTF-8 cannot hold.
        """
        self.append_encoded(text.encode())

    def append_encoded(self, encoded: bytes) -> None:
        """Add one text that is UTF-8 already."""
        self._lengths.append(len(encoded))
        self._pending.append(encoded)
        self._waiting += len(encoded)
        if self._waiting > 1 << 20:
            self._flush()

    def finish(self) -> Texts:
        """The texts; the writer is then empty of use."""
        self._flush()
        lengths = np.array(self._lengths, dtype=np.int64)
        return Texts(self._blocks.finish(suffix=".texts"), np.cumsum(lengths) - lengths, lengths)

    def _flush(self) -> None:
        self._blocks.append(np.frombuffer(b"".join(self._pending), dtype=np.uint8))
        self._pending, self._waiting = [], 0
