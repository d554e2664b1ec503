"""Trying things out without leaving a trace: a search for the learning rate, the first batches again and again."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dlkit import rng
from dlkit.callbacks.base import Callback
from dlkit.distributed import ALONE
from dlkit.errors import ArgumentError, TrainingError
from dlkit.runs.history import History
from dlkit.runs.losses import LossMeter
from dlkit.runs.parts import remember, tell_unsaved
from dlkit.runs.state import Cursor, Run
from dlkit.training.batches import groups
from dlkit.training.sources import Source, nothing, present
from dlkit.training.steps import Step

__all__ = ["LearningRateCurve", "endless", "first_batches", "lr_find", "overfit", "stand_in", "undone"]


def first_batches(source: Source, count: int) -> list[Any]:
    """The first batches of a source's first epoch, kept in memory.

    Args:
        source: Where from.
        count: At most so many, at least 1.
    """
    if count < 1:
        raise ArgumentError(f"at least 1 batch is needed, not {count}")
    with source.kept():
        batches = list(itertools.islice(present(source.batches(0)), count))
    if not batches:
        raise nothing(source, 0)
    return batches


def endless(source: Source) -> Iterator[Any]:
    """The batches of a source, epoch after epoch.

    Args:
        source: Where from.

    Raises:
        DataError: an epoch has none.
    """
    for epoch in itertools.count():
        empty = True
        for batch in present(source.batches(epoch)):
            empty = False
            yield batch
        if empty:
            raise nothing(source, epoch)


def stand_in(callback: Callback) -> Callback:
    """A copy for a rehearsal: what it remembers in its own attributes, lists and dicts included, stays its own.

    Args:
        callback: The callback; the scheduler, the store and so on that it holds are shared.
    """
    copied = copy.copy(callback)
    for name, value in vars(callback).items():
        if type(value) in (list, dict, set):
            setattr(copied, name, copy.copy(value))
    return copied


@contextlib.contextmanager
def undone(run: Run, callbacks: Sequence[Callback] = ()) -> Iterator[None]:
    """Run a block and restore everything: model, loss, optimizers, schedulers, random streams, counters, history.

    Args:
        run: The run.
        callbacks: Whose saved state is put back as well.
    """
    judged = run.eval_model if run.trained is None else run.trained.judged
    modules = [run.model, *run.parts.values(), *([judged] if judged is not run.model else [])]
    remembered = [remember(part) for part in modules]
    rest = {name: copy.deepcopy(optimizer.state_dict()) for name, optimizer in run.optimizers.items()}
    states = [copy.deepcopy(callback.state_dict()) for callback in callbacks]
    groups = {name: len(optimizer.param_groups) for name, optimizer in run.optimizers.items()}
    scaler = copy.deepcopy(run.scaler.state_dict()) if run.scaler is not None else None
    streams, attributes = rng.state_dict(), dict(vars(run))
    run.cursor, run.history, run.losses = Cursor(), History(), LossMeter()
    run.take_logged()  # what is logged in here goes to its own dict
    run.write_files = False
    run.world = ALONE  # nobody deals batches yet: each process goes through all of it, which changes nothing
    try:
        yield
    finally:
        vars(run).update(attributes)
        for put_back in remembered:
            put_back()
        for name, optimizer in run.optimizers.items():
            optimizer.zero_grad()
            del optimizer.param_groups[groups[name] :]
            optimizer.load_state_dict(rest[name])
        for callback, state in zip(callbacks, states, strict=True):
            if state:
                callback.load_state_dict(state)
        if run.scaler is not None and scaler is not None:
            run.scaler.load_state_dict(scaler)
        rng.load_state_dict(streams)
        tell_unsaved(run)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningRateCurve:
    """The losses that a rising learning rate gave.

    Attributes:
        rates: The learning rates, rising geometrically.
        losses: The smoothed training loss at each.

    >>> LearningRateCurve(rates=[0.01, 0.1, 1.0, 10.0], losses=[2.0, 1.9, 1.2, 5.0]).suggestion
    0.1
    """

    rates: list[float]
    losses: list[float]

    def __repr__(self) -> str:
        return f"LearningRateCurve({len(self.rates)} rates, suggestion {self.suggestion:.3g})"

    @property
    def suggestion(self) -> float:
        """The rate at which the loss falls most steeply on a logarithmic axis, well below the rate that diverges."""
        lowest = self.losses.index(min(self.losses))
        falls = [later - earlier for earlier, later in itertools.pairwise(self.losses[: lowest + 1])]
        return self.rates[falls.index(min(falls))] if falls else self.rates[0]

    def plot(self, path: Any = None) -> Any:
        """Draw the curve with the suggestion; returns a matplotlib figure (extra `plots`).

        Args:
            path: Where to save the picture, if anywhere.
        """
        from dlkit import plots

        return plots.lr_curve(self.rates, self.losses, self.suggestion, path=path)


def lr_find(run: Run, step: Step, batches: Iterable[Any], *, start: float, end: float, steps: int) -> LearningRateCurve:
    """See `Trainer.lr_find`.

    Args:
        run: The run; put back as it was.
        step: Does one step on one batch.
        batches: Without an end, on the device.
        start: The first rate.
        end: The last one.
        steps: How many.
    """
    if not 0 < start < end < math.inf:
        raise ArgumentError(f"lr_find needs 0 < start < end, not {start} and {end}")
    rates: list[float] = []
    losses: list[float] = []
    with undone(run):
        run.model.train()
        average = 0.0
        for number, batch in enumerate(itertools.islice(batches, steps)):
            rate = start * (end / start) ** (number / (steps - 1))
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            if (done := step(run, {number: batch})) is None:
                continue
            values = done[0]
            value = float(next(iter(values.values())) if isinstance(values, dict) else values)
            average = 0.9 * average + 0.1 * value if math.isfinite(value) else math.inf
            smoothed = average / (1 - 0.9 ** (number + 1))  # as Adam corrects its averages for their start at zero
            if not math.isfinite(smoothed) or (losses and smoothed > 4 * min(losses)):
                break
            rates.append(rate)
            losses.append(smoothed)
    if len(rates) < 2:
        raise TrainingError(f"the loss diverged immediately, at a learning rate of {start:g}; choose a smaller start")
    return LearningRateCurve(rates=rates, losses=losses)


def overfit(run: Run, step: Step, batches: Sequence[Any], *, epochs: int) -> History:
    """See `Trainer.overfit`.

    Args:
        run: The run, which the caller restores.
        step: Does one step on a group of batches.
        batches: On the device.
        epochs: How often to go through them.
    """
    history = History()
    run.model.train()
    for epoch in range(epochs):
        for group in groups(batches, run.accumulate):
            if (done := step(run, dict(enumerate(group)))) is None:
                continue
            run.losses.add(done[0], done[1], run.step)
            run.cursor.step += 1
            run.cursor.batch += len(group)
        means = {f"train_{name}": value for name, value in run.losses.mean().items()}
        history.rows.append({"epoch": epoch + 1, "step": run.step, **means})
        run.losses.reset()
    step.settle()
    return history
