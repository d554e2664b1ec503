"""What watches over a run: losses that are not finite, which are said or end it, and a clock."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from dlkit._language import Message
from dlkit._showing import few
from dlkit.callbacks.base import Callback
from dlkit.runs.checking import first_spoilt
from dlkit.runs.every import seconds
from dlkit.runs.parts import learning_parameters
from dlkit.runs.state import Run

__all__ = ["StopOnNaN", "TellNaN", "TimeLimit", "watch_evaluation"]


class StopOnNaN(Callback):
    """Ends the run when the training loss is NaN or infinite, and names step, epoch, batch (from 1 on) and samples.

    Losses are read from the device 64 at a time, so this costs no synchronisation per step; it stops at most 64 steps
    late. Corrupted weights are not saved: the last checkpoint is from before, and the best weights come back. A loss
    can be a number while its gradient is not (a root at zero), so the weights are looked at before each save as well.

    >>> stop = StopOnNaN()
    """

    def on_fit_start(self, run: Run) -> None:
        capture = run.capture

        def stop(name: str, value: float, step: int) -> None:
            told = _in_training(run, name, value, step)
            run.request_stop(Message("{told}; the weights since then were not saved", told=told), keep_state=False)

        def capture_if_sound() -> dict[str, Any]:
            run.losses.flush()  # a loss names the batch, which the weights cannot
            spoilt = first_spoilt(_parameters(run)) if run.keep_state else None
            if spoilt is not None:
                told = Message(
                    "the weights became nan or infinite by step {step} ({name!r}), although every loss was finite: a "
                    "gradient was not; they were not saved",
                    step=run.step,
                    name=spoilt,
                )
                run.request_stop(told, keep_state=False)
            return capture()

        run.losses.watchers.append(_Look(stop))
        run.capture = capture_if_sound


class TellNaN(Callback):
    """Says once in a fit that the training loss became NaN or infinite; the Trainer has one of its own.

    A `StopOnNaN` says it itself, and this one leaves it to that.
    """

    order = 1  # when StopOnNaN has begun to look
    changes_numbers = False

    def on_fit_start(self, run: Run) -> None:
        if not run.world.leads or any(isinstance(watcher, _Look) for watcher in run.losses.watchers):
            return

        def tell(name: str, value: float, step: int) -> None:
            told = Message(
                "{told}; training continues: look at these samples, lower the learning rate or clip the gradients "
                "(ClipGradients); StopOnNaN() ends a run there and saves no corrupted weights",
                told=_in_training(run, name, value, step),
            )
            warnings.warn(told, stacklevel=2)

        run.losses.watchers.append(_Look(tell))


def watch_evaluation(indices: Callable[[int], Sequence[Any] | None]) -> _Look:
    """A watcher for the losses of an evaluation: a warning names the first batch whose loss is not finite.

    Args:
        indices: The samples of a batch, None if unknown.
    """

    def tell(name: str, value: float, batch: int) -> None:
        told = Message(
            "the {name} is {value} in batch {batch} of the evaluation{samples}: look at these samples, and at the "
            "weights",
            name=name,
            value=value,
            batch=batch + 1,
            samples=_samples(indices(batch) or ()),
        )
        warnings.warn(told, stacklevel=2)

    return _Look(tell)


class _Look:
    """A watcher of a `LossMeter` that hands over the first loss that is not finite: `found(name, value, step)`."""

    def __init__(self, found: Callable[[str, float, int], None]) -> None:
        self._found, self._done = found, False

    def __call__(self, first_step: int, values: dict[str, list[float | None]]) -> None:
        bad = [
            (number, name, value)
            for name, column in values.items()
            for number, value in enumerate(column)
            if value is not None and not math.isfinite(value)
        ]
        if bad and not self._done:
            self._done = True
            number, name, value = min(bad, key=lambda found: found[0])
            self._found(name, value, first_step + number)


def _parameters(run: Run) -> Iterator[tuple[str, Tensor]]:
    yield from run.model.named_parameters()
    for part, value in run.parts.items():
        yield from ((f"{part}.{name}", parameter) for name, parameter in learning_parameters(value).items())


def _in_training(run: Run, name: str, value: float, step: int) -> Message:
    samples = [index for batch in run.batches_of(step) for index in run.indices(run.epoch, batch) or []]
    return Message(
        "the {name} became {value} at {place}{samples}",
        name=name,
        value=value,
        place=run.place_of(step),
        samples=_samples(samples),
    )


def _samples(samples: Sequence[Any]) -> str:
    return Message(" (samples {samples})", samples=few(samples, 64)) if samples else ""


class TimeLimit(Callback):
    """Ends the fit after a span of time; the state is saved, and the same script resumes later.

    Args:
        limit: Seconds, or `"90 s"`, `"30 min"`, `"2 h"`. Counted from the start of this fit.

    >>> TimeLimit("2 h").limit
    7200.0
    """

    def __init__(self, limit: str | float) -> None:
        self.limit = seconds(limit)
        self._text = limit if isinstance(limit, str) else f"{limit:g} s"

    def on_fit_start(self, run: Run) -> None:
        self._deadline = time.monotonic() + self.limit

    def on_step_end(self, run: Run) -> None:
        if time.monotonic() >= self._deadline:
            run.ask_stop(f"the time limit of {self._text} is over")
