"""The order of a stream: pure in (seed, epoch), near in the file, and friendly to workers.

The blocks of the file are shuffled and dealt to *lanes*. A lane goes through its blocks by windows of a few, whose rows
are shuffled together, so a batch touches a few blocks only. Batches take turns: number n comes from lane n modulo the
number of lanes. The loader gives all batches of a lane to one worker, so no block is decoded twice, however many
workers there are; yet the order does not know of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlkit import rng
from dlkit.reading.cells import Array

__all__ = ["Batches", "InOrder", "Lanes"]

_MIXED = 4  # blocks whose rows are shuffled together, where there are many
_NEIGHBOURS, _ENOUGH = 8, 16  # blocks that one worker reads in order, and such groups that keep all workers busy
_BATCHES_PER_LANE = 8  # fewer, and batches of left-over rows would be the rule


class Batches(Sequence[Tensor]):
    """Batches that are made when they are asked for; a slice is another such sequence.

    Attributes:
        reach: See `Owned`, as the next one.
    """

    reach: int

    def owners(self) -> Array:
        """int64 [batches], the block or lane that each is made of."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def batch(self, number: int) -> Tensor:
        """The samples of a batch (int64 [B]).

        Args:
            number: 0 for the first one.
        """
        raise NotImplementedError

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return _Some(self, range(*number.indices(len(self))))
        if not -len(self) <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        return self.batch(number % len(self))


class _Some(Batches):
    """Some batches of an epoch, such as those of one rank."""

    def __init__(self, whole: Batches, numbers: range) -> None:
        self._whole, self._numbers, self.reach = whole, numbers, whole.reach

    def owners(self) -> Array:
        return self._whole.owners()[np.asarray(self._numbers, dtype=np.int64)]

    def __len__(self) -> int:
        return len(self._numbers)

    def batch(self, number: int) -> Tensor:
        return self._whole.batch(self._numbers[number])


