"""Epochs of a given number of batches, from data that have no end or one that is far away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dlkit._fetching import Mine, dealt
from dlkit.training.sources import Source, Wrapping, nothing

__all__ = ["Windows"]


class Windows(Wrapping):
    """A source whose epochs have a given number of batches each; every epoch continues where the one before ended.

    What comes to its end starts over, as its own next epoch.

    Args:
        source: The batches.
        count: Batches per epoch.
    """

    def __init__(self, source: Source, count: int) -> None:
        super().__init__(source)
        self._count = count
        self._place = (0, 0)  # in the source's own epochs: the next batch
        self._position = 0  # the same, counted from the very beginning
        self._running: Iterator[Any] | None = None
        self._saved: dict[str, Any] = {}
        self._mine: Mine = None  # by the position from the very beginning

    @property
    def num_batches(self) -> int:
        return self._count

    def batches(self, epoch: int, start: int = 0, mine: Mine = None) -> Iterator[Any]:
        if not self._is_sought:
            return dealt(self._batches(epoch, start), start, mine)
        first = epoch * self.num_batches
        self._mine = None if mine is None else lambda position: mine(position - first)
        return self._batches(epoch, start)

    @property
    def _is_sought(self) -> bool:
        """Whether any batch can be gone to, and one of another process is not even read."""
        return bool(self.source.num_batches) and self.source.how == "restored directly"

    def _batches(self, epoch: int, start: int) -> Iterator[Any]:
        wanted = epoch * self.num_batches + start
        self._move_to(wanted)
        for _ in range(start, self.num_batches):
            batch = self._next()
            self._position += 1
            yield batch

    def _move_to(self, wanted: int) -> None:
        if self._is_sought:  # again in every epoch: what is frozen or stored may have changed
            self._begin(*divmod(wanted, self.source.num_batches or 1))
        elif self._saved.get("position") == wanted:
            self._begin(self._saved["epoch"], self._saved["batch"])
        elif self._position != wanted or self._running is None:
            self._begin(0, 0)
            self._position = 0
            while self._position < wanted:
                self._next()
                self._position += 1
        self._position, self._saved = wanted, {}

    def _begin(self, epoch: int, batch: int) -> None:
        self._place = epoch, batch
        mine, first = self._mine, epoch * (self.source.num_batches or 0)
        own = None if mine is None else lambda number: mine(first + number)
        self._running = iter(self.source.batches(epoch, batch, own))

    def _next(self) -> Any:
        assert self._running is not None
        epoch, number = self._place
        for batch in self._running:
            self._place = epoch, number + 1
            return batch
        if number == 0:
            raise nothing(self.source, epoch)
        self._begin(epoch + 1, 0)
        return self._next()

    def close(self) -> None:
        """Let go of the data, with the worker processes that read ahead."""
        self._running = None

    def indices(self, epoch: int, number: int) -> list[Any] | None:
        size = self.source.num_batches
        return self.source.indices(*divmod(epoch * self.num_batches + number, size)) if size else None

    def describe(self) -> dict[str, Any]:
        return self.source.describe() | {"batches": self.num_batches}

    def state_dict(self) -> dict[str, Any]:
        epoch, batch = self._place
        return {"position": self._position, "epoch": epoch, "batch": batch, "source": self.source.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved, self._running = dict(state), None
        super().load_state_dict(state["source"])
