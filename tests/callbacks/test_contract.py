"""What holds for every callback, and the table in `Callback`'s docstring, line by line."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from feeding import Feed, new_run
from torch import nn

import dlkit.callbacks
from dlkit import Trainer
from dlkit.callbacks import Callback
from dlkit.callbacks.base import overrides
from dlkit.runs.checkpointfile import load_checkpoint, plain, save_checkpoint

HOOKS = [name for name in vars(Callback) if name.startswith("on_")]

# How to make each public callback in a folder for a run. A new one must be added here.
MAKERS: dict[str, Callable[[Path, object], Callback]] = {
    "BackToBest": lambda folder, run: dlkit.callbacks.BackToBest(patience=1, times=1),
    "CSVLogger": lambda folder, run: dlkit.callbacks.CSVLogger(folder / "log.csv"),
    "Callback": lambda folder, run: Callback(),
    "CheckFrozen": lambda folder, run: dlkit.callbacks.CheckFrozen(),
    "Checkpoint": lambda folder, run: dlkit.callbacks.Checkpoint(folder, background=False),
    "ClipGradients": lambda folder, run: dlkit.callbacks.ClipGradients(1.0),
    "EMA": lambda folder, run: dlkit.callbacks.EMA(0.9),
    "EarlyStopping": lambda folder, run: dlkit.callbacks.EarlyStopping(patience=9),
    "JSONLinesLogger": lambda folder, run: dlkit.callbacks.JSONLinesLogger(folder / "log.jsonl"),
    "LearningRate": lambda folder, run: dlkit.callbacks.LearningRate(
        torch.optim.lr_scheduler.ReduceLROnPlateau(run.optimizer, patience=0), warmup=2
    ),
    "MLflowLogger": lambda folder, run: dlkit.callbacks.MLflowLogger("x", tracking_uri=f"sqlite:///{folder}/m.db"),
    "Progress": lambda folder, run: dlkit.callbacks.Progress(),
    "StopOnNaN": lambda folder, run: dlkit.callbacks.StopOnNaN(),
    "TensorBoardLogger": lambda folder, run: dlkit.callbacks.TensorBoardLogger(folder / "events"),
    "TimeLimit": lambda folder, run: dlkit.callbacks.TimeLimit("2 h"),
    "Unfreeze": lambda folder, run: dlkit.callbacks.Unfreeze({1: "all"}),
    "WandbLogger": lambda folder, run: dlkit.callbacks.WandbLogger("x", mode="disabled", dir=folder),
}
ELSEWHERE = {"MLflowLogger", "Unfreeze", "WandbLogger"}  # slow, or for a model with a head: tested where they are


def test_every_public_callback_is_tested_here():
    assert sorted(MAKERS) == sorted(dlkit.callbacks.__all__)
    assert all(issubclass(getattr(dlkit.callbacks, name), Callback) for name in MAKERS)


@pytest.mark.parametrize("name", sorted(set(MAKERS) - ELSEWHERE))
@pytest.mark.parametrize("cut", [1, 3])
def test_state_is_plain_and_goes_round_through_a_file(name, cut, tmp_path):
    def feed(folder: Path) -> Feed:
        run = new_run()
        return Feed(MAKERS[name](folder, run), run=run, rows_per_epoch=2)

    values = [3.0, 4.0, 2.0, 5.0, 1.0]
    first = feed(tmp_path / "a").start()(values[:cut])
    state = first.state()
    assert plain(state) is not state
    save_checkpoint(state, tmp_path / "state.pt")
    loaded = load_checkpoint(tmp_path / "state.pt")
    torch.load(tmp_path / "state.pt", weights_only=True)
    second = feed(tmp_path / "b").resume(loaded).start()
    assert repr(plain(second.state())) == repr(plain(state))
    first(values[cut:])
    second(values[cut:])
    assert repr(plain(second.state())) == repr(plain(first.state()))
    first.end()
    second.end()


@pytest.mark.parametrize("name", sorted(set(MAKERS) - ELSEWHERE))
def test_a_dry_run_leaves_the_folder_empty(name, tmp_path):
    run = new_run()
    run.write_files = False
    Feed(MAKERS[name](tmp_path, run), run=run).start()([1.0, 2.0]).end()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(set(MAKERS) - ELSEWHERE))
def test_it_may_end_without_having_begun(name, tmp_path):
    """As when another callback's start raises."""
    run = new_run()
    Feed(MAKERS[name](tmp_path, run), run=run).tell("on_fit_end")


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_only_what_is_overridden_is_called(name, tmp_path):
    """The loop's promise that a hook costs nothing holds only if nobody overrides one with nothing in it."""
    callback = MAKERS[name](tmp_path, new_run())
    own = set(type(callback).__mro__) - set(Callback.__mro__)
    for hook in HOOKS:
        assert overrides(callback, hook) == any(hook in vars(each) for each in own)


