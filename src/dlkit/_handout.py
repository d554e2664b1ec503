"""Tasks dealt to workers that take turns, so that tasks that belong together go to one of them; results in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = ["Handout", "Owned"]


@runtime_checkable
class Owned(Protocol):
    """A plan some of whose batches are made of the same source, such as a block of a file: best by the same worker."""

    def owners(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """int64 [batches], the number of each one's source."""

    @property
    def reach(self) -> int:
        """How many batches follow each other until all sources that are in use have had their turn."""


class Handout:
    """Deals tasks whose results are wanted in order to workers that get one task each in turn, as torch deals them.

    All tasks of an owner go to one worker. A worker that has none among the next ones gets an idle one, so that the
    others do not wait and results do not pile up.

    Args:
        tasks: In the order of their results.
        plan: Says which tasks belong together.
        numbers: Of the batches that the tasks fetch.
        workers: How many there are.
        idle: The task of a worker that has none.
    """

    def __init__(self, tasks: Iterator[Any], plan: Owned, numbers: Sequence[int], workers: int, idle: Any) -> None:
        self._tasks, self._workers, self._idle = tasks, workers, idle
        self._owners = plan.owners()[np.asarray(numbers, dtype=np.int64)] % workers
        self._ahead = (workers + 1) * plan.reach + 4 * workers
        self._taken = self._given = 0
        self._waiting: list[deque[tuple[int, Any]]] = [deque() for _ in range(workers)]
        self._sent: deque[int | None] = deque()

    def __iter__(self) -> Iterator[Any]:
        """The tasks in the order in which the workers get them."""
        for turn in itertools.count():
            self._take_those_that_are_near()
            if self._taken == len(self._owners) and not any(self._waiting):
                return
            waiting = self._waiting[turn % self._workers]
            number, task = waiting.popleft() if waiting else (None, self._idle)
            self._sent.append(number)
            yield task

    def _take_those_that_are_near(self) -> None:
        while self._taken < min(len(self._owners), self._given + self._ahead):
            self._waiting[self._owners[self._taken]].append((self._taken, next(self._tasks)))
            self._taken += 1

    def in_order(self, results: Iterator[Any]) -> Iterator[Any]:
        """The results of the tasks in their order.

        Args:
            results: In the order in which the workers got the tasks.
        """
        early: dict[int, Any] = {}
        for result in results:
            number = self._sent.popleft()
            if number is not None:
                early[number] = result
            while self._given in early:
                result = early.pop(self._given)
                self._given += 1
                yield result
