"""`LengthBuckets`: batches of samples of nearly equal length, in an order that tells nothing about length."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlkit import rng
from dlkit._arguments import whole_number
from dlkit.errors import ArgumentError, DataError

__all__ = ["LengthBuckets"]

Array = np.ndarray[Any, Any]
_WINDOW = 64
_PRECISION = 20  # bits of a length that are looked at
_WIDTH = 4 / 3  # of a triangle with as much chance to meet again as a band of width 1


class _CutPlan(Sequence[Tensor]):
    """An order of samples and where each batch of it begins and ends."""

    def __init__(self, order: Tensor, cuts: Array) -> None:
        self._order, self._cuts = order, cuts  # cuts: int64 [number of batches, 2]

    def __len__(self) -> int:
        return len(self._cuts)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[position] for position in range(*number.indices(len(self)))]
        begin, end = self._cuts[number].tolist()
        return self._order[begin:end]


class LengthBuckets:
    """Batches of samples of similar length, so that next to nothing is padding; every sample once per epoch.

    Each sample gets a place by its length plus a random distance, the samples are sorted by these places and cut into
    batches, and the batches are shuffled. A batch is thus a random choice of about 1 / `window` of the data: a larger
    window means less padding, and batches whose samples meet again more often. Where lengths are rare, a place counts
    for more samples: the distances are those for which a given chance to meet again costs the least padding.

    It is a planner, a pure function of (seed, epoch): give it to `dlkit.DataLoader(..., batch_sampler=...)`, where any
    batch of any epoch can be asked for. It is also a batch sampler for a stock `DataLoader`; iterating it again
    gives the next epoch, `set_epoch` says which. Datasets of texts bring it along by themselves.

    Args:
        lengths: The length of each sample, integers [N]; `ds.lengths` of a dataset of texts.
        batch_size: Samples per batch, 64 unless `tokens` is given.
        tokens: Instead of `batch_size`: each batch holds as many samples as fit when padded, that is longest times
            number of samples is at most this.
        seed: Mixed into the loader's seed; the seed where a stock loader iterates it.
        window: Which share of the samples, 1 / `window`, a batch is chosen from: 64, or a quarter of the number of
            batches where that is less; 1 does not look at lengths.
        drop_last: Leave out random samples so that all batches are full; not with `tokens`.
        num_replicas: Over how many processes an epoch is spread in your own loop; 1 by default (the Trainer deals
            the batches of one plan itself). All get the same number of batches, and their batches of one step are
            neighbours in length, so no process waits. Where samples are left that are fewer than processes, some
            batches of the last step hold one more.
        rank: Which of them this is.

    Raises:
        ArgumentError: invalid settings; a sample longer than `tokens`.

    >>> buckets = LengthBuckets([5, 1, 4, 1, 5, 9, 2, 6], batch_size=2, seed=0, window=4)
    >>> sorted(sorted(batch.tolist()) for batch in buckets.plan(seed=0, epoch=0))
    [[0, 2], [1, 3], [4, 6], [5, 7]]
    >>> len(list(buckets))
    4
    """

    def __init__(
        self,
        lengths: Any,
        batch_size: int | None = None,
        *,
        tokens: int | None = None,
        seed: int = 0,
        window: int | None = None,
        drop_last: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        self.lengths = _checked_lengths(lengths)
        if batch_size is not None and tokens is not None:
            raise ArgumentError("batch_size and tokens exclude each other: both say when a batch is full")
        self.batch_size = 64 if batch_size is None and tokens is None else batch_size
        self.tokens, self.window, self.seed, self.drop_last = tokens, window, seed, drop_last
        counts = {"batch_size": batch_size, "tokens": tokens, "window": window, "num_replicas": num_replicas}
        for name, value in counts.items():
            if value is not None:
                whole_number(name, value, least=1)
        if tokens is not None and drop_last:
            raise ArgumentError("drop_last needs batch_size: with tokens there is no such thing as a full batch")
        if tokens is not None and len(self.lengths) and (longest := int(self.lengths.max())) > tokens:
            raise ArgumentError(
                f"sample {int(self.lengths.argmax())} has {longest} tokens and does not fit into tokens={tokens}; "
                "cut the samples (max_length) or allow more"
            )
        if rank is not None and not 0 <= rank < (num_replicas or 1):
            raise ArgumentError(f"rank must be 0 to num_replicas - 1 = {(num_replicas or 1) - 1}, not {rank}")
        self.num_replicas, self.rank = num_replicas, rank
        self._epoch = 0

    def plan(self, seed: int, epoch: int) -> Sequence[Tensor]:
        """The epoch's batches of this process, as a sequence; see the class.

        Args:
            seed: The run's seed.
            epoch: 0 for the first one.
        """
        generator = torch.Generator().manual_seed(rng.derive(seed, rng.ORDER, epoch, self.seed))
        replicas, rank = self._place()
        order, steps = (self._by_size if self.tokens is None else self._by_tokens)(replicas, generator)
        shuffled = torch.randperm(len(steps), generator=generator).numpy()
        return _CutPlan(torch.from_numpy(order), steps[shuffled, rank])

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration gives; a stock loader that resumes needs it.

        Args:
            epoch: 0 for the first one.
        """
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        for batch in self.plan(self.seed, epoch):
            yield batch.tolist()

    def __len__(self) -> int:
        return len(self.plan(self.seed, self._epoch))

    def _place(self) -> tuple[int, int]:
        """How many processes there are, and which one this is."""
        replicas, rank = self.num_replicas or 1, self.rank or 0
        if 0 < len(self.lengths) < replicas:
            raise DataError(f"{len(self.lengths)} samples cannot be distributed over {replicas} processes")
        return replicas, rank

    def _order(self, per_step: int, generator: torch.Generator) -> Array:
        """All samples, those of like length near each other: in the order of their places plus random distances."""
        count = len(self.lengths)
        window = self.window or min(_WINDOW, max(1, -(-count // per_step) // 4))
        # Most samples of a batch are then close to its longest; distances spread evenly would pad an eighth more.
        distances = 1 - torch.rand(count, dtype=torch.float64, generator=generator).sqrt_().numpy()
        order: Array = np.argsort((window - 1) * self._places + _WIDTH * distances)
        return order

    @cached_property
    def _places(self) -> Array:
        """For each sample, by its length, a place from 0 to 1, as float64 [N].

        A batch whose samples come from a share w of the data wastes about w * l' / 2 for each, l' being how fast
        lengths grow with their rank; two of its samples meet again with a chance of 1 / w. For a given sum of these
        chances the waste is least where w is proportional to 1 / sqrt(l'). Places are the integral of 1 / w: from one
        length to the next, the root of their difference times the number of samples.
        """
        lengths = self.lengths >> max(0, int(self.lengths.max(initial=0)).bit_length() - _PRECISION)
        counts = np.bincount(lengths, minlength=1)
        values = np.flatnonzero(counts)
        places = np.zeros(len(counts))
        places[values[1:]] = np.cumsum(np.sqrt(np.diff(values) * counts[values[:-1]]))
        of_sample: Array = places[lengths] / max(1.0, places[-1])
        return of_sample

    def _by_size(self, replicas: int, generator: torch.Generator) -> tuple[Array, Array]:
        """The sorted order, and the cuts of each step's batches: int64 [steps, replicas, 2]."""
        per_step = (self.batch_size or 1) * replicas
        order = self._order(per_step, generator)
        whole, rest = divmod(len(order), per_step)
        sizes = np.full((whole, replicas), self.batch_size)
        if self.drop_last:
            out = torch.randperm(len(order), generator=generator)[:rest].numpy()
            order = np.delete(order, out)
        elif 0 < rest < replicas:
            sizes[-1, :rest] += 1  # too few for an own batch in every process
        elif rest:
            last = np.full(replicas, rest // replicas) + (np.arange(replicas) < rest % replicas)
            # Anywhere: as the last step, it would always hold the longest samples.
            place = int(torch.randint(0, len(sizes) + 1, (), generator=generator))
            sizes = np.insert(sizes, place, last, axis=0)
        ends = sizes.ravel().cumsum()
        return order, np.stack([ends - sizes.ravel(), ends], axis=1).reshape(-1, replicas, 2)

    def _by_tokens(self, replicas: int, generator: torch.Generator) -> tuple[Array, Array]:
        """As `_by_size`, with as many samples per batch as fit."""
        budget = self.tokens or 1
        per_batch = max(1, int(budget / max(1.0, float(self.lengths.mean())))) if len(self.lengths) else 1
        order = self._order(per_batch * replicas, generator)
        longest = np.maximum.accumulate(np.maximum(self.lengths[order], 1)).tolist()
        cuts = _split(_filled(longest, budget), replicas)
        return order, np.array(cuts, dtype=np.int64).reshape(-1, replicas, 2)


def _filled(lengths: list[int], budget: int) -> list[tuple[int, int]]:
    """Cut ascending lengths so that longest times number stays within the budget, as few times as possible."""
    cuts, begin = [], 0
    while begin < len(lengths):
        limit = min(len(lengths), begin + budget // lengths[begin])
        fits = bisect.bisect_right(
            range(begin + 1, limit + 1), budget, key=lambda stop: lengths[stop - 1] * (stop - begin)
        )
        cuts.append((begin, begin + fits))
        begin += fits
    return cuts


def _split(cuts: list[tuple[int, int]], replicas: int) -> list[tuple[int, int]]:
    """Halve the batches of most samples until every process gets the same number of batches."""
    while len(cuts) % replicas:
        number = max(range(len(cuts)), key=lambda place: cuts[place][1] - cuts[place][0])
        begin, end = cuts[number]
        if end - begin < 2:
            raise DataError(
                f"{len(cuts)} batches of one sample each cannot be spread evenly over {replicas} processes; "
                "allow more tokens or a larger window"
            )
        middle = (begin + end + 1) // 2
        cuts[number : number + 1] = [(begin, middle), (middle, end)]
    return cuts


def _checked_lengths(lengths: Any) -> Array:
    array = np.asarray(lengths)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ArgumentError(f"lengths must be whole numbers in one dimension, not {array.dtype} of shape {array.shape}")
    if array.size and array.min() < 0:
        raise ArgumentError(f"a length cannot be negative: sample {int(array.argmin())} has {array.min()}")
    return array.astype(np.int64)
