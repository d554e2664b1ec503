"""Batches spread over the processes of `torch.distributed`: none lost, none twice, the same number for all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlkit.datasets.tables._lanes import Batches
from dlkit.errors import DataError
from dlkit.reading.cells import Array
from dlkit.samplers import Planner

__all__ = ["Ranks"]


class Ranks:
    """A planner that gives each process its share of another one's batches; all of them where there is one process.

    All get the same number, as processes that train together must. What the last batches hold that are too few for a
    step of all is dealt out evenly: as one more batch, or, where it is not even a row for each, into the last one.

    Args:
        planner: Plans for all processes, the same in each.
        drop_last: Leave those last batches out.
        in_order: Give each process batches that follow each other; else they take turns.
    """

    def __init__(self, planner: Planner, *, drop_last: bool, in_order: bool) -> None:
        self.planner, self.drop_last, self.in_order = planner, drop_last, in_order

    def plan(self, seed: int, epoch: int) -> Batches:
        """See `dlkit.samplers.Planner`."""
        whole = self.planner.plan(seed, epoch)
        assert isinstance(whole, Batches)
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return whole
        ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        return RankBatches(whole, ranks, rank, drop_last=self.drop_last, in_order=self.in_order)


class RankBatches(Batches):
    """The batches of one process."""

    def __init__(self, whole: Batches, ranks: int, rank: int, *, drop_last: bool, in_order: bool) -> None:
        self._whole, self._ranks, self._rank, self._in_order = whole, ranks, rank, in_order
        self._steps, rest = divmod(len(whole), ranks)
        self.reach = whole.reach
        self._left: Tensor | None = None  # the own share of the rows that make no whole step
        if rest and not drop_last:
            rows = torch.cat([whole.batch(number) for number in range(len(whole) - rest, len(whole))])
            if not self._steps and len(rows) < ranks:
                raise DataError(f"{len(rows)} rows cannot be spread over {ranks} processes")
            self._left = rows[len(rows) * rank // ranks : len(rows) * (rank + 1) // ranks]
            self._longer = len(rows) < ranks

    def owners(self) -> Array:
        own = np.arange(self._steps)
        places = self._rank * self._steps + own if self._in_order else own * self._ranks + self._rank
        return np.append(self._whole.owners()[places], np.zeros(len(self) - self._steps, dtype=np.int64))

    def __len__(self) -> int:
        return self._steps + (self._left is not None and not self._longer)

    def batch(self, number: int) -> Tensor:
        if number == self._steps and self._left is not None:
            return self._left
        place = self._rank * self._steps + number if self._in_order else number * self._ranks + self._rank
        batch = self._whole.batch(place)
        if number == self._steps - 1 and self._left is not None and self._longer:
            batch = torch.cat([batch, self._left])
        return batch
