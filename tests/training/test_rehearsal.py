"""Rehearsals leave no trace: weights, optimizer, schedule, callbacks, random streams, folders are as they were."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dlkit import Trainer, rng
from dlkit.callbacks import (
    EMA,
    Callback,
    Checkpoint,
    ClipGradients,
    CSVLogger,
    EarlyStopping,
    LearningRate,
    StopOnNaN,
    Unfreeze,
)
from dlkit.errors import ArgumentError, CheckpointError, TrainingError
from dlkit.runs.checkpointfile import plain
from dlkit.training import LearningRateCurve
from dlkit.transfer import freeze
from dlkit.transfer.freezing import frozen_modules, frozen_tensors


class Noisy(Dataset):
    """Draws from every stream."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index):
        drawn = [random.random(), np.random.rand(), float(torch.rand(()))]
        return torch.tensor([index / 40, *drawn]), index % 2


class Memory(Callback):
    """Remembers in plain attributes, in a list, and in the next row."""

    def __init__(self) -> None:
        self.steps, self.rows, self.names = 0, [], {}

    def on_step_end(self, run) -> None:
        self.steps += 1
        self.names[run.step] = True
        run.log("seen", self.steps)

    def on_log(self, run, row) -> None:
        self.rows.append(row)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state) -> None:
        self.steps = state["steps"]


def make(folder: Path, **settings: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam(
        [{"params": model[1].parameters(), "lr": 0.01}, {"params": model[3].parameters()}], lr=0.1, weight_decay=0.1
    )
    callbacks = [
        ClipGradients(),
        EarlyStopping(patience=9),
        EMA(0.5),
        StopOnNaN(),
        Memory(),
        CSVLogger(folder / "log.csv"),
        Checkpoint(folder),
    ]
    return Trainer(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        metrics=["accuracy"],
        callbacks=callbacks,
        scheduler=LearningRate(torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), every="step", warmup=3),
        **{"progress": False, "device": "cpu", **settings},
    )


def make_frozen(folder: Path, **settings: Any) -> Trainer:
    """A frozen model that thaws at once, with groups of the optimizer that are added when the run is set up."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5))
    model = freeze(nn.Sequential(body, nn.Linear(8, 2)))
    optimizer = torch.optim.Adam(model[1].parameters(), 0.1)
    callbacks = [Unfreeze({0: "0.2", 1: "all"}), Memory(), Checkpoint(folder)]
    return Trainer(
        model, nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, **{"progress": False, "device": "cpu", **settings}
    )


def loaders() -> tuple[DataLoader, DataLoader]:
    return DataLoader(Noisy(), 8, shuffle=True), DataLoader(Noisy(), 16)


def everything(trainer: Trainer, folder: Path) -> Any:
    """All that a rehearsal could change."""
    run = trainer.run
    memory = next(callback for callback in trainer.callbacks if isinstance(callback, Memory))
    files = {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    state = {
        "model": run.model.state_dict(),
        "gradients": [parameter.grad is None for parameter in run.model.parameters()],
        "frozen": [parameter.requires_grad for parameter in run.model.parameters()],
        "modes": [module.training for module in run.model.modules()],
        "marks": [frozen_modules(run.model), list(frozen_tensors(run.model))],
        "average": run.eval_model.state_dict() if run.eval_model is not run.model else None,
        "optimizer": run.optimizer.state_dict(),
        "rates": [group["lr"] for group in run.optimizer.param_groups],
        "callbacks": [callback.state_dict() for callback in trainer.callbacks],
        "memory": [memory.steps, memory.rows, memory.names, run.logged],
        "rng": rng.state_dict(),
        "run": [vars(run.cursor), run.history.rows, run.losses.state_dict(), run.stop_reason, run.write_files],
        "scaler": run.scaler.state_dict() if run.scaler is not None else None,
        "watchers": len(run.losses.watchers),
    }
    return bits(plain(state)), files


def bits(value: Any) -> Any:
    """The same with tensors as their bytes, which can be compared with `==`, NaN included."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, list | tuple) else repr(value)


