"""Schedules: the rates of every step are those of torch's own scheduler, stepped by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from feeding import Feed, new_run
from torch.optim import lr_scheduler as rates

from dlkit.callbacks import Callback, LearningRate
from dlkit.errors import ArgumentError
from dlkit.runs.checkpointfile import load_checkpoint, save_checkpoint

Make = Callable[[torch.optim.Optimizer], rates.LRScheduler]


def constant(optimizer):
    return rates.ConstantLR(optimizer, factor=0.5, total_iters=3)


MAKERS: dict[str, Make] = {
    "StepLR": lambda o: rates.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: rates.MultiStepLR(o, [2, 5], 0.1),
    "ConstantLR": constant,
    "LinearLR": lambda o: rates.LinearLR(o, 0.1, 1.0, 5),
    "ExponentialLR": lambda o: rates.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: rates.PolynomialLR(o, 9, 2.0),
    "LambdaLR": lambda o: rates.LambdaLR(o, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda o: rates.MultiplicativeLR(o, lambda step: 0.9),
    "CosineAnnealingLR": lambda o: rates.CosineAnnealingLR(o, 9),
    "CosineAnnealingWarmRestarts": lambda o: rates.CosineAnnealingWarmRestarts(o, 4),
    "OneCycleLR": lambda o: rates.OneCycleLR(o, 0.3, total_steps=20),
    "CyclicLR": lambda o: rates.CyclicLR(o, 0.01, 0.2, 4),
    "ChainedScheduler": lambda o: rates.ChainedScheduler([constant(o), rates.ExponentialLR(o, 0.9)]),
    "SequentialLR": lambda o: rates.SequentialLR(o, [constant(o), rates.ExponentialLR(o, 0.9)], [4]),
}
PER_STEP = {"OneCycleLR", "CyclicLR"}


class Notes(Callback):
    """Notes rate and momentum right before each optimizer step."""

    order = 999

    def __init__(self) -> None:
        self.seen: list[tuple[float, ...]] = []

    def on_gradients(self, run) -> None:
        self.seen.append(tuple((group["lr"], group.get("momentum")) for group in run.optimizer.param_groups))


class Rates(Feed):
    """Knows with which rates the steps were done."""

    def __init__(self, *callbacks, **settings) -> None:
        self.notes = Notes()
        super().__init__(*callbacks, self.notes, **settings)

    @property
    def seen(self):
        return self.notes.seen


def by_hand(make: Make, count: int, period: int) -> list[tuple[float, ...]]:
    optimizer = new_run().optimizer
    scheduler, seen = make(optimizer), []
    for number in range(count):
        seen.append(tuple((group["lr"], group["momentum"]) for group in optimizer.param_groups))
        optimizer.step()
        if (number + 1) % period == 0:
            scheduler.step()
    return seen


def scheduled(make: Make, rows_per_epoch: int, **settings) -> Rates:
    run = new_run()
    return Rates(LearningRate(make(run.optimizer), **settings), run=run, rows_per_epoch=rows_per_epoch)


@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # torch 2.8, of what its SequentialLR does itself
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("every", ["step", "epoch", None])
def test_every_scheduler_of_torch(name, every, tmp_path):
    """At once, and saved and resumed after each step, from a file."""
    period = 1 if every == "step" or (every is None and name in PER_STEP) else 3
    expected = by_hand(MAKERS[name], 12, period)
    assert scheduled(MAKERS[name], 3, every=every).start()([1] * 12).seen == expected
    resumed = scheduled(MAKERS[name], 3, every=every).start()
    for cut in (1, 4, 6, 7):
        resumed([1] * (cut - len(resumed.seen)))
        save_checkpoint(resumed.state(), tmp_path / "state.pt")
        notes = resumed.notes
        resumed = scheduled(MAKERS[name], 3, every=every).resume(load_checkpoint(tmp_path / "state.pt")).start()
        resumed.notes.seen = notes.seen
    assert resumed([1] * 5).seen == expected


@pytest.mark.parametrize(
    "values", [[5, 5, 5, 5, 5, 5], [5, 4, 4.5, 4.5, 3, math.nan, math.nan, 2], [5, None, 6, 6, None, 6, 1]]
)
def test_a_plateau_sees_the_values_of_the_rows(values, tmp_path):
    def make(optimizer):
        return rates.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)

    optimizer = new_run().optimizer
    scheduler, expected = make(optimizer), []
    for value in values:
        expected.append(optimizer.param_groups[0]["lr"])
        if value is not None:
            scheduler.step(value)
    feed = scheduled(make, 2).start()(values)
    assert [lr for ((lr, _),) in feed.seen] == expected
    assert feed.run.optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    first = scheduled(make, 2).start()(values[:3])
    save_checkpoint(first.state(), tmp_path / "state.pt")
    second = scheduled(make, 2).resume(load_checkpoint(tmp_path / "state.pt")).start()(values[3:])
    assert [lr for ((lr, _),) in first.seen + second.seen] == expected


def test_a_plateau_of_a_metric_that_should_rise():
    run = new_run()
    scheduler = rates.ReduceLROnPlateau(run.optimizer, mode="max", factor=0.5, patience=0)
    feed = Rates(LearningRate(scheduler, monitor="val_accuracy"), run=run, monitor="val_accuracy").start()
    assert [lr for ((lr, _),) in feed([0.1, 0.2, 0.3, 0.2, 0.4]).seen] == [0.1, 0.1, 0.1, 0.1, 0.05]


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_warmup_rises_to_the_scheduled_rate(stop, tmp_path):
    def make(optimizer):
        return rates.ExponentialLR(optimizer, 0.5)

    def feed():
        return scheduled(make, 100, every="step", warmup=4)

    plain = [lr for ((lr, _),) in by_hand(make, 6, 1)]
    expected = [rate * min(1, (number + 1) / 4) for number, rate in enumerate(plain)]
    first = feed().start()([1] * stop)
    save_checkpoint(first.state(), tmp_path / "state.pt")
    second = feed().resume(load_checkpoint(tmp_path / "state.pt")).start()([1] * (6 - stop))
    assert [lr for ((lr, _),) in first.seen + second.seen] == expected


def test_warmup_alone_and_with_several_groups():
    run = new_run()
    run.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0})
    feed = Rates(LearningRate(warmup=2), run=run).start()([1] * 3)
    assert [tuple(lr for lr, _ in groups) for groups in feed.seen] == [(0.05, 0.5), (0.1, 1.0), (0.1, 1.0)]


def test_the_history_has_the_rate_of_the_coming_step():
    feed = scheduled(lambda optimizer: rates.ExponentialLR(optimizer, 0.5), 100, every="step", warmup=4)
    feed.start()([1] * 6)
    assert feed.run.history["lr"][:-1] == pytest.approx([lr for ((lr, _),) in feed.seen[1:]], rel=1e-15)


def test_between_steps_the_optimizer_has_the_scheduled_rate():
    """What is saved must not depend on the warm-up: torch's schedulers compute from the rate in the optimizer."""
    feed = Rates(LearningRate(warmup=10)).start()([1, 1])
    assert feed.run.optimizer.param_groups[0]["lr"] == 0.1


