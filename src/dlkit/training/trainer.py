"""`Trainer`: puts a run together from the user's own objects and hands it to the loop."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlkit import rng
from dlkit._arguments import switch, whole_number
from dlkit._calling import bare
from dlkit._devices import pick_device
from dlkit._html import facts
from dlkit._language import Message
from dlkit._near import known_arguments
from dlkit.callbacks.base import Callback
from dlkit.callbacks.progress import Progress
from dlkit.distributed import World
from dlkit.errors import ArgumentError
from dlkit.metrics import Metrics
from dlkit.runs.checkpointfile import plain
from dlkit.runs.every import Every
from dlkit.runs.history import History
from dlkit.runs.modelfile import write_model_file
from dlkit.runs.parts import watch_tensors
from dlkit.runs.state import Run
from dlkit.training import meaning, rehearsal, setup
from dlkit.training.batches import is_channels_last
from dlkit.training.fitting import FitRequest, Fitting
from dlkit.training.forward import Forward
from dlkit.training.judging import Judge
from dlkit.training.origin import Origin
from dlkit.training.own_evaluation import OwnEvaluation
from dlkit.training.reuse_settings import ReuseFeatures
from dlkit.training.sharding import check_shardable
from dlkit.training.sources import Source, source_of
from dlkit.training.summarizing import Summary, summarize

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
            out are refused. A custom loss gets a tuple, list or dict whole.
        optim: An optimizer made on the model's parameters, or a dict of several for a `step` of your own. One whose
            `step` demands a closure, such as `LBFGS`, gets one: loss, gradients and callbacks on gradients, again at
            each call.
        metrics: Names ("accuracy", see `dlkit.metrics.Metrics`), torchmetrics objects, or a mapping from names to
            them; measured on validation data, for a regression on a table in the target's own unit.
        callbacks: See `dlkit.callbacks`.
        scheduler: Any scheduler of torch, or `LearningRate(...)` to say how it is stepped.
        device: "auto" takes CUDA, then Apple's MPS, then the CPU.
        precision: "fp32", "bf16" or "fp16" (with a gradient scaler).
        accumulate: Batches per optimizer step; the gradient is that of one big batch. Processes that `torchrun` starts
            share them, and the bits are the same for any number of processes.
        parallel: How several processes hold the model. "replicate": each has all of it. "shard": each has a share of
            parameters, gradients and optimizer state while it is trained (torch's FSDP2), brought together for one
            block at a time, and the bits are the same; at the end of a fit the model is whole in each process. Every
            batch must then use all of the model, and optimizers work number by number (`SGD`, `AdamW` and so on).
        count: `count(batch)` gives what the loss of a batch is divided by, so that batches of different size are put
            together right. Not needed for the losses of torch, nor where a custom loss, or of the model, is a mean
            over samples: the rows of the target, or the batch's own length.
        compile: Run the model through `torch.compile`; files keep clean keys.
        step: `step(run, batch)` takes over the step: it runs backward and the optimizers in `run.optimizers` itself,
            and returns a scalar tensor, or a dict of named ones, to be shown. With `accumulate` and in several
            processes it is `step(run)`, and `run.backward(loss_of)` goes over the batches, see `Run.backward`.
        eval_step: `eval_step(run, batch)` takes over what happens with a batch of an evaluation, for models whose worth
            is not a loss and metrics of one output (detectors, GANs): it calls `run.eval_model`, which is in evaluation
            mode, without gradients, and returns a number, or a dict of named ones. Their means over all samples (or
            what `count` says) are `val_loss`, or `val_<name>`; a callback that watches one needs its `mode`.
        reuse_features: Whether a frozen part of the model computes its features once per sample, and not once per
            epoch, wherever that is exact; `ReuseFeatures(views=4)` stores random views where images are augmented.
        seed: What all randomness of the training is derived from. The model's first weights are drawn before, by you.
        progress: Show a bar, one line per row of the history, and what was resumed.

    Raises:
        ArgumentError: an invalid argument, such as an optimizer without any of the model's parameters; at the
            start of a fit, an optimizer, schedule, callback, metric or loss that remembers the run of another Trainer.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> data = TensorDataset(torch.randn(8, 2), torch.randint(0, 2, (8,)))
    >>> model = nn.Linear(2, 2)
    >>> trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1), progress=False)
    >>> history = trainer.fit(DataLoader(data, 4, shuffle=True), epochs=2)
    >>> history["epoch"]
    [1, 2]
    """

    @known_arguments
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
        parallel: str = "replicate",
        count: Callable[[Any], Any] | None = None,
        compile: bool = False,  # noqa: A002  (torch's own name for it)
        step: Callable[..., Any] | None = None,
        eval_step: Callable[[Run, Any], Any] | None = None,
        reuse_features: bool | ReuseFeatures = True,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        setup.check_kinds(model, loss, step, eval_step)
        accumulate, seed = whole_number("accumulate", accumulate, least=1), whole_number("seed", seed)
        compile, progress = switch("compile", compile), switch("progress", progress)  # noqa: A001
        progress = progress and World.of_environment().leads
        optimizers, own = setup.optimizers_of(optim), setup.listed_callbacks(callbacks)
        reuse = ReuseFeatures.of(reuse_features)
        if parallel not in ("replicate", "shard"):
            raise ArgumentError(f"parallel must be 'replicate' or 'shard', not {parallel!r}")
        self.device = pick_device(device)
        self.model = bare(model).to(self.device)
        called: Any = model if model is not self.model else (torch.compile(self.model) if compile else self.model)
        setup.check(self.model, optimizers, accumulate, step, precision, compile)
        self.metrics = Metrics(metrics, loss=loss)
        if eval_step is not None and len(self.metrics):
            raise ArgumentError(
                "an eval_step computes its own metrics: let it return them as named numbers, and leave metrics= out"
            )
        self.callbacks = [*setup.schedule(scheduler), *own, *([Progress()] if progress else [])]
        setup.check_callbacks(self.callbacks, step, optimizers)
        others = {"step": step, "eval_step": eval_step, **self.metrics.objects}
        loss, parts = setup.parts_on_device(loss, others, self.model, self.device)
        self._forward = Forward(called, loss, precision=precision, device=self.device, count=count)
        modules = (part for name, part in parts.items() if name.partition(".")[0] == "loss")
        self._forward.loss_modules = [part for part in modules if isinstance(part, nn.Module)]
        self.run = Run(self.model, optimizers, device=self.device, seed=seed, verbose=progress)
        self.run.accumulate = accumulate
        if parallel == "shard":
            views = None if reuse is None else reuse.views
            check_shardable(self.run, self.callbacks, precision=precision, called=called, step=step, views=views)
            self.run.world = dataclasses.replace(self.run.world, turns=True)
            reuse = reuse if self.device.type == "cpu" else None  # see check_shardable
        self.run.parts = parts
        self.run.unsaved = watch_tensors({"loss": loss, "step": step}, self.model)
        self.run.outputs = self.metrics.objective.outputs
        if precision == "fp16":
            self.run.scaler = torch.amp.GradScaler(self.device.type)
        stored = {} if reuse is None or reuse.views is None else {"stored views": reuse.views}
        origin = Origin(self.run, self.callbacks, loss=loss, step=step, precision=precision, **stored)
        measures = None if eval_step is None else OwnEvaluation(eval_step, count)
        self._judge = Judge(
            self.run, self._forward, self.metrics, channels_last=is_channels_last(self.model), own=measures
        )
        self._fitting = Fitting(self.run, self._judge, origin, step=step, count=count, reuse=reuse)

    def __repr__(self) -> str:
        return f"Trainer({', '.join(f'{name} {value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        return facts("Trainer", self._facts()) + self.history._repr_html_()

    def _facts(self) -> dict[str, object]:
        """What it trains and how far it is, in a few words each."""
        parameters = list(self.model.parameters())
        learn, loss = sum(each.numel() for each in parameters if each.requires_grad), self._forward.loss
        return {
            "model": f"{type(self.model).__name__} of {sum(each.numel() for each in parameters):,} parameters",
            "learning": f"{learn:,}",
            "loss": "of the model" if loss is None else getattr(loss, "__name__", type(loss).__name__),
            "optimizer": ", ".join(
                f"{type(each).__name__} at {each.param_groups[0]['lr']:.3g}" for each in self.run.optimizers.values()
            ),
            "metrics": ", ".join(self.metrics) or "none",
            "device": self.device.type,
            "epoch": self.run.epoch,
            "step": self.run.step,
        }

    @property
    def history(self) -> History:
        """What the run has measured so far."""
        return self.run.history

    @known_arguments
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
    ) -> History:
        """Train until the run has `epochs` epochs in all, and return its history.

        When it ends, however it ends, the model holds the weights that were evaluated: the best ones where a
        `Checkpoint` restores them, else those of the last step (their average, with `EMA`). `evaluate`, `predict` and
        every file use them; a further fit trains on from where training stood.

        Args:
            train: A stock `DataLoader`, a `dlkit.DataLoader`, or any iterable of batches.
            val: The same, for validation; None for none.
            epochs: The total: a run that has 3 of 5 epochs trains 2 more, a finished one none.
            resume: "auto" continues with what is in the `Checkpoint` folder, if anything; True demands that there is
                something; False starts over with the weights that a Trainer was made with (older files are moved
                aside); a path loads that checkpoint file, also one of a run with other data, seed or code.
            rates: Whose learning rates, other settings of the optimizer and schedule hold when a saved run continues:
                those "saved", or those of this "script". What the optimizer has gathered (momentum) is always kept,
                and a schedule of the script stands where it would after as many steps.
            steps_per_epoch: So many steps are an epoch, for streams without an end and for very long data; the next one
                continues from there. None: all of the data are.
            validate_every: "epoch", "2 epochs" or "500 steps"; the end of the last epoch always counts.

        Raises:
            DataError: the loader yields nothing; or training and validation data mean different things (classes,
                spec, vocabulary, normalisation), of which the first is named.
            TrainingError: loss, model and batches do not fit; the message has the shapes.
            ResumeError: the saved run and this script do not fit, or it is another run; each difference is named. Or
                the run is longer than the one that its schedule was planned for.
            RunLockedError: another process trains in the folder.
            SystemExit: with code 143 after SIGTERM or SIGUSR1, when the state is saved (not in a notebook).
        """
        wanted = FitRequest(
            epochs=whole_number("epochs", epochs, least=1),
            resume=resume,
            rates=rates,
            steps=None if steps_per_epoch is None else whole_number("steps_per_epoch", steps_per_epoch, least=1),
            every=Every.parse(validate_every),
        )
        return self._fitting.fit(*self._sources(train, val), self.callbacks, wanted)

    def dry_run(self, train: Any, val: Any = None) -> History:
        """Try a fit before it is started: two batches through training, validation, callbacks and what would be saved.

        Nothing is written, and everything is as before afterwards.

        Args:
            train: The training data, as for `fit`.
            val: The validation data.

        Returns:
            The history of the two batches.

        Raises:
            DlkitError: what `fit` would raise later: shapes that do not fit, a state that cannot be saved.
        """
        with rehearsal.undone(self.run, self.callbacks):
            source, val_source = self._sources(train, val)
            short = source_of(rehearsal.first_batches(source, 2), self.run.seed)
            short_val = None if val_source is None else source_of(rehearsal.first_batches(val_source, 2), self.run.seed)
            history = self._fitting.rehearse(short, short_val, [rehearsal.stand_in(each) for each in self.callbacks])
            plain(self.run.capture())
        self.run.say(
            Message("dry run: training, validation, callbacks and checkpoint content are fine; nothing was written")
        )
        return history

    def overfit(self, train: Any, batches: int = 1, *, epochs: int = 100) -> History:
        """Train on a few batches again and again, to see whether the model can learn them; else something is wrong.

        The rates are those that the optimizer has now. Of the callbacks only those take part that do nothing but work
        on gradients (`ClipGradients`). Everything is as before afterwards: weights, optimizer, history, random streams.

        Args:
            train: The training data; only its first batches are used.
            batches: How many.
            epochs: How often to go through them.

        Returns:
            A history of its own: "train_loss" for each epoch, which should come close to its least possible value, and
            in the last row the metrics on these batches.

        Raises:
            DataError: the loader yields nothing.
            TrainingError: loss, model and batches do not fit.
        """
        batches, epochs = whole_number("batches", batches, least=1), whole_number("epochs", epochs, least=1)
        step = self._fitting.step(setup.gradient_hooks(self.callbacks))
        with rehearsal.undone(self.run, self.callbacks):
            source, _ = self._sources(train, None)
            few = list(self._judge.prepare(rehearsal.first_batches(source, batches)))
            history = rehearsal.overfit(self.run, step, few, epochs=epochs)
            measured = self._judge.measure(lambda _: few, self._judge.unit()) or {}
        history.rows[-1] |= {f"train_{name}": value for name, value in measured.items() if name != "loss"}
        first, last = history.rows[0]["train_loss"], history.rows[-1]["train_loss"]
        self.run.say(
            Message(
                "overfit: {batches} batches, {epochs} epochs: loss {first:.4g}, at the end {last:.4g}",
                batches=len(few),
                epochs=epochs,
                first=first,
                last=last,
            )
        )
        return history

    def evaluate(self, loader: Any) -> dict[str, float]:
        """The mean loss over samples, and the metrics, those of a regression on a table in the target's own unit.

        Args:
            loader: Anything `fit` takes.

        Raises:
            TrainingError: the loader yields nothing.
            DataError: the data mean something else than the training data, or than the model says.
        """
        return self._judge.evaluate(loader)

    def test(self, loader: Any) -> dict[str, float]:
        """`evaluate` on the test data, once, at the very end: prints the values, and says of which weights they are.

        These are the weights that the fit has left: the best ones where there is a `Checkpoint`. Where this Trainer has
        not trained (a script that only tests), they are first taken from the `Checkpoint`'s folder, if it has any.

        Args:
            loader: Anything `fit` takes.

        Returns:
            "test_loss", and the metrics as "test_accuracy" and so on.

        Raises:
            TrainingError: the loader yields nothing.
            DataError: the data mean something else than the training data, or than the model says.
        """
        run = self.run
        if run.step == 0 and run.weights_from is None:
            run.directions = self._judge.directions(has_val=True)
            any(callback.bring_back(run) for callback in self.callbacks)
        values = {f"test_{name}": value for name, value in self.evaluate(loader).items()}
        step = run.step if run.weights_from is None else run.weights_from
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        weights = Message("step {step}", step=step) if step else Message("the model as it was given")
        run.say(Message("{figures} (the weights of {weights})", figures=shown, weights=weights))
        return values

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
            UserWarning: the loader shuffles, so predictions cannot be matched to samples; or samples
                cannot be read and are left out, so that there are fewer predictions than samples.
        """
        return self._judge.predict(loader, has_targets=has_targets, scaled=scaled)

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
        source = source_of(loader, self.run.seed)
        batches = self._judge.prepare(rehearsal.endless(source))
        with source.kept():
            return rehearsal.lr_find(self.run, self._fitting.step([]), batches, start=start, end=end, steps=steps)

    def summary(self, data: Any = None, *, depth: int = 3) -> Summary:
        """The layers of the model with the shapes they give, their parameters, and whether these learn.

        Args:
            data: Anything `fit` takes; the model runs once, in evaluation mode, on its first batch. None: no shapes.
            depth: How deep modules inside modules are listed; those below are counted to the last one listed.

        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> trainer = Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), device="cpu")
        >>> print(trainer.summary([(torch.zeros(4, 2), torch.zeros(4, 3))]))
        layer       output          parameters  learns
        Sequential  [4, 3] float32
        0: Linear   [4, 3] float32           9  yes
        1: ReLU     [4, 3] float32
        9 parameters, 9 learn, 0 do not; 0.0 MB
        """
        run = None
        if data is not None:
            (batch,) = self._judge.prepare(rehearsal.first_batches(source_of(data, self.run.seed), 1))
            run = functools.partial(self._judge.look, batch)
        return summarize(self.model, run, depth=whole_number("depth", depth, least=1))

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

    def _sources(self, train: Any, val: Any) -> tuple[Source, Source | None]:
        pin, seed = self.device.type == "cuda", self.run.seed
        source = source_of(train, seed, pin_memory=pin, shares=self.run.accumulate)
        val_source = None if val is None else source_of(val, rng.derive(seed, rng.EVALUATE), pin_memory=pin)
        self.run.data, self.run.val_data = meaning.agreed(self.run.model, train, val)
        self._judge.unit()  # refuses a loss that does not fit the target
        return source, val_source
