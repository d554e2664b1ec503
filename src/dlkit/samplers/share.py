"""Batches spread over processes that train together in their own loop: none lost, none twice, as many for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlkit.distributed import World
from dlkit.errors import DataError
from dlkit.samplers.order import Plan, Planner

__all__ = ["Share"]


class Share(Planner):
    """A planner that gives each process its share of another one's batches; all of them where there is one process.

    For your own training loop with `DistributedDataParallel`; the Trainer deals batches itself, and wants all.
    Each process gets the same number of batches, as processes that train together must. What the last batches hold that
    are too few for a step of all is distributed evenly: as one more batch, or, where it is not even a row for each,
    into the last one.

    Args:
        planner: Plans for all processes, the same in each; `dataset.planner(...)`, or any of this room.
        rank: Which process this is; as the launcher says by default.
        world_size: How many there are; as the launcher says by default.
        drop_last: Leave those last batches out.
        in_order: Give each process batches that follow each other; else they take turns.

    Raises:
        DataError: at planning, where there are fewer samples than processes.

    >>> from dlkit.samplers import Sequential
    >>> plan = Share(Sequential(7, 2), rank=1, world_size=2).plan(seed=0, epoch=0)
    >>> [batch.tolist() for batch in plan]
    [[2, 3], [6]]
    """

    def __init__(
        self,
        planner: Planner,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
        in_order: bool = False,
    ) -> None:
        self.planner, self.rank, self.world_size = planner, rank, world_size
        self.drop_last, self.in_order = drop_last, in_order

    def plan(self, seed: int, epoch: int) -> Plan:
        """The batches of this process; see `Planner`.

        Args:
            seed: The run's seed.
            epoch: 0 for the first one.
        """
        world = World.of_environment()
        rank = world.rank if self.rank is None else self.rank
        size = world.size if self.world_size is None else self.world_size
        whole = self.planner.plan(seed, epoch)
        return whole if size == 1 else _Shared(whole, size, rank, drop_last=self.drop_last, in_order=self.in_order)


class _Shared(Sequence[Any]):
    """The batches of one process."""

    def __init__(self, whole: Plan, ranks: int, rank: int, *, drop_last: bool, in_order: bool) -> None:
        self._whole, self._ranks, self._rank, self._in_order = whole, ranks, rank, in_order
        self._steps, rest = divmod(len(whole), ranks)
        self._left: Any = None  # the own share of the rows that make no whole step
        if rest and not drop_last:
            rows = _joined([whole[number] for number in range(len(whole) - rest, len(whole))])
            if not self._steps and len(rows) < ranks:
                raise DataError(f"{len(rows)} rows cannot be distributed over {ranks} processes")
            self._left = rows[len(rows) * rank // ranks : len(rows) * (rank + 1) // ranks]
            self._longer = len(rows) < ranks

    def __len__(self) -> int:
        return self._steps + (self._left is not None and not self._longer)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        number %= len(self)
        if number == self._steps and self._left is not None:
            return self._left
        batch = self._whole[self._rank * self._steps + number if self._in_order else number * self._ranks + self._rank]
        if number == self._steps - 1 and self._left is not None and self._longer:
            return _joined([batch, self._left])
        return batch


def _joined(batches: Sequence[Any]) -> Any:
    if all(isinstance(batch, Tensor) for batch in batches):
        return torch.cat(list(batches))
    return [index for batch in batches for index in (batch.tolist() if isinstance(batch, Tensor) else batch)]
