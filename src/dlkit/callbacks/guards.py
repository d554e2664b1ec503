"""Callbacks that end a run for a reason from outside: a loss that is no number, a clock."""

from __future__ import annotations

import math
import time
from typing import Any

from dlkit.callbacks.base import Callback
from dlkit.runs.checking import first_spoilt
from dlkit.runs.every import seconds
from dlkit.runs.state import Run

__all__ = ["StopOnNaN", "TimeLimit"]


class StopOnNaN(Callback):
    """Ends the run when the training loss is NaN or infinite, and names step, epoch, batch (from 1 on) and samples.

    Losses are read from the device 64 at a time, so this costs no synchronisation per step; it stops at most 64 steps
    late. Spoilt weights are not saved: the last checkpoint is from before, and the best weights come back. A loss can
    be a number while its gradient is not (a root at zero), so the weights are looked at before each save as well.

    >>> stop = StopOnNaN()
    """

    def on_fit_start(self, run: Run) -> None:
        """Look at every loss that is read, and at the weights of every save.

        Args:
            run: The run.
        """
        capture = run.capture

        def look(first_step: int, values: dict[str, list[float]]) -> None:
            for name, column in values.items():
                for number, value in enumerate(column):
                    if not math.isfinite(value):
                        run.request_stop(_message(run, name, value, first_step + number), keep_state=False)
                        return

        def capture_if_sound() -> dict[str, Any]:
            run.losses.flush()  # a loss names the batch, which the weights cannot
            spoilt = first_spoilt(run.model.named_parameters()) if run.keep_state else None
            if spoilt is not None:
                run.request_stop(
                    f"the weights became nan or infinite by step {run.step} ({spoilt!r}), although every loss was a "
                    "number: a gradient was not; they were not saved",
                    keep_state=False,
                )
            return capture()

        run.losses.watchers.append(look)
        run.capture = capture_if_sound


def _message(run: Run, name: str, value: float, step: int) -> str:
    batches = run.batches_of(step)
    samples = [index for batch in batches for index in run.indices(run.epoch, batch) or []]
    shown = ", ".join(str(sample) for sample in samples[:64])
    more = f" and {len(samples) - 64} more" if len(samples) > 64 else ""
    place = f"step {step + 1}, epoch {run.epoch + 1}, batch {', '.join(str(batch + 1) for batch in batches)}"
    which = f" (samples {shown}{more})" if samples else ""
    return f"the {name} became {value} at {place}{which}; the weights since then were not saved"


class TimeLimit(Callback):
    """Ends the fit after a span of time; the state is saved, and the same script goes on later.

    Args:
        limit: Seconds, or `"90 s"`, `"30 min"`, `"2 h"`. Counted from the start of this fit.

    >>> TimeLimit("2 h").limit
    7200.0
    """

    def __init__(self, limit: str | float) -> None:
        self.limit = seconds(limit)
        self._text = limit if isinstance(limit, str) else f"{limit:g} s"

    def on_fit_start(self, run: Run) -> None:
        """Start the clock.

        Args:
            run: The run.
        """
        self._deadline = time.monotonic() + self.limit

    def on_step_end(self, run: Run) -> None:
        """Look at the clock.

        Args:
            run: The run.
        """
        if time.monotonic() >= self._deadline:
            run.request_stop(f"the time limit of {self._text} is over")
