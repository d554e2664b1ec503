"""Fetching samples in the dataset's order, and noticing whether random numbers were drawn for them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import SequentialSampler

from dlkit import rng
from dlkit.loader import DataLoader

__all__ = ["in_order"]


def in_order(loader: DataLoader, view: int, first: int, *, seed: int, size: int) -> Iterator[tuple[Any, bool]]:
    """A loader's samples in the dataset's order: each batch with whether random numbers were drawn for it.

    Args:
        loader: Its dataset, collate function and workers are used.
        view: Another one gives other random numbers.
        first: The batch to begin with.
        seed: Of the random numbers.
        size: Of the batches.
    """
    watched = _Watched(loader.dataset, loader.collate_fn)
    settings = {name: value for name, value in loader._settings.items() if name != "persistent_workers"}
    sampler = SequentialSampler(loader.dataset)
    ordered = DataLoader(watched, size, sampler=sampler, collate_fn=watched.collate, **settings)
    return ordered.batches(view, first, seed=seed)


class _Watched:
    """A dataset and its collate function, watched for random numbers that they draw."""

    def __init__(self, dataset: Any, collate_fn: Callable[[Any], Any]) -> None:
        self.dataset, self.collate_fn = dataset, collate_fn
        self.takes_index_tensors = bool(getattr(dataset, "takes_index_tensors", False))
        self._before: Any = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Any) -> Any:
        self._before = self._streams()
        if (whole := getattr(self.dataset, "__getitems__", None)) is not None:
            return whole(indices)
        return [self.dataset[index] for index in indices]

    def collate(self, samples: Any) -> tuple[Any, bool]:
        """The batch, and whether fetching and collating it drew random numbers."""
        batch = self.collate_fn(samples)
        by_epoch = callable(getattr(self.dataset, "set_epoch", None))  # others in each epoch, which is as good
        return batch, by_epoch or self._before != self._streams()

    def set_epoch(self, epoch: int) -> None:
        """Passed on to a dataset that has it."""
        if callable(set_epoch := getattr(self.dataset, "set_epoch", None)):
            set_epoch(epoch)

    def _streams(self) -> Any:
        own = [str(_state(generator)) for generator in rng.find_generators(self.dataset, self.collate_fn)]
        state: Any = np.random.get_state(legacy=False)
        return random.getstate(), state["state"]["pos"], state["state"]["key"].tobytes(), _torch_state(), own


def _torch_state() -> bytes:
    return torch.default_generator.get_state().numpy().tobytes()


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state().tolist()
    return generator.getstate() if isinstance(generator, random.Random) else generator.bit_generator.state
