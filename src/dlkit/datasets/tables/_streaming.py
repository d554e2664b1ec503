"""Samples of files that are larger than memory: blocks are decoded when a batch asks for them, and a few are kept."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dlkit.datasets.tables._encoding import encode
from dlkit.datasets.tables._images import ImageCells
from dlkit.datasets.tables._index import HashSplit, StreamIndex
from dlkit.datasets.tables._memory import Memory, nothing_decoded
from dlkit.datasets.tables._pass import rename_classes
from dlkit.datasets.tables._settings import TableSettings, class_column
from dlkit.datasets.tables.lanes import InOrder, Lanes
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.cells import Array, Table
from dlkit.samplers import Planner

__all__ = ["TableStream", "together"]

_MEMORY = 128 << 20  # bytes of decoded blocks
_MOST_BLOCKS = 96  # those of all windows, and of their successors


@dataclass
class TableStream:
    """The rows of one part of an index.

    Attributes:
        index: Where the rows are.
        part: Which part of the split.
        settings: The caller's wishes.
    """

    index: StreamIndex
    part: int
    settings: TableSettings
    _kept: OrderedDict[int, Memory] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.counts: Array = self.index.counts[:, self.part]
        self._ends: Array = np.cumsum(self.counts)
        self._first_rows = np.cumsum([0, *self.index.rows[:-1]])
        spec = self.index.spec
        self._needed = {column.name for column in spec.columns if column.used} | {self.settings.roles.group or ""}
        self._needed.update(() if spec.target is None else spec.target.columns)
        self._images = self.settings.images
        if self.images:
            self._images = self._images.policed(self.settings.read, len(self), self.index.origin)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def options(self) -> ImageCells:
        """How images are loaded."""
        return self._images

    @property
    def images(self) -> list[str]:
        """The columns of images."""
        return [column.name for column in self.index.spec.of_kind("image")]

    @property
    def capacity(self) -> int:
        """How many decoded blocks are kept, within the memory that a stream may take."""
        spec = self.index.spec
        width = 4 * (len(spec.numeric_features) + len(spec.categories)) + 64 * len(spec.of_kind("text", "image"))
        average = max(1, len(self) // max(1, len(self.counts)))
        return max(2, min(_MOST_BLOCKS, _MEMORY // (average * (width + 16))))

    def planner(self, batch_size: int, *, shuffle: bool, drop_last: bool) -> Planner:
        """The order in which few blocks are in use at a time."""
        if shuffle:
            return Lanes(self.counts, batch_size, drop_last=drop_last, at_once=max(1, self.capacity // 2))
        return InOrder(self.counts, batch_size, drop_last=drop_last)

    def take(self, indices: Tensor) -> tuple[Any, Tensor | None]:
        """Inputs and targets of the samples at `indices` (int64 [B], each in range)."""
        places = indices.numpy()
        blocks = np.searchsorted(self._ends, places, side="right")
        needed = np.unique(blocks)
        if len(needed) > self.capacity:
            raise ArgumentError(
                f"a batch of {len(places)} samples from {len(needed)} blocks of a streamed table: each would be "
                "decoded for a few rows. dlkit.DataLoader(dataset, batch_size, shuffle=True) shuffles so that batches "
                "share blocks; a stock DataLoader can only go in order"
            )
        parts, why = [], ""
        for block in needed.tolist():
            chosen = np.flatnonzero(blocks == block)
            first = int(self._ends[block] - self.counts[block])
            memory, own = self._block(block), torch.from_numpy(places[chosen] - first)
            images, kept = memory.load(own)
            why = why or ("" if kept is None else memory.why(own))
            if kept is not None:
                chosen, own = chosen[kept.numpy()], own.index_select(0, kept)
            if len(chosen):
                parts.append((torch.from_numpy(chosen), memory.gather(own, images)))
        if not parts:
            raise nothing_decoded(len(places), why)
        if len(parts) == 1:
            return parts[0][1]
        return self._joined(parts, len(places))

    @staticmethod
    def _joined(parts: list[tuple[Tensor, Any]], size: int) -> tuple[Any, Any]:
        """Inputs and targets of several blocks in the order of the batch; of its `size` samples some may be missing."""
        count = sum(len(chosen) for chosen, _ in parts)
        if count < size:
            places = torch.cat([chosen for chosen, _ in parts]).sort().values
            parts = [(torch.searchsorted(places, chosen), part) for chosen, part in parts]
        inputs = together([(chosen, part[0]) for chosen, part in parts], count)
        no_target = parts[0][1][1] is None
        return inputs, None if no_target else together([(chosen, part[1]) for chosen, part in parts], count)

    def _block(self, number: int) -> Memory:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        while len(self._kept) >= self.capacity:
            self._kept.popitem(last=False)
        memory = self._kept[number] = self._decode(number)
        return memory

    def _decode(self, number: int) -> Memory:
        index = self.index
        file, block = index.blocks[number]
        needed = None if isinstance(index.dealt, HashSplit) and index.dealt.dedupe else self._needed
        # A worker shares the processor with others; alone, Arrow may use all of it.
        tables = index.files[file].tables(block, index.text, needed=needed, threads=get_worker_info() is None)
        pieces, rows = [], 0
        for table in tables:
            rows += len(table)
            pieces.append(self._encode(number, table))
        if rows != index.rows[number]:
            raise DataError(f"{index.files[file].source} has changed since it was first read")
        return Memory.joined(pieces)

    def _encode(self, number: int, piece: Table) -> Memory:
        index = self.index
        rename_classes(piece, class_column(index.spec.target), self.settings.aliases)
        encoded, _ = encode(piece, index.spec, self._images.beside(piece), index.readings)
        good = np.ones(len(piece), dtype=bool)
        bad = index.unusable.get(number, np.zeros(0, dtype=np.int64)) - piece.first
        good[bad[(bad >= 0) & (bad < len(piece))]] = False
        before = int(self._first_rows[number]) + piece.first
        if index.dealt is not None:
            good &= index.dealt.parts(piece, before, good, None, None) == self.part
        return encoded.select(None if good.all() else np.flatnonzero(good))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": OrderedDict()}


def together(parts: list[tuple[Tensor, Any]], size: int) -> Any:
    """Values of samples from several blocks, at their places in the batch."""
    first = parts[0][1]
    if isinstance(first, dict):
        return {name: together([(chosen, part[name]) for chosen, part in parts], size) for name in first}
    if isinstance(first, list):
        strings: list[str] = [""] * size
        for chosen, part in parts:
            for place, string in zip(chosen.tolist(), part, strict=True):
                strings[place] = string
        return strings
    whole = first.new_empty((size, *first.shape[1:]))
    for chosen, part in parts:
        whole.index_copy_(0, chosen, part)
    return whole
