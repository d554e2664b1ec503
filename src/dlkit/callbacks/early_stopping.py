"""Stop when a value no longer gets better."""

from __future__ import annotations

import math
from typing import Any

from dlkit._arguments import whole_number
from dlkit._language import Message
from dlkit.callbacks.base import Callback, warn_unmeasured
from dlkit.errors import ArgumentError
from dlkit.runs.history import Row
from dlkit.runs.state import Run

__all__ = ["EarlyStopping"]


class EarlyStopping(Callback):
    """Ends the run after `patience` validations without an improvement.

    It uses the same rows as all other callbacks, whenever they fall; rows without the value (an epoch without a
    validation) are not counted. NaN is never an improvement. It does not bring weights back: `Checkpoint` does.

    Args:
        monitor: A value of the history.
        patience: How many validations in a row may fail to improve; at least 1.
        min_delta: A change counts only if it is larger than this.
        relative: Take `min_delta` as a share of the best value so far.
        min_epochs: Do not stop before this many epochs are finished.
        baseline: A value to beat from the start, by `min_delta`; None for whatever the first validation gives.
        mode: "min" or "max"; None takes the direction from the metric itself.

    Attributes:
        best: The best value seen, None before the first. With `min_delta` it may be better than the value to beat:
            small steps in the right direction add up against the last value that counted.
        waited: Validations since the last improvement.

    Raises:
        ArgumentError: at the start of the fit, if nothing measures `monitor`.

    >>> stopping = EarlyStopping(patience=3)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        relative: bool = False,
        min_epochs: int = 0,
        baseline: float | None = None,
        mode: str | None = None,
    ) -> None:
        patience = whole_number("patience", patience, least=1, unit="validations")
        if not min_delta >= 0:
            raise ArgumentError(f"min_delta is a size and cannot be negative: {min_delta}")
        if baseline is not None and math.isnan(baseline):
            raise ArgumentError(f"baseline must be a number, not {baseline}")
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.relative, self.min_epochs, self.mode = relative, min_epochs, mode
        self.best: float | None = None
        self.waited = 0
        self._to_beat: float | None = baseline

    def on_fit_start(self, run: Run) -> None:
        self._higher_is_better = run.higher_is_better(self.monitor, self.mode)

    def on_log(self, run: Run, row: Row) -> None:
        if self.monitor not in row:
            warn_unmeasured(self, self.monitor, run, row)
            return
        value = float(row[self.monitor])
        if not math.isnan(value) and (self.best is None or self._gain(value, self.best) > 0):
            self.best = value
        if self._improved(value):
            self._to_beat, self.waited = value, 0
            return
        self.waited += 1
        self._stop_if_over(run, finished_epochs=run.epoch)

    def on_epoch_end(self, run: Run) -> None:
        """Stop, if only `min_epochs` stood against it."""
        self._stop_if_over(run, finished_epochs=run.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "to_beat": self._to_beat, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self._to_beat, self.waited = state["best"], state["to_beat"], state["waited"]

    def _stop_if_over(self, run: Run, finished_epochs: int) -> None:
        if self.waited < self.patience or finished_epochs < self.min_epochs:
            return
        best = Message("no value was finite")
        if self.best is not None:
            best = Message("best {value:.6g}", value=self.best)
        reason = Message(
            "early stopping: {monitor} did not improve in {waited} validations ({best})",
            monitor=self.monitor,
            waited=self.waited,
            best=best,
        )
        run.request_stop(reason, final=True)

    def _gain(self, value: float, best: float) -> float:
        return value - best if self._higher_is_better else best - value

    def _improved(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self._to_beat is None:
            return True
        if math.isinf(self._to_beat):  # no margin of it is a number
            return self._gain(value, self._to_beat) > 0
        margin = abs(self._to_beat) * self.min_delta if self.relative else self.min_delta
        return self._gain(value, self._to_beat) > margin
