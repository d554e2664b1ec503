"""Frozen means frozen: in the user's own loop, for every layer that behaves differently while training."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer
from dlkit.errors import ArgumentError
from dlkit.transfer import freeze, frozen_modules, frozen_tensors, head_parameters, is_frozen, unfreeze
from dlkit.transfer.heads import find_heads

NORMS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm": lambda: nn.BatchNorm2d(8),
    "BatchNorm without momentum": lambda: nn.BatchNorm2d(8, momentum=None),
    "BatchNorm not affine": lambda: nn.BatchNorm2d(8, affine=False),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(8),
    "InstanceNorm with statistics": lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    "GroupNorm": lambda: nn.GroupNorm(2, 8),
    "LayerNorm": lambda: nn.LayerNorm([8, 4, 4]),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(2),
    "timm BatchNormAct": lambda: timm.layers.BatchNormAct2d(8),
    "timm FrozenBatchNormAct": lambda: timm.layers.FrozenBatchNormAct2d(8),
    "torchvision FrozenBatchNorm": lambda: torchvision.ops.FrozenBatchNorm2d(8),
    "Dropout": lambda: nn.Dropout(0.5),
    "Dropout2d": lambda: nn.Dropout2d(0.5),
    "AlphaDropout": lambda: nn.AlphaDropout(0.5),
    "FeatureAlphaDropout": lambda: nn.FeatureAlphaDropout(0.5),
    "RReLU": lambda: nn.RReLU(),
    "timm DropPath": lambda: timm.layers.DropPath(0.5),
    "timm DropBlock": lambda: timm.layers.DropBlock2d(0.5, block_size=3),
    "torchvision StochasticDepth": lambda: torchvision.ops.StochasticDepth(0.5, "row"),
    "torchvision DropBlock": lambda: torchvision.ops.DropBlock2d(0.5, 3),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1)),
}


def network(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, padding=1), layer, nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(128, 2)
    )


def features_of(model: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(images)
    handle.remove()
    return seen[0]


def train_by_hand(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, steps: int = 50) -> None:
    target = torch.arange(len(images)) % 2
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), target).backward()
        optimizer.step()


def assert_same(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert changed == []


@pytest.mark.parametrize("layer", NORMS.values(), ids=NORMS.keys())
def test_nothing_frozen_changes_in_fifty_steps_of_a_hand_written_loop(layer: Callable[[], nn.Module]) -> None:
    model = network(layer())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)  # made before the freeze
    images = torch.randn(6, 3, 16, 16)
    train_by_hand(model, optimizer, images, steps=1)  # the optimizer has momenta, the parameters have gradients
    freeze(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_by_hand(model, optimizer, images)
    after = model.state_dict()
    assert_same({name: value for name, value in before.items() if not name.startswith("5.")}, after)
    assert not torch.equal(before["5.weight"], after["5.weight"])
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if not name.startswith("5."))


@pytest.mark.parametrize("layer", NORMS.values(), ids=NORMS.keys())
def test_features_depend_on_the_sample_alone(layer: Callable[[], nn.Module]) -> None:
    model = freeze(network(layer()).train())
    images = torch.randn(6, 3, 16, 16)
    model.train()
    training = features_of(model, model[5], images)
    mates = features_of(model, model[5], torch.cat([images[:2], torch.randn(4, 3, 16, 16) * 9]))
    model.eval()
    evaluating = features_of(model, model[5], images)
    assert torch.equal(training, evaluating)
    assert torch.equal(training[:2], mates[:2])
    assert not training.requires_grad


MODELS = [
    ("torchvision", "mobilenet_v2"),
    ("torchvision", "squeezenet1_1"),
    ("torchvision", "shufflenet_v2_x0_5"),
    ("timm", "resnet10t"),
    ("timm", "test_vit"),
    ("timm", "test_convnext"),
    ("timm", "test_efficientnet"),
    ("timm", "test_nfnet"),
    ("timm", "test_byobnet"),
]


def build(library: str, name: str) -> nn.Module:
    if library == "torchvision":
        return torchvision.models.get_model(name, weights=None)
    options = {} if name in ("test_byobnet", "test_nfnet") else {"drop_path_rate": 0.4}
    return timm.create_model(name, num_classes=5, drop_rate=0.3, **options)


@pytest.mark.parametrize(("library", "name"), MODELS)
def test_whole_models_stay_as_they_are(library: str, name: str) -> None:
    model = build(library, name)
    size = 160 if name.startswith("test_") else 64
    images = torch.randn(4, 3, size, size)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    freeze(model)
    heads = find_heads(model)
    head = model.get_submodule(heads.main[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    cut = model.get_submodule(heads.dropout[0]) if heads.dropout else head
    features = features_of(model, cut, images)
    assert not features.requires_grad
    train_by_hand(model, optimizer, images, steps=3)
    after = model.state_dict()
    inside = tuple(f"{each}." for each in heads.names)
    assert_same({key: value for key, value in before.items() if not key.startswith(inside)}, after)
    assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith(inside))
    model.eval()
    assert torch.equal(features, features_of(model, cut, images))
    model.train()
    for each in heads.dropout:
        assert model.get_submodule(each).training


# What decays, moves or counts does so in every step: six of them, over three epochs, show it as well as fifty. And it
# does so in a model's kinds of layers, which timm's smallest of each family have, too.
REAL = [
    ("timm", "test_resnet", {}, 6),
    ("timm", "test_efficientnet", {"drop_path_rate": 0.4}, 6),
    ("timm", "test_vit", {"img_size": 32, "drop_path_rate": 0.4, "drop_rate": 0.3}, 6),
    ("timm", "test_convnext", {"drop_path_rate": 0.4}, 6),
    pytest.param("torchvision", "resnet18", {}, 50, marks=pytest.mark.proof),
    pytest.param("torchvision", "mobilenet_v3_small", {}, 50, marks=pytest.mark.proof),
    pytest.param(
        "timm",
        "vit_tiny_patch16_224",
        {"img_size": 32, "drop_path_rate": 0.4, "drop_rate": 0.3},
        50,
        marks=pytest.mark.proof,
    ),
    pytest.param("timm", "convnext_atto", {"drop_path_rate": 0.4}, 50, marks=pytest.mark.proof),
]


@pytest.mark.parametrize("way", ["by hand", "in the Trainer", "in the Trainer, features stored"])
@pytest.mark.parametrize(("library", "name", "options", "steps"), REAL)
def test_training_leaves_a_real_model_bit_identical(
    library: str, name: str, options: Any, steps: int, way: str
) -> None:
    make = timm.create_model if library == "timm" else torchvision.models.get_model
    model = make(name, num_classes=3, **options)
    images, target = torch.randn(8, 3, 32, 32), torch.arange(8) % 2
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)  # made before the freeze
    train_by_hand(model, optimizer, images, steps=1)
    freeze(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if way == "by hand":
        train_by_hand(model, optimizer, images, steps)
    else:
        loader = DataLoader(TensorDataset(images, target), 4, shuffle=True)
        reuse = "stored" in way
        trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, reuse_features=reuse, device="cpu", progress=False)
        trainer.fit(loader, loader, epochs=steps // 2)
        assert trainer.run.step == steps
    heads = find_heads(model).names
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"{head}.{key}" for head in heads for key, _ in model.get_submodule(head).named_parameters()}
    model.train()
    alone = features_of(model, model.get_submodule(heads[0]), images[:1]) if not find_heads(model).dropout else None
    model.eval()
    if alone is not None:
        together = features_of(model, model.get_submodule(heads[0]), images)[:1]
        assert torch.allclose(alone, together, rtol=1e-4, atol=1e-5)


def test_a_dropout_before_the_head_belongs_to_the_head_and_earlier_ones_do_not() -> None:
    model = freeze(torchvision.models.vgg11(weights=None, init_weights=False)).train()
    assert model.classifier[5].training
    assert not model.classifier[2].training


def test_freeze_until_a_module_freezes_what_is_computed_before_it() -> None:
    model = freeze(torchvision.models.resnet18(), until="layer4")
    trainable = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {"layer4", "fc"}
    model.train()
    assert model.layer4[0].bn1.training
    assert not model.layer3.training
    assert not model.bn1.training


def test_freeze_until_goes_by_the_order_of_computing_not_of_definition() -> None:
    class Upside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.second, self.first = nn.Linear(4, 2), nn.Linear(4, 4), nn.Linear(4, 4)
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.first(x) * self.scale))

    model = freeze(Upside(), until="second")
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == {
        "first.weight",
        "first.bias",
        "scale",
    }


def test_attention_projections_that_are_never_called_go_with_their_block() -> None:
    model = freeze(torchvision.models.vit_b_32(weights=None), until="encoder.layers.encoder_layer_6")
    for name, parameter in model.named_parameters():
        block = int(name.split("encoder_layer_")[1].split(".")[0]) if "encoder_layer_" in name else None
        later = block >= 6 if block is not None else name.startswith(("encoder.ln", "heads"))
        assert parameter.requires_grad == later, name


def test_unfreeze_in_stages_gives_everything_back() -> None:
    model = torchvision.models.resnet18()
    model.fc.bias.requires_grad_(False)
    model.layer1[0].conv1.weight.requires_grad_(False)  # never learns, by design of its author
    freeze(model.train())
    unfreeze(model, "layer4")
    assert all(parameter.requires_grad for parameter in model.layer4.parameters())
    assert model.layer4[0].bn1.training
    assert not model.layer3.training
    unfreeze(model)
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still == {"fc.bias", "layer1.0.conv1.weight"}
    assert all(module.training for module in model.modules())
    assert not is_frozen(model)
    assert "train" not in vars(model.layer1)
    model.eval()
    assert not any(module.training for module in model.modules())


def test_unfreezing_returns_modules_to_the_mode_last_asked_for() -> None:
    model = freeze(network(nn.BatchNorm2d(8)).train())
    model.eval()
    unfreeze(model)
    assert not model[1].training


def test_all_freezes_a_part_of_a_model_of_ones_own() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = network(nn.BatchNorm2d(8)), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    model = Net()
    freeze(model.body, until="all")
    model.train()
    assert model.training
    assert model.head.training
    assert not any(module.training for module in model.body.modules())
    assert not any(parameter.requires_grad for parameter in model.body.parameters())


def test_frozen_state_survives_copy_and_pickle() -> None:
    model = freeze(network(nn.BatchNorm2d(8)))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.train()
        assert not other[1].training
        assert other[5].training
        assert [id(each) for each in other.head_parameters()] == [id(each) for each in other[5].parameters()]
        unfreeze(other)
        assert other[1].training
    assert not model[1].training


def test_modules_keep_their_identity_and_class() -> None:
    model = torchvision.models.mobilenet_v2(weights=None)
    before = [(name, id(module), type(module)) for name, module in model.named_modules()]
    unfreeze(freeze(model), "features.14")
    assert before == [(name, id(module), type(module)) for name, module in model.named_modules()]


def test_frozen_tensors_are_parameters_and_buffers() -> None:
    model = freeze(network(nn.BatchNorm2d(8)))
    expected = {name for name in model.state_dict() if not name.startswith("5.")}
    assert set(frozen_tensors(model)) == expected
    assert "" not in frozen_modules(model)
    assert len(list(head_parameters(model))) == 2


def test_the_frozen_part_keeps_no_activations() -> None:
    model, images = torchvision.models.resnet18(), torch.randn(2, 3, 64, 64)
    kept = []
    for frozen in (False, True):
        if frozen:
            freeze(model)
        model.train()
        saved: dict[int, int] = {}
        parameters = {parameter.data_ptr() for parameter in model.parameters()}

        def note(tensor: Tensor, saved: dict[int, int] = saved, parameters: set[int] = parameters) -> Tensor:
            if tensor.data_ptr() not in parameters:
                saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(images).sum()
        kept.append(sum(saved.values()))
    assert kept[1] <= 0.01 * kept[0]


def test_a_batch_norm_without_statistics_cannot_be_frozen() -> None:
    with pytest.raises(ArgumentError, match=r"1 is a BatchNorm2d with track_running_stats=False"):
        freeze(network(nn.BatchNorm2d(8, track_running_stats=False)))


def test_a_wrong_name_is_answered_with_close_ones() -> None:
    with pytest.raises(ArgumentError, match="no module 'layer5'; there are layer"):
        freeze(torchvision.models.resnet18(), until="layer5")


def test_a_module_that_is_never_called_is_refused() -> None:
    model = torchvision.models.resnet18()
    model.extra = nn.Linear(2, 2)
    with pytest.raises(ArgumentError, match="never calls 'extra'"):
        freeze(model, until="extra")
