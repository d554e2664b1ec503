"""A run that goes on with other settings: what holds is told, what cannot be meant is refused before the first step."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import StopAt
from torch import nn
from torch.optim import lr_scheduler as schedules
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint, LearningRate
from dlkit.datasets import TextDataset
from dlkit.errors import ArgumentError, ResumeError
from dlkit.runs.store import CheckpointStore
from dlkit.training.probing import differing, marks_of
from dlkit.training.sources import source_of


def data(seed: int = 1, samples: int = 32) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(samples, 4, generator=generator), torch.arange(samples) % 3)


def loader(dataset: Any = None, **settings: Any) -> DataLoader:
    return DataLoader(data() if dataset is None else dataset, 8, **{"shuffle": True, **settings})  # 4 batches


class Rates(Callback):
    """Notes with which rate each step was done."""

    order = 999

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_gradients(self, run) -> None:
        self.seen.append(run.optimizer.param_groups[0]["lr"])


def make(
    folder: Path | None, *callbacks: Callback, lr: float = 0.1, schedule: Any = None, loss: Any = None, **settings: Any
) -> Trainer:
    torch.manual_seed(0)
    model = settings.pop("model", None) or nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    kept = [Checkpoint(folder, restore_best=False)] if folder is not None else []
    return Trainer(
        model,
        loss or nn.CrossEntropyLoss(),
        optimizer,
        callbacks=[*callbacks, *kept],
        scheduler=schedule(optimizer) if schedule else None,
        **{"progress": False, "device": "cpu", **settings},
    )


def rates(trainer: Trainer) -> list[float]:
    return next(callback for callback in trainer.callbacks if isinstance(callback, Rates)).seen


# ---------------------------------------------------------------------------------------------------------- schedules


def half(step: int, steps: int) -> float:
    return max(0.0, 1 - step / steps)


# A schedule for so many epochs of four steps, and how it is stepped.
PLANNED: dict[str, Any] = {
    "cosine": lambda o, epochs: schedules.CosineAnnealingLR(o, epochs),
    "cosine by steps": lambda o, epochs: LearningRate(schedules.CosineAnnealingLR(o, 4 * epochs), every="step"),
    "one cycle": lambda o, epochs: schedules.OneCycleLR(o, 0.3, total_steps=4 * epochs),
    "linear": lambda o, epochs: schedules.LinearLR(o, 1.0, 0.0, epochs),
    "polynomial": lambda o, epochs: schedules.PolynomialLR(o, epochs),
    "warm-up, then cosine": lambda o, epochs: schedules.SequentialLR(
        o, [schedules.ConstantLR(o, 0.1, 1), schedules.CosineAnnealingLR(o, epochs - 1)], [1]
    ),
    "chained": lambda o, epochs: schedules.ChainedScheduler(
        [schedules.CosineAnnealingLR(o, epochs), schedules.ConstantLR(o, 1.0, 1)]
    ),
}


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.parametrize("again", ["same", "another process", "unfinished"])
def test_a_run_longer_than_its_schedule_is_refused_with_the_two_ways(name, again, tmp_path):
    schedule = functools.partial(PLANNED[name], epochs=3)
    made = make(tmp_path, *([StopAt(9)] if again == "unfinished" else []), schedule=schedule)
    made.fit(loader(), epochs=3)
    before = made.run.step
    longer = made if again == "same" else make(tmp_path, schedule=schedule)
    with pytest.raises(
        ResumeError, match=r"was planned for \d+ (steps|epochs), when the run was to have 3 epochs; now"
    ) as e:
        longer.fit(loader(), epochs=5)
    assert "rates='script'" in str(e.value)
    assert "keep epochs=3" in str(e.value)
    assert longer.run.step == before
    assert make(tmp_path, schedule=schedule).fit(loader(), epochs=3)["epoch"] == [1, 2, 3]  # nothing was spoilt


@pytest.mark.parametrize("name", PLANNED)
def test_planned_anew_the_rate_goes_on_where_the_new_schedule_stands(name, tmp_path):
    """With the rates that a run of five epochs has from there on."""
    whole = make(None, Rates(), schedule=functools.partial(PLANNED[name], epochs=5))
    whole.fit(loader(), epochs=5)
    make(tmp_path, schedule=functools.partial(PLANNED[name], epochs=3)).fit(loader(), epochs=3)
    longer = make(tmp_path, Rates(), schedule=functools.partial(PLANNED[name], epochs=5))
    longer.fit(loader(), epochs=5, rates="script")
    assert rates(longer) == pytest.approx(rates(whole)[12:], rel=1e-12)
    again = make(tmp_path, schedule=functools.partial(PLANNED[name], epochs=5))
    assert again.fit(loader(), epochs=5)["epoch"] == [1, 2, 3, 4, 5]  # and saved is now what the script said


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: schedules.StepLR(o, 2),
        lambda o: schedules.CosineAnnealingWarmRestarts(o, 1),
        lambda o: schedules.CosineAnnealingLR(o, 2),  # which the shorter run has left already
        lambda o: schedules.LinearLR(o, 0.1, 1.0, 3),  # a warm-up
        lambda o: schedules.LambdaLR(o, lambda epoch: 0.9**epoch),
        lambda o: schedules.ExponentialLR(o, 0.9),
    ],
)
def test_a_schedule_that_is_not_planned_for_the_run_goes_on(schedule, tmp_path):
    whole = make(None, Rates(), schedule=schedule)
    whole.fit(loader(), epochs=6)
    make(tmp_path, schedule=schedule).fit(loader(), epochs=4)
    longer = make(tmp_path, Rates(), schedule=schedule)
    longer.fit(loader(), epochs=6)
    assert rates(longer) == rates(whole)[16:]


def test_a_function_that_falls_to_nothing_is_planned_for_its_run(tmp_path):
    """As in the schedules of `transformers`; a function cannot be saved, so the script's holds, and that is told."""

    def schedule(steps: int) -> Any:
        return lambda o: LearningRate(schedules.LambdaLR(o, functools.partial(half, steps=steps)), every="step")

    make(tmp_path, schedule=schedule(12)).fit(loader(), epochs=3)
    with pytest.raises(ResumeError, match="LambdaLR was planned for 12 steps"):
        make(tmp_path, schedule=schedule(12)).fit(loader(), epochs=5)
    longer = make(tmp_path, Rates(), schedule=schedule(20))
    longer.fit(loader(), epochs=5)
    assert rates(longer) == pytest.approx([0.1 * (1 - step / 20) for step in range(12, 20)])


