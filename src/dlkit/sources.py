"""Where batches come from: whatever the user hands to the Trainer, as something that can start at any batch.

A stock map-style `DataLoader` is rebuilt as a `dlkit.DataLoader` and seeks. Everything else (an `IterableDataset`, a
list of batches, a generator function's result, a loader with `state_dict`) is a stream: it goes on from its own saved
state where it has one, and is fast-forwarded otherwise.
"""

from __future__ import annotations

import copy
import functools
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, IterableDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from dlkit import rng
from dlkit.errors import ArgumentError, DataError, EmptyBatchError
from dlkit.lending import Lender
from dlkit.loader import LEFT_OUT, DataLoader

__all__ = ["Source", "source_of"]


class Source(Protocol):
    """An epoch's batches from any position on."""

    #: In words, how this source gets to a position: for the report of a resume.
    how: str
    #: What order and randomness are derived from; a resumed run puts the saved seed here.
    seed: int

    @property
    def num_batches(self) -> int | None:
        """Batches per epoch, None where nobody knows."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of `epoch` from number `start` on; `LEFT_OUT` for one that nothing is left of (see `present`)."""

    def indices(self, epoch: int, number: int) -> list[Any] | None:
        """Which samples batch `number` of `epoch` holds, None where nobody knows."""

    def describe(self) -> dict[str, Any]:
        """What must be the same when a run is resumed: kind, samples, batch size, batches."""

    def state_dict(self) -> dict[str, Any]:
        """What the source itself needs to go on, besides epoch and batch number."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the `state` that `state_dict` gave, before `batches` is called for that position."""


class _Seekable:
    """A `dlkit.DataLoader` with the seed it takes when it has none of its own."""

    how = "sought"

    def __init__(self, loader: DataLoader, seed: int) -> None:
        self.loader, self.seed = loader, seed

    @property
    def num_batches(self) -> int:
        return len(self.loader)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        return self.loader.planned(epoch, start, seed=self.seed)

    def indices(self, epoch: int, number: int) -> list[Any]:
        return self.loader.indices(epoch, number, seed=self.seed)

    def describe(self) -> dict[str, Any]:
        return {
            "samples": len(self.loader.dataset),
            "batch size": self.loader.batch_size,
            "batches": len(self.loader),
        }

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state


class _Ready:
    """A list or tuple of batches that already exist."""

    how = "sought"

    def __init__(self, batches: Sequence[Any]) -> None:
        self.ready, self.seed = batches, 0

    @property
    def num_batches(self) -> int:
        return len(self.ready)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        del epoch
        return itertools.islice(self.ready, start, None) if start else iter(self.ready)

    def indices(self, epoch: int, number: int) -> None:
        del epoch, number

    def describe(self) -> dict[str, Any]:
        return {"batches": len(self.ready)}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state


