"""Optimizers that are given a closure train as in a loop of one's own, also with what comes between."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint, ClipGradients, LearningRate, Unfreeze
from dlkit.errors import ArgumentError, TrainingError

X, Y = torch.randn(24, 5), torch.randn(24, 2)
LBFGS: dict[str, dict[str, Any]] = {
    "plain": {"lr": 0.1, "max_iter": 4},
    "line search": {"lr": 1, "max_iter": 5, "line_search_fn": "strong_wolfe"},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))


def by_hand(
    batches: list[Any], *, clip: float | None = None, reduction: str = "mean", **settings: Any
) -> tuple[nn.Module, list[float]]:
    """A loop of one's own, as torch's documentation writes it."""
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), **settings)
    losses = []
    for x, y in batches:

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y, reduction=reduction)
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            return loss.detach()  # of which torch 2.8 does not warn

        losses.append(float(optimizer.step(closure).detach()))
    return model, losses


def trainer(model: nn.Module | None = None, kind: str = "plain", **settings: Any) -> Trainer:
    model = network() if model is None else model
    optimizer = torch.optim.LBFGS(model.parameters(), **LBFGS[kind])
    return Trainer(model, nn.MSELoss(), optimizer, **{"device": "cpu", "progress": False, **settings})


def batches(size: int) -> list[Any]:
    return list(zip(X.split(size), Y.split(size), strict=True))


def same(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("kind", LBFGS)
def test_the_numbers_of_a_loop_of_ones_own(kind, clip):
    model, losses = by_hand(batches(6) * 2, clip=clip, **LBFGS[kind])
    made = trainer(kind=kind, callbacks=[] if clip is None else [ClipGradients(clip)])
    history = made.fit(batches(6), epochs=2)
    assert same(made.model, model)
    assert history["train_loss"] == [pytest.approx(sum(part) / 4) for part in (losses[:4], losses[4:])]
    assert (made.run.step, made.run.cursor.samples) == (8, 48)
    assert all(parameter.grad is None for parameter in made.model.parameters())


def test_the_line_search_sees_the_sum_that_a_loss_gives():
    model, losses = by_hand(batches(6), reduction="sum", **LBFGS["line search"])
    net = network()
    optimizer = torch.optim.LBFGS(net.parameters(), **LBFGS["line search"])
    made = Trainer(net, nn.MSELoss(reduction="sum"), optimizer, device="cpu", progress=False)
    history = made.fit(batches(6))
    assert same(made.model, model)
    assert history["train_loss"] == [pytest.approx(sum(losses) / Y.numel())]


@pytest.mark.parametrize("kind", LBFGS)
def test_accumulation_is_the_big_batch(kind):
    """Batches of different sizes; without BatchNorm, which sees the parts."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    cut = [(x.double(), y.double()) for x, y in zip(X.split([5, 7, 12]), Y.split([5, 7, 12]), strict=True)]
    whole, parts = trainer(copy.deepcopy(model), kind), trainer(copy.deepcopy(model), kind, accumulate=3)
    one = whole.fit([(X.double(), Y.double())], epochs=2)
    two = parts.fit(cut, epochs=2)
    for mine, theirs in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-9)


class StopAt(Callback):
    def on_step_end(self, run) -> None:
        if run.step == 5:
            run.request_stop("later")


def test_a_resumed_run_is_the_same(tmp_path):
    loader = DataLoader(TensorDataset(X, Y), 6, shuffle=True)
    whole = trainer(kind="line search")
    whole.fit(loader, epochs=3)
    trainer(kind="line search", callbacks=[Checkpoint(tmp_path, restore_best=False), StopAt()]).fit(loader, epochs=3)
    resumed = trainer(kind="line search", callbacks=[Checkpoint(tmp_path, restore_best=False)])
    history = resumed.fit(loader, epochs=3)
    assert same(resumed.model, whole.model)
    assert history.rows == whole.history.rows


def test_a_schedule_and_a_search_work():
    made = trainer()
    rate = torch.optim.lr_scheduler.StepLR(made.run.optimizer, 1, 0.5)
    made = Trainer(made.model, nn.MSELoss(), made.run.optimizer, scheduler=rate, device="cpu", progress=False)
    assert made.fit(batches(6), epochs=2)["lr"] == [0.1, 0.05]
    assert 0 < trainer().lr_find(batches(6), start=1e-4, end=10.0, steps=8).suggestion < 10


class Small(nn.Linear):
    """A device on which no more than four samples have room."""

    def forward(self, x):
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def test_full_memory_changes_nothing_but_the_pieces():
    torch.manual_seed(0)
    free = nn.Linear(5, 2)
    full = Small(5, 2)
    full.load_state_dict(free.state_dict())
    whole, parts = trainer(free), trainer(full)
    whole.fit(batches(12), epochs=2)
    parts.fit(batches(12), epochs=2)
    # Sums over pieces round in another way, which LBFGS multiplies over its 16 steps; the weights move by some 0.5.
    torch.testing.assert_close(parts.model.weight, whole.model.weight, rtol=1e-3, atol=1e-4)


class Twice(torch.optim.SGD):
    """An optimizer of a user's own that demands a closure, and calls it twice."""

    def step(self, closure):
        closure()
        super().step()
        closure()
        super().step()


def test_any_optimizer_that_demands_a_closure():
    model = nn.Linear(5, 2)
    expected = copy.deepcopy(model)
    optimizer = torch.optim.SGD(expected.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.mse_loss(expected(X), Y).backward()
        optimizer.step()
    made = Trainer(model, nn.MSELoss(), Twice(model.parameters(), 0.1), device="cpu", progress=False)
    made.fit([(X, Y)])
    assert same(made.model, expected)


class Never(torch.optim.SGD):
    def step(self, closure):
        super().step()


class Hidden(torch.optim.SGD):
    """As sharpness-aware minimisers do it."""

    def step(self, closure=None):
        assert closure is not None, "SAM requires closure, but it was not provided"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Never, r"Never.step did not call the closure that it demands \(step 1"),
        (Hidden, r"Hidden.step declares its closure as optional, but does not work without: SAM .*step=function"),
    ],
)
def test_optimizers_that_cannot_be_stepped(kind, message):
    model = nn.Linear(5, 2)
    made = Trainer(model, nn.MSELoss(), kind(model.parameters(), 0.1), device="cpu", progress=False)
    with pytest.raises(TrainingError, match=message):
        made.fit([(X, Y)])


def test_what_cannot_go_together_with_a_closure():
    with pytest.raises(ArgumentError, match=r"gradient scaler of fp16 .* use precision='bf16' or 'fp32'"):
        trainer(precision="fp16")
    with pytest.raises(ArgumentError, match=r"LearningRate\(warmup=3\) sets the rate when the gradients are there"):
        trainer(callbacks=[LearningRate(warmup=3)])
    with pytest.raises(ArgumentError, match="Unfreeze adds parameters to the optimizer, and one with a closure"):
        trainer(callbacks=[Unfreeze({1: "all"})])
    assert trainer(precision="bf16").fit(batches(6))["step"] == [4]
