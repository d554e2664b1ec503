"""Learning rates by depth: every parameter once, names that stay."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from dlkit.errors import ArgumentError
from dlkit.transfer import add_groups, freeze, param_groups, unfreeze


def names(model: nn.Module, **options: float) -> list[str]:
    return [group["name"] for group in param_groups(model, 1.0, **options)]


@pytest.mark.parametrize(
    "build",
    [
        torchvision.models.resnet18,
        torchvision.models.mobilenet_v3_small,
        lambda: timm.create_model("test_vit"),
        lambda: timm.create_model("test_convnext"),
        lambda: timm.create_model("test_efficientnet"),
    ],
)
def test_every_parameter_is_in_one_group_with_falling_rates(build: object) -> None:
    model = build()  # type: ignore[operator]
    for decay in (None, 0.1):
        groups = param_groups(model, 1.0, layer_decay=0.5, weight_decay=decay)
        held = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
        rates = [group["lr"] for group in groups]
        assert rates == sorted(rates, reverse=True)
        assert len({group["name"] for group in groups}) == len(groups)
        assert torch.optim.AdamW(groups)


def test_names_and_order_are_those_of_the_computation() -> None:
    expected = ["head", "layer4.1", "layer4.0", "layer3.1", "layer3.0", "layer2.1", "layer2.0", "layer1.1", "layer1.0"]
    model = torchvision.models.resnet18()
    assert names(model) == [*expected, "stem"]
    assert names(freeze(model)) == names(unfreeze(model, "layer4")) == [*expected, "stem"]


def test_norms_and_biases_do_not_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    groups = {group["name"]: group for group in param_groups(model, 1e-3, weight_decay=0.1)}
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "head": 0.1,
        "head, no decay": 0.0,
        "0": 0.1,
        "0, no decay": 0.0,
    }
    assert len(groups["0, no decay"]["params"]) == 3


def test_backbone_rate_and_added_groups() -> None:
    model = torchvision.models.resnet18()
    optimizer = torch.optim.AdamW(freeze(model).head_parameters(), 1e-2)
    added = add_groups(optimizer, model, backbone_lr=1e-3, layer_decay=0.5)
    assert added[:2] == ["layer4.1", "layer4.0"]
    assert [group["lr"] for group in optimizer.param_groups[:3]] == [1e-2, 1e-3, 5e-4]
    assert add_groups(optimizer, model) == []
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("options", [{"layer_decay": 0.0}, {"layer_decay": 1.1}, {"backbone_lr": 0.0}])
def test_rates_that_cannot_be_meant(options: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match="must"):
        names(nn.Sequential(nn.Linear(2, 2)), **options)