def test_one_cycle_with_too_few_steps_is_refused_at_once():
    with pytest.raises(
        ArgumentError, match=r"OneCycleLR was made for 8 steps .* 3 epochs are 12 steps: .*total_steps=12"
    ):
        make(None, schedule=functools.partial(PLANNED["one cycle"], epochs=2)).fit(loader(), epochs=3)


# -------------------------------------------------------------------------------------------------- what holds is told


def told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


def test_what_holds_is_told_in_the_log_without_progress_too(tmp_path, caplog):
    make(tmp_path, schedule=lambda o: schedules.StepLR(o, 2)).fit(loader(), epochs=1)
    make(tmp_path, lr=0.7, schedule=lambda o: schedules.StepLR(o, 3)).fit(loader(), epochs=2)
    assert "resumed from" in told(caplog)
    assert "lr: saved 0.1, this script says 0.7; the saved one holds" in told(caplog)
    assert "StepLR, step_size: saved 2, this script says 3; the saved one holds" in told(caplog)
    caplog.clear()
    same = make(tmp_path, lr=0.7, schedule=lambda o: schedules.StepLR(o, 3))
    same.fit(loader(), epochs=3)
    assert told(caplog) == ""
    assert same.run.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_another_schedule_cannot_go_on_from_what_one_has_saved(tmp_path):
    make(tmp_path, schedule=lambda o: schedules.StepLR(o, 2)).fit(loader(), epochs=3)
    with pytest.raises(ResumeError, match=r"schedule: saved StepLR, this script makes ExponentialLR, .*rates='script'"):
        make(tmp_path, schedule=lambda o: schedules.ExponentialLR(o, 0.5)).fit(loader(), epochs=4)
    made = make(tmp_path, Rates(), schedule=lambda o: schedules.ExponentialLR(o, 0.5))
    made.fit(loader(), epochs=4, rates="script")
    assert rates(made) == pytest.approx([0.1 * 0.5**3] * 4)


