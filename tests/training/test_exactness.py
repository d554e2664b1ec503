"""The same numbers, bit for bit, whatever happens beside the training."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import Augmented, StopAt, digest, fit
from torch import nn
from torch.utils.data import DataLoader

import dlkit
from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint

FULL = {"scheduler": "step", "ema": True, "accumulate": 2, "validate_every": "4 steps"}


@pytest.fixture(scope="module")
def reference() -> str:
    return digest(fit(FULL, None))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize(
    "change",
    [
        {"num_workers": 1},
        {"num_workers": 2, "prefetch": 5},
        {"num_workers": 2, "persistent": True},
        {"num_workers": 4},
        {"progress": True},
    ],
    ids=str,
)
def test_workers_prefetching_and_progress_change_nothing(change, reference):
    assert digest(fit({**FULL, **change}, None)) == reference


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_of_the_main_process_do_not_reach_the_fetch(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        batches = _fetched()
    finally:
        torch.set_num_threads(before)
    assert torch.equal(batches, _fetched(num_workers=1))


@pytest.mark.parametrize("background", [True, False])
def test_saving_changes_nothing(tmp_path, reference, background):
    assert digest(fit({**FULL, "background": background, "every": "1 steps"}, tmp_path)) == reference


def _resumed(case, folder, stops, error=None, numbers=(0, 2, 1)):
    workers = itertools.cycle(numbers)
    for step in stops:
        with contextlib.suppress(*([type(error)] if error else [])):
            fit(case, folder, [StopAt(step, error)], workers=next(workers))
    return fit(case, folder, workers=next(workers))


@pytest.mark.parametrize("scheduler", ["step", "epoch", "plateau"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_stopped_at_every_step_and_resumed(tmp_path, scheduler, accumulate):
    case = {
        "scheduler": scheduler,
        "accumulate": accumulate,
        "validate_every": "4 steps",
        "data": "tensor",
        "ema": True,
    }
    whole = fit(case, None)
    # Half of the cases change the number of workers, too; to start them takes longer than to train.
    numbers = (0,) if accumulate == 1 else (0, 2, 1)
    resumed = _resumed(case, tmp_path, range(1, whole.run.step), numbers=numbers)
    assert digest(resumed) == digest(whole)
    assert resumed.history.rows == whole.history.rows


def test_stopped_with_other_numbers_of_workers(tmp_path, reference):
    assert digest(_resumed(FULL, tmp_path, [1, 4, 5, 8])) == reference


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()], ids=repr)
def test_exceptions_in_the_middle_go_back_to_the_last_checkpoint(tmp_path, reference, error):
    assert digest(_resumed(FULL, tmp_path, [2, 5, 9], error)) == reference


SAMPLERS = ["drop_last", "replacement", "weighted", "subset", "custom", "batch_sampler"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers(tmp_path, sampler):
    case = {"sampler": sampler}
    whole = digest(fit(case, None))
    assert digest(fit({**case, "num_workers": 2}, None)) == whole
    assert digest(_resumed(case, tmp_path, [3, 6], numbers=(0,))) == whole


class OrderOf(Callback):
    """Remembers which samples each epoch had, through the run's own account."""

    def __init__(self) -> None:
        self.epochs: list[list[int]] = []

    def on_epoch_end(self, run) -> None:
        self.epochs.append([index for batch in range(run.num_batches) for index in run.indices(run.epoch, batch)])


@pytest.mark.parametrize("sampler", ["shuffle", *SAMPLERS])
def test_every_epoch_has_its_own_order(sampler):
    order = OrderOf()
    fit({"sampler": sampler, "data": "tensor"}, None, [order])
    assert len(order.epochs) == 2
    assert order.epochs[0] != order.epochs[1]
    if sampler in ("shuffle", "custom", "batch_sampler"):
        assert sorted(order.epochs[0]) == sorted(order.epochs[1]) == list(range(61))


def test_the_seed_changes_the_numbers(reference):
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    losses = []
    for seed in (0, 0, 1):
        net = nn.Linear(8, 3)
        net.load_state_dict(model.state_dict())
        trainer = Trainer(net, nn.CrossEntropyLoss(), _sgd(net), seed=seed, progress=False)
        losses.append(trainer.fit(DataLoader(Augmented(), 8, shuffle=True))["train_loss"])
    assert losses[0] == losses[1] != losses[2]


