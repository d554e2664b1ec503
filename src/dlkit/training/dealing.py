"""Batches that are only looked at (validation, predictions), dealt to the processes and put together in their order.

The processes take turns, so that none waits for the others' share of a long file. After a few batches each tells the
others what it has found, and every process continues with all of it: nothing is padded, nothing counted twice, and what
follows from the batches is the same everywhere.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from dlkit._fetching import ELSEWHERE, LEFT_OUT, Mine
from dlkit._measures import Tally
from dlkit._nested import map_leaves
from dlkit.runs.state import Run
from dlkit.training.batches import to_device

__all__ = ["InTurns", "borrowed", "to_send"]

LARGE = 64 << 20  # bytes of a batch's outputs and targets above which the metrics' states travel in their place
_MESSAGE = 8 << 20  # bytes that a process sends at once, as far as batches are not larger
_MOST = 16  # batches of a process between two messages: until then nobody hears of a wish to stop


class InTurns:
    """What is found out about each batch, in the order of the batches, on every process of a run.

    A model in shares is called by all processes at the same time: one that has no batch in a round calls it with one of
    another process, and what comes out is dropped.

    Args:
        run: Its processes, which all do this.
        batches: `batches(mine)` gives the batches, `ELSEWHERE` instead of those of other processes.
        work: `work(number, batch)` is done by the process whose batch it is. What it gives is sent, on the CPU, to the
            others where there are any.
        call: `call(batch)` calls the model as `work` does, and nothing else; needed for one in shares only.

    Attributes:
        largest: Bytes of the largest of the first messages, each of one batch; 0 for a process alone, and where there
            are fewer batches than processes.
    """

    def __init__(
        self,
        run: Run,
        batches: Callable[[Mine], Iterable[Any]],
        work: Callable[[int, Any], Any],
        call: Callable[[Any], object] = lambda batch: None,
    ) -> None:
        self.run, self.batches, self.work, self.call = run, batches, work, call
        self.world, self.largest = run.world, 0

    def __iter__(self) -> Iterator[tuple[bool, Any]]:
        """Whether it was this process's batch, and what was found."""
        if self.world.size == 1:
            for number, batch in enumerate(self.batches(None)):
                yield True, self.work(number, batch)
            return
        size, rank = self.world.size, self.world.rank
        batches = enumerate(self.batches(lambda number: number % size == rank))
        start = 0
        each = 1
        while True:
            found, seen = list[Any](), 0
            for number, batch in self._together(itertools.islice(batches, each * size)):
                seen += 1
                if batch is not ELSEWHERE:
                    found.append(self.work(number, batch))
            said = self.world.everybodys((seen, self.run.asked, pickle.dumps(found)))
            self.run.hear(asked for _, asked, _ in said)
            self.run.agree()
            longest, message = max(there for there, _, _ in said), max(len(sent) for _, _, sent in said)
            if start == 0 and longest == size:
                self.largest = message
            ready = [iter(pickle.loads(sent)) for _, _, sent in said]  # from ourselves
            for place in range(longest):
                owner = (start + place) % size
                yield from ((owner == rank, one) for one in itertools.islice(ready[owner], 1))
            if longest < each * size:
                return
            start += each * size
            if self.run.shards is None:
                each = max(1, min(_MOST, _MESSAGE * each // max(1, message)))

    def _together(self, batches: Iterable[tuple[int, Any]]) -> Iterable[tuple[int, Any]]:
        """A round of batches; of a model in shares those processes that have none call it with one that is lent."""
        if self.run.shards is None:
            return batches
        group = list(batches)
        own = next((batch for _, batch in group if batch is not ELSEWHERE and batch is not LEFT_OUT), None)
        there = [bool(has) for (has,) in self.world.numbers([own is not None])]
        if any(there) and not all(there):
            lent = borrowed(self.run, own, there.index(True))
            if own is None:
                self.call(lent)
        return group


def borrowed(run: Run, own: Any, owner: int) -> Any:
    """The batch of another process, with which one that has none calls a model in shares; all must ask.

    Args:
        run: Its processes.
        own: The batch of this one, which it keeps; or None.
        owner: The rank of one that has a batch.
    """

    def lent(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.cpu()
        return _Half if callable(leaf) and leaf == run.half else leaf

    given = run.world.everybodys(map_leaves(own, lent) if run.world.rank == owner else None)[owner]
    if own is not None:
        return own
    return to_device(map_leaves(given, lambda leaf: run.half if leaf is _Half else leaf), run.device)


def to_send(value: Any) -> Any:
    """Tensors on the CPU, without the memory of the larger ones that they are parts of.

    Args:
        value: Nested.
    """
    return map_leaves(value, _alone)


class _Half:
    """Sent instead of a model's second half, of which each process has its own."""


def _alone(leaf: Any) -> Any:
    if isinstance(leaf, Tally):
        vars(leaf).update(to_send(vars(leaf)))
    if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided or leaf.is_nested:
        return leaf
    leaf = leaf.detach().cpu()
    whole = leaf.untyped_storage().nbytes() <= leaf.numel() * leaf.element_size()
    return leaf if whole else leaf.clone()