def test_a_new_learning_rate_can_be_asked_for(tmp_path, caplog):
    make(tmp_path).fit(loader(), epochs=1)
    first = make(tmp_path, Rates(), lr=0.01)
    momentum = CheckpointStore(tmp_path).last
    first.fit(loader(), epochs=2, rates="script")
    assert rates(first) == [0.01] * 4
    assert "lr: saved 0.1, this script says 0.01; the new one holds" in told(caplog)
    saved = torch.load(momentum, weights_only=True)
    by_hand = make(None, lr=0.01)
    by_hand.model.load_state_dict(saved["model"])
    by_hand.run.optimizer.load_state_dict(saved["optimizers"]["optimizer"])
    assert by_hand.run.optimizer.param_groups[0]["lr"] == 0.1
    with pytest.raises(
        ArgumentError, match=r"rates='script' takes the rates that a Trainer was made with.*trained 8 steps"
    ):
        first.fit(loader(), epochs=3, rates="script")
    with pytest.raises(ArgumentError, match="rates must be 'saved' or 'script', not 'mine'"):
        first.fit(loader(), epochs=3, rates="mine")


def test_a_plateau_keeps_what_it_has_seen(tmp_path):
    plateau = functools.partial(schedules.ReduceLROnPlateau, patience=50)
    make(tmp_path, schedule=plateau).fit(loader(), loader(), epochs=2)
    again = make(tmp_path, lr=0.02, schedule=plateau)
    again.fit(loader(), loader(), epochs=3, rates="script")
    scheduler = again.callbacks[0].scheduler
    assert scheduler.last_epoch == 3
    assert scheduler.best == min(again.history["val_loss"])
    assert again.run.optimizer.param_groups[0]["lr"] == 0.02


def test_a_loss_made_otherwise_is_told(tmp_path, caplog):
    make(tmp_path, loss=nn.CrossEntropyLoss(torch.ones(3))).fit(loader())
    loss = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 1.0]), label_smoothing=0.1)
    made = make(tmp_path, loss=loss)
    made.fit(loader(), epochs=2)
    assert "loss, label_smoothing: saved 0.0, this script says 0.1; the new one holds" in told(caplog)
    assert "state of loss, weight: saved [1.0, 1.0, 1.0], this script says [1.0, 2.0, 1.0]; the saved" in told(caplog)
    assert loss.weight.tolist() == [1, 1, 1]


# ---------------------------------------------------------------------------------------------------- threads of torch


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_the_number_of_threads_is_part_of_the_run(tmp_path, caplog):
    class Threads(Callback):
        def on_step_end(self, run) -> None:
            seen.append(torch.get_num_threads())

    seen: list[int] = []
    torch.set_num_threads(2)
    try:
        make(tmp_path, Threads()).fit(loader())
        torch.set_num_threads(1)
        make(tmp_path, Threads()).fit(loader(), epochs=2)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)
    assert seen == [2] * 8
    assert "threads of torch: saved 2, this process has 1; the saved ones hold in this fit" in told(caplog)


def test_more_threads_than_there_are_processors_are_told_and_left(tmp_path, caplog):
    torch.set_num_threads(999)
    try:
        make(tmp_path).fit(loader())
    finally:
        torch.set_num_threads(1)
    make(tmp_path).fit(loader(), epochs=2)
    assert "threads of torch: saved 999, this process has 1; the new ones hold" in told(caplog)


