"""`save`: a trained model with everything that prediction needs, in one file without pickle."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlkit._calling import bare, call, cast, evaluating, output_of
from dlkit._near import known_arguments
from dlkit._version import __version__
from dlkit.artifact import exporting
from dlkit.artifact.header import FORMAT_VERSION, sealed
from dlkit.artifact.inputs import Meaning, describe_example, make_example
from dlkit.artifact.opening import assemble, differs
from dlkit.artifact.outlining import architecture_of
from dlkit.artifact.weights import pack
from dlkit.errors import ArgumentError, DlkitError
from dlkit.storage.files import atomic_write

__all__ = ["describe", "save", "save_state"]

_KEPT_VALUES = 4096
_LIBRARIES = ("timm", "torchvision", "tokenizers")


@known_arguments
def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[Any] | None = None,
    preprocessing: Any = None,
    task: Literal["classification", "binary", "multilabel", "regression"] | None = None,
    outputs: Literal["logits", "probabilities", "logarithms"] | None = None,
    thresholds: Sequence[float] | None = None,
    example: Any = None,
    metrics: Mapping[str, float] | None = None,
    format: Literal["dlkit", "state_dict", "onnx", "torch.export"] = "dlkit",  # noqa: A002
) -> Path:
    """Write a model into one file that predicts anywhere: `dlkit.load(path).predict_file("photo.jpg")`.

    The file is a safetensors file: weights, and in its head how to build the model, its classes, how its inputs are
    prepared, metrics, versions, and a small input with the output it gave. Nothing in it can run code. It appears
    under its name only when it is whole, and when the model built from it has given that same output.

    Args:
        model: From `dlkit.transfer.create_model`, `dlkit.models`, timm or torchvision through `create_model`; an
            `nn.Sequential` of torch's own layers, or one of these; or your own class that is registered
            (`dlkit.register`).
        path: The file; by custom it ends in ".safetensors".
        classes: The classes' names in the order of the outputs. By default those of `preprocessing` or the model.
        preprocessing: How inputs are prepared: a transform of `dlkit.transforms` (augmentation is left out), a table's
            `spec`, or a dataset that has one of these, which also knows the names of its
            columns. By default the model's own. Without any the model takes tensors, and `example` is needed.
        task: What the outputs are; by default what the data says, else "classification".
        outputs: "probabilities" for a model that ends in a sigmoid or softmax, "logarithms" for a regression of them
            (a Poisson loss); None for logits, log-probabilities, and the values of a regression.
        thresholds: Of two classes, one: the probability of the second above which it is the answer; of several labels
            one each, above which it is there. None for one half.
        example: A batch of inputs, for a model of bare tensors. Its shape is kept, its values are not.
        metrics: Numbers to keep with the model, such as `{"val_accuracy": 0.95}`.
        format: "dlkit"; or for other programs "state_dict" (weights alone, for torch), "onnx" (extra `onnx`; image
            models take uint8 pixels, and normalise inside; compared with torch before it is written) and
            "torch.export".

    Returns:
        The path.

    Raises:
        ArgumentError: the model is neither registered nor made of torch's own layers, or what it needs is not known.
        ModelFileError: what was written does not give the same output.

    >>> import tempfile; from dlkit.models import SmallConvNet; from dlkit.transforms import for_evaluation
    >>> file = Path(tempfile.mkdtemp()) / "letters.safetensors"
    >>> grey = for_evaluation(28, color="L", mean=0.0, std=1.0)
    >>> save(SmallConvNet(num_classes=2), file, classes=["A", "B"], preprocessing=grey).name
    'letters.safetensors'
    """
    path, model = Path(path).expanduser(), bare(model)
    if format == "state_dict":
        return exporting.write_state_dict(model, path)
    if format not in ("dlkit", "onnx", "torch.export"):
        raise ArgumentError(f"format must be 'dlkit', 'state_dict', 'onnx' or 'torch.export', not {format!r}")
    meaning, document = describe(
        model,
        classes=classes,
        preprocessing=preprocessing,
        task=task,
        outputs=outputs,
        thresholds=thresholds,
        example=example,
        metrics=metrics,
    )
    if format == "dlkit":
        return _save(model, path, document)
    # Exporters follow the model itself, whatever was changed about it; but they want it on the CPU.
    exported = model if _device_of(model).type == "cpu" else _rebuilt(model, document, str(path))[1]
    write = exporting.write_onnx if format == "onnx" else exporting.write_program
    return write(exported, path, meaning, document)


def save_state(
    known: Mapping[str, Any], state: Mapping[str, Tensor], path: Path, *, metrics: Mapping[str, float]
) -> Path:
    """The file of a model that is not there, of what `dlkit.artifact.outlining` said of it before.

    Args:
        known: What `outline` gave.
        state: The model's state_dict.
        path: The file.
        metrics: See `save`.

    Raises:
        ModelFileError: the model cannot be built here, or has other tensors.
    """
    model = assemble({**known, "aliases": {}}, state, str(path))
    meaning = Meaning.from_document(known.get("meaning"))
    return _save(model, path, _document(model, dict(known["architecture"]), meaning, None, metrics))


def _save(model: nn.Module, path: Path, document: dict[str, Any]) -> Path:
    tensors, _ = _rebuilt(model, document, str(path))
    _write(path, tensors, document)
    return path


def _device_of(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _rebuilt(model: nn.Module, document: dict[str, Any], name: str) -> tuple[dict[str, Tensor], nn.Module]:
    """The tensors for the file, and the model as whoever opens it gets it: on the CPU, whose output is written down.

    It is compared with the given one on that one's own device: a GPU rounds much more coarsely than a CPU (TF32).
    """
    tensors, document["aliases"] = pack(model)
    again = assemble(document, tensors, name, trust_hub=True)  # its code has run in this process already
    device = _device_of(model)
    if difference := differs(again.to(device), document):
        raise ArgumentError(
            f"the model rebuilt from {document['architecture'].get('name')!r} does not give the output of this one "
            f"({difference}): it was changed after it was made, in a way that its state_dict does not show; register "
            "a class or function that makes it as it is (dlkit.register)"
        )
    if device.type != "cpu":
        example = document["example"]
        example["output"] = _kept(_output(again.cpu(), make_example(example["input"])))
    return tensors, again


def describe(
    model: nn.Module,
    *,
    classes: Sequence[Any] | None = None,
    preprocessing: Any = None,
    task: str | None = None,
    outputs: str | None = None,
    thresholds: Sequence[float] | None = None,
    example: Any = None,
    metrics: Mapping[str, float] | None = None,
) -> tuple[Meaning, dict[str, Any]]:
    """The document of a model file, without its weights; raises what `save` would raise for lack of knowledge.

    Args:
        model: See `save`.
        classes: See `save`.
        preprocessing: See `save`.
        task: See `save`.
        outputs: See `save`.
        thresholds: See `save`.
        example: See `save`.
        metrics: See `save`.
    """
    meaning = Meaning.find(model, preprocessing, classes, task, outputs, thresholds)
    return meaning, _document(model, architecture_of(model), meaning, example, metrics)


def _document(
    model: nn.Module,
    architecture: dict[str, Any],
    meaning: Meaning,
    example: Any,
    metrics: Mapping[str, float] | None,
) -> dict[str, Any]:
    description, output = _example(model, meaning, example)
    meaning.check_outputs(output.shape)
    return {
        "version": FORMAT_VERSION,
        "architecture": architecture,
        "meaning": meaning.document(),
        "metrics": {str(name): float(value) for name, value in (metrics or {}).items()},
        "versions": _versions(),
        "aliases": {},
        "example": {"input": description, "shape": list(output.shape), "output": _kept(output)},
    }


def _example(model: nn.Module, meaning: Meaning, example: Any) -> tuple[Any, Tensor]:
    """An input and its output; a smaller one than the model's own where it takes such, to load quickly."""
    small, description = (describe_example(meaning, example, small=each) for each in (True, False))
    if small != description:
        with contextlib.suppress(ArgumentError):
            return small, _output(model, make_example(small))
    return description, _output(model, make_example(description))


def _output(model: nn.Module, example: Any) -> Tensor:
    first = next(model.parameters(), None)
    with evaluating(model):
        try:
            result = output_of(call(model, cast(example, first)))
        except DlkitError:
            raise
        except Exception as error:
            raise ArgumentError(
                f"the model does not take the input that its preprocessing gives: {type(error).__name__}: {error}"
            ) from error
    return result.detach().float().cpu()


def _kept(output: Tensor) -> list[float | None]:
    """The first values; JSON has no NaN."""
    values = output.flatten()[:_KEPT_VALUES].tolist()
    return [value if value == value and abs(value) != float("inf") else None for value in values]


def _versions() -> dict[str, str]:
    found = {"dlkit": __version__, "torch": torch.__version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _write(path: Path, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
    from safetensors.torch import save as to_bytes

    if not path.parent.is_dir():
        raise ArgumentError(f"there is no folder {path.parent} to write {path.name} into")
    content = to_bytes(tensors)
    length = 8 + int.from_bytes(content[:8], "little")
    layout, body = json.loads(content[8:length]), memoryview(content)[length:]
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(sealed(text, layout, body))
        file.write(body)
