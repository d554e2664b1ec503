"""`fine_tune` and `compare` on data that a small network separates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlkit.errors import ArgumentError
from dlkit.transfer import compare, fine_tune, is_frozen


def loader(seed: int, samples: int = 48) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(samples) % 2
    images = torch.randn(samples, 3, 8, 8, generator=generator) + target.view(-1, 1, 1, 1) * 1.5
    return DataLoader(TensorDataset(images, target), 16, shuffle=seed == 0)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )


def test_fine_tune_chooses_trains_and_returns_the_best() -> None:
    found = fine_tune(network(), loader(0), loader(1), epochs=3, head_epochs=6, views=None, progress=False)
    assert len(found.tried) == 6
    assert found.tried[found.lr, found.weight_decay] == max(found.tried.values())
    model, right = found.model, 0
    assert not is_frozen(model)
    assert not model.training
    with torch.no_grad():
        for images, target in loader(1):
            right += int((model(images).argmax(1) == target).sum())
    assert right / 48 == pytest.approx(found.score)
    assert found.score >= max(found.tried.values())
    assert found.score > 0.7


def test_fine_tune_of_the_head_alone_leaves_the_backbone() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = fine_tune(model, loader(0), loader(1), epochs=0, head_epochs=2, lr=0.01, weight_decay=0.0, progress=False)
    assert found.kept == "head"
    assert found.whole is None
    after = model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["5.weight", "5.bias"]
    with pytest.raises(ArgumentError, match="epochs must be at least 0"):
        fine_tune(network(), loader(0), loader(1), epochs=-1)


def test_compare_ranks_backbones_by_their_features() -> None:
    class Blind(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0

    rows = compare(
        {"blind": nn.Sequential(Blind(), *network()), "seeing": network()}, loader(0), loader(1), progress=False
    )
    assert [row.name for row in rows] == ["seeing", "blind"]
    assert rows[0].linear > 0.9
    assert rows[0].knn > 0.8
    assert rows[1].linear == pytest.approx(0.5)
    assert rows[0].features == 8
    assert rows[0].parameters == pytest.approx(sum(each.numel() for each in network().parameters()) / 1e6)
