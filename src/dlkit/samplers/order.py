"""The order of an epoch's batches as a pure function of (seed, epoch).

A *planner* has one method, `plan(seed, epoch)`, that returns the epoch's batches as a sequence of index batches: it
has a length, and any batch can be asked for, so resuming is looking up, not replaying. `planner_of` turns what a stock
`DataLoader` holds (any `Sampler`, any `batch_sampler`) into one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from dlkit import rng
from dlkit._arguments import whole_number
from dlkit.errors import ArgumentError, DataError

__all__ = [
    "Balanced",
    "Planner",
    "Sequential",
    "Shuffle",
    "SlicedPlan",
    "index_batch",
    "index_batches",
    "planner_of",
]

Plan = Sequence[Any]
_MOST_BATCHES = 50_000_000
_BLOCK = 4096  # indices that become Python integers at once


@runtime_checkable
class Planner(Protocol):
    """Whatever can plan an epoch: `Shuffle`, `Sequential`, the adapters of `planner_of`, or your own class."""

    def plan(self, seed: int, epoch: int) -> Plan:
        """The batches of one epoch: a sequence whose elements are index batches (int64 tensors or lists).

        Args:
            seed: The run's seed; the same seed and epoch must give the same plan in every process.
            epoch: 0 for the first one.
        """


class SlicedPlan(Sequence[Tensor]):
    """An order of samples, cut into batches when they are asked for.

    Args:
        order: int64 [N], the samples in the order of the epoch.
        batch_size: Samples per batch.
        drop_last: Leave out a last batch that is not full.

    >>> SlicedPlan(torch.arange(5), 2)[2]
    tensor([4])
    >>> len(SlicedPlan(torch.arange(5), 2, drop_last=True))
    2
    """

    def __init__(self, order: Tensor, batch_size: int, *, drop_last: bool = False) -> None:
        self._order, self._batch_size = order, batch_size
        whole, rest = divmod(len(order), batch_size)
        self._count = whole + (1 if rest and not drop_last else 0)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[position] for position in range(*number.indices(self._count))]
        if not -self._count <= number < self._count:
            raise IndexError(f"batch {number} of {self._count}")
        start = (number % self._count) * self._batch_size
        return self._order[start : start + self._batch_size]

    def lists(self, start: int = 0) -> Iterator[list[int]]:
        """The batches from number `start` on as lists of integers, which cost a tenth of slicing a tensor for each.

        Args:
            start: 0 for the epoch's first batch.

        >>> list(SlicedPlan(torch.arange(5), 2).lists(1))
        [[2, 3], [4]]
        """
        together = max(_BLOCK // self._batch_size, 1)
        for first in range(start, self._count, together):
            block = self._order[first * self._batch_size : (first + together) * self._batch_size].tolist()
            for batch in range(min(together, self._count - first)):
                yield block[batch * self._batch_size : (batch + 1) * self._batch_size]


class Shuffle:
    """Every sample once per epoch, in an order drawn again from (seed, epoch).

    Args:
        num_samples: The length of the dataset.
        batch_size: Samples per batch.
        drop_last: Leave out a last batch that is not full.
        salt: Mixed into the seed; the initial seed of a stock sampler's own generator, 0 otherwise.

    >>> plan = Shuffle(5, 2).plan(seed=0, epoch=0)
    >>> sorted(torch.cat(list(plan)).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, num_samples: int, batch_size: int, *, drop_last: bool = False, salt: int = 0) -> None:
        self.num_samples, self.batch_size, self.drop_last, self.salt = num_samples, batch_size, drop_last, salt

    def plan(self, seed: int, epoch: int) -> SlicedPlan:
        """The epoch's batches; see `Planner`.

        Args:
            seed: The run's seed.
            epoch: 0 for the first one.
        """
        generator = torch.Generator().manual_seed(rng.derive(seed, rng.ORDER, epoch, self.salt))
        order = torch.randperm(self.num_samples, generator=generator)
        return SlicedPlan(order, self.batch_size, drop_last=self.drop_last)


