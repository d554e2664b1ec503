"""One fit: what lies between the objects of a Trainer and the loop, and how it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn

from dlkit import rng
from dlkit._language import Message
from dlkit.callbacks.base import Callback
from dlkit.callbacks.frozen import CheckFrozen
from dlkit.callbacks.guards import TellNaN
from dlkit.distributed import joined
from dlkit.errors import ArgumentError
from dlkit.runs.checking import unfilled_parameters
from dlkit.runs.every import Every
from dlkit.runs.history import History
from dlkit.runs.judged import leave_judged
from dlkit.runs.state import Run
from dlkit.runs.store import CheckpointStore
from dlkit.training import resuming, setup, together
from dlkit.training.closures import ClosureStep, needs_closure
from dlkit.training.continuing import go_on, same_threads
from dlkit.training.handed import refuse_used
from dlkit.training.judging import Judge
from dlkit.training.loop import Hooks, Routine, run_epochs
from dlkit.training.origin import Origin, Settings
from dlkit.training.own_steps import OwnStep
from dlkit.training.probing import marks_of
from dlkit.training.reuse import Reuse
from dlkit.training.reuse_settings import ReuseFeatures
from dlkit.training.rounds import ShardedStep
from dlkit.training.schedules import check_schedules
from dlkit.training.sharding import Sharding, sharded
from dlkit.training.signals import EXIT_TERMINATED, in_notebook, listening
from dlkit.training.sources import Source
from dlkit.training.steps import StandardStep, Step
from dlkit.training.windows import Windows
from dlkit.transfer.freezing import is_frozen

__all__ = ["FitRequest", "Fitting"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitRequest:
    """What a fit is asked for, see `Trainer.fit`.

    Attributes:
        epochs: The total.
        resume: "auto", True, False or a path.
        rates: "saved" or "script".
        steps: Steps per epoch; None for all of the data.
        every: When to validate.
        rehearsal: It continues from nothing, works on copies, and the caller restores everything.

    Raises:
        ArgumentError: something else.
    """

    epochs: int = 1
    resume: str | os.PathLike[str] | bool = "auto"
    rates: str = "saved"
    steps: int | None = None
    every: Every = Every(unit="epochs", number=1)  # noqa: RUF009  (frozen)
    rehearsal: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.resume, bool | str | os.PathLike):
            raise ArgumentError(f"resume must be 'auto', True, False, or the path of a checkpoint, not {self.resume!r}")
        if self.rates not in ("saved", "script"):
            raise ArgumentError(f"rates must be 'saved' or 'script', not {self.rates!r}")
        if self.every.unit == "seconds":
            raise ArgumentError(
                "validate_every in time would give other numbers on another machine; use steps or epochs"
            )


class Fitting:
    """Carries out the fits of one Trainer.

    Args:
        run: The run.
        judge: Measures its model.
        origin: What it was made from.
        step: The user's own step, or None.
        count: As given to the Trainer.
        reuse: How features are reused; None for not at all.
    """

    def __init__(
        self, run: Run, judge: Judge, origin: Origin, *, step: Any, count: Any, reuse: ReuseFeatures | None
    ) -> None:
        self.run, self.judge, self.origin = run, judge, origin
        self._custom, self._count, self._reuse = step, count, reuse
        self._sharding: Sharding | None = None

    def fit(self, source: Source, val: Source | None, callbacks: Sequence[Callback], wanted: FitRequest) -> History:
        """Train, with the run's folders locked and signals heard.

        Args:
            source: The training data.
            val: The validation data.
            callbacks: All of them.
            wanted: What is asked for.
        """
        if wanted.rates == "script" and self.run.step:
            raise ArgumentError(
                f"rates='script' takes the rates that a Trainer was made with, and this one has trained "
                f"{self.run.step} steps; make a new optimizer and Trainer, and resume from the Checkpoint's folder"
            )
        self._set_up_callbacks(callbacks)
        source, val = self._reusing(source, val)
        source = source if wanted.steps is None else Windows(source, wanted.steps * self.run.accumulate)
        self.run.write_files = self.run.world.leads
        with (
            joined(self.run.world, self.run.device),
            _locked(self.run, _stores(callbacks)),
            same_threads(),
            listening(self.run) as signals,
            contextlib.closing(source) if isinstance(source, Windows) else contextlib.nullcontext(),
        ):
            together.check_folders(self.run, [store.folder for store in _stores(callbacks)])
            history = self._train(source, val, callbacks, wanted)
            ends = self.run.world.any(bool(signals - {2}) or self.run.all_end)  # 2 is Ctrl-C, which returns
        if ends and not in_notebook():
            raise SystemExit(EXIT_TERMINATED)
        return history

    def rehearse(self, source: Source, val: Source | None, callbacks: Sequence[Callback]) -> History:
        """One epoch that continues from nothing; the caller restores everything.

        Args:
            source: The training data.
            val: The validation data.
            callbacks: Stand-ins for them.
        """
        self._set_up_callbacks(callbacks)
        return self._train(source, val, callbacks, FitRequest(rehearsal=True))

    def step(self, on_gradients: Sequence[Callable[..., None]]) -> Step:
        """The step of this run.

        Args:
            on_gradients: Hooks to call between the backward pass and the optimizer.
        """
        if self._custom is not None:
            modules = (self.run.model, *self.run.parts.values())
            return OwnStep(self._custom, self._count, [part for part in modules if isinstance(part, nn.Module)])
        if self._sharding is not None:
            return ShardedStep(self.judge.forward, on_gradients, self._sharding)
        kind = ClosureStep if needs_closure(self.run.optimizer) else StandardStep
        return kind(self.judge.forward, on_gradients)

    def _set_up_callbacks(self, callbacks: Sequence[Callback]) -> None:
        for hook in Hooks(callbacks)["on_setup"]:
            hook(self.run)
        self.origin.rates.complete(self.run.optimizers)

    def _reusing(self, source: Source, val: Source | None) -> tuple[Source, Source | None]:
        """The same batches, as stored features while the first part of the model is frozen."""
        batch_as_it_is = self._custom is not None or self.judge.forward.loss is None or self._count is not None
        if self._reuse is None or batch_as_it_is:
            return source, val
        reuse = Reuse(self.run, self.judge.forward, self._reuse)
        wrapped = reuse.wrapped(source, training=True)
        return wrapped, None if val is None else reuse.wrapped(val, training=False)

    def _train(self, source: Source, val: Source | None, callbacks: Sequence[Callback], wanted: FitRequest) -> History:
        run, hooks = self.run, Hooks([*self._checks(callbacks), *callbacks])
        before = run.epochs if run.step else None
        settings = self._set_up(source, val, callbacks, wanted)
        with run.world.leader_first():
            before = self._go_on(source, val, callbacks, wanted, settings) or before
        identity, called = self.origin.identity, self.judge.forward.model
        together.check(run, settings, identity, called, source)
        _begin(run, wanted.epochs)
        if not wanted.rehearsal:
            refuse_used(run, callbacks)
        if run.stop_reason is None:
            check_schedules(run, callbacks, before, wanted.epochs)
            if run.world.leads:
                setup.warn_untrained(run)
        try:
            for hook in hooks["on_fit_start"]:
                hook(run)
            with sharded(run) as self._sharding:
                routine = self._routine(source, val, wanted.every, hooks)
                run_epochs(run, routine, hooks)
                routine.step.settle()
        except Exception as error:
            run.stop_reason = run.stop_reason or f"{type(error).__name__}: {error}"
            if run.between_steps:  # such as a file that cannot be read: nothing is half done, so nothing need be lost
                for hook in hooks["on_safe_point"]:
                    hook(run)
            raise
        finally:
            self._sharding = None
            leave_judged(run)
            for hook in hooks["on_fit_end"]:
                hook(run)
        together.leave_the_same(run)
        _say_end(run, wanted.epochs)
        return run.history

    def _checks(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """What watches over the losses and a frozen model; not the user's callbacks, and nothing of it is saved."""
        frozen = is_frozen(self.run.model) or any(callback.freezes for callback in callbacks)
        return [*([CheckFrozen()] if frozen else []), TellNaN()]

    def _set_up(
        self, source: Source, val: Source | None, callbacks: Sequence[Callback], wanted: FitRequest
    ) -> Settings:
        run = self.run
        run.epochs, run.num_batches = wanted.epochs, source.num_batches
        run.stop_reason, run.keep_state, run.between_steps = None, True, True
        run.losses.watchers.clear()
        run.directions = self.judge.directions(has_val=val is not None)
        settings = self.origin.settings(run, source, val, callbacks, wanted.every)
        run.capture = functools.partial(resuming.capture, run, source, callbacks, settings, self.origin.identity)
        run.indices = source.indices
        return settings

    def _go_on(
        self,
        source: Source,
        val: Source | None,
        callbacks: Sequence[Callback],
        wanted: FitRequest,
        settings: Settings,
    ) -> int | None:
        """Put the run back to a saved state; returns the epochs that it was to have when it was last trained."""
        run, how, stores = self.run, None if wanted.rehearsal else wanted.resume, _stores(callbacks)
        if run.step == 0 and how is not None and (stores or how != "auto"):
            self.origin.identity["data"] = marks_of(source)
            modules = {name: part for name, part in run.parts.items() if isinstance(part, nn.Module)}
            run.unfilled = {name: unfilled_parameters(part) for name, part in {"model": run.model, **modules}.items()}
        script = resuming.Script(
            settings=settings,
            identity=self.origin.identity,
            rates=self.origin.rates if wanted.rates == "script" else None,
            names_file=how not in ("auto", True, False, None),
        )
        return go_on(run, source, val, callbacks, stores, how, script)

    def _routine(self, source: Source, val: Source | None, every: Every, hooks: Hooks) -> Routine:
        return Routine(
            source=together.Dealt(source, self.run),
            step=self.step(hooks["on_gradients"]),
            validate=None if val is None else self.judge.validation(val, hooks["on_validation_step"]),
            validate_every=every,
            prepare=self.judge.prepare,
        )


