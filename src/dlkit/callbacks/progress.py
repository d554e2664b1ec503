"""A progress bar that costs a step nothing."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from dlkit.callbacks.base import Callback
from dlkit.runs.history import Row
from dlkit.runs.state import Run

__all__ = ["Progress"]

_SHOWN_EVERY = 0.25


class Progress(Callback):
    """One bar per epoch with the last loss, and one line per row of the history.

    The device is read at most four times a second. `Trainer(progress=False)` leaves it out.

    >>> progress = Progress()
    """

    order = 900
    changes_numbers = False

    def __init__(self) -> None:
        self._bar: Any = None
        self._next = 0.0

    def on_epoch_start(self, run: Run) -> None:
        self._bar = tqdm(
            total=run.num_batches,
            initial=run.cursor.batch,
            desc=f"epoch {run.epoch + 1}/{run.epochs}",
            unit="batch",
            leave=False,
            file=sys.stderr,
            dynamic_ncols=True,
            disable=None,  # a log file gets the lines only
        )
        self._next = time.monotonic() + _SHOWN_EVERY

    def on_step_end(self, run: Run) -> None:
        if time.monotonic() >= self._next:
            self._show(run)

    def on_validation_step(self, run: Run, done: int, total: int | None) -> None:
        if self._bar is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _SHOWN_EVERY
            self._bar.set_postfix_str(f"validation {done}/{total or '?'}")

    def on_log(self, run: Run, row: Row) -> None:
        values = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "step"))
        with tqdm.external_write_mode(file=sys.stderr):
            run.say(f"epoch {row['epoch']}/{run.epochs}, step {row['step']}: {values}")

    def on_epoch_end(self, run: Run) -> None:
        self._close()

    def on_fit_end(self, run: Run) -> None:
        self._close()

    def _show(self, run: Run) -> None:
        self._next = time.monotonic() + _SHOWN_EVERY
        if self._bar is not None and not self._bar.disable:
            self._bar.n = run.cursor.batch
            self._bar.set_postfix({"loss": f"{run.losses.latest():.4g}"}, refresh=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
