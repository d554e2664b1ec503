"""`DataLoader`: the same batches for any number of workers, and any batch of any epoch by looking it up.

Order is f(seed, epoch), from `dlkit.samplers`. The random state in which a batch is fetched is f(seed, epoch, batch):
the seed travels to the worker inside the index batch and is set right before the fetch, so prefetching, persistent
workers and restarts need no state at all. In this process the streams are only lent to the fetch, see `dlkit.lending`:
what your own loop draws does not depend on where the batch was fetched, nor on what was drawn for it.
"""

from __future__ import annotations

import itertools
import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import (
    RandomSampler,
    Sampler,
    SequentialSampler,
    default_collate,
)
from torch.utils.data._utils.pin_memory import pin_memory as pin

from dlkit import lending, rng
from dlkit._arguments import switch, whole_number
from dlkit._cores import one_thread
from dlkit._fetching import (
    ELSEWHERE,
    LEFT_OUT,
    Fetcher,
    Introduction,
    Mine,
    Task,
    as_it_is,
    convert_one,
    end_workers,
    start_workers,
)
from dlkit._handout import Handout, Owned
from dlkit._loader_arguments import WORKER_SETTINGS, check_dataset, check_order, checked_settings
from dlkit.distributed import World
from dlkit.errors import DataError
from dlkit.samplers.epochs import EpochOrder
from dlkit.samplers.order import Plan, Planner, index_batch, index_batches, planner_of
from dlkit.samplers.share import Share
from dlkit.wrappers import view_of

__all__ = ["DataLoader"]


class _Tasks(Sampler[Any]):
    """The batch sampler of the inner loader: gives the tasks of whichever epoch was set last."""

    def __init__(self) -> None:
        self.current: Iterator[Task] = iter(())

    def __iter__(self) -> Iterator[Task]:
        return self.current


