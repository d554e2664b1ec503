"""`tune`: the settings of a training, searched for so many minutes; stopped at any moment, the same call continues."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

from dlkit._arguments import whole_number
from dlkit._language import Message
from dlkit._optional import require
from dlkit._progress import bars
from dlkit._showing import safe
from dlkit.callbacks import Callback
from dlkit.errors import ArgumentError, ResumeError, TrainingError
from dlkit.recipes.choices import Choice, Wish
from dlkit.recipes.choosing import choose, models_for
from dlkit.recipes.fitting import validation_loss, with_numbers
from dlkit.recipes.identity import settings_of
from dlkit.recipes.kinds import DataOptions
from dlkit.recipes.reading import Data, read_data
from dlkit.recipes.training import Trained, check_first, train

__all__ = ["Tuned", "tune"]

_STORAGE = "tune.log"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """What `tune` found.

    Attributes:
        settings: The best ones, as arguments of `train`.
        loss: Their loss on the validation part.
        usual: That of the usual settings, which are tried first.
        trials: Each setting that was tried to its end or to where it was given up, with its loss.
        trained: The training with the best settings, evaluated on the test part, which took no part in the search.
    """

    settings: dict[str, Any]
    loss: float
    usual: float
    trials: list[dict[str, Any]]
    trained: Trained


def tune(
    data: Any,
    *,
    minutes: float = 10.0,
    trials: int | None = None,
    arch: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    pretrained: bool = True,
    freeze: bool | None = None,
    image_size: int | None = None,
    class_weights: str | Mapping[str, float] | None = None,
    epochs: int | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    num_workers: int = 0,
    progress: bool = True,
    **reading: Unpack[DataOptions],
) -> Tuned:
    """Search for the model, learning rate and batch size with the least validation loss, and train with them (Optuna).

    The usual settings come first, so the result is never worse than theirs on the validation part. Settings that are
    behind the median of the others at the same epoch are given up. Data is read once and features of a frozen backbone
    are computed once. What was tried is kept in the folder: the same call resumes however it ended, and one with
    more minutes searches on.

    Args:
        data: What `read_data` gave, or what it takes.
        minutes: For the search, those of earlier calls included; the training at the end comes on top.
        trials: So many settings at most; None for as many as there is time for.
        arch: Only this one; None for all models there are for a table or texts, and the usual one for files.
        weights: See `train`.
        pretrained: See `train`.
        freeze: See `train`.
        image_size: See `train`.
        class_weights: See `train`.
        epochs: At most; None for what is usual.
        out: The folder; None for `runs/<name of the data>-tuned`.
        seed: Seed of all random numbers.
        device: "auto", or where to compute.
        num_workers: Processes that prepare batches.
        progress: Say each setting on stderr, and show the bars of the training at the end.
        **reading: How to read `data`, see `read_data`.

    Raises:
        ArgumentError: an invalid argument.
        ResumeError: the folder holds a search on other data.
        MissingExtraError: the extra `tune` is not installed.

    >>> import pandas as pd, tempfile
    >>> frame = pd.DataFrame({"x": range(100), "y": ["no", "yes"] * 50})
    >>> quick = {"arch": "mlp", "epochs": 1, "trials": 1, "device": "cpu", "progress": False}
    >>> tune(frame, target="y", out=tempfile.mkdtemp(), **quick).settings["arch"]
    'mlp'
    """
    if not (isinstance(minutes, int | float) and 0 < minutes < 1e6):
        raise ArgumentError(f"minutes must be a number above 0, not {minutes!r}")
    trials = None if trials is None else whole_number("trials", trials, least=1)
    require("optuna", extra="tune")
    check_first(device=device, out=out, weights=weights)
    if isinstance(data, Data) and reading:
        raise ArgumentError(f"{', '.join(reading)}: say this to read_data; this data is read already")
    if not isinstance(data, Data):
        with bars(progress):
            data = read_data(data, seed=seed, **reading)
    wish = Wish(
        arch=arch,
        weights=None if weights is None else Path(weights),
        pretrained=pretrained,
        freeze=freeze,
        image_size=image_size,
        class_weights=class_weights,
        seed=seed,
    )
    folder = Path("runs") / f"{data.name}-tuned" if out is None else Path(out)
    search = _Search(data, wish, epochs, folder, device=device, num_workers=num_workers, progress=progress)
    with _quiet():
        search.go_on(minutes, trials)
    best = search.study.best_trial
    settings = search.settings_of(best)
    said: dict[str, Any] = {"weights": weights, "pretrained": pretrained, "freeze": freeze, "image_size": image_size}
    place = folder / f"trial-{best.number}"
    how: dict[str, Any] = {"seed": seed, "device": device, "num_workers": num_workers, "progress": progress}
    trained = train(data, class_weights=class_weights, out=place, **said, **settings, **how)
    finished = [each for each in search.study.trials if each.state.name in ("COMPLETE", "PRUNED")]
    done = [each for each in finished if each.value is not None or each.intermediate_values]
    return Tuned(
        settings=settings,
        loss=search.study.best_value,
        usual=next(each.value for each in done if each.value is not None),
        trials=[{"trial": each.number, "loss": _loss_of(each), **search.settings_of(each)} for each in done],
        trained=trained,
    )


def _loss_of(trial: Any) -> float:
    return float(min(trial.intermediate_values.values()) if trial.value is None else trial.value)


class _Search:
    """Settings that are tried one after the other, each kept as soon as it is judged."""

    def __init__(
        self, data: Data, wish: Wish, epochs: int | None, folder: Path, *, device: str, num_workers: int, progress: bool
    ) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.data, self.wish, self.epochs = data, wish, epochs
        self.device, self.num_workers, self.progress = device, num_workers, progress
        usual = self._choice(wish.arch, {})
        known = _installed(models_for(data.kind)) if data.kind in ("table", "text") and wish.arch is None else []
        self.models = known if usual.arch in known else [usual.arch]
        self.usual = {usual.arch: usual}
        folder.mkdir(parents=True, exist_ok=True)
        with _quiet():
            self.study = optuna.create_study(
                study_name="tune",
                storage=JournalStorage(JournalFileBackend(str(folder / _STORAGE))),
                load_if_exists=True,
                sampler=optuna.samplers.TPESampler(seed=wish.seed, multivariate=False),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
            )
        self._know(folder, settings_of(data, usual, wish) | {"epochs": epochs})
        self.deadline = 0.0

    def _know(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Refuse to continue with a search on other data."""
        kept = self.study.user_attrs.get("settings")
        if kept is None:
            self.study.set_user_attr("settings", dict(settings))
            return
        if names := [name for name in {**kept, **settings} if kept.get(name) != settings.get(name)]:
            told = ", ".join(f"{name} there {kept.get(name)!r}, now {settings.get(name)!r}" for name in names)
            raise ResumeError(f"{folder} holds another search: {told}; choose another folder, out=")

    def go_on(self, minutes: float, trials: int | None) -> None:
        """Try settings until the time or their number is over, or each of those that can be has been."""
        import optuna

        states = optuna.trial.TrialState
        for trial in self.study.get_trials(states=[states.RUNNING]):  # of a process that was killed
            self.study.tell(trial.number, state=states.FAIL)
        tried = [each.params for each in self.study.trials if each.state in (states.COMPLETE, states.PRUNED)]
        if not tried:
            arch = next(iter(self.usual))
            self.study.enqueue_trial({"arch": arch, f"{arch} rate": 1.0, f"{arch} batch": 1.0})
        for trial in self.study.get_trials(states=[states.FAIL])[-1:]:
            if tried and trial.params not in tried:
                self.study.enqueue_trial(trial.params)
        spent = sum(each.duration.total_seconds() for each in self.study.trials if each.duration is not None)
        self.deadline = time.monotonic() + 60 * minutes - spent
        while not self._over(trials):
            self.study.optimize(self._try, n_trials=1)

    def _over(self, trials: int | None) -> bool:
        done = [each for each in self.study.trials if each.state.is_finished() and each.state.name != "FAIL"]
        over = time.monotonic() >= self.deadline or (trials is not None and len(done) >= trials)
        if over and done and not any(each.value is not None for each in done):
            raise TrainingError("no settings came to a finite validation loss; look at the data and the target first")
        return over and bool(done)

    def _try(self, trial: Any) -> float:
        import optuna

        arch = trial.suggest_categorical("arch", self.models)
        usual = self._usual(arch)
        if usual.fit is None:
            trial.suggest_float(f"{arch} rate", 0.1, 10.0, log=True)
            trial.suggest_categorical(f"{arch} batch", [0.5, 1.0, 2.0])
        settings = self.settings_of(trial)
        for twin in self.study.trials:
            if twin.value is not None and twin.params == trial.params:
                return float(twin.value)  # it would come to the same
        numbers = {name: value for name, value in settings.items() if name != "arch"}
        choice, watching = self._choice(arch, numbers), _Watching(trial, self)
        how: dict[str, Any] = {"seed": self.wish.seed, "device": self.device, "num_workers": self.num_workers}
        loss = validation_loss(self.data, choice, watching, **how)
        given_up = watching.given_up or not math.isfinite(loss)
        self._say(trial, settings, loss, given_up=given_up)
        if given_up:
            raise optuna.TrialPruned
        return loss

    def _usual(self, arch: str) -> Choice:
        if arch not in self.usual:
            self.usual[arch] = self._choice(arch, {})
        return self.usual[arch]

    def _choice(self, arch: str | None, numbers: Mapping[str, Any]) -> Choice:
        choice = choose(self.data, dataclasses.replace(self.wish, arch=arch))
        given = {"epochs": self.epochs, **numbers} if choice.fit is None else {}
        return with_numbers(choice, **given)

    def settings_of(self, trial: Any) -> dict[str, Any]:
        """The arguments of `train` that a `trial` stands for."""
        arch, said = trial.params["arch"], trial.params
        usual = self._usual(arch)
        if usual.fit is not None:
            return {"arch": arch}
        rate, batch = usual.lr * said[f"{arch} rate"], max(1, round(usual.batch_size * said[f"{arch} batch"]))
        settings = {"arch": arch, "lr": float(f"{rate:.6g}"), "batch_size": batch}
        return settings | ({} if self.epochs is None else {"epochs": self.epochs})

    def _say(self, trial: Any, settings: Mapping[str, Any], loss: float, *, given_up: bool) -> None:
        if not self.progress:
            return
        known = [each.value for each in self.study.trials if each.value is not None]
        told = ", ".join(f"{name} {value}" for name, value in settings.items())
        end = Message("given up") if given_up else Message("best {loss:.4g}", loss=min([*known, loss]))
        left = max(0.0, self.deadline - time.monotonic())
        line = Message(
            "{number}. {settings}: val_loss {loss:.4g}, {end}, {minutes:.0f}:{seconds:02.0f} left",
            number=trial.number + 1,
            settings=told,
            loss=loss,
            end=end,
            minutes=left // 60,
            seconds=left % 60,
        )
        sys.stderr.write(f"{safe(line)}\n")


class _Watching(Callback):
    """Reports the loss of each epoch, and stops a training that is behind, or for which no time is left."""

    changes_numbers = False

    def __init__(self, trial: Any, search: _Search) -> None:
        self.trial, self.search, self.epoch, self.given_up = trial, search, 0, False

    def on_log(self, run: Any, row: Mapping[str, Any]) -> None:
        if "val_loss" not in row:
            return
        self.epoch += 1
        self.trial.report(float(row["val_loss"]), self.epoch)
        over = time.monotonic() >= self.search.deadline
        known = any(each.value is not None for each in self.search.study.trials)
        if over or self.trial.should_prune():
            self.given_up = known
            run.request_stop("the time for the search is over" if over else "behind the median of the other settings")


def _installed(models: list[str]) -> list[str]:
    fits = importlib.util.find_spec("sklearn") is not None
    return [name for name in models if fits or name not in ("blend", "boosting")]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says nothing of its own."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
