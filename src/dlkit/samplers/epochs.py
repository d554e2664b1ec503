"""The order of each epoch, drawn once; and where a sampler stands that has its own state."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

from dlkit._nested import same
from dlkit.samplers.order import Plan, Planner

__all__ = ["EpochOrder", "stateful_in"]


class EpochOrder:
    """The plans of a planner, epoch by epoch, each of which is drawn once.

    Args:
        planner: What plans.
    """

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self._stateful = stateful_in(planner)
        self._planned: tuple[tuple[int, int], Plan] | None = None
        self._before: Any = None  # the sampler's own state before it gave what is planned

    def plan(self, seed: int, epoch: int) -> Plan:
        """The batches of one epoch.

        Args:
            seed: See `Planner`.
            epoch: 0 for the first one.
        """
        if self._planned is None or self._planned[0] != (seed, epoch):
            if self._stateful is not None:
                self._before = copy.deepcopy(self._stateful.state_dict())
            self._planned = ((seed, epoch), self.planner.plan(seed, epoch))
        return self._planned[1]

    def count(self, seed: int, epoch: int) -> int:
        """How many batches the epoch has, or of a sampler with a state the last one that was planned.

        Args:
            seed: See `Planner`.
            epoch: 0 for the first one.
        """
        if self._stateful is None:
            return len(self.plan(seed, epoch))
        if self._planned is None:
            with self.kept():
                return len(self.plan(seed, epoch))
        return len(self._planned[1])

    def state_dict(self) -> dict[str, Any]:
        """The state of a sampler that has one: before the epoch it was asked for last, and now; empty for others."""
        if self._stateful is None or self._planned is None:
            return {}
        seed, epoch = self._planned[0]
        now = copy.deepcopy(self._stateful.state_dict())
        return {"seed": seed, "epoch": epoch, "before": self._before, "now": now}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put such a sampler where it was: the epoch's order is drawn again, as it was the first time.

        Args:
            state: What `state_dict` returned.
        """
        if self._stateful is None or not state:
            return
        self._stateful.load_state_dict(copy.deepcopy(state["before"]))
        self._planned = None
        self.plan(state["seed"], state["epoch"])
        if not same(self._stateful.state_dict(), state["now"]):  # changed since, for example by what was learnt
            self._stateful.load_state_dict(copy.deepcopy(state["now"]))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """A block after which a sampler with a state stands where it stood before, whatever was drawn in it."""
        before, state = (self._planned, self._before), None
        if self._stateful is not None:
            state = copy.deepcopy(self._stateful.state_dict())
        try:
            yield
        finally:
            if self._stateful is not None:
                self._stateful.load_state_dict(state)
                self._planned, self._before = before


def stateful_in(planner: Any) -> Any:
    """The sampler behind a planner that has its own state (`state_dict`, `load_state_dict`), or None.

    Args:
        planner: What `planner_of` made, or a planner around one.

    >>> from dlkit.samplers import Shuffle
    >>> stateful_in(Shuffle(3, 2)) is None
    True
    """
    waiting = [planner]
    while waiting:
        each = waiting.pop(0)
        if callable(getattr(each, "state_dict", None)) and callable(getattr(each, "load_state_dict", None)):
            return each
        inner = (getattr(each, name, None) for name in ("sampler", "batch_sampler", "planner"))
        waiting += [part for part in inner if part is not None]
    return None
