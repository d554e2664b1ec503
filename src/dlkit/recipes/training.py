"""`train`: from data to a model file in one call, which continues where an earlier one was stopped."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import torch
from torch import nn

from dlkit._arguments import whole_number
from dlkit._devices import pick_device
from dlkit._html import facts
from dlkit._language import Message
from dlkit._optional import require
from dlkit._progress import bars
from dlkit._showing import safe
from dlkit.artifact.header import MODEL_FILE
from dlkit.callbacks import (
    BackToBest,
    Callback,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    MLflowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from dlkit.distributed import World
from dlkit.errors import ArgumentError, DataNotFoundError
from dlkit.inference.predictor import load
from dlkit.recipes.choices import Choice, Wish
from dlkit.recipes.choosing import choose
from dlkit.recipes.fitting import judged, loaders_of, of_part, trainer_of, with_numbers
from dlkit.recipes.folding import train_folds
from dlkit.recipes.identity import Note, saved_settings, settings_of
from dlkit.recipes.kinds import DataOptions
from dlkit.recipes.reading import Data, encoded_by, read_data
from dlkit.recipes.standing import Standing
from dlkit.recipes.thresholds import check_thresholds
from dlkit.recipes.writing import REPORT_FILE, reported, save_model
from dlkit.runs.history import History
from dlkit.runs.state import Run
from dlkit.runs.store import move_aside
from dlkit.storage.files import check_writable
from dlkit.training.reuse_settings import ReuseFeatures
from dlkit.training.trainer import Trainer

__all__ = ["Trained", "check_first", "train"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What `train` came to.

    Attributes:
        path: The model file; None after an interruption, when there is still something to train.
        report: What it came to, as one HTML file; None after an interruption.
        folder: The run's folder, with checkpoints and settings.
        metrics: The figures of `judged_on`; regressions in the units of the data.
        judged_on: "test", or "val" where there is no test part; "folds" where they judged, whose means `metrics` then
            are (`data.folds` has each).
        standing: The main figure beside what an answer without a model reaches, with its interval and each class; None
            after an interruption, in all but the first of several processes, and where folds judged.
        history: Row by row, what was measured while training.
        stopped: Why the training ended.
        interrupted: By Ctrl-C: the same call continues from there.
        data: What was trained on.
        model: With the best weights, in eval mode.
    """

    path: Path | None
    report: Path | None
    folder: Path
    metrics: Mapping[str, float]
    judged_on: str
    standing: Standing | None
    history: History
    stopped: str
    interrupted: bool
    data: Data
    model: nn.Module

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return safe(f"Trained({figures or self.stopped} on {self.judged_on}; {self.path or self.folder})")

    def _repr_html_(self) -> str:
        told = "" if self.standing is None else self.standing._repr_html_()
        return facts(repr(self), {"report": self.report or "none", "stopped": self.stopped}) + told


