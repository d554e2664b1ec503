"""The optimizer's step is taken without torch's wrapper only where nobody could notice."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from dlkit import Trainer

KINDS = [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad]
BATCHES = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(3)]


def trainer(optimizer: torch.optim.Optimizer, model: nn.Module, **options) -> Trainer:
    return Trainer(model, nn.MSELoss(), optimizer, device="cpu", progress=False, **options)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_weights_are_those_of_the_plain_loop(kind):
    models = []
    for by_hand in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = kind(model.parameters(), lr=0.01)
        if by_hand:
            for x, y in BATCHES:
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                optimizer.step()
        else:
            trainer(optimizer, model).fit(BATCHES)
        models.append(model)
    assert torch.equal(models[0].weight, models[1].weight)


def test_hooks_are_called():
    model, calls = nn.Linear(3, 1), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    handle = register_optimizer_step_post_hook(lambda *_: calls.append("everywhere"))
    try:
        trainer(optimizer, model).fit(BATCHES[:1])
    finally:
        handle.remove()
    assert sorted(calls) == ["after", "before", "everywhere"]


def test_a_hook_for_all_optimizers_alone_is_called():
    model, calls = nn.Linear(3, 1), []
    handle = register_optimizer_step_post_hook(lambda *_: calls.append(1))
    try:
        trainer(torch.optim.SGD(model.parameters(), lr=0.01), model).fit(BATCHES)
    finally:
        handle.remove()
    assert calls == [1, 1, 1]


torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)  # torch wraps the step of a class when one is first made


class Counting(torch.optim.SGD):
    """Looks like torch's wrapper, down to its attributes, and does more."""

    steps = 0

    @functools.wraps(torch.optim.SGD.step)
    def step(self, closure=None):
        type(self).steps += 1
        return super().step(closure)


def test_a_step_of_ones_own_is_not_taken_for_the_wrapper():
    model = nn.Linear(3, 1)
    trainer(Counting(model.parameters(), lr=0.01), model).fit(BATCHES)
    assert Counting.steps == 3


def test_a_scheduler_counts_the_steps():
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    trainer(optimizer, model, scheduler=scheduler).fit(BATCHES, epochs=2)  # a warning of torch's would be an error
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0001)


def test_a_profiler_sees_the_range():
    model = nn.Linear(3, 1)
    made = trainer(torch.optim.SGD(model.parameters(), lr=0.01), model)
    with torch.autograd.profiler.profile() as seen:
        made.fit(BATCHES)
    assert "Optimizer.step#SGD.step" in {event.key for event in seen.key_averages()}