class DataLoader:
    """Like torch's `DataLoader`, with batches that depend on nothing but the data, the seed and the epoch.

    Works in your own loop and in the Trainer. Iterating it again gives the next epoch's order. For any `num_workers`
    the batches are bit for bit the same, also when the dataset draws from `random`, `numpy.random` or torch.
    Datasets of dlkit bring their own way of batching (bucketing by length, padding), used unless you pass a
    `sampler`, `batch_sampler` or `collate_fn`.

    Workers that start as new processes ("spawn", "forkserver") import torch first, which takes seconds. Where the
    dataset has a true attribute `needs_no_worker`, as image datasets have, this process fetches the first batch
    meanwhile; the second one waits for the workers, and an epoch with only one batch left starts none. Give it to your
    own dataset that any process may fetch from: one that does without `torch.utils.data.get_worker_info()` and can be
    pickled after a fetch as well as before. With a `worker_init_fn` only workers fetch.

    A dataset may say with an attribute `draws_random` whether fetching draws from `random`, `numpy.random` or torch.
    Where it does not, the first fetch in this process that draws from `random` is repeated.

    Args:
        dataset: Any map-style dataset. (The Trainer also takes iterables and stock loaders as they are.)
        batch_size: Samples per batch; None gives single samples without a batch dimension.
        shuffle: A new order in every epoch.
        sampler: Any torch sampler of indices, instead of `shuffle`.
        batch_sampler: Any torch batch sampler, or a `dlkit.samplers.Planner`, instead of the three above.
        num_workers: Processes that fetch; 0, the default, fetches in this one, which is fastest for data in memory.
        collate_fn: Makes a batch out of samples; the dataset's own `collate`, else torch's `default_collate`.
        pin_memory: Put batches into page-locked memory, for fast copies to a GPU. Without a GPU it does nothing.
        drop_last: Leave out a last batch that is not full.
        seed: What order and augmentation are derived from. None: 0 in your own loop, the Trainer's seed in a Trainer.
        **settings: `timeout`, `worker_init_fn`, `multiprocessing_context`, `prefetch_factor`, `persistent_workers`,
            as in torch.

    Raises:
        ArgumentError: arguments that exclude each other, or an iterable dataset.

    >>> loader = DataLoader(range(5), batch_size=2, shuffle=True, seed=0)
    >>> first, second = torch.cat(list(loader)), torch.cat(list(loader))
    >>> first.sort().values.equal(second.sort().values), len(loader)
    (True, 3)
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool = False,
        *,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        check_dataset(dataset, collate_fn)
        shuffle, drop_last = switch("shuffle", shuffle), switch("drop_last", drop_last)
        check_order(batch_size, shuffle, sampler, batch_sampler)
        settings = checked_settings({"num_workers": num_workers, **settings})
        if batch_size is not None:
            batch_size = whole_number("batch_size", batch_size, least=1)
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.num_workers, self.pin_memory = settings["num_workers"], switch("pin_memory", pin_memory)
        self.seed = None if seed is None else whole_number("seed", seed)
        view = view_of(dataset)
        self.planner = _planner(view, batch_size, shuffle, sampler, batch_sampler, drop_last)
        batched = batch_size is not None or batch_sampler is not None
        self.collate_fn = collate_fn or _default_collate(view, batched=batched)
        self._settings = settings
        self._fetcher = Fetcher(view, self.collate_fn, batched=batched)
        self._lender = lending.Lender(self._fetcher.draws_random)
        self._tasks = _Tasks()
        self._told = False
        self._inner: TorchDataLoader[Any] | None = None
        self.order = EpochOrder(self.planner)
        self._epoch = self._done = self._next_epoch = self._next_batch = 0

    @classmethod
    def adopt(cls, loader: TorchDataLoader[Any], seed: int | None = None) -> DataLoader:
        """Rebuild a stock map-style `DataLoader` with the same settings, so that it can be sought.

        Args:
            loader: A `torch.utils.data.DataLoader` whose dataset has `__getitem__` and `__len__`.
            seed: See the class.

        >>> len(DataLoader.adopt(TorchDataLoader(range(5), batch_size=2)))
        3
        """
        order: dict[str, Any] = {"batch_sampler": loader.batch_sampler}
        if loader.batch_sampler is None:
            order = {"batch_size": None, "sampler": loader.sampler}
        settings = {name: getattr(loader, name) for name in WORKER_SETTINGS}
        adopted = cls(
            loader.dataset, **order, collate_fn=loader.collate_fn, pin_memory=loader.pin_memory, seed=seed, **settings
        )
        adopted.batch_size, adopted.drop_last = loader.batch_size, loader.drop_last
        return adopted

    def __len__(self) -> int:
        return self.order.count(self._seed(None), self._next_epoch)

    def __iter__(self) -> Iterator[Any]:
        self._warn_of_same_samples()
        self._epoch, start = self._next_epoch, self._next_batch
        self._next_epoch, self._next_batch = self._epoch + 1, 0
        self._done = start
        for batch in self.planned(self._epoch, start):
            self._done += 1
            if batch is not LEFT_OUT:
                yield batch

    def batches(self, epoch: int, start: int = 0, *, seed: int | None = None) -> Iterator[Any]:
        """The batches of one epoch from number `start` on; what comes before `start` is not fetched.

        Args:
            epoch: 0 for the first one.
            start: The number of the first batch to give.
            seed: Used where the loader was made without one.

        >>> [batch.tolist() for batch in DataLoader(range(4), 2).batches(epoch=0, start=1)]
        [[2, 3]]
        """
        return (batch for batch in self.planned(epoch, start, seed=seed) if batch is not LEFT_OUT)

    def planned(self, epoch: int, start: int = 0, *, seed: int | None = None, mine: Mine = None) -> Iterator[Any]:
        """As `batches`, for those who count: `LEFT_OUT` stands instead of a batch no sample of which can be read.

        Args:
            epoch: 0 for the first one.
            start: The number of the first batch to give.
            seed: Used where the loader was made without one.
            mine: Which numbers to fetch, `ELSEWHERE` stands for the others; None for all.
        """
        numbers: Sequence[int] = range(start, len(self.order.plan(self._seed(seed), epoch)))
        if mine is None:
            return self._fetched(epoch, numbers, seed)
        own = [number for number in numbers if mine(number)]
        fetched = self._fetched(epoch, own, seed)
        return (next(fetched) if mine(number) else ELSEWHERE for number in numbers)

    def _fetched(self, epoch: int, numbers: Sequence[int], seed: int | None) -> Iterator[Any]:
        stream, plan = rng.derive(self._seed(seed), rng.FETCH, epoch), self.order.plan(self._seed(seed), epoch)
        tasks = self._iterate_tasks(epoch, numbers, plan, stream)
        if self._settings["num_workers"] == 0:
            return self._fetch_here(tasks)
        if not self._must_wait_for_workers():
            return self._fetch_there(tasks, plan, numbers, stream)
        first = list(itertools.islice(tasks, 1))
        if len(numbers) <= 1:
            return self._fetch_here(iter(first))
        # This starts the workers, and pickles the dataset before a fetch in this process could change it.
        others = self._fetch_there(tasks, plan, numbers[1:], stream)
        return itertools.chain(self._fetch_here(iter(first)), others)

    def indices(self, epoch: int, number: int, *, seed: int | None = None) -> list[Any]:
        """Which samples the batch `number` of an epoch holds.

        Args:
            epoch: 0 for the first one.
            number: 0 for the epoch's first batch.
            seed: Used where the loader was made without one.

        >>> DataLoader(range(4), 2).indices(0, 1)
        [2, 3]
        """
        indices = index_batch(self.order.plan(self._seed(seed), epoch)[number])
        return list(indices.tolist() if isinstance(indices, torch.Tensor) else indices)

    def state_dict(self) -> dict[str, Any]:
        """Where your own loop stands, to continue after a restart: the epoch, the number of batches it has had, the
        order.

        The order is the state of a sampler that has one (`order.state_dict()`), and left out for others.
        """
        order = self.order.state_dict()
        return {"epoch": self._epoch, "batch": self._done} | ({"order": order} if order else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration continue where `state_dict` was taken.

        Args:
            state: What `state_dict` returned.
        """
        self.order.load_state_dict(state.get("order", {}))
        epoch, batch = state["epoch"], state["batch"]
        finished = batch >= len(self.order.plan(self._seed(None), epoch))
        self._next_epoch, self._next_batch = (epoch + 1, 0) if finished else (epoch, batch)

    def _warn_of_same_samples(self) -> None:
        shared = isinstance(self.planner, Share) or getattr(self.planner, "num_replicas", None)
        if self._told or shared or (world := World.of_environment()).size == 1:
            return
        self._told = True
        warnings.warn(
            f"each of the {world.size} processes gets all samples here; in your own training loop, give "
            "each its share with DataLoader(dataset, batch_sampler=dlkit.samplers.Share(planner)); the planner is for "
            "example dlkit.samplers.Shuffle(len(dataset), batch_size)",
            stacklevel=3,
        )

    def _seed(self, seed: int | None) -> int:
        return self.seed if self.seed is not None else (seed or 0)

    def _iterate_tasks(self, epoch: int, numbers: Sequence[int], plan: Plan, stream: int) -> Iterator[Task]:
        batches = index_batches(plan, numbers, tensors=self._fetcher.takes_tensors)
        for number, indices in zip(numbers, batches, strict=True):
            if not (indices.numel() if isinstance(indices, torch.Tensor) else indices):  # `len` of a tensor is slow
                raise DataError(f"the plan of epoch {epoch} has a batch without any sample: batch {number}")
            yield Task(epoch, number, rng.derive(stream, number), indices)

    def _fetch_here(self, tasks: Iterator[Task]) -> Iterator[Any]:
        pinned = self.pin_memory and torch.cuda.is_available()
        fetch = self._fetcher.fetch if self._fetcher.draws_random is False else self._fetch_as_a_worker_would
        for task in tasks:
            batch = fetch(task)
            yield pin(batch) if pinned else batch

    def _fetch_as_a_worker_would(self, task: Task) -> Any:
        """With its own streams."""
        with one_thread():
            return self._lender.lend(task.seed, self._fetcher.fetch, task)

    def _fetch_there(self, tasks: Iterator[Task], plan: Plan, numbers: Sequence[int], stream: int) -> Iterator[Any]:
        workers = self._settings["num_workers"]
        if workers > 1 and isinstance(plan, Owned):
            handout = Handout(tasks, plan, numbers, workers, Task(0, -1, 0, None))
            self._tasks.current = iter(handout)
            batches = handout.in_order(self._started())
        else:
            self._tasks.current = tasks
            batches = self._started()
        return batches if self._fetcher.draws_random is False else _passing_by(batches, numbers, stream)

    def _must_wait_for_workers(self) -> bool:
        """Whether the workers of the next epoch have to start as new processes, and this one may fetch meanwhile."""
        running = self._inner is not None and self._inner.persistent_workers
        if running or not self._fetcher.needs_no_worker or self._settings.get("worker_init_fn") is not None:
            return False
        return self._start_method() != "fork"

    def _start_method(self) -> str:
        context = self._settings.get("multiprocessing_context")
        if not isinstance(context, BaseContext):
            context = multiprocessing.get_context(context)
        return context.get_start_method()

    def _started(self) -> Iterator[Any]:
        return _ended(start_workers(self._with_workers(), self._settings["num_workers"], self._start_method()))

    def _with_workers(self) -> TorchDataLoader[Any]:
        if self._inner is None:
            settings = self._settings | {"worker_init_fn": Introduction(self._settings.get("worker_init_fn"))}
            self._inner = TorchDataLoader(
                self._fetcher,
                batch_sampler=self._tasks,
                collate_fn=as_it_is,
                pin_memory=self.pin_memory and torch.cuda.is_available(),
                generator=torch.Generator(),  # else every epoch would draw a number from the global one
                **{name: value for name, value in settings.items() if value is not None},
            )
        return self._inner