class Balanced:
    """As many samples in an epoch as there are, of each class equally many: rare ones several times, others left out.

    Each class goes round its own samples, in an order drawn again whenever all were seen, so none of a class is seen
    twice before all were once; over the epochs, every sample of a frequent class has its turn. It is a planner, a pure
    function of (seed, epoch): `dlkit.DataLoader(train, batch_sampler=Balanced(train.targets, 64))`; a run that is
    stopped resumes bit for bit, with any number of workers. In place of weights in the loss (`class_weights`), not
    beside them: either makes up for rare classes.

    Args:
        targets: The class of each sample, whole numbers [N].
        batch_size: Samples per batch.
        drop_last: Leave out a last batch that is not full.

    Raises:
        ArgumentError: targets that are not classes, or none.

    >>> plan = Balanced(torch.tensor([0] * 8 + [1] * 2), 5).plan(seed=0, epoch=0)
    >>> torch.bincount(torch.cat([torch.tensor([0] * 8 + [1] * 2)[batch] for batch in plan])).tolist()
    [5, 5]
    """

    def __init__(self, targets: Any, batch_size: int, *, drop_last: bool = False) -> None:
        classes = torch.as_tensor(targets)
        if classes.dim() != 1 or not len(classes) or classes.is_floating_point():
            raise ArgumentError(
                f"Balanced needs the class of each sample as whole numbers [N], not {classes.dtype} "
                f"{list(classes.shape)}"
            )
        self.batch_size, self.drop_last = whole_number("batch_size", batch_size, least=1), drop_last
        order = classes.argsort(stable=True)
        self._members = order.split(classes.unique(return_counts=True)[1].tolist())
        self.num_samples = len(classes)

    def plan(self, seed: int, epoch: int) -> SlicedPlan:
        """The epoch's batches; see `Planner`.

        Args:
            seed: The run's seed.
            epoch: 0 for the first one.
        """
        count = len(self._members)
        shares = [self.num_samples // count + (place < self.num_samples % count) for place in range(count)]
        drawn = [
            _round(each, share, seed, epoch, n)
            for n, (each, share) in enumerate(zip(self._members, shares, strict=True))
        ]
        generator = torch.Generator().manual_seed(rng.derive(seed, rng.ORDER, epoch))
        chosen = torch.cat(drawn)
        return SlicedPlan(
            chosen[torch.randperm(len(chosen), generator=generator)], self.batch_size, drop_last=self.drop_last
        )


def _round(members: Tensor, share: int, seed: int, epoch: int, number: int) -> Tensor:
    """Where a class is on its way round its samples in an epoch: as many as its share, after those before it."""
    first, last = epoch * share, (epoch + 1) * share
    turns = []
    for turn in range(first // len(members), -(-last // len(members))):
        generator = torch.Generator().manual_seed(rng.derive(seed, rng.ORDER, turn, number + 1))
        turns.append(members[torch.randperm(len(members), generator=generator)])
    begin = first - first // len(members) * len(members)
    return torch.cat(turns)[begin : begin + share]


class Sequential:
    """Every sample once per epoch, in the dataset's own order.

    Args:
        num_samples: The length of the dataset.
        batch_size: Samples per batch.
        drop_last: Leave out a last batch that is not full.

    >>> Sequential(3, 2).plan(seed=0, epoch=7)[0]
    tensor([0, 1])
    """

    def __init__(self, num_samples: int, batch_size: int, *, drop_last: bool = False) -> None:
        self.num_samples, self.batch_size, self.drop_last = num_samples, batch_size, drop_last

    def plan(self, seed: int, epoch: int) -> SlicedPlan:
        """The epoch's batches, the same in every epoch; see `Planner`.

        Args:
            seed: Not used.
            epoch: Not used.
        """
        return SlicedPlan(torch.arange(self.num_samples), self.batch_size, drop_last=self.drop_last)


def index_batches(plan: Plan, numbers: Sequence[int], *, tensors: bool) -> Iterator[Any]:
    """Some index batches of a plan, one after the other, each as `index_batch` gives it.

    Args:
        plan: What a planner made.
        numbers: Which ones, 0 for the epoch's first batch.
        tensors: Whether the fetching code accepts tensors of indices; lists are made where not.

    >>> list(index_batches(SlicedPlan(torch.arange(3), 2), range(2), tensors=False))
    [[0, 1], [2]]
    """
    if isinstance(plan, SlicedPlan) and not tensors and isinstance(numbers, range) and numbers.stop == len(plan):
        return plan.lists(numbers.start)
    return (index_batch(plan[number]) for number in numbers)


def index_batch(batch: Any) -> Any:
    """One batch of a plan as the loader takes it: an int64 tensor as it is, else a list.

    Whole numbers of any kind (numpy's, tensors without a dimension, arrays, tuples, ranges) become Python integers,
    which every dataset takes; keys that are something else stay as they are.

    Args:
        batch: What a plan, a batch sampler or a user's planner holds.

    Raises:
        ArgumentError: a mask instead of indices.

    >>> index_batch((np.int64(3), torch.tensor(1))), index_batch(["a", ("b", 2)])
    ([3, 1], ['a', ('b', 2)])
    """
    if isinstance(batch, Tensor) and batch.dtype == torch.int64 and batch.dim() == 1:
        return batch
    items = batch.tolist() if isinstance(batch, Tensor | np.ndarray) and batch.ndim == 1 else list(batch)
    if all(type(item) is int for item in items):
        return items
    numbers = [_whole(item) for item in items]
    return items if None in numbers else numbers


def _whole(item: Any) -> int | None:
    """The Python integer that an index is; None for other keys."""
    scalar = isinstance(item, int | np.integer | np.bool_) or getattr(item, "shape", None) == ()
    value = item.item() if scalar and hasattr(item, "item") else item
    if isinstance(value, bool):
        raise ArgumentError(
            f"a sampler gave {value} in the place of an index, which looks like a mask; its True places are "
            "torch.as_tensor(mask).nonzero()[:, 0].tolist()"
        )
    return int(value) if scalar and isinstance(value, int) else None


class _DrawnSamples:
    """Any sampler of single indices, drawn once per epoch from streams that start at (seed, epoch)."""

    def __init__(self, sampler: Iterable[Any], batch_size: int, *, drop_last: bool) -> None:
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def plan(self, seed: int, epoch: int) -> Plan:
        drawn = index_batch(_draw(self.sampler, seed, epoch))
        if all(type(index) is int for index in drawn):
            return SlicedPlan(torch.tensor(drawn, dtype=torch.int64), self.batch_size, drop_last=self.drop_last)
        batches = [drawn[start : start + self.batch_size] for start in range(0, len(drawn), self.batch_size)]
        return batches[:-1] if self.drop_last and batches and len(batches[-1]) < self.batch_size else batches


class _DrawnBatches:
    """Any batch sampler, drawn once per epoch from streams that start at (seed, epoch)."""

    def __init__(self, batch_sampler: Iterable[Any]) -> None:
        self.batch_sampler = batch_sampler

    def plan(self, seed: int, epoch: int) -> Plan:
        return _draw(self.batch_sampler, seed, epoch, _kept)


def planner_of(sampler: Any, batch_size: int | None, *, drop_last: bool = False) -> Planner:
    """A planner that orders samples as a stock `DataLoader`'s sampler does, as a pure function of (seed, epoch).

    `RandomSampler` and `SequentialSampler` become `Shuffle` and `Sequential`. Any other sampler is run through once
    per epoch while `random`, `numpy.random`, torch and every generator that the sampler owns start from (seed, epoch);
    `set_epoch` is called where there is one.

    Args:
        sampler: A `Sampler`, or a batch sampler when `batch_size` is None.
        batch_size: Samples per batch; None when `sampler` gives whole batches.
        drop_last: Leave out a last batch that is not full.

    >>> type(planner_of(torch.utils.data.SequentialSampler(range(3)), 2)).__name__
    'Sequential'
    """
    if batch_size is None:
        if type(sampler) is BatchSampler:
            return planner_of(sampler.sampler, sampler.batch_size, drop_last=sampler.drop_last)
        return sampler if isinstance(sampler, Planner) else _DrawnBatches(sampler)
    batch_size = whole_number("batch_size", batch_size, least=1)
    if type(sampler) is SequentialSampler:
        return Sequential(len(sampler), batch_size, drop_last=drop_last)
    if type(sampler) is RandomSampler and not sampler.replacement and len(sampler) == len(sampler.data_source):
        salt = 0 if sampler.generator is None else sampler.generator.initial_seed()
        return Shuffle(len(sampler), batch_size, drop_last=drop_last, salt=salt)
    return _DrawnSamples(sampler, batch_size, drop_last=drop_last)


def _kept(batch: Any) -> Any:
    """A batch as its sampler gave it, which may use the same list or tensor again for the next one."""
    return index_batch(batch.clone() if isinstance(batch, Tensor) else batch)


def _draw(sampler: Iterable[Any], seed: int, epoch: int, change: Callable[[Any], Any] | None = None) -> list[Any]:
    """All that a sampler gives in an epoch; `change` sees each item before the next one is drawn."""
    if callable(set_epoch := getattr(sampler, "set_epoch", None)):
        set_epoch(epoch)
    with rng.isolated(rng.derive(seed, rng.ORDER, epoch), own=rng.find_generators(sampler)):
        items: Iterable[Any] = itertools.islice(sampler, _MOST_BATCHES + 1)
        drawn = list(items if change is None else map(change, items))
    if len(drawn) > _MOST_BATCHES:
        raise DataError(
            f"{type(sampler).__name__} gave more than {_MOST_BATCHES:,} items and did not end; "
            "a sampler must end with its epoch, an endless stream belongs in an IterableDataset"
        )
    return drawn
