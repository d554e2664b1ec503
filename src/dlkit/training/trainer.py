"""`Trainer`: puts a run together from the user's own objects and hands it to the loop."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlkit import rng
from dlkit._arguments import switch, whole_number
from dlkit._devices import pick_device
from dlkit.callbacks.base import Callback
from dlkit.callbacks.checkpoint import Checkpoint
from dlkit.callbacks.features import ReuseFeatures
from dlkit.callbacks.frozen import CheckFrozen
from dlkit.callbacks.guards import StopOnNaN, TellNaN, watch_evaluation
from dlkit.callbacks.progress import Progress
from dlkit.callbacks.unfreeze import Unfreeze
from dlkit.errors import ArgumentError
from dlkit.metrics import Metrics
from dlkit.runs.checking import unfilled_parameters
from dlkit.runs.every import Every
from dlkit.runs.history import History
from dlkit.runs.judged import leave_judged
from dlkit.runs.modelfile import write_model_file
from dlkit.runs.state import Run
from dlkit.runs.store import CheckpointStore, plain
from dlkit.samplers import Shuffle
from dlkit.training import batches as batch_tools
from dlkit.training import evaluation, meaning, rehearsal, resuming, setup
from dlkit.training.closures import ClosureStep, needs_closure
from dlkit.training.continuing import go_on, same_threads
from dlkit.training.handed import refuse_used
from dlkit.training.identity import identity_of
from dlkit.training.loop import Hooks, Plan, run_epochs
from dlkit.training.planning import ScriptRates, check_plans, plans_of
from dlkit.training.probing import marks_of
from dlkit.training.reuse import Reuse
from dlkit.training.signals import EXIT_TERMINATED, in_notebook, listening
from dlkit.training.sources import Source, nothing, present, source_of
from dlkit.training.steps import CustomStep, Forward, StandardStep, Step
from dlkit.training.units import Unit
from dlkit.training.windows import Windows
from dlkit.transfer.freezing import is_frozen

__all__ = ["Trainer"]


class Trainer:
    """Trains a plain model with a plain loss and a plain optimizer; the numbers are the same whatever happens.

    On the CPU the final weights are bit for bit the same for any number of loader workers, with or without a
    progress bar, and after any number of interruptions and restarts (with a `Checkpoint`). Nothing is subclassed:
    batches are `(inputs, target)`, dicts, or tuples, and the model is called as `model(x)`, `model(**x)`, `model(*x)`.

    Args:
        model: Any module. One in channels-last format gets its images in that format.
        loss: `loss(output, target)` returning one number; None when the model returns the loss itself, has it as
            `.loss` or under "loss" in what it returns, or returns a dict of losses, which are added. Auxiliary heads
            of torchvision's models are trained with the weights of its references; other parts that the loss leaves
            out are refused. A loss of your own gets a tuple, list or dict whole.
        optim: An optimizer made on the model's parameters, or a dict of several for a `step` of your own. One whose
            `step` demands a closure, such as `LBFGS`, gets one: loss, gradients and callbacks on gradients, anew at
            each call.
        metrics: Names ("accuracy", see `dlkit.metrics.Metrics`), torchmetrics objects, or a mapping from names to
            them; measured on validation data, for a regression on a table in the target's own unit.
        callbacks: See `dlkit.callbacks`.
        scheduler: Any scheduler of torch, or `LearningRate(...)` to say how it is stepped.
        device: "auto" takes CUDA, then Apple's MPS, then the CPU.
        precision: "fp32", "bf16" or "fp16" (with a gradient scaler).
        accumulate: Batches per optimizer step; the gradient is that of one big batch.
        count: `count(batch)` gives what the loss of a batch is divided by, so that batches of different size are put
            together right. Not needed for the losses of torch, nor where a loss of your own, or of the model, is a mean
            over samples: the rows of the target, or the batch's own length.
        compile: Run the model through `torch.compile`; files keep clean keys.
        step: `step(run, batch)` takes over the step: it runs backward and the optimizers in `run.optimizers` itself,
            and returns a scalar tensor, or a dict of named ones, to be shown.
        seed: What all randomness of the training is derived from. The model's first weights are drawn before, by you.
        progress: Show a bar, one line per row of the history, and what was resumed.

    Raises:
        ArgumentError: something cannot be meant, such as an optimizer without any of the model's parameters; at the
            start of a fit, an optimizer, schedule, callback, metric or loss that remembers the run of another Trainer.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> data = TensorDataset(torch.randn(8, 2), torch.randint(0, 2, (8,)))
    >>> model = nn.Linear(2, 2)
    >>> trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1), progress=False)
    >>> history = trainer.fit(DataLoader(data, 4, shuffle=True), epochs=2)
    >>> history["epoch"]
    [1, 2]
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Any,
        optim: Optimizer | Mapping[str, Optimizer],
        *,
        metrics: Iterable[Any] | Mapping[str, Any] = (),
        callbacks: Sequence[Callback] = (),
        scheduler: Any = None,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        accumulate: int = 1,
        count: Callable[[Any], Any] | None = None,
        compile: bool = False,  # noqa: A002  (torch's own name for it)
        step: Callable[[Run, Any], Any] | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        setup.check_kinds(model, loss, step)
        accumulate, seed = whole_number("accumulate", accumulate, least=1), whole_number("seed", seed)
        compile, progress = switch("compile", compile), switch("progress", progress)  # noqa: A001
        optimizers, own = setup.optimizers_of(optim), setup.listed_callbacks(callbacks)
        self.device = pick_device(device)
        self.model = setup.bare(model).to(self.device)
        called: Any = model if model is not self.model else (torch.compile(self.model) if compile else self.model)
        setup.check(self.model, optimizers, accumulate, step, precision, compile)
        self.metrics = Metrics(metrics, loss=loss)
        self.seed, self.progress = seed, progress
        self.callbacks = [*setup.schedule(scheduler), *own, *([Progress()] if progress else [])]
        setup.check_callbacks(self.callbacks, step, optimizers)
        others = {"step": step, **self.metrics.objects}
        loss, parts = setup.parts_on_device(loss, others, self.model, self.device)
        self._forward = Forward(called, loss, precision=precision, device=self.device, count=count)
        modules = (part for name, part in parts.items() if name.partition(".")[0] == "loss")
        self._forward.loss_modules = [part for part in modules if isinstance(part, nn.Module)]
        self._custom_step, self._precision, self._count = step, precision, count
        self._channels_last = setup.is_channels_last(self.model)
        self.run = Run(self.model, optimizers, device=self.device, seed=seed, verbose=progress)
        self.run.accumulate = accumulate
        self.run.parts = parts
        self.run.outputs = self.metrics.objective.outputs
        if precision == "fp16":
            self.run.scaler = torch.amp.GradScaler(self.device.type)
        # All of it before any training has changed it.
        self._rates = {**resuming.rates_of(optimizers), **plans_of(self.callbacks)}
        self._loss_settings = resuming.loss_settings(self.run, loss)
        self._script_rates = ScriptRates(optimizers)
        self._identity = identity_of(self.run, loss=loss, step=step)

    @property
    def history(self) -> History:
        """What the run has measured so far."""
        return self.run.history

    def fit(
        self,
        train: Any,
        val: Any = None,
        *,
        epochs: int = 1,
        resume: str | os.PathLike[str] | bool = "auto",
        rates: str = "saved",
        steps_per_epoch: int | None = None,
        validate_every: str = "epoch",
        dry_run: bool = False,
        overfit: int = 0,
    ) -> History:
        """Train until the run has `epochs` epochs in all, and return its history.

        When it ends, in whatever way, the model holds the weights that were judged: the best ones where a `Checkpoint`
        brings them back, else those of the last step (their average, with `EMA`). `evaluate`, `predict` and every file
        use them; a further fit trains on from where training stood.

        Args:
            train: A stock `DataLoader`, a `dlkit.DataLoader`, or any iterable of batches.
            val: The same, for validation; None for none.
            epochs: The total: a run that has 3 of 5 epochs trains 2 more, a finished one none.
            resume: "auto" goes on with what is in the `Checkpoint` folder, if anything; True demands that there is
                something; False starts anew with the weights that a Trainer was made with (older files are moved
                aside); a path loads that checkpoint file, also one of a run with other data, seed or code.
            rates: Whose learning rates, other settings of the optimizer and schedule hold when a saved run goes on:
                those "saved", or those of this "script". What the optimizer has gathered (momentum) is always kept,
                and a schedule of the script stands where it would after as many steps.
            steps_per_epoch: So many steps are an epoch, for streams without an end and for very long data; the next one
                goes on from there. None: all of the data are.
            validate_every: "epoch", "2 epochs" or "500 steps"; the end of the last epoch always counts.
            dry_run: Run two batches through every stage, write nothing, and put everything back as it was.
            overfit: Train on the first so many batches only, again and again, to see whether the model can learn.

        Raises:
            DataError: the loader yields nothing; or training and validation data mean different things (classes,
                schema, vocabulary, normalisation), of which the first is named.
            TrainingError: loss, model and batches do not fit; the message has the shapes.
            ResumeError: the saved run and this script do not fit, or it is another run; each difference is named. Or
                the run is longer than the one that its schedule was planned for.
            RunLockedError: another process trains in the folder.
            SystemExit: with code 143 after SIGTERM or SIGUSR1, when the state is saved (not in a notebook).
        """
        epochs, overfit = whole_number("epochs", epochs, least=1), whole_number("overfit", overfit, least=0)
        dry_run = switch("dry_run", dry_run)
        steps = None if steps_per_epoch is None else whole_number("steps_per_epoch", steps_per_epoch, least=1)
        if not (resume == "auto" or isinstance(resume, bool | str | os.PathLike)):
            raise ArgumentError(f"resume must be 'auto', True, False, or the path of a checkpoint, not {resume!r}")
        if rates not in ("saved", "script"):
            raise ArgumentError(f"rates must be 'saved' or 'script', not {rates!r}")
        if rates == "script" and self.run.step:
            raise ArgumentError(
                f"rates='script' takes the rates that a Trainer was made with, and this one has trained "
                f"{self.run.step} steps; make a new optimizer and Trainer, and go on from the Checkpoint's folder"
            )
        every = Every.parse(validate_every)
        if every.unit == "seconds":
            raise ArgumentError(
                "validate_every in time would give other numbers on another machine; use steps or epochs"
            )
        source, val_source = self._sources(train, val, overfit)
        self.run.data, self.run.val_data = meaning.agreed(self.run.model, train, val)
        self._unit()
        if dry_run:
            return self._dry_run(source, val_source)
        self._set_up_callbacks()
        source, val_source = self._reusing(source, val_source)
        source = source if steps is None else Windows(source, steps * self.run.accumulate)
        with self._folder(), same_threads(), listening(self.run) as signals:
            history = self._fit(source, val_source, epochs, resume, every, rates)
        if signals - {2} and not in_notebook():  # 2 is Ctrl-C, which returns
            raise SystemExit(EXIT_TERMINATED)
        return history

    def evaluate(self, loader: Any) -> dict[str, float]:
        """The mean loss over samples, and the metrics, those of a regression on a table in the target's own unit.

        Args:
            loader: Anything `fit` takes.

        Raises:
            TrainingError: the loader yields nothing.
            DataError: the data mean something else than the training data, or than the model says.
        """
        meaning.check(self.run, loader)
        source = source_of(loader, rng.derive(self.seed, rng.EVALUATE))
        with rng.isolated(source.seed):
            batches = self._prepare(source.batches(0))
            watch = watch_evaluation(functools.partial(source.indices, 0))
            values = evaluation.evaluate(
                self._forward, batches, self.metrics, model=self._eval_module(), unit=self._unit(loader), watch=watch
            )
        return values or {}

    def predict(self, loader: Any, *, has_targets: bool | None = None, scaled: bool = False) -> Any:
        """The model's outputs for all samples, in the loader's order, on the CPU.

        Args:
            loader: Anything `fit` takes; targets are left out.
            has_targets: False when batches of two tensors are two inputs, not inputs and target.
            scaled: Of a regression on a table, give the outputs as the model gives them, not in the target's own unit.

        Returns:
            A tensor [N, ...], or dicts and tuples of such, as the model gives them. Where the outputs of the batches
            differ in width (each padded to its own longest sample), a list of N tensors, which is said; each still has
            the padding of its batch.

        Raises:
            DataError: the data mean something else than the training data, or than the model says.

        Warns:
            UserWarning: the loader shuffles, so nobody could tell which prediction belongs to which sample; or samples
                cannot be read and are left out, so that there are fewer predictions than samples.
        """
        meaning.check(self.run, loader)
        source = source_of(loader, rng.derive(self.seed, rng.EVALUATE))
        if isinstance(getattr(getattr(source, "loader", None), "planner", None), Shuffle):
            warnings.warn(
                "the loader shuffles, and so are the predictions; pass one without shuffle=True", stacklevel=2
            )
        with rng.isolated(source.seed):
            batches = self._prepare(source.batches(0))
            planned = (
                functools.partial(source.indices, 0) if getattr(meaning.data_of(loader), "leaves_out", False) else None
            )
            outputs = evaluation.predict(
                self._forward, batches, model=self._eval_module(), has_targets=has_targets, planned=planned
            )
        if evaluation.has_lists(outputs):
            self.run.say(
                "the outputs of the batches differ in width, so the predictions are a list with one tensor for each "
                "sample, as wide as its batch was; torch.nn.utils.rnn.pad_sequence(..., batch_first=True) makes it one"
            )
        return outputs if scaled else self._unit(loader).predictions(outputs)

    def lr_find(
        self, loader: Any, *, start: float = 1e-7, end: float = 10.0, steps: int = 100
    ) -> rehearsal.LearningRateCurve:
        """Raise the learning rate step by step and watch the loss (Smith 2017); everything is as before afterwards.

        Args:
            loader: The training data; only `steps` batches are used.
            start: The first learning rate.
            end: The last one, reached geometrically unless the loss explodes before.
            steps: How many steps.
        """
        steps = whole_number("steps", steps, least=2)
        meaning.check(self.run, loader)
        source, step = source_of(loader, self.seed), self._step([])

        def batches(epoch: int) -> Iterator[Any]:
            empty = True
            for batch in self._prepare(present(source.batches(epoch))):
                empty = False
                yield batch
            if empty:
                raise nothing(source, epoch)

        return rehearsal.lr_find(self.run, step, batches, start=start, end=end, steps=steps)

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the model into one file that predicts anywhere, see `dlkit.save`.

        Args:
            path: The file; by custom it ends in ".safetensors".
            **options: See `dlkit.save`: `classes`, `preprocessing`, `task`, `outputs`, `example`, `metrics`, `format`;
                what is not given is taken from the training data of the last `fit` (images are prepared as in
                validation, where there was one), then from the model; `metrics` from the history, `outputs` from the
                loss.

        Raises:
            ArgumentError: the model is not registered, or what the file needs is not known.
        """
        return write_model_file(self.run, path, **options)

    def _dry_run(self, source: Source, val: Source | None) -> History:
        """Two batches through training, validation, callbacks and what would be saved, with nothing left behind."""
        callbacks = self.callbacks
        with rehearsal.undone(self.run, callbacks):
            short = source_of(rehearsal.first_batches(source, 2), self.seed)
            short_val = None if val is None else source_of(rehearsal.first_batches(val, 2), self.seed)
            self.callbacks = [rehearsal.stand_in(callback) for callback in callbacks]
            self._set_up_callbacks()
            try:
                history = self._fit(short, short_val, 1, None, Every(unit="epochs", number=1))
                plain(self.run.capture())
            finally:
                self.callbacks = callbacks
        self.run.say("dry run: training, validation, callbacks and checkpoint content are fine; nothing was written")
        return history

    def _sources(self, train: Any, val: Any, overfit: int) -> tuple[Source, Source | None]:
        pin = self.device.type == "cuda"
        source = source_of(train, self.seed, pin_memory=pin)
        if overfit:
            source = source_of(rehearsal.first_batches(source, overfit), self.seed)
        return source, None if val is None else source_of(val, rng.derive(self.seed, rng.EVALUATE), pin_memory=pin)

    def _checks(self) -> list[Callback]:
        """What watches over the losses and a frozen model; not the user's callbacks, and nothing of it is saved."""
        told = any(isinstance(callback, StopOnNaN) for callback in self.callbacks)
        staged = any(isinstance(callback, Unfreeze) for callback in self.callbacks)
        frozen: list[Callback] = [CheckFrozen()] if staged or is_frozen(self.model) else []
        return frozen if told else [*frozen, TellNaN()]

    def _set_up_callbacks(self) -> None:
        for hook in Hooks(self.callbacks)["on_setup"]:
            hook(self.run)
        self._script_rates.complete(self.run.optimizers)

    def _reusing(self, source: Source, val: Source | None) -> tuple[Source, Source | None]:
        """The same batches, as stored features while the first part of the model is frozen."""
        if self._custom_step is not None or self._forward.loss is None or self._count is not None:
            return source, val  # what takes a batch as the loader gives it gets it so
        settings = [callback for callback in self.callbacks if isinstance(callback, ReuseFeatures)]
        reuse = Reuse(self.run, self._forward, settings[0] if settings else ReuseFeatures())
        wrapped = reuse.wrapped(source, training=True)
        return wrapped, None if val is None else reuse.wrapped(val, training=False)

    @contextlib.contextmanager
    def _folder(self) -> Iterator[None]:
        with contextlib.ExitStack() as locked:
            for store in self._stores():
                store.lock()
                locked.callback(store.unlock)
            yield

    def _stores(self) -> list[CheckpointStore]:
        """The folders of the run; the first is the one that it goes on from."""
        return [callback.store for callback in self.callbacks if isinstance(callback, Checkpoint)]

    def _fit(
        self, source: Source, val: Source | None, epochs: int, how: Any, every: Every, rates: str = "saved"
    ) -> History:
        run, hooks = self.run, Hooks([*self._checks(), *self.callbacks])
        before = run.epochs if run.step else None
        self._set_up(source, val, epochs, every)
        before = self._go_on(source, val, how, rates) or before
        self._begin(source, epochs)
        if how is not None:  # a rehearsal works on copies, and puts everything back
            refuse_used(run, self.callbacks)
        if run.stop_reason is None:
            check_plans(run, self.callbacks, before, epochs)
            setup.warn_untrained(run)
        try:
            for hook in hooks["on_fit_start"]:
                hook(run)
            plan = self._plan(source, val, every, hooks)
            run_epochs(run, plan, hooks)
            if isinstance(plan.step, StandardStep):
                plan.step.settle()
        except Exception as error:
            run.stop_reason = run.stop_reason or f"{type(error).__name__}: {error}"
            if run.between_steps:  # such as a file that cannot be read: nothing is half done, so nothing need be lost
                for hook in hooks["on_safe_point"]:
                    hook(run)
            raise
        finally:
            leave_judged(run)
            for hook in hooks["on_fit_end"]:
                hook(run)
        self._say_end(epochs)
        return run.history

    def _set_up(self, source: Source, val: Source | None, epochs: int, every: Every) -> None:
        run = self.run
        run.epochs, run.num_batches = epochs, source.num_batches
        run.stop_reason, run.keep_state, run.between_steps = None, True, True
        run.losses.watchers.clear()
        run.directions = self._directions(has_val=val is not None)
        self._settings = resuming.settings_of(
            run,
            source,
            self.callbacks,
            **self._rates,
            precision=self._precision,
            **self._loss_settings,
            **{"validate every": f"{every.number} {every.unit}"},
            **{"validation data": None if val is None else val.describe()},
        )
        run.capture = functools.partial(resuming.capture, run, source, self.callbacks, self._settings, self._identity)
        run.indices = source.indices

    def _directions(self, *, has_val: bool) -> dict[str, bool | None]:
        directions: dict[str, bool | None] = {"train_loss": False}
        if has_val:
            directions["val_loss"] = False
            directions |= {f"val_{name}": self.metrics.higher_is_better(name) for name in self.metrics}
        return directions

    def _go_on(self, source: Source, val: Source | None, how: Any, rates: str) -> int | None:
        """Put the run back to a saved state; returns the epochs that it was to have when it was last trained."""
        run, stores = self.run, self._stores()
        if run.step == 0 and how is not None and (stores or how != "auto"):
            self._identity["data"] = marks_of(source)
            modules = {name: part for name, part in run.parts.items() if isinstance(part, nn.Module)}
            run.unfilled = {name: unfilled_parameters(part) for name, part in {"model": run.model, **modules}.items()}
        script = resuming.Script(
            settings=self._settings,
            identity=self._identity,
            rates=self._script_rates if rates == "script" else None,
            names_file=how not in ("auto", True, False, None),
        )
        return go_on(run, source, val, self.callbacks, stores, how, script)

    def _begin(self, source: Source, epochs: int) -> None:
        run = self.run
        run.weights_from = None
        if run.step == 0 and run.epoch == 0:
            rng.seed_everything(rng.derive(run.seed, rng.STEP))
        if run.cursor.finished.startswith("completed") and run.epoch < epochs:
            run.cursor.finished = ""
        if run.cursor.finished or run.epoch >= epochs:
            run.stop_reason = run.cursor.finished or f"{run.epoch} epochs are done"
            stopped = run.cursor.finished and not run.cursor.finished.startswith("completed")
            run.say(
                f"nothing to train: this run is finished ({run.stop_reason}, {epochs} asked for); "
                f"{'' if stopped else 'to train on give more epochs, '}to start anew use another folder or "
                "fit(..., resume=False)"
            )
        self.model.train()

    def _plan(self, source: Source, val: Source | None, every: Every, hooks: Hooks) -> Plan:
        return Plan(
            source=source,
            step=self._step(hooks["on_gradients"]),
            validate=None if val is None else self._validation(val, hooks["on_validation_step"]),
            validate_every=every,
            prepare=self._prepare,
        )

    def _step(self, on_gradients: Sequence[Callable[..., None]]) -> Step:
        if self._custom_step:
            return CustomStep(self._custom_step, self._count)
        kind = ClosureStep if needs_closure(self.run.optimizer) else StandardStep
        return kind(self._forward, on_gradients)

    def _validation(self, val: Source, hooks: Sequence[Callable[..., None]]) -> Callable[[], dict[str, float] | None]:
        watch = watch_evaluation(functools.partial(val.indices, 0))  # one for all validations: said once
        return functools.partial(self._validate, val, hooks, watch)

    def _validate(self, val: Source, hooks: Sequence[Callable[..., None]], watch: Any) -> dict[str, float] | None:
        run, total = self.run, val.num_batches

        def go_on(done: int) -> bool:
            for hook in hooks:
                hook(run, done, total)
            return run.stop_reason is None

        if run.stop_reason is not None:
            return None
        batches = self._prepare(val.batches(0))
        return evaluation.evaluate(
            self._forward, batches, self.metrics, model=self._eval_module(), unit=self._unit(), go_on=go_on, watch=watch
        )

    def _unit(self, loader: Any = None) -> Unit:
        return Unit(meaning.target_of(self.run, loader), self._forward.objective)

    def _eval_module(self) -> nn.Module:
        """The averaged model where there is one, else the one that is called, compiled or not."""
        return self._forward.model if self.run.eval_model is self.model else self.run.eval_model

    def _prepare(self, batches: Any) -> Any:
        if self.device.type == "cuda":
            return batch_tools.ahead(batches, self.device, channels_last=self._channels_last)
        if self.device.type == "cpu" and not self._channels_last:
            return batches
        return (batch_tools.to_device(batch, self.device, channels_last=self._channels_last) for batch in batches)

    def _say_end(self, epochs: int) -> None:
        run = self.run
        if run.stop_reason is not None and run.cursor.finished == "" and run.epoch < epochs:
            run.say(f"stopped after step {run.step}: {run.stop_reason}")
        elif run.stop_reason is not None:
            run.say(f"finished after step {run.step}: {run.stop_reason}")