REHEARSALS = {
    "dry run": lambda trainer: trainer.dry_run(*loaders()),
    "overfit": lambda trainer: trainer.overfit(loaders()[0], 2, epochs=3),
    "lr_find": lambda trainer: trainer.lr_find(loaders()[0], steps=12, end=1.0),
    "evaluate": lambda trainer: trainer.evaluate(loaders()[1]),
    "predict": lambda trainer: trainer.predict(loaders()[1]),
}


@pytest.mark.parametrize("name", REHEARSALS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize("maker", [make, make_frozen])
def test_everything_is_as_it_was(name, trained, precision, maker, tmp_path):
    trainer = maker(tmp_path, precision=precision)
    if trained:
        trainer.fit(*loaders(), epochs=1)
    random.seed(3), np.random.seed(4), torch.manual_seed(5)
    before = everything(trainer, tmp_path)
    REHEARSALS[name](trainer)
    assert everything(trainer, tmp_path) == before


@pytest.mark.parametrize(
    "names", [["dry run"], ["lr_find"], ["overfit", "lr_find", "dry run", "evaluate", "dry run"]], ids=str
)
@pytest.mark.parametrize("maker", [make, make_frozen])
def test_a_training_after_a_rehearsal_is_the_training_without_it(names, maker, tmp_path):
    plain_one, rehearsed = maker(tmp_path / "a"), maker(tmp_path / "b")
    for name in names:
        REHEARSALS[name](rehearsed)
    plain_one.fit(*loaders(), epochs=2)
    for name in names:
        REHEARSALS[name](rehearsed)
    rehearsed.fit(*loaders(), epochs=2)
    assert rehearsed.history.rows == plain_one.history.rows
    assert repr(rehearsed.run.optimizer.state_dict()) == repr(plain_one.run.optimizer.state_dict())
    for one, other in zip(rehearsed.model.state_dict().values(), plain_one.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_dry_run_goes_through_every_stage_with_two_batches(tmp_path):
    called: list[str] = []

    class Record(Callback):
        def on_step_end(self, run) -> None:
            called.append("step")

        def on_validation_step(self, run, done, total) -> None:
            called.append(f"validation {done}/{total}")

        def on_log(self, run, row) -> None:
            called.append("row")

        def on_fit_end(self, run) -> None:
            called.append("end")

    trainer = make(tmp_path)
    trainer.callbacks.append(Record())
    history = trainer.dry_run(*loaders())
    assert called == ["step", "step", "validation 1/2", "validation 2/2", "row", "end"]
    assert {"train_loss", "val_loss", "val_accuracy"} <= set(history)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["train", "validation", "state"])
def test_a_dry_run_finds_what_would_fail_later(where, tmp_path):
    class Strange(Callback):
        def state_dict(self):
            return {"object": object()} if where == "state" else {}

    trainer = make(tmp_path)
    trainer.callbacks.append(Strange())
    train, val = loaders()
    wrong = [(torch.randn(4, 4), torch.tensor([0, 1, 2, 9]))]
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(CheckpointError if where == "state" else TrainingError):
        trainer.dry_run(wrong if where == "train" else train, wrong if where == "validation" else val)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert trainer.run.write_files
    assert trainer.run.step == 0


# ---------------------------------------------------------------------------------------------------- learning rates


def bowl(steepness: float = 1.0) -> tuple[nn.Module, torch.optim.Optimizer, list[Any]]:
    """A loss whose best rate is known: gradient descent on it explodes beyond 1 / steepness."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False)
    x = torch.eye(3) * math.sqrt(3 * steepness)
    return model, torch.optim.SGD(model.parameters(), 0.123), [(x, x @ torch.ones(3, 1) * 5)]


@pytest.mark.parametrize("steepness", [0.1, 1.0, 100.0])
def test_the_suggestion_lies_where_the_loss_falls_fastest(steepness):
    model, optimizer, batches = bowl(steepness)
    curve = Trainer(model, nn.MSELoss(), optimizer, progress=False, device="cpu").lr_find(batches)
    assert 0.003 / steepness < curve.suggestion < 1 / steepness
    assert curve.rates == sorted(curve.rates)
    assert curve.rates[0] == 1e-7
    assert len(curve.rates) == len(curve.losses)
    assert (len(curve.rates) < 100) == (steepness > 0.1)  # it stops when the loss explodes
    assert curve.losses[-1] < 5 * min(curve.losses)
    assert optimizer.param_groups[0]["lr"] == 0.123


def test_rates_rise_geometrically_to_the_end():
    model, optimizer, batches = bowl(1e-9)
    trainer = Trainer(model, nn.MSELoss(), optimizer, progress=False, device="cpu")
    curve = trainer.lr_find(batches, start=1e-4, end=1e-1, steps=4)
    assert curve.rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])


def test_a_search_with_a_step_of_ones_own():
    model, optimizer, batches = bowl()

    def step(run, batch):
        run.optimizer.zero_grad()
        loss = nn.functional.mse_loss(run.model(batch[0]), batch[1])
        loss.backward()
        run.optimizer.step()
        return {"fit": loss, "zero": loss * 0}

    curve = Trainer(model, None, optimizer, step=step, progress=False, device="cpu").lr_find(batches)
    assert 0.003 < curve.suggestion < 1


def test_searches_that_cannot_be_meant():
    model, optimizer, batches = bowl()
    trainer = Trainer(model, nn.MSELoss(), optimizer, progress=False, device="cpu")
    for arguments in ({"start": 0.0}, {"start": 1.0, "end": 0.1}, {"start": -1.0}, {"end": math.nan}):
        with pytest.raises(ArgumentError, match="lr_find needs 0 < start < end, not"):
            trainer.lr_find(batches, **arguments)
    weights = copy.deepcopy(model.state_dict())
    with pytest.raises(
        TrainingError, match="the loss diverged immediately, at a learning rate of 1e\\+10; choose a smaller"
    ):
        trainer.lr_find(batches, start=1e10, end=1e12)
    assert torch.equal(model.weight, weights["weight"])


def test_the_curve_as_data_and_as_a_picture(tmp_path):
    assert LearningRateCurve(rates=[1e-3, 1e-2, 1e-1, 1.0], losses=[2.0, 1.9, 1.0, 9.0]).suggestion == 1e-2
    assert LearningRateCurve(rates=[1e-3, 1e-2], losses=[1.0, 2.0]).suggestion == 1e-3  # it only rises
    rates = [10 ** (-7 + n / 10) for n in range(70)]
    losses = [2 - 1.5 / (1 + math.exp(-(n - 45) / 3)) + (math.exp((n - 64) / 1.5) if n > 60 else 0) for n in range(70)]
    figure = LearningRateCurve(rates=rates, losses=losses).plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert figure.axes[0].get_xscale() == "log"


# ----------------------------------------------------------------------------------------------------------- overfit


def test_overfitting_a_few_batches(capsys):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(64, 5), torch.randint(0, 2, (64,)))  # nothing to learn in general
    model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 2))
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(),
        torch.optim.Adam(model.parameters(), 0.01),
        metrics=["accuracy"],
        callbacks=[ClipGradients(100.0), EarlyStopping(patience=1)],
        device="cpu",
    )
    first = model[0].weight.clone()
    history = trainer.overfit(DataLoader(data, 8, shuffle=True), 2, epochs=60)
    assert history["train_loss"][-1] < 0.02
    assert history["train_accuracy"] == [1.0]
    assert history["step"][-1] == 120
    assert (trainer.run.step, trainer.history.rows) == (0, [])
    assert torch.equal(model[0].weight, first)
    assert "overfit: 2 batches, 60 epochs: loss 0." in capsys.readouterr().err


def test_overfit_takes_the_first_batches_of_the_first_epoch_and_keeps_them():
    seen: list[torch.Tensor] = []

    class Look(nn.Linear):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    model = Look(4, 2)
    trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1), progress=False)
    trainer.overfit(loaders()[0], 2, epochs=2)
    first = seen[:2]
    assert torch.equal(seen[2], first[0])
    assert torch.equal(seen[3], first[1])
    seen.clear()
    trainer.fit(loaders()[0])
    assert torch.equal(seen[0], first[0])


def test_overfitting_more_batches_than_there_are():
    model, optimizer, batches = bowl()
    trainer = Trainer(model, nn.MSELoss(), optimizer, progress=False, device="cpu")
    assert trainer.overfit(batches, 50, epochs=1)["step"] == [1]
