"""Which process of how many this is, and what they tell each other: the only place that knows.

`torchrun` and other launchers say it in the environment (`RANK`, `WORLD_SIZE`); a run joins the others when it begins
and leaves them when it has ended well. On the CPU the processes talk through gloo, on GPUs through NCCL.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import gc
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from dlkit._waiting import LONG, MEETING, await_words, entered, left, note_failure, patience, talking
from dlkit.errors import ArgumentError, TrainingError

__all__ = ["ALONE", "World", "joined"]

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclasses.dataclass(frozen=True)
class World:
    """The processes that share a run.

    Attributes:
        rank: The number of this one, from 0.
        size: How many there are.
        local_rank: The number of this one among those of its machine.
        turns: Whether they take turns, so that all work on the n-th of their batches at the same time; else each has an
            unbroken run of batches.

    >>> World().leads, World().any(True), World().everybodys("a")
    (True, True, ['a'])
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    turns: bool = dataclasses.field(default=False, compare=False)

    @classmethod
    def of_environment(cls) -> World:
        """What the launcher says; alone where there is none.

        Raises:
            ArgumentError: only a part of what is needed is set, or it is not a number.
        """
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), _local_rank(dist.get_rank()))
        given = {name: os.environ[name] for name in _NEEDED if name in os.environ}
        if "WORLD_SIZE" not in given or given["WORLD_SIZE"] == "1":
            return cls()
        if missing := [name for name in _NEEDED if name not in given]:
            raise ArgumentError(
                f"WORLD_SIZE={given['WORLD_SIZE']} says that there are several processes, but {', '.join(missing)} "
                "is not set; start the script with torchrun --nproc-per-node N script.py, or unset WORLD_SIZE"
            )
        try:
            rank, size = int(given["RANK"]), int(given["WORLD_SIZE"])
        except ValueError as error:
            raise ArgumentError(f"RANK and WORLD_SIZE must be whole numbers: {error}") from error
        if not 0 <= rank < size:
            raise ArgumentError(f"RANK={rank} of WORLD_SIZE={size} cannot be")
        return cls(rank, size, _local_rank(rank))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of `count` places are this process's: as many as the others have, or one more.

        Args:
            count: Places, the batches of a step for example.

        >>> [list(World(rank, 3).share(4)) for rank in range(3)]
        [[0], [1], [2, 3]]
        """
        if self.turns:
            return range(self.rank, count, self.size)
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def any(self, flag: bool) -> bool:
        """Whether one of the processes says so; all must ask.

        Args:
            flag: What this one says.
        """
        if self.size == 1:
            return flag
        said = torch.tensor([flag], dtype=torch.int32)
        with talking():
            dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said.item())

    def numbers(self, own: Sequence[int]) -> list[list[int]]:
        """What each process says, by rank; all must ask, with as many numbers.

        Args:
            own: What this one says.
        """
        if self.size == 1:
            return [list(own)]
        mine = torch.tensor(own, dtype=torch.int64)
        return [each.tolist() for each in self.exchanged(mine, mine.new_empty(self.size - 1, len(own)))]

    def everybodys(self, value: Any) -> list[Any]:
        """A value of each process, by rank; all must ask. For small things: it is pickled by and for ourselves.

        Args:
            value: This one's.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with talking():
            dist.all_gather_object(values, value)
        return values

    def give(self, tensors: Sequence[Tensor]) -> None:
        """Write the leading process's values into tensors of all.

        Args:
            tensors: Of the same shapes everywhere.
        """
        if self.size > 1:
            for tensor in tensors:
                packed = tensor.detach().contiguous()
                with talking():
                    dist.broadcast(_bytes(packed), 0)
                if packed.data_ptr() != tensor.data_ptr():
                    tensor.detach().copy_(packed)

    def wait(self) -> None:
        """Continue when all are here."""
        if self.size > 1:
            self.any(False)

    @contextlib.contextmanager
    def leader_first(self) -> Iterator[None]:
        """A block that the leading process has iterated over before the others enter it.

        They wait for a word in the processes' store, hours if it takes them, and not in a sum, which has a short time.
        """
        if self.size == 1:
            yield
            return
        store, key = dist.distributed_c10d._get_default_store(), f"dlkit turn {next(_turns)}"
        if not self.leads:
            with talking():
                await_words(store, [key], LONG)
                if store.get(key) != _DONE.encode():
                    raise RuntimeError("the leading process has failed")
            yield
            return
        try:
            yield
        except BaseException:
            store.set(key, "failed")
            raise
        store.set(key, _DONE)

    def tell(self, key: str, word: str) -> None:
        """Leave a word for the others, also in a thread, while they talk about something else; see `told`.

        Args:
            key: What it is about, used once.
            word: Any text.
        """
        if self.size > 1:
            dist.distributed_c10d._get_default_store().set(f"dlkit {key} {self.rank}", word)

    def told(self, key: str) -> list[str]:
        """What all other processes have left, by rank; waits until they have.

        Args:
            key: What it is about.

        Raises:
            RuntimeError: one of them has not in the time that processes wait for each other, or is gone.
        """
        others = [f"dlkit {key} {rank}" for rank in range(self.size) if rank != self.rank]
        if not others:
            return []
        store = dist.distributed_c10d._get_default_store()
        await_words(store, others, patience())
        return [store.get(each).decode() for each in others]

    def deal(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Give each process its piece of the columns of all rows.

        Args:
            rows: [k, size * m], k rows of this process.
            counts: How many rows each process has, by rank.

        Returns:
            [sum of counts, m]: the rows of all, by rank, in this process's columns.
        """
        width = rows.shape[1] // self.size
        pieces = rows.view(len(rows), self.size, width).transpose(0, 1).contiguous()
        dealt = rows.new_empty(sum(counts), width)
        sizes = [count * width * rows.element_size() for count in counts]
        own = len(rows) * width * rows.element_size()
        with talking():
            dist.all_to_all_single(_bytes(dealt), _bytes(pieces), sizes, [own] * self.size)
        return dealt

    def gathered(self, piece: Tensor, room: Tensor) -> None:
        """Put the pieces of all processes together, by rank.

        Args:
            piece: [m] on each.
            room: [size * m], where to.
        """
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # the older one warns
        with talking():
            gather(_bytes(room), _bytes(piece.contiguous()))

    def exchanged(self, message: Tensor, room: Tensor) -> list[Tensor]:
        """The messages of all processes, by rank; all must ask, with messages of one length in the CPU's memory.

        Gloo sends them straight from here to there, which is some two thirds of the time of its all_gather.

        Args:
            message: [m], this one's.
            room: [size - 1, m], for those of the others.
        """
        sizes = [0 if rank == self.rank else message.numel() for rank in range(self.size)]
        copies = message if self.size == 2 else message.repeat(self.size - 1)
        with talking():
            dist.all_to_all_single(room.view(-1), copies, sizes, sizes)
        others = list(room)
        return [*others[: self.rank], message, *others[self.rank :]]


ALONE = World()


def _local_rank(rank: int) -> int:
    """As torchrun or SLURM says; else all processes are taken to be on one machine."""
    said = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", ""))
    return int(said) if said.isdecimal() else rank


_turns = itertools.count()
_DONE = "done"


def _bytes(tensor: Tensor) -> Tensor:
    """The same memory as bytes: what is only moved has no type that a backend would have to know."""
    return tensor.reshape(-1).view(torch.uint8)


_joins = itertools.count()


@functools.cache
def _meeting_place(world: World) -> Any:
    """The store through which the processes find each other, one for as long as this process lives."""
    long = datetime.timedelta(seconds=MEETING)
    store, _, _ = next(rendezvous("env://", rank=world.rank, world_size=world.size, timeout=long))
    return store


def _gather(world: World, store: Any) -> None:
    """Wait until all processes are here: the short time for which they wait for each other begins then."""
    store.set(f"here {world.rank}", "")
    await_words(store, [f"here {rank}" for rank in range(world.size)], MEETING)


@contextlib.contextmanager
def joined(world: World, device: torch.device) -> Iterator[None]:
    """Talk to the other processes while the block runs.

    After an error nothing is torn down: the others would wait for this process, while its end lets them end, too.

    Args:
        world: See `World.of_environment`.
        device: Where the run computes.

    Raises:
        TrainingError: the processes do not find each other.
    """
    if world.size == 1 or dist.is_initialized():
        yield
        return
    wait = patience()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # where NCCL, and what names no device, works
    try:
        # Under its own names each time: torchrun's store still holds the addresses of the group before.
        prefix = f"dlkit {next(_joins)}"
        store = dist.PrefixStore(prefix, _meeting_place(world))  # type: ignore[attr-defined]
        _gather(world, store)
        short = datetime.timedelta(seconds=wait)
        dist.init_process_group(backend, store=store, timeout=short, rank=world.rank, world_size=world.size)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"process {world.rank} of {world.size} did not find the others at "
            f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: {error}"
        ) from error
    entered(store)
    try:
        yield
    except BaseException as error:
        note_failure(world.rank, error)
        raise
    world.wait()
    left()
    gc.collect()  # what still holds the group would abort the process at the end
    dist.destroy_process_group()
