"""The head is found by what the model computes: over torchvision, timm, and models of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from dlkit.errors import ArgumentError
from dlkit.transfer import find_heads, freeze, head_parameters, replace_head
from dlkit.transfer.heads import Heads

TORCHVISION = torchvision.models.list_models(module=torchvision.models)
FEW_TORCHVISION = {
    "alexnet": ("classifier.6",),
    "regnet_y_400mf": ("fc",),
    "resnet18": ("fc",),
    "squeezenet1_1": ("classifier.1",),
    "vit_b_32": ("heads.head",),
}
FEW_TIMM = {
    "deit_tiny_distilled_patch16_224": ("head", "head_dist"),
    "dla46_c": ("fc",),
    "levit_128s": ("head.linear", "head_dist.linear"),
    "test_convnext": ("head.fc",),
    "test_mambaout": ("head.fc",),
}


def check(build: Callable[[], nn.Module]) -> Heads:
    """The heads are replaced, and what comes out then has the new number of classes and depends on them alone."""
    model = build()
    heads = find_heads(model)
    before = dict(model.named_parameters())
    replace_head(model, 7)
    assert model.__dict__.pop("_dlkit_heads").names == heads.names
    again = find_heads(model)
    assert again.num_classes == 7
    assert again.names == heads.names
    changed = {name.rpartition(".")[0] for name, each in model.named_parameters() if each is not before[name]}
    assert changed == set(heads.names)
    return heads


def torchvision_model(name: str) -> nn.Module:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **options)


@pytest.fixture(autouse=True)
def widths_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """RegNet's constructor computes its widths with tensors, which "meta" cannot."""
    original = torchvision.models.regnet.BlockParams.from_init_params.__func__

    def planned(cls: type, *args: Any, **kwargs: Any) -> Any:
        with torch.device("cpu"):
            return original(cls, *args, **kwargs)

    monkeypatch.setattr(torchvision.models.regnet.BlockParams, "from_init_params", classmethod(planned))


def timm_model(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, num_classes=1000)


@pytest.mark.parametrize(("name", "expected"), FEW_TORCHVISION.items())
def test_a_few_of_torchvision(name: str, expected: tuple[str, ...]) -> None:
    assert check(lambda: torchvision_model(name)).main == expected


@pytest.mark.parametrize(("name", "expected"), FEW_TIMM.items())
def test_a_few_of_timm(name: str, expected: tuple[str, ...]) -> None:
    assert check(lambda: timm_model(name)).main == expected


def test_auxiliary_heads_are_found_in_training_mode() -> None:
    heads = check(lambda: torchvision_model("googlenet"))
    assert heads.main == ("fc",)
    assert heads.auxiliary == ("aux1.fc2", "aux2.fc2")


def test_a_norm_that_does_not_fit_its_input_is_found_without_numbers_too() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(3 * 64, 5))
    with pytest.raises(ArgumentError, match="could not be run on an input of"):
        find_heads(model, torch.zeros(2, 3, 8, 8))


@pytest.mark.proof
@pytest.mark.parametrize("name", TORCHVISION)
def test_all_of_torchvision(name: str, record_property: Any) -> None:
    record_property("heads", str(check(lambda: torchvision_model(name))))


def smallest(names: list[str]) -> str:
    small = ("tiny", "nano", "small", "18", "b0", "_s_", "xxs", "micro", "atto", "test_")
    return min(
        names, key=lambda each: (not (each.endswith("_s") or any(part in each for part in small)), len(each), each)
    )


FAMILIES = [names for each in timm.list_modules() if (names := timm.list_models(module=each))]


@pytest.mark.proof
@pytest.mark.parametrize("names", FAMILIES, ids=smallest)
def test_every_family_of_timm(names: list[str], record_property: Any) -> None:
    record_property("heads", str(check(lambda: timm_model(smallest(names)))))


def test_there_are_enough_families() -> None:
    assert len(FAMILIES) >= 60


class Odd(nn.Module):
    """The head is defined first, has a strange name, and something without weights comes after it."""

    def __init__(self) -> None:
        super().__init__()
        self.zzz, self.body, self.scale = nn.Conv2d(8, 5, 1), nn.Conv2d(3, 8, 3), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.log_softmax(self.zzz(torch.relu(self.body(x))).mean((2, 3)) * self.scale, 1)


def test_models_of_ones_own() -> None:
    assert find_heads(Odd()).main == ("zzz",)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))
    assert find_heads(mlp, torch.zeros(2, 1, 28, 28)) == Heads(
        main=("4",), auxiliary=(), dropout=("3",), num_classes=10
    )
    text = nn.Sequential(nn.EmbeddingBag(20, 8), nn.Linear(8, 3))
    assert find_heads(text).main == ("1",)


def test_a_small_network_that_takes_one_size_only() -> None:
    lenet = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 144, 10))
    assert find_heads(lenet).main == ("4",)


def test_a_backbone_without_a_head_is_refused() -> None:
    with torch.device("meta"):
        headless = timm.create_model("resnet18", pretrained=False, num_classes=0)
    with pytest.raises(ArgumentError, match="ResNet has no head"):
        find_heads(headless)


def test_a_model_that_cannot_be_run_asks_for_an_example() -> None:
    class Two(Odd):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x + y)

    with pytest.raises(ArgumentError, match="pass example="):
        find_heads(Two())
    pair = (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8))
    assert find_heads(Two(), pair).main == ("zzz",)


def test_finding_heads_touches_nothing() -> None:
    model = torchvision.models.shufflenet_v2_x0_5(weights=None).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())
    state = torch.get_rng_state()
    find_heads(model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert hooks == sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("real", [False, True])
def test_a_module_that_is_used_in_two_places_keeps_its_weights(real: bool) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.blocks = nn.ModuleList([nn.Sequential(self.shared, self.norm) for _ in range(2)])
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if real and x.is_meta:
                raise NotImplementedError("needs numbers")
            return self.head(self.blocks[1](self.blocks[0](x)))

    model = Twice()
    before = {name: (value, value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    assert find_heads(model).main == ("head",)
    freeze(model)
    for name, value in model.state_dict(keep_vars=True).items():
        assert value is before[name][0]
        assert torch.equal(value, before[name][1])
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["head.weight", "head.bias"]


def test_replace_head_keeps_dtype_device_and_missing_bias() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 9, bias=False)).double()
    replace_head(model, 2)
    assert model[2].weight.dtype == torch.float64
    assert model[2].weight.shape == (2, 6)
    assert model[2].bias is None
    assert len(list(head_parameters(model))) == 1
    assert model[2].weight.abs().max() <= 6**-0.5


@pytest.mark.parametrize("classes", [0, -1, 2.0, True, "2"])
def test_a_number_of_classes_that_cannot_be_meant(classes: Any) -> None:
    with pytest.raises(ArgumentError, match="classes must be a number of at least 1"):
        replace_head(nn.Sequential(nn.Linear(2, 2)), classes)


def test_a_head_that_was_frozen_is_replaced_by_one_that_learns() -> None:
    model = freeze(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 9)), until="all")
    replace_head(model, 2)
    model.train()
    assert model[2].weight.requires_grad
    assert model[2].training
    assert not model[0].training
