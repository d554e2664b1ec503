"""The numbers of a run: losses that are read rarely, and values that callbacks log."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint
from dlkit.errors import ArgumentError
from dlkit.runs.losses import LossMeter
from dlkit.runs.state import Run

LOSSES = st.lists(st.tuples(st.floats(-100, 100, width=32), st.integers(1, 9)), min_size=1, max_size=150)


def meter_of(pairs, reads=(), *, save_at: int | None = None) -> LossMeter:
    meter = LossMeter()
    for number, (loss, weight) in enumerate(pairs):
        if number == save_at:
            state = meter.state_dict()
            meter = LossMeter()
            meter.load_state_dict(state)
        meter.add(torch.tensor(loss), weight, number)
        if number in reads:
            meter.latest()
    return meter


@given(LOSSES, st.sets(st.integers(0, 149)), st.integers(0, 149))
def test_the_mean_does_not_depend_on_when_it_was_read_or_saved(pairs, reads, save_at):
    plain = meter_of(pairs).mean()
    assert meter_of(pairs, reads).mean() == plain
    assert meter_of(pairs, save_at=save_at).mean() == plain
    expected = sum(loss * weight for loss, weight in pairs) / sum(weight for _, weight in pairs)
    assert plain["loss"] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_device_is_read_once_in_64_steps():
    read: list[tuple[int, int]] = []
    meter = LossMeter()
    meter.watchers.append(lambda first, values: read.append((first, len(values["loss"]))))
    for number in range(150):
        meter.add(torch.tensor(1.0), 1, number)
    meter.flush()
    assert read == [(0, 64), (64, 64), (128, 22)]


def test_several_names_and_an_empty_one():
    meter = LossMeter()
    assert meter.mean() == {}
    assert math.isnan(meter.latest())
    meter.add({"a": torch.tensor(1.0), "b": torch.tensor(4.0)}, 1, 0)
    meter.add({"a": torch.tensor(3.0), "b": torch.tensor(8.0)}, 3, 1)
    assert meter.mean() == {"a": 2.5, "b": 7.0}
    assert meter.latest() == 3.0
    meter.reset()
    assert meter.mean() == {}


def test_what_counts_nothing_is_left_out_of_the_mean():
    meter = LossMeter()
    meter.add(torch.tensor(float("nan")), torch.tensor(0.0), 0)
    meter.add(torch.tensor(2.0), torch.tensor(0.5), 1)
    assert meter.mean() == {"loss": 2.0}


def new_run() -> Run:
    model = nn.Linear(1, 1)
    optimizers: dict[str, torch.optim.Optimizer] = {"optimizer": torch.optim.SGD(model.parameters(), 0.1)}
    return Run(model, optimizers, device=torch.device("cpu"), seed=0, verbose=False)


def test_logged_values_are_plain_numbers():
    run = new_run()
    run.log("tensor", torch.tensor(0.5))
    run.log("whole", 3)
    run.log("half", torch.tensor(0.25).numpy())
    assert run.take_logged() == {"tensor": 0.5, "whole": 3, "half": 0.25}
    assert all(type(value) in (int, float) for value in run.take_logged().values())
    with pytest.raises(ArgumentError, match=r"run.log\('note', ...\) takes one number, not str"):
        run.log("note", "good")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"takes one number, not Tensor"):
        run.log("many", torch.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="'step' is what a row is found by; log the value under another name"):
        run.log("step", 1)


def test_what_was_logged_before_a_stop_is_in_the_row_after_it(tmp_path):
    class Log(Callback):
        def __init__(self, stop: int) -> None:
            self.stop = stop

        def on_step_end(self, run) -> None:
            if run.step == 2:
                run.log("early", 7.0)
            if run.step == self.stop:
                run.request_stop("test")

    def fit(folder, stop: int):
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        callbacks = [Log(stop), Checkpoint(folder)]
        trainer = Trainer(model, nn.MSELoss(), optimizer, callbacks=callbacks, progress=False, device="cpu")
        return trainer.fit([(torch.ones(4, 2), torch.ones(4, 1))] * 5).rows

    whole = fit(tmp_path / "a", 0)
    assert whole[0]["early"] == 7.0
    fit(tmp_path / "b", 3)
    assert fit(tmp_path / "b", 0) == whole


def test_which_batches_a_step_was_made_of():
    run = new_run()
    run.num_batches, run.accumulate, run.epoch_began = 7, 3, (10, 0)
    assert [run.batches_of(step) for step in (10, 11, 12)] == [[0, 1, 2], [3, 4, 5], [6]]
    run.epoch_began = (12, 6)  # resumed there
    assert run.batches_of(12) == [6]
    run.num_batches = None
    assert run.batches_of(13) == [9, 10, 11]


def test_the_first_reason_stays_and_nothing_makes_spoilt_weights_good_again():
    run = new_run()
    run.request_stop("first", keep_state=False)
    run.request_stop("second", final=True)
    assert (run.stop_reason, run.keep_state, run.cursor.finished) == ("first", False, "")
