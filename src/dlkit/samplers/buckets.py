"""`LengthBuckets`: batches of samples of nearly equal length, in an order that tells nothing about length."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlkit import rng
from dlkit._arguments import whole_number
from dlkit.errors import ArgumentError, DataError

__all__ = ["LengthBuckets"]

Array = np.ndarray[Any, Any]
_WINDOW = 100  # batches: for lengths spread evenly, about 1 % of padding


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

    Samples are shuffled, taken in windows of `window` batches, sorted by length inside each window and cut into
    batches; then the batches of all windows are shuffled. A larger window means less padding (for lengths spread evenly
    between 0 and twice the mean, about 1 / `window` of the batch) and batches whose samples are less random a choice.

    It is a planner, a pure function of (seed, epoch): give it to `dlkit.DataLoader(..., batch_sampler=...)`, where any
    batch of any epoch can be asked for. It is also a batch sampler for a stock `DataLoader`; iterating it again
    gives the next epoch, `set_epoch` says which. Datasets of texts bring it along by themselves.

    Args:
        lengths: The length of each sample, integers [N]; `ds.lengths` of a dataset of texts.
        batch_size: Samples per batch, 64 unless `tokens` is given.
        tokens: Instead of `batch_size`: each batch holds as many samples as fit when padded, that is longest times
            number of samples is at most this.
        seed: Mixed into the loader's seed; the seed where a stock loader iterates it.
        window: How many batches are sorted together: 100, or a quarter of the epoch's batches where that is less.
        drop_last: Leave out random samples so that all batches are full; not with `tokens`.
        num_replicas: Over how many processes an epoch is spread; that of `torch.distributed`, 1 without it. All get the
            same number of batches, and their batches of one step are neighbours in length, so no process waits. Where
            samples are left that are fewer than processes, some batches of the last step hold one more.
        rank: Which of them this is.

    Raises:
        ArgumentError: settings that cannot be meant; a sample longer than `tokens`.

    >>> buckets = LengthBuckets([5, 1, 4, 1, 5, 9, 2, 6], batch_size=2, seed=0, window=4)
    >>> sorted(sorted(batch.tolist()) for batch in buckets.plan(seed=0, epoch=0))
    [[0, 4], [1, 3], [2, 6], [5, 7]]
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
        order = torch.randperm(len(self.lengths), generator=generator).numpy()
        order, steps = (self._by_size if self.tokens is None else self._by_tokens)(order, replicas, generator)
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
        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        replicas = self.num_replicas or (1 if alone else torch.distributed.get_world_size())
        rank = self.rank if self.rank is not None else 0 if alone else torch.distributed.get_rank()
        if 0 < len(self.lengths) < replicas:
            raise DataError(f"{len(self.lengths)} samples cannot be spread over {replicas} processes")
        return replicas, rank

    def _windows(self, num_samples: int, per_step: int) -> Array:
        """Where the windows begin and end; the last one also holds what is too little for an own one."""
        window = self.window or min(_WINDOW, max(1, -(-num_samples // per_step) // 4))
        count = max(1, num_samples // (window * per_step))
        return np.append(np.arange(count) * (window * per_step), num_samples)

    def _sorted(self, order: Array, windows: Array) -> Array:
        """The order with each window sorted by length; samples of equal length stay in random order."""
        lengths, size = self.lengths[order], windows[1] - windows[0]
        *_, begin, end = windows
        whole = np.argsort(lengths[:begin].reshape(-1, size), axis=1, kind="stable")
        places = [(whole + windows[:-2, None]).ravel(), begin + np.argsort(lengths[begin:end], kind="stable")]
        in_windows: Array = order[np.concatenate(places)]
        return in_windows

    def _by_size(self, order: Array, replicas: int, generator: torch.Generator) -> tuple[Array, Array]:
        """The sorted order, and the cuts of each step's batches: int64 [steps, replicas, 2]."""
        per_step = (self.batch_size or 1) * replicas
        if self.drop_last:
            order = order[: len(order) - len(order) % per_step]
        if not len(order):
            return order, np.zeros((0, replicas, 2), dtype=np.int64)
        windows = self._windows(len(order), per_step)
        whole, rest = divmod(len(order), per_step)
        sizes = np.full((whole, replicas), self.batch_size)
        if 0 < rest < replicas:
            sizes[-1, :rest] += 1  # too few for an own batch in every process
        elif rest:
            last = np.full(replicas, rest // replicas) + (np.arange(replicas) < rest % replicas)
            # Anywhere in the last window: as its last step, it would always hold the longest samples.
            first = int(windows[-2]) // per_step
            place = int(torch.randint(first, len(sizes) + 1, (), generator=generator))
            sizes = np.insert(sizes, place, last, axis=0)
        ends = sizes.ravel().cumsum()
        return self._sorted(order, windows), np.stack([ends - sizes.ravel(), ends], axis=1).reshape(-1, replicas, 2)

    def _by_tokens(self, order: Array, replicas: int, generator: torch.Generator) -> tuple[Array, Array]:
        """As `_by_size`, with as many samples per batch as fit."""
        if not len(order):
            return order, np.zeros((0, replicas, 2), dtype=np.int64)
        budget = self.tokens or 1
        per_step = max(1, int(budget / max(1.0, float(self.lengths.mean())))) * replicas
        windows = self._windows(len(order), per_step)
        order = self._sorted(order, windows)
        lengths = np.maximum(self.lengths[order], 1).tolist()
        cuts: list[tuple[int, int]] = []
        for begin, end in zip(windows[:-1].tolist(), windows[1:].tolist(), strict=True):
            cuts += _split(_filled(lengths, begin, end, budget), replicas)
        return order, np.array(cuts, dtype=np.int64).reshape(-1, replicas, 2)


def _filled(lengths: list[int], begin: int, end: int, budget: int) -> list[tuple[int, int]]:
    """Cut ascending lengths so that longest times number stays within the budget, as few times as possible."""
    cuts = []
    while begin < end:
        limit = min(end, begin + budget // lengths[begin])
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
