"""A progress bar that costs a step nothing."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from dlkit._language import Message
from dlkit._progress import Bar
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
        self._bar: Bar | None = None
        self._next = 0.0

    def on_epoch_start(self, run: Run) -> None:
        self._bar = Bar(
            run.num_batches,
            desc=Message("epoch {epoch}/{epochs}", epoch=run.epoch + 1, epochs=run.epochs),
            unit=Message("batches"),
            initial=run.cursor.batch,
            delay=0,
        )
        self._next = time.monotonic() + _SHOWN_EVERY

    def on_step_end(self, run: Run) -> None:
        if time.monotonic() >= self._next:
            self._show(run)

    def on_validation_step(self, run: Run, done: int, total: int | None) -> None:
        if self._bar is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _SHOWN_EVERY
            self._bar.at(self._bar.done, Message("validation {done}/{total}", done=done, total=total or "?"))

    def on_log(self, run: Run, row: Row) -> None:
        values = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "step"))
        with tqdm.external_write_mode(file=sys.stderr):
            run.say(
                Message(
                    "epoch {epoch}/{epochs}, step {step}: {values}",
                    epoch=row["epoch"],
                    epochs=run.epochs,
                    step=row["step"],
                    values=values,
                )
            )

    def on_epoch_end(self, run: Run) -> None:
        self._close()

    def on_fit_end(self, run: Run) -> None:
        self._close()

    def _show(self, run: Run) -> None:
        self._next = time.monotonic() + _SHOWN_EVERY
        if self._bar is not None and self._bar.due:
            self._bar.at(run.cursor.batch, Message("loss {loss:.4g}", loss=run.losses.latest()))

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