def train(
    data: Any,
    *,
    arch: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    pretrained: bool = True,
    freeze: bool | None = None,
    views: int | None = None,
    image_size: int | None = None,
    class_weights: str | Mapping[str, float] | None = None,
    sampler: str | None = None,
    thresholds: str | None = None,
    sample_rate: int | None = None,
    seconds: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    lr: float | Literal["find"] | None = None,
    patience: int | None = None,
    precision: str = "fp32",
    log: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    num_workers: int = 0,
    folds: int | None = None,
    resume: bool = True,
    progress: bool = True,
    **reading: Unpack[DataOptions],
) -> Trained:
    """Train a model on a source of data, evaluate it, and write it to a model file.

    Images larger than 64 pixels get a pretrained backbone of which only the head learns, on features that are computed
    once; so do few smaller photographs, where its weights were downloaded before; others `SmallConvNet`, sounds
    `AudioClassifier`, tables `TabularEnsemble` (of a thousand rows and more `TabularBlend`, if scikit-learn is
    installed), texts `TfidfLinear`. The run is kept in `out`: the same call resumes however it ended, and trains
    nothing when the run is finished.

    Args:
        data: What `read_data` gave, or what it takes.
        arch: Images: "small", or a name for `dlkit.transfer.create_model`. Tables: "ensemble", "boosting" (that of
            scikit-learn, extra `boosting`), "blend" (both), "mlp", or "mixed", which looks at texts and images beside
            the rest. Texts: "linear", "bag", "gru", "transformer", or "hf/NAME", a pretrained encoder for
            `dlkit.transfer.create_text_model`. None: see above.
        weights: For a backbone, a file of weights instead of the library's own.
        pretrained: Whether a backbone begins with pretrained weights. They are never left out silently: without a
            network this is an error that names the ways out.
        freeze: Whether only the head learns; None for "yes, if the backbone is pretrained".
        views: Of a frozen backbone: so many random views (crops, mirror images) of each image, stored once.
        image_size: Side of the images in pixels; None for the model's own.
        class_weights: What each class counts in the loss: "balanced" makes up for rare ones, so that the model answers
            with them, at the cost of plain accuracy; or a weight for each class by its name. Of several labels what a
            sample that has the label counts beside one without (`pos_weight`). None: each sample as much.
        sampler: "balanced": every step sees samples of all classes equally often (`dlkit.samplers.Balanced`), which
            makes up for rare ones as well, in place of weights; of several labels a sample counts as the rarest that
            it has. None: every sample once per epoch.
        thresholds: "f1": the probability above which the rarer of two classes, or each of several labels, is the answer
            is chosen on the validation part, for the best F1, and kept in the model file. None: one half.
        sample_rate: Of sounds, in Hz; None for that of the files, but no more than 16,000.
        seconds: Of sounds: longer ones are cut, at random places in training. None for what 19 in 20 do not exceed, but
            no more than five.
        epochs: In all; None for what is usual for this kind of data. Training stops before, when `patience` is over.
        batch_size: Samples per step.
        accumulate: Take a step in so many batches, which several processes share; the numbers are the same for any
            number of processes. None: as the run in the folder did, or as many as there are processes.
        lr: The learning rate (AdamW), of the head where there is a backbone; the backbone's is a tenth. "find" takes
            the one at which the loss falls most steeply, see `Trainer.lr_find`.
        patience: Epochs without a better validation loss after which training stops; the default for tables goes back
            to its best weights with a lower rate then, and stops the fourth time.
        precision: "fp32", "bf16" or "fp16", see `Trainer`.
        log: Where figures go besides history.csv: "tensorboard" (into the run's folder), "mlflow", "wandb".
        out: The run's folder; None for `runs/<name of the data>`.
        seed: Of everything random, the split included.
        device: "auto", "cpu", "cuda" or "mps".
        num_workers: Processes that prepare batches; the result is the same for any number.
        folds: Evaluate with this many folds: each is a run in its own folder (`out/fold-1` and so on), tested on
            another part of the data, stratified, and cut by `group` or `time` where these are said. The model of `out`
            is then trained on everything, and its figures are the folds' means; `out/folds.csv` has each. What is
            chosen is chosen once, by the first fold.
        resume: False starts over; what is in the folder is moved aside.
        progress: Show bars and lines on stderr.
        **reading: How to read `data`, see `read_data`.

    Raises:
        ArgumentError: an invalid argument, or the folder holds a run of other data or another model.
        DataError: the data cannot be read.
        DownloadError: pretrained weights could not be fetched.
        SystemExit: with code 143 after SIGTERM, when the state is saved.

    >>> import tempfile
    >>> trained = train("glyphs", epochs=1, out=tempfile.mkdtemp(), progress=False)  # doctest: +SKIP
    >>> trained.path.name  # doctest: +SKIP
    'model.safetensors'
    """
    said = dict(locals())
    if isinstance(data, Data) and reading:
        raise ArgumentError(f"{', '.join(reading)}: say this to read_data; this data is read already")
    check_first(device=device, out=out, weights=weights, log=log)
    if arch == "mixed":
        reading["mixed"] = True
    if folds is not None:
        how = {name: value for name, value in said.items() if name not in ("data", "folds", "out", "reading")}
        trained: Trained = train_folds(train, data, folds, out, reading, how)
        return trained
    if not isinstance(data, Data):
        with bars(progress):
            data = read_data(data, seed=seed, **reading)
    folder = Path("runs") / data.name if out is None else Path(out)
    saved = saved_settings(folder) if resume else {}
    wish = Wish(
        arch=_arch_of(saved, data) if arch is None and weights is None else arch,
        weights=None if weights is None else Path(weights),
        pretrained=pretrained,
        freeze=freeze,
        views=views,
        image_size=image_size,
        class_weights=class_weights,
        sampler=sampler,
        thresholds=thresholds,
        sample_rate=sample_rate,
        seconds=seconds,
        seed=seed,
    )
    rate = None if lr == "find" else lr
    choice = with_numbers(choose(data, wish), epochs=epochs, batch_size=batch_size, lr=rate, patience=patience)
    check_thresholds(data, thresholds)
    choice = dataclasses.replace(choice, thresholds=thresholds)
    data = choice.data or data
    if accumulate is None:
        accumulate = int(saved.get("accumulate", 1)) if saved else World.of_environment().size
    accumulate = whole_number("accumulate", accumulate, least=1)
    settings = settings_of(data, choice, wish) | {"accumulate": accumulate}
    settings |= {"precision": precision} if precision != "fp32" else {}
    settings |= {"found_lr": saved["found_lr"]} if lr == "find" and "found_lr" in saved else {}
    note = Note(folder, settings)
    if saved:
        note.refuse_another({"accumulate": 1, **saved})
    loaders = loaders_of(data, choice, num_workers, accumulate, sampler)
    if choice.fit is not None:
        given = {"precision": None if precision == "fp32" else precision, "log": log or None}
        _refuse_steps(choice, sampler=sampler, epochs=epochs, batch_size=batch_size, lr=lr, patience=patience, **given)
        return _fitted(data, choice, num_workers, note, seed=seed, resume=resume, progress=progress)
    patient = BackToBest if choice.plateau else EarlyStopping
    callbacks = [note, Checkpoint(folder), patient(patience=choice.patience), CSVLogger(folder / "history.csv")]
    callbacks += [_LOGGERS[name](folder, data.name) for name in log]
    steps = -(-len(loaders["train"]) // accumulate)
    make: dict[str, Any] = {"accumulate": accumulate, "seed": seed, "device": device, "precision": precision}
    if lr == "find":
        if "found_lr" not in settings:
            finder = trainer_of(choice, steps, progress=False, **make)
            settings["found_lr"] = finder.lr_find(loaders["train"]).suggestion
        choice.lr = settings["found_lr"]
        choice.why.append(Message("learning rate: {rate:.3g}, at which the loss falls most steeply", rate=choice.lr))
    features = ReuseFeatures(views=views)
    trainer = trainer_of(choice, steps, callbacks=callbacks, reuse_features=features, progress=progress, **make)
    for line in choice.why:
        trainer.run.say(line)
    trainer.fit(loaders["train"], loaders["val"], epochs=choice.epochs, resume="auto" if resume else False)
    return _finished(trainer, loaders, data, choice, folder, note.settings)


def check_first(
    *,
    device: str = "auto",
    out: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    log: Sequence[str] = (),
    **others: Any,
) -> None:
    """Refuse what cannot be trained with, before any data is read.

    Args:
        device: See `train`.
        out: See `train`.
        weights: See `train`.
        log: See `train`.
        **others: Other arguments of `train`, which need the data to be looked at.

    Raises:
        ArgumentError: a device that is not there, a folder that cannot be written to, an unknown logger.
        DataNotFoundError: there is no such file of weights.
        MissingExtraError: an extra is not installed.
    """
    del others
    pick_device(device)
    check_writable("runs" if out is None else out, folder=True)
    if weights is not None and not Path(weights).expanduser().is_file():
        raise DataNotFoundError(f"weights={str(weights)!r}: there is no such file")
    for name in [log] if isinstance(log, str) else log:
        if name not in _LOGGERS or isinstance(log, str):
            raise ArgumentError(f"log={log!r}: a list of some of {', '.join(_LOGGERS)} is expected")
        require(name, extra=name)


_LOGGERS: dict[str, Callable[[Path, str], Callback]] = {
    "tensorboard": lambda folder, name: TensorBoardLogger(folder / "tensorboard"),
    "mlflow": lambda folder, name: MLflowLogger(name),
    "wandb": lambda folder, name: WandbLogger(name),
}


def _arch_of(saved: Mapping[str, Any], data: Data) -> str | None:
    """A run continues with its model, whatever would be chosen now that weights or a package are here, or no longer."""
    return saved.get("arch") if saved.get("kind") == data.kind else None


def _refuse_steps(choice: Choice, **given: Any) -> None:
    hint = "; arch='bag' is trained in steps" if choice.arch == "linear" else ""
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(f"{name}={value!r}: {choice.arch} is fitted at once, and has no such thing{hint}")


def _fitted(
    data: Data, choice: Choice, num_workers: int, note: Note, *, seed: int, resume: bool, progress: bool
) -> Trained:
    """Fit a model in one go, unless that is done already; judge it and write its file as after a training."""
    folder, fit = note.path.parent, choice.fit
    assert fit is not None
    if World.of_environment().size > 1:
        raise ArgumentError(f"{choice.arch} is fitted by one process; start it without several")
    if not resume:
        move_aside(folder)
    run = Run(choice.model, {}, device=torch.device("cpu"), seed=seed, verbose=progress)
    path = folder / MODEL_FILE
    if note.path.is_file() and path.is_file():
        run.say(Message("nothing to fit: {path} is there; to start over use another folder or resume=False", path=path))
        predictor = load(path)
        model = predictor.model
        data = encoded_by(data, predictor.preprocessing) if data.kind == "text" else data
        reached = predictor.info["metrics"]
    else:
        for line in choice.why:
            run.say(line)
        folder.mkdir(parents=True, exist_ok=True)
        note.on_fit_start(run)
        fitted = fit()
        model, data = fitted.model, fitted.data
        reached = judged(run, model, data, choice, "val", num_workers)
        told = [fitted.told] if fitted.told else []
        if fitted.again is not None and data.test is not None:
            model, data = fitted.again()
            told.append(Message("fitted again on the training and validation parts together, with the chosen settings"))
        for line in told:
            run.say(line)
        choice.why += told
    judged_on = "val" if data.test is None else "test"
    reached = {**reached, **judged(run, model, data, choice, judged_on, num_workers)}
    figures = {part: of_part(part, reached) for part in ("val", judged_on)}
    rows = [{"epoch": 1, "step": 1} | {f"val_{name}": value for name, value in figures["val"].items()}]
    figures[judged_on] = of_part(judged_on, save_model(model, path, data, choice, reached))
    return Trained(
        path=path,
        folder=folder,
        metrics=figures[judged_on],
        judged_on=judged_on,
        standing=reported(path, data, choice, judged_on, rows, note.settings),
        report=path.with_name(REPORT_FILE),
        history=History(rows),
        stopped="fitted",
        interrupted=False,
        data=data,
        model=model,
    )


def _finished(
    trainer: Trainer, loaders: Mapping[str, Any], data: Data, choice: Choice, folder: Path, settings: Mapping[str, Any]
) -> Trained:
    """Judge the best weights and write the model file, unless there is something left to train."""
    stopped, judged_on = trainer.run.stop_reason or "completed", "test" if "test" in loaders else "val"
    interrupted, path, metrics, standing = stopped == "interrupted", None, dict[str, float](), None
    model: nn.Module = trainer.model
    if not interrupted:
        if choice.finish is None:
            metrics = trainer.evaluate(loaders[judged_on])
        else:
            model, told = choice.finish(model)
            trainer.run.say(told)
            choice.why.append(told)
            metrics = of_part(judged_on, judged(trainer.run, model, data, choice, judged_on, 0))
        reached = {f"{judged_on}_{name}": value for name, value in metrics.items()}
        path = folder / MODEL_FILE
        if trainer.run.world.leads:
            metrics = of_part(judged_on, save_model(model, path, data, choice, reached))
            standing = reported(path, data, choice, judged_on, trainer.history.rows, settings)
    return Trained(
        path=path,
        report=path and folder / REPORT_FILE,
        folder=folder,
        metrics=metrics,
        judged_on=judged_on,
        standing=standing,
        history=trainer.history,
        stopped=stopped,
        interrupted=interrupted,
        data=data,
        model=model.eval(),
    )