def test_what_cannot_be_meant_is_refused():
    run = new_run()
    with pytest.raises(ArgumentError, match=r"scheduler must be a scheduler of torch\.optim.lr_scheduler, not SGD"):
        LearningRate(run.optimizer)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="a scheduler is stepped every 'step' or 'epoch', not 'batch'"):
        LearningRate(every="batch")
    with pytest.raises(ArgumentError, match="warmup must be a whole number of at least 0 steps, not -1"):
        LearningRate(warmup=-1)
    plateau = rates.ReduceLROnPlateau(run.optimizer)
    with pytest.raises(ArgumentError, match="nothing measures 'val_acc'; do you mean 'val_accuracy'"):
        Feed(LearningRate(plateau, monitor="val_acc"), run=run).start()
    with pytest.raises(ArgumentError, match=r"mode='min'.* of 'val_accuracy' higher is better; .*mode='max'"):
        Feed(LearningRate(plateau, monitor="val_accuracy"), run=run).start()
    Feed(LearningRate(plateau, monitor="val_odd"), run=run).start()  # which does not say what is better
    strange = new_run().optimizer
    with pytest.raises(ArgumentError, match="the scheduler was made on an optimizer that is not the run's"):
        Feed(LearningRate(rates.StepLR(strange, 1)), run=run).start()
