"""The mean training loss between two rows of a history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["LossMeter"]

_FLUSH_EVERY = 64


class LossMeter:
    """The mean training loss since the last row, without a device synchronisation per step.

    Losses stay on the device, 64 at a time, and are then read at once. They are added one after the other in float64,
    so the sum does not depend on when it was read. `watchers` are called with what was read: `(first_step, values)`,
    where `values` has a list for each name, with None for a step that did not give it. A name's mean is over the steps
    that gave it.

    >>> meter = LossMeter()
    >>> meter.add(torch.tensor(1.0), 3, step=0); meter.add(torch.tensor(2.0), 1, step=1)
    >>> meter.mean()
    {'loss': 1.25}
    """

    def __init__(self) -> None:
        self.watchers: list[Callable[[int, dict[str, list[float | None]]], None]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._pending: list[Any] = []
        self._weights: list[Any] = []
        self._first_step = 0
        self._latest = float("nan")

    def add(self, values: Any, weight: Any, step: int) -> None:
        """Take in one step's loss.

        Args:
            values: A scalar tensor on any device, already detached, or a dict of named ones.
            weight: What it counts in the mean (`Counting`); a tensor where it must not be read yet.
            step: The number of the step, which the watchers are told.
        """
        if not self._pending:
            self._first_step = step
        self._pending.append(values)
        self._weights.append(weight)
        if len(self._pending) >= _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Read what is still on the device."""
        if not self._pending:
            return
        pending, weights = self._pending, self._weights
        self._pending, self._weights = [], []
        weights = _read(weights)
        columns = [values if isinstance(values, dict) else {"loss": values} for values in pending]
        read = {name: _read([column.get(name) for column in columns]) for name in _names(columns)}
        for name, values in read.items():
            total, count = self._sums.get(name, 0.0), self._counts.get(name, 0)
            for value, weight in zip(values, weights, strict=True):
                if value is not None:
                    total += value * weight if weight else 0.0  # the mean of nothing is NaN
                    count += weight
            self._sums[name], self._counts[name] = total, count
        self._latest = next((read[name][-1] for name in columns[-1]), self._latest)
        if not all(weights):  # the mean of nothing is NaN, and no fault
            read = {
                name: [0.0 if v is not None and not w else v for v, w in zip(values, weights, strict=True)]
                for name, values in read.items()
            }
        for watcher in self.watchers:
            watcher(self._first_step, read)

    def latest(self) -> float:
        """The newest loss, NaN when there is none; reads the device, so not for every step."""
        self.flush()
        return self._latest

    def mean(self) -> dict[str, float]:
        """The means by name; empty when nothing was added."""
        self.flush()
        return {name: total / self._counts[name] for name, total in self._sums.items() if self._counts[name]}

    def reset(self) -> None:
        """Start the next row."""
        self.flush()
        self._sums, self._counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, as plain data."""
        self.flush()
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved sums.

        Args:
            state: What `state_dict` returned.
        """
        self._pending, self._weights = [], []
        self._sums = dict(state["sums"])
        self._counts = dict(state["counts"]) if "counts" in state else dict.fromkeys(self._sums, state["count"])


def _names(columns: list[dict[str, Any]]) -> dict[str, None]:
    """All names, in the order in which they came."""
    return {name: None for column in columns for name in column}


def _read(values: list[Any]) -> list[Any]:
    """Tensors as numbers, all read from the device at once; numbers and None as they are."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors:
        return values
    read = iter(torch.stack(tensors).double().tolist())
    return [next(read) if isinstance(value, Tensor) else value for value in values]