class Drawing(nn.Module):
    """A model that draws from all three generators itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x):
        noise = random.random() + np.random.rand() + float(torch.rand(()))
        return self.linear(x) * noise


@pytest.mark.parametrize("data", ["augmented", "tensor"])
def test_a_model_that_draws_is_reproduced_too(tmp_path, monkeypatch, data):
    monkeypatch.setattr("cases.model", lambda: (torch.manual_seed(1), Drawing())[1])
    case = {"data": data}
    whole = digest(fit(case, None))
    assert digest(fit({**case, "num_workers": 2}, None)) == whole
    assert digest(_resumed(case, tmp_path, [2, 7, 11])) == whole


def test_a_file_that_cannot_be_read_loses_nothing(tmp_path):
    """The fetch fails between two steps: the state is saved there, and the run goes on when the file is mended."""

    class Broken(Augmented):
        def __getitem__(self, index):
            if index == 17 and self.broken:
                raise OSError("photo-17.jpg is truncated")
            return super().__getitem__(index)

    def trainer():
        torch.manual_seed(0)
        net = nn.Linear(8, 3)
        saver = Checkpoint(tmp_path, every="1000 steps", restore_best=False)
        return Trainer(net, nn.CrossEntropyLoss(), _sgd(net), callbacks=[saver], progress=False)

    data = Broken()
    data.broken = False
    whole = trainer()
    whole.fit(DataLoader(data, 4, shuffle=True), epochs=1)
    shutil.rmtree(tmp_path)
    data.broken = True
    with pytest.raises(OSError, match=r"photo-17\.jpg") as caught:
        trainer().fit(DataLoader(data, 4, shuffle=True), epochs=1)
    assert "17" in caught.value.__notes__[0]
    data.broken = False
    mended = trainer()
    mended.fit(DataLoader(data, 4, shuffle=True), epochs=1)
    assert mended.run.step == whole.run.step
    assert torch.equal(mended.model.weight, whole.model.weight)


def test_resuming_fetches_nothing_that_came_before(tmp_path):
    """Seeking: a resumed run touches exactly the samples that are left."""

    class Counting(Augmented):
        fetched: list[int] = []  # noqa: RUF012
        draws_random = True

        def __getitem__(self, index):
            self.fetched.append(index)
            return super().__getitem__(index)

    def start(extra):
        torch.manual_seed(0)
        net = nn.Linear(8, 3)
        saver = Checkpoint(tmp_path, restore_best=False)
        callbacks = [saver, *extra]
        # A GPU is fed one batch ahead, which would be fetched, but not trained on.
        return Trainer(net, nn.CrossEntropyLoss(), _sgd(net), callbacks=callbacks, progress=False, device="cpu")

    class Begin(Callback):
        """What is looked at before the first step, to tell this run from another one, is not fetched for training."""

        def on_fit_start(self, run):
            data.fetched.clear()

    data = Counting()
    start([StopAt(10), Begin()]).fit(DataLoader(data, 4, shuffle=True))
    first, data.fetched[:] = list(data.fetched), []
    start([Begin()]).fit(DataLoader(data, 4, shuffle=True))
    assert len(first) == 40
    assert sorted(first + data.fetched) == list(range(61))


def _fetched(num_workers: int = 0) -> torch.Tensor:
    return torch.cat([x for x, _ in dlkit.DataLoader(Augmented(), 16, shuffle=True, num_workers=num_workers)])


def _sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def test_a_folder_that_was_moved_still_resumes(tmp_path, reference):
    fit(FULL, tmp_path / "a", [StopAt(6)])
    Path(tmp_path / "a").rename(tmp_path / "b")
    assert digest(fit(FULL, tmp_path / "b")) == reference


class RaiseOnce(Callback):
    """A callback of the user's own that fails once, at a moment when others have already done their part."""

    failed = False
    order = 500

    def __init__(self, hook: str, at: int) -> None:
        self.at = at
        setattr(self, hook, self._hook)

    def _hook(self, run, *_) -> None:
        if not RaiseOnce.failed and run.step >= self.at:
            RaiseOnce.failed = True
            raise OSError("no network")


@pytest.mark.parametrize("hook", ["on_log", "on_epoch_end", "on_epoch_start", "on_validation_step"])
@pytest.mark.parametrize("scheduler", ["epoch", "plateau"])
def test_a_callback_that_fails_does_not_leave_half_a_judgement(tmp_path, monkeypatch, hook, scheduler):
    monkeypatch.setattr(RaiseOnce, "failed", False)
    case = {"scheduler": scheduler, "data": "tensor"}
    whole = digest(fit(case, None))
    with pytest.raises(OSError, match="no network"):
        fit(case, tmp_path, [RaiseOnce(hook, 9)])
    assert digest(fit(case, tmp_path, [RaiseOnce(hook, 9)])) == whole
