"""Models of torch's own layers in a model file: described as data, built again exactly, hostile data refused."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dlkit
from dlkit import _torch_layers
from dlkit.errors import ArgumentError, ModelFileError
from dlkit.models import SmallConvNet
from dlkit.transforms import for_evaluation

# A layer of each kind with settings that are not its defaults, and the shape of an input.
LAYERS = [
    (nn.Linear(4, 3, bias=False), (2, 4)),
    (nn.Embedding(9, 4, padding_idx=2, max_norm=1.0), None),
    (nn.Conv2d(4, 6, (3, 5), stride=2, padding="valid", dilation=1, groups=2, bias=False), (2, 4, 9, 9)),
    (nn.Conv1d(2, 4, 3, padding="same", padding_mode="circular"), (2, 2, 9)),
    (nn.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1, dilation=2), (2, 4, 5, 5)),
    (nn.BatchNorm2d(3, eps=0.1, momentum=None, affine=False), (2, 3, 5, 5)),
    (nn.InstanceNorm1d(3, affine=True), (2, 3, 5)),
    (nn.GroupNorm(2, 4, affine=False), (2, 4, 5)),
    (nn.LayerNorm((4, 5), elementwise_affine=True, bias=False), (2, 4, 5)),
    (nn.RMSNorm(4, eps=1e-3), (2, 4)),
    (nn.MaxPool2d((2, 3), stride=1, padding=1, ceil_mode=True), (2, 3, 9, 9)),
    (nn.AvgPool2d(2, count_include_pad=False, divisor_override=3), (2, 3, 8, 8)),
    (nn.LPPool2d(2, 3, stride=(2, 1)), (2, 3, 9, 9)),
    (nn.AdaptiveAvgPool2d((None, 2)), (2, 3, 9, 9)),
    (nn.ConstantPad2d((1, 2, 0, 1), 0.5), (2, 3, 4, 4)),
    (nn.ReflectionPad1d(2), (2, 3, 4)),
    (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), (2, 3, 4, 4)),
    (nn.PixelShuffle(2), (2, 8, 3, 3)),
    (nn.Unflatten(1, (2, 2)), (2, 4)),
    (nn.Flatten(0, -1), (2, 4)),
    (nn.Dropout2d(0.25, inplace=True), (2, 3, 4, 4)),
    (nn.PReLU(3, init=0.5), (2, 3)),
    (nn.Hardtanh(-2, 0.5), (2, 3)),
    (nn.GELU("tanh"), (2, 3)),
    (nn.Threshold(0.25, 7), (2, 3)),
    (nn.Softplus(2, 3), (2, 3)),
    (nn.LogSoftmax(1), (2, 3)),
    (nn.Identity(), (2, 3)),
    (nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", 1e-3, batch_first=True, norm_first=True, bias=False), (2, 5, 8)),
    (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, nn.LayerNorm(8), enable_nested_tensor=False),
        (2, 5, 8),
    ),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[type(layer).__name__ for layer, _ in LAYERS])
def test_a_layer_is_built_again_as_it_was(layer: nn.Module, shape: tuple[int, ...] | None) -> None:
    again = _torch_layers.build(_torch_layers.describe(layer))
    assert repr(again) == repr(layer)
    again.load_state_dict(layer.state_dict())
    given = torch.arange(6).view(2, 3) if shape is None else torch.randn(shape)
    assert torch.equal(again.eval()(given.clone()), layer.eval()(given.clone()))


def test_every_layer_of_the_list_keeps_what_it_was_made_with() -> None:
    for name in _torch_layers._NAMES - {"TransformerEncoderLayer"}:
        kind = getattr(nn, name)
        signature = inspect.signature(kind.__init__).parameters
        required = [key for key in _torch_layers._arguments(kind) if signature[key].default is inspect.Parameter.empty]
        layer = kind(**{key: {"num_channels": 4, "unflattened_size": (2, 1)}.get(key, 2) for key in required})
        assert repr(_torch_layers.build(_torch_layers.describe(layer))) == repr(layer)


def test_a_sequential_of_images_predicts_from_its_file(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("body", nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("head", nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2)))
    grey = for_evaluation(8, color="L", mean=0.0, std=1.0)
    file = dlkit.save(model, tmp_path / "m.safetensors", classes=["a", "b"], preprocessing=grey)
    predictor = dlkit.load(file)
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(predictor.logits(images), model.eval()(images))
    assert list(predictor.model.state_dict()) == list(model.state_dict())
    assert predictor.predict(images).shape == (3, 2)


def test_a_registered_model_may_stand_in_a_sequential(tmp_path: Path) -> None:
    model = nn.Sequential(SmallConvNet(num_classes=3, in_chans=1), nn.ReLU(), nn.Linear(3, 2))
    file = dlkit.save(model, tmp_path / "m.safetensors", classes="ab", example=torch.zeros(2, 1, 28, 28))
    images = torch.randn(2, 1, 28, 28)
    assert torch.equal(dlkit.load(file).logits(images), model.eval()(images))


def test_a_layer_that_is_used_twice_shares_its_weights(tmp_path: Path) -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    file = dlkit.save(model, tmp_path / "m.safetensors", task="regression", example=torch.zeros(2, 4))
    given = torch.randn(3, 4)
    assert torch.equal(dlkit.load(file).logits(given), model(given))


class Own(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class MyLinear(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Own(), r"Own is not registered and not one of torch's own layers.*put @dlkit\.register"),
        (nn.Sequential(nn.Linear(2, 2), nn.Sequential(MyLinear(2, 2))), r"layer '1\.0', a MyLinear, is not registered"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), "layer '0', a ParametrizedLinear"),
        (nn.LSTM(2, 2), "LSTM is not registered"),
        (nn.TransformerEncoderLayer(4, 2, activation=torch.tanh), "an activation of your own"),
    ],
    ids=["own", "derived", "parametrized", "lstm", "activation"],
)
def test_what_cannot_be_described_is_told_the_way(model: nn.Module, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        dlkit.save(model, "never.safetensors", classes="ab", example=torch.zeros(2, 2))


def test_a_layer_that_was_changed_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_forward_hook(lambda module, given, output: output * 2)
    with pytest.raises(ArgumentError, match="does not give the output of this one"):
        dlkit.save(model, tmp_path / "m.safetensors", classes="ab", example=torch.zeros(2, 2))
    model[0].in_features = 7
    with pytest.raises(ModelFileError, match=r"0\.weight is \[2, 2\] in the file and \[2, 7\] in the architecture"):
        dlkit.save(model, tmp_path / "m.safetensors", classes="ab", example=torch.zeros(2, 2))


def layer(name: Any = "Linear", **arguments: Any) -> dict[str, Any]:
    return {"library": "torch", "name": name, "arguments": arguments}


def chain(*layers: Any) -> dict[str, Any]:
    return {"library": "torch", "name": "Sequential", "layers": [[str(n), each] for n, each in enumerate(layers)]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (layer("Module"), "is 'Module', which is not one of torch's layers"),
        (layer("modules.linear.Linear"), "which is not one of torch's layers"),
        (layer(["Linear"]), "which is not one of torch's layers"),
        (layer("Linear", in_features=2, out_features=2, device="cuda"), "Linear takes in_features, out_features, bias"),
        (layer("Embedding", num_embeddings=2, embedding_dim=2, _weight=[]), "Embedding takes"),
        (layer("Linear", in_features=1 << 50, out_features=2), "must be a whole number"),
        (layer("Linear", in_features={"a": 1}, out_features=2), "must be a number, a text or a list"),
        (layer("Linear", in_features="two", out_features=2), "Linear cannot be made"),
        (layer("MaxPool2d", kernel_size=[1] * 99), "has 99 entries"),
        (layer("Conv2d", in_channels=4, out_channels=4, kernel_size=1, groups=0), "Conv2d cannot be made"),
        (chain("x"), r"architecture\.layers\.0 must be an object"),
        ({**chain(), "layers": [["a.b", layer()]]}, "must be a list of"),
        ({**chain(), "layers": [["a", layer("ReLU")], ["a", layer("ReLU")]]}, "names a layer twice"),
        ({**chain(), "layers": [["forward", layer("ReLU")]]}, "attribute 'forward' already exists"),
        ({**chain(layer("ReLU")), "name": "TransformerEncoder"}, "must be TransformerEncoderLayer"),
        (chain(*[layer("ReLU")] * 5000), "more than 4,096 layers"),
        (chain({"library": "registered", "name": "os.system", "arguments": {}}), "is not registered here"),
    ],
    ids=[
        "base", "path", "list", "device", "private", "huge", "dict", "word", "long", "groups", "string", "dotted",
        "twice", "method", "encoder", "many", "registered",
    ],
)  # fmt: skip
def test_hostile_descriptions_are_refused(document: Any, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        _torch_layers.build(copy.deepcopy(document))
