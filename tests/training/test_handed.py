"""Objects in a second Trainer, as in a loop over folds: what remembers the first run is refused, the rest is free."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_parts import Centers, Learned
from torch import nn
from torch.optim import lr_scheduler as schedules

from dlkit import Trainer
from dlkit.callbacks import (
    EMA,
    Callback,
    Checkpoint,
    ClipGradients,
    CSVLogger,
    EarlyStopping,
    LearningRate,
    StopOnNaN,
    TimeLimit,
)
from dlkit.errors import ArgumentError
from dlkit.metrics import Mean

BATCHES = [(torch.randn(6, 4, generator=torch.Generator().manual_seed(n)), torch.arange(6) % 3) for n in range(3)]


def fold(*callbacks: Callback, loss: Any = None, optimizer: Any = None, model: Any = None, **settings: Any) -> Trainer:
    """One fold: a model of its own, and whatever is handed over."""
    torch.manual_seed(0)
    model = model or nn.Linear(4, 3)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 0.1)
    made = Trainer(
        model, loss or nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, device="cpu", progress=False, **settings
    )
    made.fit(BATCHES, BATCHES, epochs=2)
    return made


class Counting(Callback):
    """A callback of the user's own with a memory."""

    steps = 0

    def on_step_end(self, run) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps} if self.steps else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


@pytest.mark.parametrize("make", [lambda: EarlyStopping(patience=2), lambda: EMA(0.5), Counting])
def test_a_callback_that_remembers_the_first_fold_is_refused_in_the_second(make):
    callback = make()
    fold(callback)
    with pytest.raises(ArgumentError, match=rf"{type(callback).__name__}: in another Trainer before.* make new ones"):
        fold(callback)
    fold(make())


def test_a_schedule_is_refused_and_an_optimizer_goes_on_with_its_model(caplog):
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    schedule = schedules.StepLR(optimizer, 1)
    fold(model=model, optimizer=optimizer, scheduler=schedule)
    with pytest.raises(ArgumentError, match=r"^StepLR: in another Trainer before"):
        fold(model=model, optimizer=optimizer, scheduler=schedule)
    with pytest.raises(ArgumentError, match=r"LearningRate, StepLR: in another|^StepLR"):
        fold(model=model, optimizer=optimizer, scheduler=LearningRate(schedule, every="step"))
    caplog.clear()
    fold(model=model, optimizer=optimizer)
    assert "optimizer: continues with its state from another Trainer's run" in caplog.text


def test_a_loss_and_a_metric_that_have_learned_are_refused():
    def parts(loss: nn.Module, model: nn.Module) -> Any:
        return torch.optim.SGD([*model.parameters(), *loss.parameters()], 0.1)

    loss, model = Centers(), nn.Linear(4, 3)
    fold(model=model, loss=loss, optimizer=parts(loss, model))
    again = nn.Linear(4, 3)
    with pytest.raises(ArgumentError, match=r"^loss: in another Trainer before"):
        fold(model=again, loss=loss, optimizer=parts(loss, again))
    meant = copy.deepcopy(loss)
    fold(model=again, loss=meant, optimizer=parts(meant, again))
    metric = Learned()
    fold(metrics={"odd": metric})
    with pytest.raises(ArgumentError, match=r"^metric odd: in another Trainer before"):
        fold(metrics={"odd": metric})


def test_what_remembers_nothing_may_be_used_as_often_as_one_likes(tmp_path):
    import torchmetrics  # takes seconds, and other tests of this process may do without

    callbacks = [
        ClipGradients(1.0),
        StopOnNaN(),
        TimeLimit("1 h"),
        CSVLogger(tmp_path / "log.csv"),
        LearningRate(warmup=2),
    ]
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 1.0]))
    accuracy = torchmetrics.classification.MulticlassAccuracy(3)
    error = Mean(lambda preds, target: preds.mean(), higher_is_better=False)
    folds = [fold(*callbacks, loss=loss, metrics={"a": accuracy, "m": error}).history.rows for _ in range(3)]
    assert folds[0] == folds[1] == folds[2]


def test_each_fold_with_objects_of_its_own_is_the_fold_alone():
    def new() -> list[Callback]:
        return [EarlyStopping(patience=2), EMA(0.5)]

    assert fold(*new()).history.rows == fold(*new()).history.rows


def test_another_trainer_over_the_same_folder_goes_on_with_the_same_objects(tmp_path):
    """As in a notebook: what is put back from the file is of this run."""
    stopping, store = EarlyStopping(patience=9), Checkpoint(tmp_path)
    fold(stopping, store)
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    made = Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=[stopping, store], device="cpu", progress=False)
    assert made.fit(BATCHES, BATCHES, epochs=3)["epoch"] == [1, 2, 3]
    assert made.fit(BATCHES, BATCHES, epochs=4)["epoch"] == [1, 2, 3, 4]


def test_a_trainer_that_was_only_made_or_rehearsed_has_used_nothing():
    stopping, model = EarlyStopping(patience=9), nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    made = Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=[stopping], device="cpu", progress=False)
    made.dry_run(BATCHES, BATCHES)
    fold(stopping, model=model, optimizer=optimizer)


def test_the_same_trainer_goes_on_with_its_own():
    made = fold(EarlyStopping(patience=9), EMA(0.5), Counting())
    assert made.fit(BATCHES, BATCHES, epochs=4)["epoch"] == [1, 2, 3, 4]
