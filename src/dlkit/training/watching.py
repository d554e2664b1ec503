"""Fetching samples in the dataset's order, and finding out whether they are a function of their place alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import SequentialSampler, TensorDataset, default_collate

from dlkit import rng
from dlkit._fetching import Mine
from dlkit._nested import same
from dlkit.loader import DataLoader
from dlkit.wrappers import parts_of, view_of

__all__ = ["Fetched", "in_order"]


class Fetched(NamedTuple):
    """A batch, and what it depends on.

    Attributes:
        batch: As the loader's collate function made it.
        drew: Random numbers were drawn for it from a stream that dlkit seeds, or it may change with the epoch.
        repeats: Fetched again from the same seed it was the same, bit for bit.
    """

    batch: Any
    drew: bool
    repeats: bool


def in_order(loader: DataLoader, view: int, first: int, *, seed: int, size: int, mine: Mine = None) -> Iterator[Any]:
    """A loader's samples in the dataset's order, in batches: `Fetched`, or what stands instead of a batch.

    Args:
        loader: Its dataset, collate function and workers are used.
        view: Another one gives other random numbers.
        first: The batch to begin with.
        seed: Of the random numbers.
        size: Of the batches.
        mine: Which batches to fetch, see `DataLoader.planned`.
    """
    watched = _Watched(loader.dataset, loader.collate_fn)
    settings = {name: value for name, value in loader._settings.items() if name != "persistent_workers"}
    sampler = SequentialSampler(loader.dataset)
    ordered = DataLoader(watched, size, sampler=sampler, collate_fn=watched.collate, **settings)
    return ordered.planned(view, first, seed=seed, mine=mine)


class _Watched:
    """A dataset and its collate function, watched for random numbers that they draw.

    The streams that dlkit seeds are looked at before and after each fetch. A generator that it cannot know (in a
    closure, in a module, made again by each call) shows when a batch is fetched again from the same seed; that is left
    out where all randomness is known to come from the seeds.
    """

    def __init__(self, dataset: Any, collate_fn: Callable[[Any], Any]) -> None:
        self.users, self.collate_fn = view_of(dataset), collate_fn
        self.owners = (dataset, collate_fn)
        self.takes_index_tensors = bool(getattr(self.users, "takes_index_tensors", False))
        self._knows = _is_seeded(dataset) and _is_plain(collate_fn, self.users)
        self._before: Any = None
        self._indices: Any = None

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Any) -> Any:
        self._indices, self._before = indices, self._state()
        return self._fetched(indices)

    def _fetched(self, indices: Any) -> Any:
        if (whole := getattr(self.users, "__getitems__", None)) is not None:
            return whole(indices)
        return [self.users[index] for index in indices]

    def collate(self, samples: Any) -> Fetched:
        """The batch, with what was found out about it.

        Args:
            samples: What `__getitems__` gave.
        """
        batch = self.collate_fn(samples)
        by_epoch = callable(getattr(self.users, "set_epoch", None))  # others in each epoch, which is as good
        drew = by_epoch or not same(self._before, self._state())
        return Fetched(batch, drew, self._knows or self._repeats(batch))

    def _repeats(self, batch: Any) -> bool:
        self._start_again()
        return same(batch, self.collate_fn(self._fetched(self._indices)))

    def set_epoch(self, epoch: int) -> None:
        """Passed on to a dataset that has it.

        Args:
            epoch: 0 for the first one.
        """
        if callable(set_epoch := getattr(self.users, "set_epoch", None)):
            set_epoch(epoch)

    def _owned(self) -> list[rng.Generator]:
        return rng.find_generators(*self.owners)

    def _state(self) -> list[Any]:
        streams = [random.getstate(), np.random.get_state(legacy=False), torch.default_generator.get_state()]
        return [*streams, *map(rng.state_of, self._owned())]

    def _start_again(self) -> None:
        python, numpy_state, cpu, *owned = self._before
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.default_generator.set_state(cpu)
        for generator, state in zip(self._owned(), owned, strict=False):
            rng.put_back(generator, state)


def _is_seeded(dataset: Any) -> bool:
    """Whether a dataset says that it draws nothing, or nothing but from the streams that dlkit seeds."""
    if parts := parts_of(dataset):
        return all(_is_seeded(part) for part in parts)
    draws = getattr(dataset, "draws_random", True)
    return type(dataset) is TensorDataset or not draws or bool(getattr(dataset, "draws_seeded", False))


def _is_plain(collate_fn: Any, dataset: Any) -> bool:
    """Whether a collate function is torch's or the dataset's own."""
    return collate_fn is default_collate or getattr(dataset, "collate", None) == collate_fn
