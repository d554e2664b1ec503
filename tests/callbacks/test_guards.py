"""Runs that end for a reason from outside: a loss that is no number, a clock."""

from __future__ import annotations

import math
import time

import pytest
import torch
from feeding import Feed, new_run
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint, StopOnNaN, TimeLimit
from dlkit.errors import ArgumentError
from dlkit.runs.checkpointfile import load_checkpoint
from dlkit.training.sources import source_of

NAN, INF = math.nan, math.inf


def fed(losses: list[float], *, row_every: int = 1000, at: int = 0) -> Feed:
    run = new_run()
    run.cursor.step = at
    run.num_batches = 10_000
    run.indices = lambda epoch, batch: [100 * epoch + 2 * batch, 100 * epoch + 2 * batch + 1]
    feed = Feed(StopOnNaN(), run=run, rows_per_epoch=10_000).start()
    for number, loss in enumerate(losses, 1):
        feed.step(loss)
        if number % row_every == 0:
            feed.row(None)
        feed.safe_point()
        if run.stop_reason is not None:
            break
    return feed


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_the_first_bad_loss_is_named(value):
    run = fed([1.0, 2.0, value, 1.0, NAN], row_every=5).run
    assert run.stop_reason == (
        f"the loss became {value} at step 3, epoch 1, batch 3 (samples 4, 5); the weights since then were not saved"
    )
    assert not run.keep_state
    assert run.cursor.finished == ""


def test_it_is_found_at_most_64_steps_late():
    run = fed([1.0] * 70 + [NAN] + [1.0] * 200).run
    assert run.stop_reason.startswith("the loss became nan at step 71, ")
    assert run.step == 128


def test_losses_that_are_numbers_stop_nothing():
    assert fed([1.0, -5.0, 0.0, 1e30] * 40).run.stop_reason is None


def test_all_losses_of_a_step_with_several_names_are_looked_at():
    feed = Feed(StopOnNaN()).start()
    feed.run.losses.add({"a": torch.tensor(1.0), "b": torch.tensor(NAN)}, 1, 0)
    feed.row(None)
    assert feed.run.stop_reason.startswith("the b became nan at step 1, epoch 1")


def test_a_second_fit_looks_once():
    feed = Feed(StopOnNaN()).start().start()
    assert len(feed.run.losses.watchers) == 1


class Poisoned(Dataset):
    """One sample that is no number."""

    def __init__(self, bad: int) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index):
        return torch.full((3,), NAN if index == self.bad else index / 40), torch.tensor([1.0])


def train(bad, folder, *, accumulate=1, batch_size=4, stop_at=None, every="1 steps", shuffle=True, loss=None, lr=0.01):
    class StopAt(Callback):
        def on_step_end(self, run) -> None:
            if run.step == stop_at:
                run.request_stop("later")

    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    callbacks = [StopOnNaN(), Checkpoint(folder, every=every, restore_best=False), StopAt()]
    trainer = Trainer(
        model,
        loss or nn.MSELoss(),
        torch.optim.SGD(model.parameters(), lr),
        callbacks=callbacks,
        accumulate=accumulate,
        device="cpu",
        progress=False,
    )
    trainer.fit(DataLoader(Poisoned(bad), batch_size, shuffle=shuffle), epochs=2)
    return trainer, callbacks[1]


@pytest.mark.parametrize(("accumulate", "stop_at"), [(1, None), (3, None), (1, 2), (3, 1)])
@pytest.mark.parametrize("every", ["1 steps", "1000 steps"])
def test_the_sample_that_spoilt_a_training_is_named_and_nothing_spoilt_is_saved(tmp_path, accumulate, stop_at, every):
    """With a shuffled order, with accumulation, and when the run was resumed in the middle of the epoch."""
    source = source_of(DataLoader(Poisoned(99), 4, shuffle=True), 0)
    bad = source.indices(0, 7)[2]  # a sample of the eighth of ten batches
    if stop_at is not None:
        train(bad, tmp_path, accumulate=accumulate, stop_at=stop_at, every=every)
    trainer, checkpoint = train(bad, tmp_path, accumulate=accumulate, every=every)
    step = 8 if accumulate == 1 else 3
    batches = [8] if accumulate == 1 else [7, 8, 9]
    samples = [index for batch in batches for index in source.indices(0, batch - 1)]
    place = f"step {step}, epoch 1, batch {', '.join(map(str, batches))} (samples {', '.join(map(str, samples))})"
    assert trainer.run.stop_reason == f"the loss became nan at {place}; the weights since then were not saved"
    if every == "1 steps" or stop_at is not None:
        state = load_checkpoint(checkpoint.last)
        assert state["cursor"]["step"] == (step - 1 if every == "1 steps" else stop_at)
        assert all(value.isfinite().all() for value in state["model"].values())
    else:
        assert checkpoint.last is None


def test_weights_that_a_finite_loss_spoilt_are_not_saved_either(tmp_path):
    """The gradient of a root at zero is infinite, its loss is 0: only the loss of the next step would show it."""

    def root(output, target):
        return (output * 0).sqrt().mean()

    trainer, checkpoint = train(99, tmp_path, loss=root)
    assert checkpoint.last is None
    assert trainer.run.stop_reason == (
        "the weights became nan or infinite by step 1 ('weight'), although every loss was finite: a gradient was "
        "not; they were not saved"
    )


def test_a_time_limit():
    feed = Feed(TimeLimit(0.1)).start()([1, 1])
    assert feed.run.stop_reason is None
    time.sleep(0.1)
    feed([1, 1, 1])
    assert feed.run.step == 3
    assert feed.run.stop_reason == "the time limit of 0.1 s is over"
    assert feed.run.cursor.finished == ""
    assert feed.run.keep_state


def test_a_time_limit_counts_from_the_start_of_each_fit():
    limit = TimeLimit("0.2 s")
    time.sleep(0.2)
    feed = Feed(limit).start()([1])
    assert feed.run.stop_reason is None
    time.sleep(0.2)
    assert feed([1]).run.stop_reason == "the time limit of 0.2 s is over"


@pytest.mark.parametrize("limit", [0, -5, NAN, "5 epochs", "soon"])
def test_limits_that_cannot_be_meant(limit):
    with pytest.raises(ArgumentError, match=r"is not (a duration|an interval)"):
        TimeLimit(limit)