class InOrder(Batches):
    """Every row once, in the order of the file, in every epoch, without an array of all of them.

    Args:
        rows: int64 [blocks], the samples in each block.
        batch_size: Samples per batch.
        drop_last: Leave out a last batch that is not full.
    """

    def __init__(self, rows: Array, batch_size: int, *, drop_last: bool) -> None:
        self._ends, self.batch_size = np.cumsum(rows), batch_size
        self._num_samples = int(self._ends[-1]) if len(rows) else 0
        self._count = self._num_samples // batch_size if drop_last else -(-self._num_samples // batch_size)
        # A batch may begin in one block and end in the next: neighbours go to one worker, where there are many.
        self._together = max(1, min(_NEIGHBOURS, len(rows) // _ENOUGH))
        self.reach = -(-int(rows.max(initial=1)) * self._together // batch_size)

    def plan(self, seed: int, epoch: int) -> Batches:
        """See `dlkit.samplers.Planner`.

        Args:
            seed: Of the run.
            epoch: 0 for the first one.
        """
        return self

    def __len__(self) -> int:
        return self._count

    def owners(self) -> Array:
        blocks = np.searchsorted(self._ends, np.arange(self._count) * self.batch_size, side="right")
        return blocks // self._together

    def batch(self, number: int) -> Tensor:
        start = number * self.batch_size
        return torch.arange(start, min(start + self.batch_size, self._num_samples))


class Lanes:
    """Every row once per epoch, in an order drawn again from (seed, epoch).

    A batch may end one window and begin the next, in every lane in turn: twice `at_once` blocks must fit into memory.

    Args:
        rows: int64 [blocks], the samples in each block.
        batch_size: Samples per batch.
        drop_last: Leave out a last batch that is not full.
        at_once: How many blocks are in the windows of all lanes.
    """

    def __init__(self, rows: Array, batch_size: int, *, drop_last: bool, at_once: int) -> None:
        self.rows, self.batch_size, self.drop_last, self.at_once = rows, batch_size, drop_last, at_once

    def plan(self, seed: int, epoch: int) -> Batches:
        """See `dlkit.samplers.Planner`.

        Args:
            seed: Of the run.
            epoch: 0 for the first one.
        """
        return _LaneBatches(
            self.rows, self.batch_size, self.drop_last, self.at_once, rng.derive(seed, rng.ORDER, epoch)
        )


class _LaneBatches(Batches):
    """One epoch of `Lanes`."""

    def __init__(self, rows: Array, batch_size: int, drop_last: bool, at_once: int, seed: int) -> None:
        self._rows, self._batch_size, self._seed = rows, batch_size, seed
        self._firsts = np.cumsum(rows) - rows
        count = max(1, min(len(rows), at_once // _MIXED, int(rows.sum()) // (_BATCHES_PER_LANE * batch_size)))
        lanes = _dealt(rows, count, seed)
        width = max(1, at_once // count)
        self._windows = [[lane[start : start + width] for start in range(0, len(lane), width)] for lane in lanes]
        self._bounds = [np.cumsum([0, *(rows[window].sum() for window in windows)]) for windows in self._windows]
        totals = np.array([bounds[-1] for bounds in self._bounds])
        full = totals // batch_size
        # Lane 0's first batch, lane 1's first batch, ...; lanes that are through are skipped.
        lane, turn = np.repeat(np.arange(count), full), np.concatenate([np.arange(number) for number in full])
        order = np.lexsort((lane, turn))
        self._lane, self._turn = lane[order], turn[order]
        self._left = np.cumsum([0, *(totals - full * batch_size)])
        self._starts = full * batch_size
        rest = int(self._left[-1])
        self._count = len(order) + (rest // batch_size if drop_last else -(-rest // batch_size))
        self._made: dict[int, list[tuple[int, Tensor]]] = {}
        self.reach = count

    def __len__(self) -> int:
        return self._count

    def owners(self) -> Array:
        return np.append(self._lane, np.arange(self._count - len(self._lane)))

    def batch(self, number: int) -> Tensor:
        size = self._batch_size
        if number < len(self._lane):
            lane, start = int(self._lane[number]), int(self._turn[number]) * size
            return self._lane_rows(lane, start, start + size)
        # The rows that fill no batch of their own lane, from all lanes.
        start = (number - len(self._lane)) * size
        stop = min(start + size, int(self._left[-1]))
        parts = []
        for lane, (low, high) in enumerate(zip(self._left[:-1].tolist(), self._left[1:].tolist(), strict=True)):
            if max(start, low) < min(stop, high):
                offset = int(self._starts[lane]) - low
                parts.append(self._lane_rows(lane, max(start, low) + offset, min(stop, high) + offset))
        return torch.cat(parts)

    def _lane_rows(self, lane: int, start: int, stop: int) -> Tensor:
        bounds = self._bounds[lane]
        first = int(np.searchsorted(bounds, start, side="right")) - 1
        parts = []
        while start < stop:
            low, high = int(bounds[first]), int(bounds[first + 1])
            if start < high:
                parts.append(self._window(lane, first)[start - low : min(stop, high) - low])
                start = min(stop, high)
            first += 1
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _window(self, lane: int, number: int) -> Tensor:
        """The rows of a window in their order; the last two of each lane are kept."""
        made = self._made.setdefault(lane, [])
        for known, rows in made:
            if known == number:
                return rows
        blocks = self._windows[lane][number]
        rows = torch.cat(
            [torch.arange(self._firsts[block], self._firsts[block] + self._rows[block]) for block in blocks]
        )
        generator = torch.Generator().manual_seed(rng.derive(self._seed, lane + 1, number))
        rows = rows.index_select(0, torch.randperm(len(rows), generator=generator))
        made[:] = [*made[-1:], (number, rows)]
        return rows


def _dealt(rows: Array, count: int, seed: int) -> list[Array]:
    """The blocks in a random order, each to the lane that has the fewest rows so far."""
    generator = torch.Generator().manual_seed(rng.derive(seed, 0))
    lanes: list[list[int]] = [[] for _ in range(count)]
    totals = [0] * count
    for block in torch.randperm(len(rows), generator=generator).tolist():
        lane = totals.index(min(totals))
        lanes[lane].append(block)
        totals[lane] += int(rows[block])
    return [np.array(lane, dtype=np.int64) for lane in lanes]
