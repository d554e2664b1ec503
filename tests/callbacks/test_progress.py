"""The progress bar: what it shows, and that it hardly ever looks at the device."""

from __future__ import annotations

import io
import re
import sys
import time

import torch
from feeding import Feed, new_run
from tqdm import tqdm

from dlkit.callbacks import Progress
from dlkit.runs.losses import LossMeter
from screens import new_screen


class CountingMeter(LossMeter):
    """Counts how often somebody wants to know the newest loss, which reads the device."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def latest(self) -> float:
        self.reads += 1
        return super().latest()


PAUSE = 0.001  # between steps: enough that hundreds are made, without a busy core


def fed(seconds: float, *, rows_per_epoch: int = 10**9, pause: float = PAUSE) -> Feed:
    run = new_run(epochs=3, verbose=True)
    run.losses = CountingMeter()
    feed = Feed(Progress(), run=run, rows_per_epoch=rows_per_epoch).start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        feed.step(0.25)
        time.sleep(pause)
    return feed


def test_the_device_is_read_at_most_four_times_a_second(monkeypatch):
    screen = new_screen(monkeypatch)
    feed = fed(1.3)
    assert 1 <= feed.run.losses.reads <= 5
    assert feed.run.step > 20  # hundreds, on a machine that has nothing else to do
    feed.end()
    assert "loss 0.25" in screen.shown
    assert "epoch 1/3" in screen.shown


def test_short_epochs_do_not_read_more_often(monkeypatch):
    new_screen(monkeypatch)
    feed = fed(0.0)
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        feed.step()
        feed.run.cursor.batch = feed.rows_per_epoch
        feed.safe_point()
        time.sleep(PAUSE)
    assert feed.run.epoch > 5
    assert feed.run.losses.reads <= 3


def test_a_validation_is_shown_as_rarely(monkeypatch):
    screen = new_screen(monkeypatch)
    feed = fed(0.0)
    feed.step()
    end, done = time.monotonic() + 0.6, 0
    while time.monotonic() < end:
        done += 1
        feed.tell("on_validation_step", done, 500_000)
        time.sleep(PAUSE)
    assert 1 <= len(set(re.findall(r"validation (\d+)/500000", screen.shown))) <= 3
    feed.tell("on_validation_step", done, None)
    feed.end()


def test_a_log_file_gets_no_bar_and_nothing_reads_the_device(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    feed = fed(0.5, pause=0.01)
    feed.row(0.5, val_accuracy=0.75)
    feed.end()
    assert feed.run.losses.reads == 0
    steps = feed.run.step
    shown = f"epoch 1/3, step {steps}: train_loss 0.25, lr 0.1, val_loss 0.5, val_accuracy 0.75\n"
    assert sys.stderr.getvalue() == shown


def test_a_line_per_row_is_not_torn_by_the_bar(monkeypatch):
    screen = new_screen(monkeypatch)
    feed = fed(0.3)
    feed.row(0.5)
    feed.end()
    assert f"\nepoch 1/3, step {feed.run.step}: train_loss 0.25, lr 0.1, val_loss 0.5\n" in screen.shown.replace(
        "\r", "\n"
    )


def test_a_resumed_epoch_starts_where_it_was(monkeypatch):
    screen = new_screen(monkeypatch)
    run = new_run(epochs=2, verbose=True)
    run.cursor.epoch = 1
    feed = Feed(Progress(), run=run, rows_per_epoch=40).start()
    run.cursor.batch = 30
    feed.tell("on_epoch_start")
    feed.end()
    assert "epoch 2/2:  75%" in screen.shown
    assert "30/40" in screen.shown


def test_every_bar_is_closed(monkeypatch):
    new_screen(monkeypatch)
    before = len(tqdm._instances)
    feed = Feed(Progress(), run=new_run(epochs=3), rows_per_epoch=2).start()([1, 1, 1])
    assert len(tqdm._instances) == before + 1
    feed.end()
    assert len(tqdm._instances) == before


def test_a_stream_of_unknown_length(monkeypatch):
    screen = new_screen(monkeypatch)
    run = new_run(epochs=1)
    feed = Feed(Progress(), run=run).start()
    run.num_batches = None
    feed.step()
    feed.end()
    assert "epoch 1/1: 0 batches" in screen.shown
    assert torch.isfinite(torch.tensor(run.losses.latest()))
