"""On a plateau: back to the best weights with a lower rate, exactly the same after any stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from feeding import Feed
from torch import nn

from dlkit import Trainer
from dlkit.callbacks import BackToBest, Callback, Checkpoint
from dlkit.errors import ArgumentError
from dlkit.runs.checkpointfile import load_checkpoint


def weight(feed: Feed) -> float:
    return feed.run.model.weight[0, 0].item()  # type: ignore[index, union-attr, operator]


def rate(feed: Feed) -> float:
    return float(feed.run.optimizer.param_groups[0]["lr"])


def test_it_goes_back_lowers_the_rate_and_stops_at_the_last_plateau() -> None:
    feed = Feed(BackToBest(patience=2, factor=0.25, times=1)).start()
    feed([3.0, 2.0, 4.0])
    assert (weight(feed), rate(feed)) == (3, 0.1)
    feed([2.5])
    assert (weight(feed), rate(feed)) == (2, 0.025)  # the weights of the second step, which were best
    feed([2.5, 1.0, 1.0, float("nan")])
    assert feed.run.stop_reason == "no better val_loss on 2 plateaus (best 1)"
    assert feed.run.cursor.finished


def test_the_direction_is_that_of_the_metric() -> None:
    feed = Feed(BackToBest("val_accuracy", patience=1), monitor="val_accuracy").start()
    feed([0.5, 0.9, 0.7])
    assert weight(feed) == 2


class Stop(Callback):
    """Asks to stop after a step, before the others judge it or right after they did."""

    def __init__(self, step: int, *, judged: bool) -> None:
        self.step, self.judged = step, judged

    def on_step_end(self, run) -> None:
        if run.step == self.step and not self.judged:
            run.request_stop("asked")

    def on_log(self, run, row) -> None:
        if run.step == self.step and self.judged:
            run.request_stop("asked")


def fit(folder: Path, stop: Callback | None = None, *, validate_every: str = "epoch") -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    batches = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(3)]
    val = [(torch.randn(8, 3), torch.randn(8, 1))]
    trainer = Trainer(
        model,
        nn.MSELoss(),
        torch.optim.AdamW(model.parameters(), 0.1),
        callbacks=[BackToBest(patience=1), Checkpoint(folder, background=False), *([stop] if stop else [])],
        progress=False,
        device="cpu",
    )
    trainer.fit(batches, val, epochs=30, validate_every=validate_every)
    return trainer


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("every", ["epoch", "2 steps"])
def test_a_run_that_is_stopped_at_any_step_goes_on_exactly(tmp_path: Path, every: str, judged: bool) -> None:
    whole = fit(tmp_path / "whole", validate_every=every)
    assert whole.run.stop_reason is not None
    assert whole.run.stop_reason.startswith("no better val_loss on 4 plateaus")
    for step in range(1, whole.run.step, 1):
        fit(tmp_path / "cut", Stop(step, judged=judged), validate_every=every)
    again = fit(tmp_path / "cut", validate_every=every)
    assert again.history.rows == whole.history.rows
    assert again.run.stop_reason == whole.run.stop_reason
    for mine, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_the_best_file_holds_the_weights_that_were_judged(tmp_path: Path) -> None:
    """Also among several best ones, where a value that is no improvement is kept, too."""
    checkpoint = Checkpoint(tmp_path, keep_best=3, background=False)
    feed = Feed(BackToBest(patience=1), checkpoint).start()
    feed([3.0, 4.0])
    states = [load_checkpoint(tmp_path / entry.file) for entry in checkpoint.store.best_entries(3)]
    assert [float(state["model"]["weight"][0, 0]) for state in states] == [1, 2]
    assert weight(feed) == 1


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ArgumentError, match="factor must be above 0"):
        BackToBest(factor=0)
    with pytest.raises(ArgumentError, match="nothing measures 'val_f1'"):
        Feed(BackToBest("val_f1")).start()
