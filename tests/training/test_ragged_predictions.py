"""Predictions over batches of different widths: one tensor per sample, in order, and it is said."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import dlkit
from dlkit import Trainer
from dlkit.collate import PadCollate
from dlkit.datasets import PackedTextDataset

TEXTS = [[1], [2, 3], [4, 5, 6], [7, 8, 9, 10], [11]]
Both = namedtuple("Both", ["tokens", "sums"])


class Tagger(nn.Module):
    """A value for each token, and its sum."""

    def __init__(self, kind: str = "tokens") -> None:
        super().__init__()
        self.kind, self.embedding = kind, nn.Embedding(12, 2)

    def forward(self, input_ids, attention_mask=None):
        tokens = self.embedding(input_ids)
        both = {"tokens": tokens, "sums": tokens.sum((1, 2))}
        return {"tokens": tokens, "dict": both, "tuple": tuple(both.values()), "named": Both(**both)}[self.kind]


def trainer(kind: str = "tokens", **settings) -> Trainer:
    torch.manual_seed(0)
    model = Tagger(kind)
    optim = torch.optim.SGD(model.parameters(), 0.1)
    return Trainer(model, lambda output, target: output.mean(), optim, device="cpu", **settings)


def data() -> PackedTextDataset:
    return PackedTextDataset(TEXTS, targets=torch.zeros(5))


@pytest.mark.parametrize("make", [dlkit.DataLoader, DataLoader])
def test_a_list_with_one_tensor_per_sample(make, capsys):
    made = trainer()
    found = made.predict(make(data(), 2, collate_fn=data().collate))
    assert (
        "the predictions are a list with one tensor for each sample, as wide as its batch was"
        in capsys.readouterr().err
    )
    assert [list(each.shape) for each in found] == [[2, 2], [2, 2], [4, 2], [4, 2], [1, 2]]
    for values, text in zip(found, TEXTS, strict=True):
        assert torch.equal(values[: len(text)], made.model.embedding(torch.tensor(text)).detach())


def test_one_width_is_one_tensor_and_says_nothing(capsys):
    found = trainer().predict(DataLoader(data(), 2, collate_fn=PadCollate(input_name="input_ids", multiple_of=4)))
    assert found.shape == (5, 4, 2)
    assert "list" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["dict", "tuple", "named"])
def test_only_the_part_that_differs_is_a_list(kind):
    found = trainer(kind, progress=False).predict(dlkit.DataLoader(data(), 2))
    tokens, sums = found.values() if kind == "dict" else found
    assert [len(each) for each in tokens] == [2, 2, 4, 4, 1]
    assert sums.shape == (5,)


def test_images_of_different_sizes():
    model = nn.Conv2d(1, 1, 1)
    made = Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), device="cpu", progress=False)
    batches = [torch.randn(2, 1, 4, 4), torch.randn(1, 1, 6, 3)]
    found = made.predict(batches, has_targets=False)
    assert [list(each.shape) for each in found] == [[1, 4, 4], [1, 4, 4], [1, 6, 3]]