# ------------------------------------------------------------------------------------------------------ the truth table


class Recorder(Callback):
    """Notes every hook, and does something at one of them."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.event: tuple[str, int, Callable[[object], None]] | None = None
        self.at = 0

    def happen(self, place: str, run: object) -> None:
        """The event, at the n-th call of a place (a hook, or the model)."""
        if self.event is not None and place == self.event[0] and self.called.count(place) == self.event[1]:
            do, self.event = self.event[2], None
            self.at = len(self.called)
            do(run)

    @property
    def after(self) -> list[str]:
        return [name for name in self.called[self.at :] if name.startswith("on_")]


def _recording(hook: str):
    def record(self, run, *arguments) -> None:
        self.called.append(hook)
        self.happen(hook, run)

    return record


for _hook in HOOKS:
    setattr(Recorder, _hook, _recording(_hook))


class Model(nn.Linear):
    """Its forward pass is the inside of a step, or of a validation."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(2, 1)
        self.recorder: list[Recorder] = [recorder]

    def forward(self, x):
        place = "train" if self.training else "validate"
        self.recorder[0].called.append(place)
        self.recorder[0].happen(place, None)
        return super().forward(x)


class Batches(list):
    """An iterable whose third batch may fail to come."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__([(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(3)])
        self.recorder = recorder


def ask(run) -> None:
    run.request_stop("asked")


def press(run) -> None:
    del run
    os.kill(os.getpid(), signal.SIGINT)


def fail(run) -> None:
    del run
    raise OSError("broken")


def record(place: str, count: int, do) -> Recorder:
    """Two epochs of three batches with a validation of one batch in each; the event happens in epoch 1."""
    recorder = Recorder()
    recorder.event = (place, count, do)
    model = Model(recorder)

    class Failing:
        """A loader, so that the event may also be in fetching."""

        def __len__(self) -> int:
            return 3

        def __iter__(self):
            for x, y in Batches(recorder):
                recorder.called.append("fetch")
                recorder.happen("fetch", None)
                yield x, y

    trainer = Trainer(
        model,
        nn.MSELoss(),
        torch.optim.SGD(model.parameters(), 0.1),
        callbacks=[recorder],
        progress=False,
        device="cpu",
    )
    with contextlib.suppress(OSError):
        trainer.fit(Failing(), Batches(recorder)[:1], epochs=2)
    return recorder


STEP = ["on_gradients", "on_step_end"]
LEAVE = ["on_safe_point", "on_fit_end"]
ROW = ["on_validation_step", "on_log", "on_epoch_end"]


@pytest.mark.parametrize("do", [ask, press])
@pytest.mark.parametrize(
    ("place", "count", "after"),
    [
        ("train", 2, [*STEP, *LEAVE]),  # in the second step
        ("on_gradients", 2, ["on_step_end", *LEAVE]),
        ("on_step_end", 2, LEAVE),
        ("on_safe_point", 2, ["on_fit_end"]),
        ("on_step_end", 3, LEAVE),  # the last step of the epoch: its validation is left to the resumed run
        ("validate", 1, ["on_validation_step", *LEAVE]),  # the batch is finished, the row stays open
        ("on_validation_step", 1, LEAVE),
        ("on_log", 1, ["on_epoch_end", *LEAVE]),
        ("on_epoch_end", 1, LEAVE),
        ("on_fit_start", 1, ["on_fit_end"]),
        ("on_epoch_start", 1, ["on_safe_point", "on_fit_end"]),
    ],
)
def test_after_a_stop_was_asked_or_ctrl_c_was_pressed(place, count, after, do):
    if do is press or place.startswith("on_"):  # only a signal comes in the middle of a step
        assert record(place, count, do).after == after


@pytest.mark.parametrize(
    ("place", "count", "after"),
    [
        ("train", 2, ["on_fit_end"]),
        ("on_gradients", 2, ["on_fit_end"]),
        ("on_step_end", 2, ["on_fit_end"]),
        ("fetch", 2, LEAVE),
        ("on_safe_point", 1, LEAVE),  # nothing is half done there
        ("validate", 1, LEAVE),  # nor before the values are there
        ("on_log", 1, ["on_fit_end"]),  # a row that others have not judged must not be saved
        ("on_epoch_end", 1, ["on_fit_end"]),
        ("on_fit_start", 1, LEAVE),
    ],
)
def test_after_an_exception(place, count, after):
    assert record(place, count, fail).after == after


def test_when_nothing_comes_in_between():
    called = [name for name in record("never", 0, ask).called if name.startswith("on_")]
    steps = ["on_epoch_start", *[*STEP, "on_safe_point"] * 3, *ROW, "on_safe_point"]
    assert called == ["on_setup", "on_fit_start", *steps, *steps, "on_fit_end"]
    assert set(called) == set(HOOKS)


def test_the_table_in_the_docstring():
    """Each cell of the table stands for the scenarios above, which are run again and read by it."""
    lines = re.findall(r"^ *`(on_\w+)`\s{2,}(.+?)\s{2,}(.+?)\s{2,}(.+)$", Callback.__doc__ or "", re.MULTILINE)
    assert [line[0] for line in lines] == HOOKS
    completed = record("never", 0, ask)
    in_step, in_validation = record("train", 2, press), record("validate", 1, press)
    in_row, failed, between = record("on_log", 1, ask), record("train", 2, fail), record("fetch", 2, fail)
    meanings = {
        "the step is finished": lambda hook: in_step.after.count(hook) == 1,
        "the batch is finished": lambda hook: in_validation.after.count(hook) == 1,
        "not for an open row": lambda hook: hook not in in_validation.after + in_step.after,
        "after its last row": lambda hook: hook in in_row.after and hook not in in_validation.after + in_step.after,
        "once more": lambda hook: all(record.after.count(hook) == 1 for record in (in_step, in_validation, in_row)),
        "if between steps": lambda hook: hook in between.after and hook not in failed.after,
        "no": lambda hook: hook not in failed.after + between.after,
    }
    for hook, when_completed, when_stopped, when_failed in lines:
        assert when_completed == "yes"
        assert hook in completed.called
        for cell, scenarios in ((when_stopped, (in_step, in_validation)), (when_failed, (failed, between))):
            if cell == "yes":
                assert all(hook in scenario.called for scenario in scenarios), hook
            else:
                assert meanings[cell](hook), (hook, cell)


def test_a_raising_row_is_not_saved_and_is_judged_by_all_after_the_restart(tmp_path):
    """A logger's error between the plateau's and early stopping's turn must not make the resumed run another one."""

    class Break(Callback):
        def __init__(self, broken: bool) -> None:
            self.broken = broken

        def on_log(self, run, row) -> None:
            if self.broken and row["epoch"] == 3:
                raise OSError("the log is gone")

    def fit(folder: Path, broken: bool) -> Trainer:
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        batches = [(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(3)]
        optimizer = torch.optim.SGD(model.parameters(), 0.9)
        callbacks = [
            dlkit.callbacks.LearningRate(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)),
            Break(broken),
            dlkit.callbacks.EarlyStopping(patience=2),
            dlkit.callbacks.Checkpoint(folder, restore_best=False),
        ]
        trainer = Trainer(model, nn.MSELoss(), optimizer, callbacks=callbacks, progress=False, device="cpu")
        trainer.fit(batches, batches, epochs=8)
        return trainer

    whole = fit(tmp_path / "whole", broken=False)
    with pytest.raises(OSError, match="the log is gone"):
        fit(tmp_path / "broken", broken=True)
    resumed = fit(tmp_path / "broken", broken=False)
    assert resumed.history.rows == whole.history.rows
    assert resumed.run.stop_reason == whole.run.stop_reason
    assert torch.equal(resumed.model.weight, whole.model.weight)


def test_order_among_callbacks():
    calls: list[str] = []

    def noting(name: str, order: int) -> Callback:
        callback = Callback()
        callback.order = order
        callback.on_step_end = lambda run: calls.append(name)  # type: ignore[method-assign]
        return callback

    model = nn.Linear(2, 1)
    callbacks = [noting("last", 1000), noting("first", 0), noting("second", 0)]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = Trainer(model, nn.MSELoss(), optimizer, callbacks=callbacks, progress=False, device="cpu")
        trainer.fit([(torch.randn(4, 2), torch.randn(4, 1))])
    assert calls == ["first", "second", "last"]
