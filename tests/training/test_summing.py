"""What a step of several batches is made of hangs on nothing but the batches and their places."""

from __future__ import annotations

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dlkit import Trainer
from dlkit.callbacks import Callback
from dlkit.training.summing import Tree


def leaves(count: int) -> list[list[torch.Tensor | None]]:
    torch.manual_seed(count)
    return [[torch.randn(5) * 10.0**n, None if n % 3 else torch.randn(2)] for n in range(count)]


def summed(nodes: list[tuple[int, int, list[torch.Tensor | None]]]) -> list[torch.Tensor]:
    tree = Tree()
    for level, place, leaf in nodes:
        tree.add(place, copy.deepcopy(leaf), level)
    return tree.total()


@given(st.integers(1, 13), st.lists(st.integers(0, 13), max_size=5))
def test_a_sum_has_the_same_bits_however_its_leaves_are_dealt_out(count, cuts):
    """Each process sums an unbroken run of leaves; the partial sums of all, in order, give the sum of one process."""
    made = leaves(count)
    bounds = [0, *sorted(min(cut, count) for cut in cuts), count]
    partial = []
    for start, end in itertools.pairwise(bounds):
        tree = Tree()
        for place in range(start, end):
            tree.add(place, copy.deepcopy(made[place]))
        partial += tree.nodes
    alone = summed([(0, place, leaf) for place, leaf in enumerate(made)])
    assert all(torch.equal(a, b) for a, b in zip(summed(partial), alone, strict=True))
    whole = torch.stack([leaf[0].double() for leaf in made]).sum(0)
    assert torch.allclose(alone[0].double(), whole, rtol=1e-4)


def batches(count: int = 6, size: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(size, 3), torch.randint(0, 2, (size,))) for _ in range(count)]


def train(data, *, accumulate: int, epochs: int = 1, model: nn.Module | None = None, callbacks=()) -> nn.Module:
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        accumulate=accumulate,
        callbacks=callbacks,
        device="cpu",
        progress=False,
    )
    trainer.fit(data, epochs=epochs)
    return model


def test_batchnorm_takes_one_step_with_the_mean_of_the_statistics():
    data = batches(3)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    train(data, accumulate=3, model=model)
    inputs = [x for x, _ in data]
    mean = torch.stack([x.mean(0) for x in inputs]).mean(0)
    var = torch.stack([x.var(0) for x in inputs]).mean(0)
    norm = model[0]
    assert torch.allclose(norm.running_mean, 0.1 * mean, atol=1e-6)
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * var, atol=1e-6)
    assert norm.num_batches_tracked == 1


class Rebinding(nn.Module):
    """Puts another tensor into the place of its buffer, as code that does not write in place does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("table", torch.arange(4.0))

    def forward(self, x):
        if self.training:
            self.seen = self.seen + x.sum().detach()
        return self.layer(x)


def test_buffers_that_are_exchanged_start_from_the_steps_own():
    data = batches(4)
    model = Rebinding()
    train(data, accumulate=2, model=model)
    sums = [x.sum() for x, _ in data]
    assert torch.allclose(model.seen, (sums[0] + sums[1]) / 2 + (sums[2] + sums[3]) / 2, atol=1e-5)
    assert model.table.tolist() == [0, 1, 2, 3]


class Draws(Callback):
    """Draws from all streams after each step, as nothing that trains should notice."""

    def on_step_end(self, run):
        del run
        torch.rand(3), np.random.rand(), random.random()


def test_what_a_model_draws_hangs_on_the_place_of_the_batch_alone():
    data = batches()
    plain = train(data, accumulate=2, epochs=2)
    drawing = train(data, accumulate=2, epochs=2, callbacks=[Draws()])
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), drawing.state_dict().values(), strict=True)
    )


class Masks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drawn = nn.Linear(3, 2), []

    def forward(self, x):
        if self.training:
            self.drawn.append(torch.rand(4))
        return self.layer(x)


def test_every_batch_of_every_epoch_draws_something_else():
    masks = [train(batches(), accumulate=a, epochs=2, model=Masks()).drawn for a in (2, 3)]
    assert len({tuple(mask.tolist()) for mask in masks[0]}) == len(masks[0]) == 12
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))


def test_an_error_in_the_middle_of_a_step_leaves_buffers_as_they_were():
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer, self.calls = nn.BatchNorm1d(3), nn.Linear(3, 2), 0

        def forward(self, x):
            self.calls += 1
            x = self.norm(x)
            if self.calls == 2:
                raise RuntimeError("broken")
            return self.layer(x)

    model = Failing()
    with pytest.raises(RuntimeError, match="broken"):
        train(batches(2), accumulate=2, model=model)
    assert model.norm.running_mean.tolist() == [0, 0, 0]
    assert model.norm.num_batches_tracked == 0


def test_buffers_that_nothing_moves_keep_their_bits():
    class Constants(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.register_buffer("mask", torch.tensor([0.1, -float("inf"), 0.3]))

        def forward(self, x):
            return self.layer(x * self.mask.exp())

    model = Constants()
    before = model.mask.clone()
    train([(x[: n + 1], y[: n + 1]) for n, (x, y) in enumerate(batches(3))], accumulate=3, model=model)
    assert torch.equal(model.mask, before)