# --------------------------------------------------------------------------------------------------------- another run


class Net(nn.Module):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu()


def _net(body: str) -> type[nn.Module]:
    """The class of a model as it stands in a script, in the state of an edit."""
    source = f"from torch import nn\nclass Net(nn.Module):\n{body}"
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(source, space)
    return space["Net"]


FIRST = """
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
    def forward(self, x):
        return self.linear(x).relu()
"""
EDITED = '''
    """What it is for."""

    def __init__(self):
        """Makes it."""
        super().__init__()
        self.linear = nn.Linear(4, 3)  # the only layer

    def forward(self, x):
        """Runs it."""
        # a comment
        return (
            self.linear(x)
            .relu()
        )
'''


def scaled(factor: float) -> Any:
    return lambda output, target: factor * nn.functional.cross_entropy(output, target)


class Augmented(Dataset):
    """Draws random numbers, as augmentation does."""

    def __init__(self, base: float = 0.0) -> None:
        self.base = base

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> Any:
        return torch.rand(4) + index + self.base, index % 3


def shifted(tensors: TensorDataset, by: float) -> TensorDataset:
    return TensorDataset(tensors.tensors[0] + by, tensors.tensors[1])


OTHER = {
    "data": ({}, {"data": lambda: loader(data(2))}, "training data: other samples"),
    "labels": ({}, {"data": lambda: loader(TensorDataset(data().tensors[0], torch.arange(32) % 2))}, "other samples"),
    "prepared differently": ({}, {"data": lambda: loader(shifted(data(), 0.3))}, "or prepared differently"),
    "own dataset": ({"data": lambda: loader(Augmented())}, {"data": lambda: loader(Augmented(3.0))}, "other samples"),
    "order": ({}, {"data": lambda: loader(shuffle=False)}, "training data: another order of the samples"),
    "fold": (
        {"data": lambda: loader(Subset(data(1, 40), [*range(8), *range(16, 40)]))},
        {"data": lambda: loader(Subset(data(1, 40), [*range(16), *range(24, 40)]))},
        "another part of a dataset",
    ),
    "list": (
        {"data": lambda: list(loader(shuffle=False))},
        {"data": lambda: list(loader(data(2), shuffle=False))},
        "training data: other samples",
    ),
    "seed": ({}, {"seed": 3}, r"seed: saved 0, this script says 3"),
    "activation": (
        {},
        {"model": lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.1), nn.Linear(8, 3))},
        r"module 1: saved ReLU\(\), this script says GELU\(approximate='none'\)",
    ),
    "dropout": (
        {},
        {"model": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))},
        r"module 2: saved Dropout\(p=0.1, inplace=False\), this script says Dropout\(p=0.5",
    ),
    "code of the model": (
        {"model": lambda: _net(FIRST)()},
        {"model": lambda: _net(FIRST.replace("relu", "tanh"))()},
        "code of Net: differs from what the run was started with",
    ),
    "code of the loss": ({"loss": lambda: scaled(1.0)}, {"loss": lambda: scaled(2.0)}, r"code of loss scaled\."),
}


class Named(TensorDataset):
    """Data that says what its classes are."""

    def __init__(self, *classes: str) -> None:
        super().__init__(*data().tensors)
        self.classes = list(classes)


OTHER["classes"] = (
    {"data": lambda: loader(Named("ant", "bee", "fly"))},
    {"data": lambda: loader(Named("ant", "wasp", "fly"))},
    "training data: other classes: saved 'ant', 'bee', 'fly', this script says 'ant', 'wasp', 'fly'",
)


def fit(folder: Path, *callbacks: Callback, epochs: int = 1, resume: Any = "auto", **script: Any) -> Trainer:
    made = {name: value() if callable(value) else value for name, value in script.items()}
    train = made.pop("data", None) or loader()
    trainer = make(folder, *callbacks, **made)
    trainer.fit(train, epochs=epochs, resume=resume)
    return trainer


