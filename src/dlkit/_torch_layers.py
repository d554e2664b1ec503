"""Models of torch's own layers as plain data: names from a list and bounded arguments, never code.

A layer keeps what it was made with in attributes of the same names, so its class's signature says what to write down.
What is read comes from anywhere: only classes of `_NAMES` are made, only with arguments that they have.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dlkit import _bounds
from dlkit.errors import ArgumentError, ModelFileError
from dlkit.registry import build as build_registered

__all__ = ["build", "describe"]

_NAMES = frozenset(
    """
    Identity Linear Bilinear Flatten Unflatten Embedding
    Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d Fold Unfold
    BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d GroupNorm LayerNorm RMSNorm
    LocalResponseNorm
    MaxPool1d MaxPool2d MaxPool3d AvgPool1d AvgPool2d AvgPool3d LPPool1d LPPool2d
    AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d
    ZeroPad1d ZeroPad2d ZeroPad3d ConstantPad1d ConstantPad2d ConstantPad3d ReflectionPad1d ReflectionPad2d
    ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d
    PixelShuffle PixelUnshuffle ChannelShuffle Upsample UpsamplingNearest2d UpsamplingBilinear2d
    Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout
    ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU SELU GELU SiLU Mish GLU Sigmoid LogSigmoid Tanh Hardtanh Hardsigmoid
    Hardswish Hardshrink Softshrink Tanhshrink Softplus Softsign Threshold Softmax Softmin Softmax2d LogSoftmax
    TransformerEncoderLayer
    """.split()  # noqa: SIM905  (easier to read and to merge than a list of strings)
)
# What a layer is made with and does not keep: where its tensors lie, and other names for kept arguments.
_LEFT_OUT = frozenset({"device", "dtype", "min_value", "max_value"})
_WHOLE = _bounds.Range(-_bounds.SIZE.most, _bounds.SIZE.most)
_ACTIVATIONS = {1: "relu", 2: "gelu"}  # as torch numbers them in a TransformerEncoderLayer


def describe(model: nn.Module) -> dict[str, Any]:
    """How to build a model again, as plain data.

    Args:
        model: An `nn.Sequential`, which may hold others and registered models, or one of torch's layers.

    Raises:
        ArgumentError: it has a part of another kind, which is named.

    >>> describe(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))["layers"][1]
    ['1', {'library': 'torch', 'name': 'ReLU', 'arguments': {'inplace': False}}]
    """
    document = _document(model, "")
    with torch.device("meta"):
        again = build(document)
    if repr(again) != repr(model):  # which has the settings of every layer in it
        raise ArgumentError(f"{type(model).__name__} was changed after it was made; {_WAY}")
    return document


_WAY = (
    'put @dlkit.register("a name") over the class or the function that makes the model, and create it again; an '
    "nn.Sequential of torch's own layers, and models of dlkit.transfer.create_model, need nothing"
)


def _document(module: nn.Module, place: str) -> dict[str, Any]:
    kind, name = type(module), type(module).__name__
    head = {"library": "torch", "name": name}
    if place and isinstance(own := getattr(module, "architecture", None), Mapping):
        return dict(own)
    if kind in (nn.Sequential, nn.TransformerEncoder):
        return head | {"layers": [[key, _document(each, f"{place}.{key}")] for key, each in _inside(module)]}
    if name not in _NAMES or kind is not getattr(nn, name):
        where = f"layer {place.removeprefix('.')!r}, a {name}," if place else name
        raise ArgumentError(
            f"{where} is not registered and not one of torch's own layers, so a file could not say how to build it "
            f"again; {_WAY}"
        )
    found = _of_transformer(module) if kind is nn.TransformerEncoderLayer else _kept(module)
    return head | {"arguments": found}


def _kept(module: nn.Module) -> dict[str, Any]:
    found = {}
    for name in _arguments(type(module)):
        value = getattr(module, name)
        if name == "bias":
            value = value is not None
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _of_transformer(layer: Any) -> dict[str, Any]:
    """A layer of a transformer, which keeps its arguments in its parts."""
    attention, number = layer.self_attn, layer.activation_relu_or_gelu
    if number not in _ACTIVATIONS:
        raise ArgumentError(f"a TransformerEncoderLayer with an activation of your own cannot be described; {_WAY}")
    return {
        "d_model": attention.embed_dim,
        "nhead": attention.num_heads,
        "dim_feedforward": layer.linear1.out_features,
        "dropout": layer.dropout.p,
        "activation": _ACTIVATIONS[number],
        "layer_norm_eps": layer.norm1.eps,
        "batch_first": attention.batch_first,
        "norm_first": layer.norm_first,
        "bias": layer.linear1.bias is not None,
    }


def _inside(container: Any) -> list[tuple[str, nn.Module]]:
    """The layers by name, one that is in two places twice."""
    if type(container) is nn.Sequential:
        return list(container._modules.items())
    norm = container.norm
    return [*container.layers._modules.items(), *([("norm", norm)] if norm is not None else [])]


def _arguments(kind: type[nn.Module]) -> tuple[str, ...]:
    """The names of what a layer is made with."""
    names = list(inspect.signature(kind.__init__).parameters)[1:]
    return tuple(n for n in names if n not in _LEFT_OUT and not n.startswith("_") and n not in ("args", "kwargs"))


def build(document: Any) -> nn.Module:
    """A fresh model of what `describe` gave; its weights are random.

    Args:
        document: Plain data from anywhere.

    Raises:
        ModelFileError: it names another class, arguments that this class has not, or too much of either.
    """
    return _built(document, "architecture", [_bounds.ARGUMENTS])


def _built(document: Any, field: str, left: list[int]) -> nn.Module:
    if not isinstance(document, Mapping):
        raise ModelFileError(f"{field:.200} must be an object, not {document!r:.60}")
    left[0] -= 1
    if left[0] < 0:
        raise ModelFileError(f"the architecture has more than {_bounds.ARGUMENTS:,} layers")
    if field != "architecture" and document.get("library") == "registered":
        return build_registered(document)
    name = document.get("name")
    if name in ("Sequential", "TransformerEncoder"):
        return _container(document, field, left)
    if document.get("library") != "torch" or not isinstance(name, str) or name not in _NAMES:
        raise ModelFileError(f"{field:.200} is {name!r:.60}, which is not one of torch's layers that a file may name")
    kind, arguments = getattr(nn, name), document.get("arguments")
    known = _arguments(kind)
    if not isinstance(arguments, Mapping) or any(key not in known for key in arguments):
        raise ModelFileError(f"{field:.200}: {name} takes {', '.join(known) or 'no arguments'}, not {arguments!r:.200}")
    given = {key: _plain(value, f"{field}.arguments.{key}") for key, value in arguments.items()}
    try:
        made: nn.Module = kind(**given)
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{field:.200}: {name} cannot be made with {arguments!r:.200}: {error}") from error
    return made


def _container(document: Mapping[str, Any], field: str, left: list[int]) -> nn.Module:
    layers = document.get("layers")
    keyed = isinstance(layers, list) and all(
        isinstance(each, list) and len(each) == 2 and isinstance(each[0], str) for each in layers
    )
    if not keyed or not all(key and "." not in key and len(key) <= _bounds.NAME for key, _ in layers or ()):
        raise ModelFileError(f"{field:.200}.layers must be a list of [name, layer], not {layers!r:.200}")
    assert layers is not None
    made = {key: _built(each, f"{field}.layers.{key}", left) for key, each in layers}
    if len(made) < len(layers):
        raise ModelFileError(f"{field:.200}.layers names a layer twice")
    if document["name"] == "TransformerEncoder":
        norm = made.pop("norm", None)
        if not made or not all(type(each) is nn.TransformerEncoderLayer for each in made.values()):
            raise ModelFileError(f"{field:.200}.layers of a TransformerEncoder must be TransformerEncoderLayer")
        first = next(iter(made.values()))
        encoder = nn.TransformerEncoder(first, len(made), norm, enable_nested_tensor=False)  # type: ignore[arg-type]
        encoder.layers = nn.ModuleList(made.values())
        return encoder
    try:
        sequence = nn.Sequential()
        for key, each in made.items():
            sequence.add_module(key, each)
    except KeyError as error:  # a name that nn.Module has itself
        raise ModelFileError(f"{field:.200}.layers: {error}") from error
    return sequence


def _plain(value: Any, field: str) -> Any:
    """An argument: a number, a switch, a word or a few of them; lists as tuples, which is what layers want."""
    if isinstance(value, list):
        if len(value) > _bounds.DIMENSIONS:
            raise ModelFileError(f"{field:.200} has {len(value)} entries; {_bounds.DIMENSIONS} are allowed")
        return tuple(_plain(each, field) for each in value)
    try:
        if type(value) is int:
            return _bounds.whole(value, field, _WHOLE)
        if isinstance(value, str):
            return _bounds.text(value, field, 20)
    except ArgumentError as error:
        raise ModelFileError(str(error)) from error
    if value is None or isinstance(value, bool | float):
        return value
    raise ModelFileError(f"{field:.200} must be a number, a text or a list of them, not {value!r:.60}")
