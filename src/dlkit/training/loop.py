"""The training loop, on one screen. Everything it does beside training is in the callbacks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from dlkit import rng
from dlkit._fetching import ELSEWHERE, LEFT_OUT
from dlkit._language import Message
from dlkit._layer_errors import locate
from dlkit.callbacks.base import Callback, overrides
from dlkit.runs.every import Every
from dlkit.runs.history import Row
from dlkit.runs.state import Run
from dlkit.training.batches import groups
from dlkit.training.sources import Source, nothing, nothing_left
from dlkit.training.steps import Step

__all__ = ["Hooks", "Routine", "run_epochs"]


class Hooks:
    """The callbacks' overridden hooks, so that the others cost nothing.

    Args:
        callbacks: In the order of the list, `Checkpoint` last.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = sorted(callbacks, key=lambda callback: callback.order)

    def __getitem__(self, hook: str) -> list[Callable[..., None]]:
        return [getattr(callback, hook) for callback in self.callbacks if overrides(callback, hook)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Routine:
    """What a fit does: the pieces that the loop puts together.

    Attributes:
        source: The training batches.
        step: Does one optimizer step on a group of batches.
        validate: Gives the values of a validation, None when it was interrupted; or None without validation data.
        validate_every: In epochs or steps.
        prepare: Brings batches to the device, ahead of their use where that helps.
    """

    source: Source
    step: Step
    validate: Callable[[], dict[str, float] | None] | None
    validate_every: Every
    prepare: Callable[[Any], Any]


def run_epochs(run: Run, routine: Routine, hooks: Hooks) -> None:
    """Train until the run has all its epochs, or a stop is requested.

    Args:
        run: The run, fresh or resumed at any safe point.
        routine: What to do.
        hooks: Who listens.
    """
    while run.epoch < run.epochs and run.stop_reason is None:
        for hook in hooks["on_epoch_start"]:
            hook(run)
        _train_epoch(run, routine, hooks)


def _train_epoch(run: Run, routine: Routine, hooks: Hooks) -> None:
    cursor, losses, step = run.cursor, run.losses, routine.step
    step_end, safe_point = hooks["on_step_end"], hooks["on_safe_point"]
    steps = routine.validate_every.number if routine.validate_every.unit == "steps" and routine.validate else 0
    began = run.epoch_began = (cursor.step, cursor.batch)
    run.stream = rng.derive(run.seed, rng.STEP, cursor.epoch)
    if steps and cursor.step and cursor.step % steps == 0 and cursor.validated != cursor.step:
        _validate(run, routine, hooks)  # a run that was stopped in the middle of this validation
        for hook in safe_point:
            hook(run)
    batches = routine.source.batches(cursor.epoch, cursor.batch) if run.stop_reason is None else ()
    with contextlib.closing(groups(routine.prepare(batches), run.accumulate)) as planned_groups:
        del batches  # else the traceback of an error keeps them, and the workers behind them
        for planned in planned_groups:
            group = {n: batch for n, batch in enumerate(planned) if batch is not LEFT_OUT and batch is not ELSEWHERE}
            run.between_steps = False
            try:
                done = step(run, group) if group or run.world.size > 1 else None
            except Exception as error:
                locate(error, run.place_of(cursor.step))
                raise
            if done is None:
                run.pass_over(len(planned))
                run.between_steps = True
                continue
            values, count, samples = done
            losses.add(values, count, cursor.step)
            cursor.step += 1
            cursor.batch += len(planned)
            cursor.samples += samples
            for hook in step_end:
                hook(run)
            run.between_steps = True
            run.agree()
            if steps and cursor.step % steps == 0:
                _validate(run, routine, hooks)
            for hook in safe_point:
                hook(run)
            if run.stop_reason is not None:
                return
    if run.stop_reason is None:
        if cursor.batch and (cursor.step, 0) == began:
            raise nothing_left(cursor.batch, cursor.epoch)
        _end_epoch(run, routine, hooks)
    for hook in safe_point:
        hook(run)


def _end_epoch(run: Run, routine: Routine, hooks: Hooks) -> None:
    cursor = run.cursor
    if cursor.batch == 0:
        raise nothing(routine.source, cursor.epoch)
    every, last = routine.validate_every, cursor.epoch + 1 >= run.epochs
    if routine.validate and (last or (every.unit == "epochs" and (cursor.epoch + 1) % every.number == 0)):
        _validate(run, routine, hooks)
        if cursor.validated != cursor.step:
            return  # interrupted: the resumed run starts with this validation
    if not run.history.rows or run.history.rows[-1]["step"] != cursor.step:
        _write_row(run, {}, hooks)
    run.between_steps = False
    for hook in hooks["on_epoch_end"]:
        hook(run)
    cursor.epoch, cursor.batch = cursor.epoch + 1, 0
    run.between_steps = True
    if cursor.epoch >= run.epochs and run.stop_reason is None:
        several = Message("completed {epochs} epochs", epochs=run.epochs)
        run.request_stop(Message("completed 1 epoch") if run.epochs == 1 else several, final=True)


def _validate(run: Run, routine: Routine, hooks: Hooks) -> None:
    if routine.validate is None or run.cursor.validated == run.cursor.step:
        return
    values = routine.validate()
    if values is not None:
        run.cursor.validated = run.cursor.step
        _write_row(run, {f"val_{name}": value for name, value in values.items()}, hooks)


def _write_row(run: Run, measured: Row, hooks: Hooks) -> None:
    """The one moment at which history, early stopping, best checkpoint and plateau see the same values."""
    row: Row = {"epoch": run.epoch + 1, "step": run.step}
    row |= {f"train_{name}": value for name, value in run.losses.mean().items()}
    row |= {"lr": float(run.optimizer.param_groups[0]["lr"]), **measured, **run.take_logged()}
    run.losses.reset()
    run.between_steps = False  # until everybody has seen the row: half a judgement must not be saved
    run.history.rows.append(row)
    for hook in hooks["on_log"]:
        hook(run, row)
    run.between_steps = True