def _ended(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches; the workers end with the loop over them, however that ends."""
    try:
        yield from batches
    finally:
        end_workers(batches)


def _passing_by(batches: Iterator[Any], numbers: Sequence[int], stream: int) -> Iterator[Any]:
    """Hand the workers' batches over with this process's streams where a fetch in this process leaves them."""
    for number, batch in zip(numbers, batches, strict=True):
        lending.pass_by(rng.derive(stream, number))
        yield batch


def _default_collate(dataset: Any, *, batched: bool) -> Callable[[Any], Any]:
    if callable(own := getattr(dataset, "collate", None)) and batched:
        return own  # type: ignore[no-any-return]
    return default_collate if batched else convert_one


def _planner(
    dataset: Any, batch_size: int | None, shuffle: bool, sampler: Any, batch_sampler: Any, drop_last: bool
) -> Planner:
    if batch_sampler is not None:
        return planner_of(batch_sampler, None)
    if sampler is None and batch_size is not None and callable(own := getattr(dataset, "planner", None)):
        return own(batch_size, shuffle=shuffle, drop_last=drop_last)  # type: ignore[no-any-return]
    if sampler is None:
        # A RandomSampler of nothing is an error in torch, whose message does not say that the dataset is empty.
        sampler = RandomSampler(dataset) if shuffle and len(dataset) else SequentialSampler(dataset)
    return planner_of(sampler, 1 if batch_size is None else batch_size, drop_last=drop_last)