@pytest.mark.parametrize("name", OTHER)
def test_another_runs_checkpoints_are_refused_unless_one_is_named(name, tmp_path, caplog):
    script, other, message = OTHER[name]
    first = fit(tmp_path, **script)
    with pytest.raises(ResumeError, match=message) as error:
        fit(tmp_path, **{**script, **other})
    assert "the folder holds the checkpoints of another run" in str(error.value)
    assert "resume=False" in str(error.value)
    assert fit(tmp_path, epochs=2, **script).history["epoch"] == [1, 2]  # which is still good
    named = fit(tmp_path, epochs=3, resume=first.callbacks[-1].last, **{**script, **other})
    assert named.history["epoch"] == [1, 2, 3]
    assert named.run.step == 12
    assert fit(tmp_path, epochs=4, **{**script, **other}).run.step == 16  # and is the run of that script from now on


def test_a_seed_of_torch_that_somebody_chose_counts(tmp_path):
    """The sweep over seeds that forgets to change the folder."""

    def run(seed: int) -> None:
        torch.manual_seed(seed)
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        made = Trainer(
            model, nn.CrossEntropyLoss(), optimizer, callbacks=[Checkpoint(tmp_path)], progress=False, device="cpu"
        )
        made.fit(loader())

    run(1)
    run(1)
    with pytest.raises(ResumeError, match="seed of torch when the Trainer was made: saved 1, this script says 2"):
        run(2)


SAME = {
    "longer": {"epochs": 3},
    "workers": {"data": lambda: loader(num_workers=1)},
    "an edited comment": {"model": lambda: _net(EDITED)()},
    "data that rounds otherwise": {"data": lambda: loader(shifted(data(), 1e-6))},
    "another learning rate": {"lr": 0.3},
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_run_goes_on(name, tmp_path):
    first = {"model": lambda: _net(FIRST)()}
    fit(tmp_path, **first)
    assert fit(tmp_path, **{"epochs": 2, **first, **SAME[name]}).history["epoch"][:2] == [1, 2]


def test_augmentation_is_the_same_run(tmp_path):
    whole = fit(tmp_path / "whole", epochs=2, data=lambda: loader(Augmented()))
    fit(tmp_path / "run", StopAt(3), epochs=2, data=lambda: loader(Augmented()))
    resumed = fit(tmp_path / "run", epochs=2, data=lambda: loader(Augmented(), num_workers=1))
    assert torch.equal(resumed.model[0].weight, whole.model[0].weight)


def test_a_trainer_that_goes_on_with_other_data_is_meant(tmp_path):
    made = make(tmp_path)
    made.fit(loader(), epochs=1)
    assert made.fit(loader(data(2)), epochs=2)["epoch"] == [1, 2]
    again = make(tmp_path)
    again.fit(loader(), epochs=1)  # the script once more: both fits are done
    assert again.fit(loader(data(2)), epochs=2)["epoch"] == [1, 2]
    assert again.run.step == 8


def test_data_that_is_different_each_time_is_not_compared(tmp_path):
    """Nobody can tell then; a dataset that draws from the system is the only one of its kind."""

    class Fresh(Augmented):
        def __getitem__(self, index: int) -> Any:
            return torch.frombuffer(bytearray(os.urandom(4)), dtype=torch.uint8).float(), index % 3

    fit(tmp_path, data=lambda: loader(Fresh()))
    assert fit(tmp_path, epochs=2, data=lambda: loader(Fresh())).run.step == 8


def test_texts_of_another_vocabulary_are_other_data(tmp_path):
    """The numbers of the samples may be the same ones."""
    marks = []
    for word in ("cat", "dog"):
        file = tmp_path / f"{word}.csv"
        file.write_text("text,label\n" + "".join(f"{word} says {i} {word},{'xy'[i % 2]}\n" for i in range(40)))
        marks.append(marks_of(source_of(DataLoader(TextDataset.split(file, seed=0)[0], 8), 0)))
    assert differing(marks[0], marks[0]) is None
    assert differing(*marks) == "training data: another vocabulary"