@contextlib.contextmanager
def _locked(run: Run, stores: Sequence[CheckpointStore]) -> Iterator[None]:
    with contextlib.ExitStack() as locked:
        for store in stores if run.world.leads else ():
            store.lock()
            locked.callback(store.unlock)
        yield


def _stores(callbacks: Sequence[Callback]) -> list[CheckpointStore]:
    """The folders of the run; the first is the one that it continues from."""
    return [callback.store for callback in callbacks if callback.store is not None]


def _begin(run: Run, epochs: int) -> None:
    run.weights_from = None
    if run.step == 0 and run.epoch == 0:
        rng.seed_everything(rng.derive(run.seed, rng.STEP))
    if run.cursor.finished.startswith("completed") and run.epoch < epochs:
        run.cursor.finished = ""
    if run.cursor.finished or run.epoch >= epochs:
        run.stop_reason = run.cursor.finished or f"{run.epoch} epochs are done"
        stopped = run.cursor.finished and not run.cursor.finished.startswith("completed")
        finished = Message(
            "nothing to train: this run is finished ({reason}, {epochs} asked for)",
            reason=run.stop_reason,
            epochs=epochs,
        )
        if stopped:
            way = Message("to start over use another folder or fit(..., resume=False)")
        else:
            way = Message("to continue give more epochs, to start over use another folder or fit(..., resume=False)")
        run.say(Message("{told}; {way}", told=finished, way=way))
    run.model.train()


def _say_end(run: Run, epochs: int) -> None:
    if run.stop_reason is not None and run.cursor.finished == "" and run.epoch < epochs:
        run.say(Message("stopped after step {step}: {reason}", step=run.step, reason=run.stop_reason))
    elif run.stop_reason is not None:
        run.say(Message("finished after step {step}: {reason}", step=run.step, reason=run.stop_reason))
