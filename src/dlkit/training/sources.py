"""Where batches come from: whatever the user hands to the Trainer, as something that can start at any batch.

A stock map-style `DataLoader` is rebuilt as a `dlkit.DataLoader` and seeks, a list of batches is looked up. Everything
else (an `IterableDataset`, a WebLoader, a generator function's result, a loader with `state_dict`) is a
`dlkit.streams.Stream`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, IterableDataset

from dlkit import rng
from dlkit._fetching import ELSEWHERE, LEFT_OUT, Mine, dealt
from dlkit.errors import ArgumentError, DataError
from dlkit.loader import DataLoader
from dlkit.streams import Stream

__all__ = ["Source", "Wrapping", "source_of"]


class Source(Protocol):
    """An epoch's batches from any position on."""

    #: What order and randomness are derived from; a resumed run puts the saved seed here.
    seed: int

    @property
    def how(self) -> str:
        """In words, how this source gets to a position: for the report of a resume."""

    @property
    def num_batches(self) -> int | None:
        """Batches per epoch, None if unknown."""

    def batches(self, epoch: int, start: int = 0, mine: Mine = None) -> Iterator[Any]:
        """The batches of `epoch` from number `start` on; `LEFT_OUT` for one that nothing is left of (see `present`).

        Args:
            epoch: 0 for the first one.
            start: The number of the first batch.
            mine: Which numbers this process works on, `ELSEWHERE` stands for the others; None for all.
        """

    def indices(self, epoch: int, number: int) -> list[Any] | None:
        """Which samples batch `number` of `epoch` holds, None if unknown."""
        return None

    def describe(self) -> dict[str, Any]:
        """What must be the same when a run is resumed: kind, samples, batch size, batches."""

    def state_dict(self) -> dict[str, Any]:
        """What the source itself needs to continue, besides epoch and batch number."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the `state` that `state_dict` gave, before `batches` is called for that position."""
        return

    def kept(self) -> AbstractContextManager[None]:
        """A block after which the user's own sampler stands where it stood, whatever batches were taken in it."""
        return contextlib.nullcontext()


class Wrapping(Source):
    """A source that changes what another one gives, and leaves to it what it does not change.

    Args:
        source: The other one.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def how(self) -> str:
        return self.source.how

    @property
    def seed(self) -> int:
        """The other one's."""
        return self.source.seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self.source.seed = seed

    @property
    def num_batches(self) -> int | None:
        return self.source.num_batches

    def batches(self, epoch: int, start: int = 0, mine: Mine = None) -> Iterator[Any]:
        return self.source.batches(epoch, start, mine)

    def indices(self, epoch: int, number: int) -> list[Any] | None:
        return self.source.indices(epoch, number)

    def describe(self) -> dict[str, Any]:
        return self.source.describe()

    def state_dict(self) -> dict[str, Any]:
        return self.source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.source.load_state_dict(state)

    def kept(self) -> AbstractContextManager[None]:
        return self.source.kept()


class _Seekable(Source):
    """A `dlkit.DataLoader` with the seed it takes when it has none of its own."""

    how = "restored directly"

    def __init__(self, loader: DataLoader, seed: int) -> None:
        self.loader, self.seed = loader, seed

    @property
    def num_batches(self) -> int:
        return len(self.loader)

    def batches(self, epoch: int, start: int = 0, mine: Mine = None) -> Iterator[Any]:
        return self.loader.planned(epoch, start, seed=self.seed, mine=mine)

    def indices(self, epoch: int, number: int) -> list[Any]:
        return self.loader.indices(epoch, number, seed=self.seed)

    def describe(self) -> dict[str, Any]:
        return {
            "samples": len(self.loader.dataset),
            "batch size": self.loader.batch_size,
            "batches": len(self.loader),
        }

    def state_dict(self) -> dict[str, Any]:
        return self.loader.order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.order.load_state_dict(state)

    def kept(self) -> AbstractContextManager[None]:
        return self.loader.order.kept()


class _Ready(Source):
    """A list or tuple of batches that already exist."""

    how = "restored directly"

    def __init__(self, batches: Sequence[Any]) -> None:
        self.ready, self.seed = batches, 0

    @property
    def num_batches(self) -> int:
        return len(self.ready)

    def batches(self, epoch: int, start: int = 0, mine: Mine = None) -> Iterator[Any]:
        del epoch
        return dealt(itertools.islice(self.ready, start, None) if start else iter(self.ready), start, mine)

    def describe(self) -> dict[str, Any]:
        return {"batches": len(self.ready)}