class _Stream:
    """Any iterable. Each batch is drawn with the global streams started from (seed, epoch, batch)."""

    def __init__(self, iterable: Iterable[Any], seed: int) -> None:
        self.iterable, self.seed = iterable, seed
        self._stateful = _stateful_part(iterable)
        self._state: dict[str, Any] | None = None
        self._begun = self._compared = False
        self._first: Any = None
        self._lender = Lender(draws=True)  # an iterator cannot be asked for a batch twice
        self.how = "restored from its own state" if self._stateful is not None else "fast-forwarded"

    @property
    def num_batches(self) -> int | None:
        try:
            return len(self.iterable)  # type: ignore[arg-type]
        except TypeError:
            return None

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        stream = rng.derive(self.seed, rng.FETCH, epoch)
        for part in (self.iterable, getattr(self.iterable, "dataset", None), getattr(self.iterable, "sampler", None)):
            if callable(set_epoch := getattr(part, "set_epoch", None)):
                set_epoch(epoch)
        restored = start > 0 and self._restore()
        with rng.isolated(stream):
            iterator = iter(self.iterable)
        if iterator is self.iterable and (epoch > 0 or self._begun):
            which = f"epoch {epoch + 1}" if epoch > 0 else "the second time"
            raise ArgumentError(
                f"{type(self.iterable).__name__} can be iterated only once, and this is {which}; "
                "pass an object whose __iter__ starts anew (a DataLoader, a list, a class), not an iterator"
            )
        self._begun = True
        for number in itertools.count(start if restored else 0):
            batch = self._lender.lend(rng.derive(stream, number), functools.partial(_next, iterator))
            if batch is _END:
                return
            if number < 2 and not restored:
                self._look_for_repeats(number, batch)
            if number >= start:
                yield batch

    def _look_for_repeats(self, number: int, batch: Any) -> None:
        """Compare the first batches of two workers, once: an `IterableDataset` may give each of them everything."""
        workers, dataset = getattr(self.iterable, "num_workers", 0), getattr(self.iterable, "dataset", None)
        if number == 0:
            self._first = batch
            return
        if not self._compared and workers > 1 and isinstance(dataset, IterableDataset) and _same(self._first, batch):
            warnings.warn(
                f"two of the {workers} workers gave the same first batch: {type(dataset).__name__} seems to give all "
                f"its samples to every worker, so each would count {workers} times. Let its __iter__ take every n-th, "
                "itertools.islice(samples, info.id, None, info.num_workers) with torch.utils.data.get_worker_info(), "
                "or use one worker",
                stacklevel=2,
            )
        self._compared, self._first = True, None

    def indices(self, epoch: int, number: int) -> None:
        del epoch, number

    def describe(self) -> dict[str, Any]:
        known = {"batches": self.num_batches, "batch size": getattr(self.iterable, "batch_size", None)}
        return {name: value for name, value in known.items() if value is not None}

    def state_dict(self) -> dict[str, Any]:
        return {} if self._stateful is None else {"state": copy.deepcopy(self._stateful.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state.get("state")

    def _restore(self) -> bool:
        if self._stateful is None or self._state is None:
            return False
        self._stateful.load_state_dict(self._state)
        self._state = None
        return True


_STREAM_SETTINGS = (
    "batch_size",
    "drop_last",
    "collate_fn",
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
)
_END = object()


def _next(iterator: Iterator[Any]) -> Any:
    """The next batch, `_END` after the last. A loader of torch goes on after a batch that nothing is left of."""
    try:
        return next(iterator, _END)
    except EmptyBatchError:
        if isinstance(iterator, _BaseDataLoaderIter):
            return LEFT_OUT
        raise


def _same(one: Any, two: Any) -> bool:
    """Whether two batches hold the same values."""
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(_same(one[name], two[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    return type(one) is type(two) and bool(np.all(np.asarray(one == two)))


def _stateful_part(iterable: Any) -> Any:
    """The loader, or its dataset, if it can save its position; a dataset in worker processes cannot tell it to us."""
    candidates = [iterable]
    if getattr(iterable, "num_workers", 0) == 0:
        candidates.append(getattr(iterable, "dataset", None))
    for part in candidates:
        if callable(getattr(part, "state_dict", None)) and callable(getattr(part, "load_state_dict", None)):
            return part
    return None


def source_of(loader: Any, seed: int, *, pin_memory: bool = False) -> Source:
    """Whatever the user hands over, as a `Source`.

    Args:
        loader: A `dlkit.DataLoader`, a stock `DataLoader`, or any iterable of batches.
        seed: What order and augmentation are derived from, unless a `dlkit.DataLoader` has its own.
        pin_memory: Put batches of rebuilt loaders into page-locked memory.

    >>> list(source_of([1, 2, 3], seed=0).batches(epoch=0, start=1))
    [2, 3]
    """
    if type(loader) is TorchDataLoader and not isinstance(loader.dataset, IterableDataset):
        loader = DataLoader.adopt(loader)
        loader.pin_memory = loader.pin_memory or pin_memory
    if isinstance(loader, DataLoader):
        return _Seekable(loader, seed)
    _check_no_name(loader)
    if isinstance(loader, list | tuple):
        return _Ready(loader)
    if isinstance(loader, TorchDataLoader) and loader.persistent_workers:
        # Workers that live on draw on where the last epoch ended, so a resumed epoch could not be the same.
        settings = {name: getattr(loader, name) for name in _STREAM_SETTINGS}
        loader = TorchDataLoader(loader.dataset, **settings)
    _check_loader(loader)
    return _Stream(loader, seed)


def _check_no_name(loader: Any) -> None:
    """Refuse names of files in the place of batches, one or a list of them."""
    first = loader[0] if isinstance(loader, list | tuple) and loader else loader
    if isinstance(first, str | bytes | os.PathLike):
        raise ArgumentError(
            f"{first!r:.80} is a path or a name, not batches; open it as a dataset (dlkit.datasets) and pass "
            "DataLoader(dataset, batch_size=32); what predicts from files is a model file: "
            "dlkit.load(trainer.save('model.safetensors')).predict_file(...)"
        )


def _check_loader(loader: Any) -> None:
    """Refuse what can be iterated, but does not give batches."""
    if isinstance(loader, Dataset):
        raise ArgumentError(
            f"{type(loader).__name__} is a dataset, whose samples would be taken for batches; "
            "pass DataLoader(dataset, batch_size=32)"
        )
    name = f"the class {loader.__name__}" if isinstance(loader, type) else type(loader).__name__
    if isinstance(loader, type) or not hasattr(loader, "__iter__"):
        raise ArgumentError(f"expected a DataLoader or an iterable of batches, not {name}")
    if isinstance(loader, torch.Tensor | np.ndarray | Mapping | Set) or hasattr(loader, "iloc"):
        raise ArgumentError(
            f"{name} is data, whose rows or names would be taken for batches; pass "
            "DataLoader(TensorDataset(inputs, targets), batch_size=32), or a list of batches"
        )


def present(batches: Iterable[Any]) -> Iterator[Any]:
    """Batches without those that were left out, for whom the numbers do not matter.

    Args:
        batches: What a source gave.
    """
    return (batch for batch in batches if batch is not LEFT_OUT)


def nothing_left(count: int, epoch: int) -> DataError:
    """The error for an epoch of batches that all were left out."""
    return DataError(
        f"all {count} batches of epoch {epoch + 1} were left out, because none of their samples can be read; the "
        "dataset's .errors lists the files"
    )


def nothing(source: Source, epoch: int) -> DataError:
    """The error for a source that gave no batch at all."""
    size = f" (its length is {source.num_batches})" if source.num_batches is not None else ""
    return DataError(
        f"the loader yielded no batch in epoch {epoch + 1}{size}; is the dataset empty, or smaller than one batch "
        "with drop_last=True?"
    )
