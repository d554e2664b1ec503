"""One batch of a loader: what says which one, and the fetch of it in the random state that belongs to it.

Also what stands instead of a batch that there is none of here.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, default_collate, default_convert, get_worker_info

from dlkit import lending, rng
from dlkit.errors import ArgumentError, EmptyBatchError
from dlkit.wrappers import tensors_behind

__all__ = [
    "ELSEWHERE",
    "Fetcher",
    "Introduction",
    "LEFT_OUT",
    "Mine",
    "Task",
    "as_it_is",
    "convert_one",
    "dealt",
    "end_workers",
    "start_workers",
]


class _InPlace:
    """What stands instead of a batch: a single object of its name, in every process.

    Args:
        name: Of this module.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


#: In the place of a batch that nothing is left of, so that batches are still numbered as they were planned.
LEFT_OUT = _InPlace("LEFT_OUT")
#: In the place of a batch that another process works on.
ELSEWHERE = _InPlace("ELSEWHERE")
#: Whether this process works on the batch of a number; None where it works on all.
Mine = Callable[[int], bool] | None


def dealt(batches: Iterator[Any], start: int, mine: Mine) -> Iterator[Any]:
    """Batches with `ELSEWHERE` instead of those that other processes work on.

    Args:
        batches: All of them.
        start: The number of the first one.
        mine: Which numbers are this process's.

    >>> list(dealt(iter("abc"), 0, lambda number: number != 1))
    ['a', ELSEWHERE, 'c']
    """
    if mine is None:
        return batches
    return (batch if mine(number) else ELSEWHERE for number, batch in enumerate(batches, start))


def end_workers(batches: Any) -> None:
    """End the worker processes behind batches of torch, unless they serve the next epoch, too.

    Where nobody does, they live as long as the traceback of an error that came through them; and who collects garbage
    with them in it waits five seconds, because the queue by which torch tells them is closed first.

    Args:
        batches: What `iter` gave of any loader.
    """
    if callable(end := getattr(batches, "_shutdown_workers", None)) and not batches._persistent_workers:
        end()


def start_workers(loader: Iterable[Any], workers: int, method: str) -> Iterator[Any]:
    """The batches of a loader of torch, whose workers start here.

    Args:
        loader: The one of torch.
        workers: How many it has.
        method: "fork", "forkserver" or "spawn".

    Raises:
        ArgumentError: they start as new processes, and what they need cannot be pickled for them.
    """
    if method == "fork":
        return iter(loader)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got pickle error", UserWarning)  # torch says it beside the error
            return iter(loader)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if not re.search(r"pickle|local object", str(error)):  # not of pickling: a sampler's own, for example
            raise
        raise ArgumentError(
            f"num_workers={workers}: the workers start as new processes here ({method!r}), so dataset, "
            f"transforms and collate_fn must be picklable: {error}. Define classes and functions at the top of a "
            "module, not in a function and not as a lambda; or take num_workers=0, or, on Linux, "
            "multiprocessing_context='fork'"
        ) from error


class Task(NamedTuple):
    """One batch to fetch: what a worker gets instead of a bare list of indices."""

    epoch: int
    number: int
    seed: int
    indices: Any


class Fetcher(Dataset[Any]):
    """The user's dataset and collate function, run in the random state that belongs to the batch."""

    def __init__(self, dataset: Any, collate_fn: Callable[[Any], Any], *, batched: bool) -> None:
        self.dataset, self.collate_fn, self.batched = dataset, collate_fn, batched
        # Stacking a TensorDataset's rows one by one gives the same tensors as indexing them, seven times slower.
        self.whole = collate_fn is default_collate and tensors_behind(dataset, []) is not None
        self.takes_tensors = self.whole or bool(getattr(dataset, "takes_index_tensors", False))
        # None: nobody has said so. What a dataset says of itself does not hold for somebody else's collate function.
        known = getattr(dataset, "draws_random", None) if _is_of(dataset, collate_fn) else None
        self.draws_random: bool | None = None if known is None else bool(known)
        if self.whole:
            self.draws_random = False
        self.needs_no_worker = bool(getattr(dataset, "needs_no_worker", False))
        #: The user's own objects, where `dataset` is a stand-in of dlkit's for them.
        self.owners: tuple[Any, Any] = getattr(dataset, "owners", (getattr(dataset, "viewed", dataset), collate_fn))
        self._generators: list[rng.Generator] | None = None
        self._epoch: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A worker begins its epochs itself, and finds the generators again among its copies.
        return self.__dict__ | {"_generators": None, "_epoch": None}

    def __getitems__(self, task: Task) -> Any:
        """Fetch and collate one batch in a worker: torch's fetcher calls this with what the batch sampler gave."""
        if task.indices is None:
            return LEFT_OUT  # this worker has nothing to do for a turn
        if self.draws_random is not False:
            lending.start(task.seed)
        return self.fetch(task)

    def fetch(self, task: Task) -> Any:
        """Fetch and collate one batch; the global streams have been started from its seed."""
        if task.epoch != self._epoch:
            self._begin_epoch(task.epoch)
        if self._generators:
            rng.reseed(self._generators, task.seed)
        try:
            if self.whole and isinstance(task.indices, torch.Tensor):
                data, rows = tensors_behind(self.dataset, task.indices) or (self.dataset, task.indices)
                return _rows_of(data.tensors, rows)
            return self.collate_fn(self._samples(task.indices))
        except EmptyBatchError:
            return LEFT_OUT
        except Exception as error:
            error.add_note(f"while fetching batch {task.number} of epoch {task.epoch}, samples {_shown(task.indices)}")
            raise

    def _begin_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        if self._generators is None:
            self._generators = rng.find_generators(*self.owners) if self.draws_random is not False else []
        if callable(set_epoch := getattr(self.dataset, "set_epoch", None)):
            set_epoch(epoch)

    def _samples(self, indices: Any) -> Any:
        if not self.takes_tensors and isinstance(indices, torch.Tensor):
            indices = indices.tolist()
        if not self.batched:
            return self.dataset[indices[0]]
        if (whole := getattr(self.dataset, "__getitems__", None)) is not None:
            return whole(indices)
        return [self.dataset[index] for index in indices]


class Introduction:
    """In the place of a `worker_init_fn`: `get_worker_info().dataset` is the user's dataset, also for what comes later.

    Args:
        then: The user's own, or None.
    """

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker: int) -> None:
        info: Any = get_worker_info()
        object.__setattr__(info, "dataset", info.dataset.owners[0])  # torch keeps the fetcher for itself elsewhere
        if self.then is not None:
            self.then(worker)


def _rows_of(tensors: tuple[torch.Tensor, ...], indices: torch.Tensor) -> list[torch.Tensor]:
    """A batch of a `TensorDataset`; `index_select` is the faster one, but knows no places counted from the end."""
    try:
        return [tensor.index_select(0, indices) for tensor in tensors]
    except (IndexError, RuntimeError):
        return [tensor[indices] for tensor in tensors]


def as_it_is(batch: Any) -> Any:
    return batch


def convert_one(sample: Any) -> Any:
    return default_convert(sample)


def _is_of(dataset: Any, collate_fn: Any) -> bool:
    """Whether a collate function is the dataset's own, or torch's, which draws nothing."""
    return collate_fn in (default_collate, convert_one, getattr(dataset, "collate", None))


def _shown(indices: Any) -> str:
    values = indices.tolist() if isinstance(indices, torch.Tensor) else list(indices)
    return str(values) if len(values) <= 64 else f"{str(values[:64])[:-1]}, ... {len(values)} in all]"