class _Shares(Source):
    """A stream whose dataset says how it is cut: a step takes one batch of each of so many shares of it.

    A process opens the shares of its own batches only. Where one ends earlier, the steps continue with the others.
    """

    how, num_batches = "fast-forwarded", None

    def __init__(self, loader: TorchDataLoader[Any], seed: int, count: int) -> None:
        settings = {name: getattr(loader, name) for name in _STREAM_SETTINGS}
        dataset: Any = loader.dataset
        self.seed = seed
        self._shares = [
            Stream(TorchDataLoader(dataset.share(place, count), **settings), seed) for place in range(count)
        ]

    def batches(self, epoch: int, start: int = 0, mine: Mine = None) -> Iterator[Any]:
        count = len(self._shares)
        running = dict[int, Iterator[Any]]()
        for place, stream in enumerate(self._shares):
            if mine is None or mine(place):
                stream.seed = rng.derive(self.seed, place)
                running[place] = stream.batches(epoch, max(0, -(-(start - place) // count)))
        while True:
            step: list[Any] = [ELSEWHERE] * count
            for place, batches in running.items():
                step[place] = next(batches, LEFT_OUT)
            if all(step[place] is LEFT_OUT for place in running):
                return
            yield from step

    def describe(self) -> dict[str, Any]:
        return {"shares": len(self._shares)}


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


def source_of(loader: Any, seed: int, *, pin_memory: bool = False, shares: int = 1) -> Source:
    """Whatever the user hands over, as a `Source`.

    Args:
        loader: A `dlkit.DataLoader`, a stock `DataLoader`, or any iterable of batches.
        seed: What order and augmentation are derived from, unless a `dlkit.DataLoader` has its own.
        pin_memory: Put batches of rebuilt loaders into page-locked memory.
        shares: Into how many shares a stream is cut, where its dataset says how: `share(place, of)` gives one of them.

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
    if isinstance(loader, TorchDataLoader) and shares > 1 and callable(getattr(loader.dataset, "share", None)):
        return _Shares(loader, seed, shares)
    if isinstance(loader, TorchDataLoader) and loader.persistent_workers:
        # Workers that live on draw on where the last epoch ended, so a resumed epoch could not be the same.
        settings = {name: getattr(loader, name) for name in _STREAM_SETTINGS}
        loader = TorchDataLoader(loader.dataset, **settings)
    _check_loader(loader)
    return Stream(loader, seed)


def _check_no_name(loader: Any) -> None:
    """Refuse names of files instead of batches, one or a list of them."""
    first = loader[0] if isinstance(loader, list | tuple) and loader else loader
    if isinstance(first, str | bytes | os.PathLike):
        raise ArgumentError(
            f"{first!r:.80} is a path or a name, not batches; open it as a dataset (dlkit.datasets) and pass "
            "DataLoader(dataset, batch_size=32); what predicts from files is a model file: "
            "dlkit.load(trainer.save('model.safetensors')).predict_file(...)"
        )


def _check_loader(loader: Any) -> None:
    """Refuse what can be iterated, but does not give batches."""
    if isinstance(loader, Dataset) and not _wraps_a_loader(loader):
        raise ArgumentError(
            f"{type(loader).__name__} is a dataset, whose samples would be taken for batches; "
            "pass DataLoader(dataset, batch_size=32), or batch_size=None if what it gives are batches"
        )
    name = f"the class {loader.__name__}" if isinstance(loader, type) else type(loader).__name__
    if isinstance(loader, type) or not hasattr(loader, "__iter__"):
        raise ArgumentError(f"expected a DataLoader or an iterable of batches, not {name}")
    if isinstance(loader, torch.Tensor | np.ndarray | Mapping | Set) or hasattr(loader, "iloc"):
        raise ArgumentError(
            f"{name} is data, whose rows or names would be taken for batches; pass "
            "DataLoader(TensorDataset(inputs, targets), batch_size=32), or a list of batches"
        )


def _wraps_a_loader(data: Dataset[Any]) -> bool:
    """Whether a dataset passes on the batches of a loader inside it, as a WebLoader of webdataset does."""
    inside = [*vars(data).values(), *getattr(data, "pipeline", ())]
    return isinstance(data, IterableDataset) and any(isinstance(each, TorchDataLoader) for each in inside)


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
        "dataset's .skipped lists the files"
    )


def nothing(source: Source, epoch: int) -> DataError:
    """The error for a source that gave no batch at all."""
    size = f" (its length is {source.num_batches})" if source.num_batches is not None else ""
    return DataError(
        f"the loader yielded no batch in epoch {epoch + 1}{size}; is the dataset empty, or smaller than one batch "
        "with drop_last=True?"
    )
