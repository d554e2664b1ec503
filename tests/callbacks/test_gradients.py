"""Clipping, on gradients that are set by hand."""

from __future__ import annotations

import pytest
import torch
from feeding import Feed, new_run
from torch import nn

from dlkit.callbacks import ClipGradients
from dlkit.errors import ArgumentError

INF = float("inf")


def clipped(gradients: list[list[float]], **settings) -> list[torch.Tensor]:
    run = new_run()
    model = nn.ParameterList([nn.Parameter(torch.zeros(len(values))) for values in gradients])
    run.optimizers = {"optimizer": torch.optim.SGD(model.parameters(), 0.1)}
    for parameter, values in zip(model, gradients, strict=True):
        parameter.grad = torch.tensor(values)
    Feed(ClipGradients(**settings), run=run).tell("on_gradients")
    return [parameter.grad for parameter in model]


def test_the_total_norm_over_all_parameters_counts():
    close(clipped([[3.0, 0.0], [4.0]], max_norm=1.0), [[0.6, 0.0], [0.8]])
    close(clipped([[3.0, 0.0], [4.0]], max_norm=2.5), [[1.5, 0.0], [2.0]])


def close(found: list[torch.Tensor], expected: list[list[float]]) -> None:
    torch.testing.assert_close(found, [torch.tensor(values) for values in expected])


def test_small_gradients_stay_bit_for_bit():
    before = [torch.tensor([0.3, 0.1]), torch.tensor([0.2])]
    after = clipped([gradient.tolist() for gradient in before], max_norm=1.0)
    assert all(torch.equal(*pair) for pair in zip(after, before, strict=True))


def test_the_largest_entry_as_the_norm():
    close(clipped([[3.0, -1.0], [-4.0]], max_norm=2.0, norm_type=INF), [[1.5, -0.5], [-2.0]])


def test_parameters_without_a_gradient_are_left_alone():
    run = new_run()
    Feed(ClipGradients(), run=run).tell("on_gradients")
    assert run.model.weight.grad is None


def test_each_optimizer_by_itself():
    run = new_run()
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    run.optimizers = {"a": torch.optim.SGD([first], 0.1), "b": torch.optim.SGD([second], 0.1)}
    first.grad, second.grad = torch.tensor([8.0]), torch.tensor([0.5])
    Feed(ClipGradients(2.0), run=run).tell("on_gradients")
    torch.testing.assert_close(first.grad, torch.tensor([2.0]))
    assert second.grad.tolist() == [0.5]


@pytest.mark.parametrize("norm", [0, -1.0, float("nan")])
def test_norms_that_cannot_be_meant(norm):
    with pytest.raises(ArgumentError, match="max_norm must be positive, not"):
        ClipGradients(norm)
