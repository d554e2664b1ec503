"""A model for other programs: bare weights, ONNX, and torch's own exported program."""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlkit._calling import call, evaluating, output_of
from dlkit._language import Message
from dlkit._optional import require
from dlkit._progress import Bar
from dlkit.artifact.inputs import Meaning, make_example
from dlkit.artifact.weights import pack
from dlkit.errors import ModelFileError
from dlkit.storage.files import atomic_write
from dlkit.transforms import Preprocessing

__all__ = ["write_onnx", "write_program", "write_state_dict"]

_CLOSE = 1e-3


class _OnPixels(nn.Module):
    """A model of normalised planes as one of uint8 pixels [B, H, W, C], as any program decodes them."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        planes = pixels.permute(0, 3, 1, 2).float() / 255
        return output_of(self.model((planes - self.mean) / self.std))


class _OnNames(nn.Module):
    """A model whose inputs come by name, for exporters that want them in order."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> Tensor:
        return output_of(self.model(**dict(zip(self.names, values, strict=True))))


def write_state_dict(model: nn.Module, path: Path) -> Path:
    """The weights of `model` alone at `path`, for `torch.load(path, weights_only=True)`."""
    tensors, aliases = pack(model)
    with atomic_write(path) as file:
        torch.save({**tensors, **{name: tensors[other] for name, other in aliases.items()}}, file)
    return path


def write_program(model: nn.Module, path: Path, meaning: Meaning, document: Mapping[str, Any]) -> Path:
    """`torch.export`'s program, for any number of inputs at once.

    Args:
        model: Any module that torch.export takes.
        path: The file; by custom it ends in ".pt2".
        meaning: Texts may have any length.
        document: Of the model file; it travels along under "dlkit.json".
    """
    names, example = _in_order(make_example(document["example"]["input"]))
    module = _OnNames(model, names) if names else model
    bar = Bar(1, desc=Message("export"), unit=Message("steps"), delay=0)
    with evaluating(model), torch.inference_mode(False), bar:
        bar.at(0, Message("the model becomes a program"))
        program = torch.export.export(module, example, dynamic_shapes=_free_sizes(meaning, module, example))
    with atomic_write(path) as file:
        torch.export.save(program, file, extra_files={"dlkit.json": json.dumps(document)})
    return path


def write_onnx(model: nn.Module, path: Path, meaning: Meaning, document: Mapping[str, Any]) -> Path:
    """An ONNX file whose output was compared with torch's; what it cannot do inside is in its metadata.

    Args:
        model: Any module that torch's ONNX exporter takes.
        path: The file.
        meaning: An image model takes uint8 [B, H, W, C] of the size of its preprocessing, and normalises inside.
        document: Of the model file.
    """
    onnx = require("onnx", extra="onnx")
    require("onnxscript", extra="onnx")
    runtime = require("onnxruntime", extra="onnx")
    module, names, example = _for_onnx(model, meaning, document)
    with tempfile.TemporaryDirectory() as folder, Bar(3, desc=Message("export"), unit=Message("steps"), delay=0) as bar:
        draft = Path(folder) / "model.onnx"
        bar.at(0, Message("the model becomes a graph"))
        expected = _export(module, example, names, draft, _free_sizes(meaning, module, example))
        bar.at(1, Message("the graph is read again"))
        made = onnx.load(draft)
        for key, value in {"dlkit": json.dumps(document), "classes": json.dumps(meaning.classes)}.items():
            entry = made.metadata_props.add()
            entry.key, entry.value = key, value
        content = made.SerializeToString()
        bar.at(2, Message("its output is compared with torch's"))
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        found = session.run(None, {name: value.numpy() for name, value in zip(names, example, strict=True)})[0]
    off = float((torch.from_numpy(found) - expected).abs().max())
    allowed = _CLOSE * max(1.0, float(expected.abs().max()))
    if not off <= allowed:
        raise ModelFileError(f"the ONNX model gives another output than torch's, off by {off:.3g}; it was not written")
    with atomic_write(path) as file:
        file.write(content)
    return path


def _for_onnx(model: nn.Module, meaning: Meaning, document: Mapping[str, Any]) -> tuple[nn.Module, list[str], Any]:
    spec = meaning.preprocessing
    if isinstance(spec, Preprocessing) and not spec.then:
        shape = (2, *spec.size, spec.channels)
        pixels = torch.arange(math.prod(shape)) * 2654435761 % 256
        return _OnPixels(model, spec), ["pixels"], (pixels.reshape(shape).to(torch.uint8),)
    names, example = _in_order(make_example(document["example"]["input"]))
    if names:
        return _OnNames(model, names), names, example
    own = ["waveforms", "mask"] if meaning.kind == "audio" else [f"input_{number}" for number in range(len(example))]
    return model, own[: len(example)], example


def _in_order(example: Any) -> tuple[list[str], tuple[Tensor, ...]]:
    if isinstance(example, Mapping):
        return list(example), tuple(example.values())
    return [], tuple(example) if isinstance(example, tuple) else (example,)


def _export(module: nn.Module, example: tuple[Tensor, ...], names: list[str], path: Path, free: Any) -> Tensor:
    with evaluating(module), torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about things that the comparison below settles
        expected = output_of(call(module, example)).float()
        torch.onnx.export(
            module,
            example,
            path,
            input_names=names,
            output_names=["output"],
            dynamo=True,
            external_data=False,
            dynamic_shapes=free,
            verbose=False,
        )
    return expected


def _free_sizes(meaning: Meaning, module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    """Any number of inputs; texts and sounds of any length, which is the last size of each of their tensors."""
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    free = meaning.preprocessing is not None and meaning.preprocessing.any_length
    shapes = tuple({0: batch, **({each.dim() - 1: length} if free else {})} for each in example)
    return (shapes,) if isinstance(module, _OnNames) else shapes
