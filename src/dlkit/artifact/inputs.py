"""What a model takes and what its outputs mean, as plain data for the model file, and back."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlkit import _bounds
from dlkit.declared import classes_in, spec_in
from dlkit.errors import ArgumentError, ModelFileError
from dlkit.specs.text import TextSpec
from dlkit.transforms import Preprocessing, from_json, spec_of

__all__ = ["Kind", "Meaning", "describe_example", "make_example"]

Kind = Literal["image", "table", "text", "tensor"]
Task = Literal["classification", "binary", "multilabel", "regression"]
Outputs = Literal["logits", "probabilities", "logarithms"]

_TASKS = ("classification", "binary", "multilabel", "regression")
_OUTPUTS = ("logits", "probabilities", "logarithms")
# Read by name when a file needs it: saving from a training must not pull the datasets in.
_SCHEMA_HOME = "dlkit.specs.table"
_FIELDS = {"shape", "dtype", "low", "high"}
_DTYPES = {str(kind).removeprefix("torch."): kind for kind in (torch.float32, torch.int64, torch.bool)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meaning:
    """What goes in and what comes out.

    Attributes:
        kind: "image", "table", "text" or "tensor" (anything else, prepared by the caller).
        preprocessing: A `Preprocessing`, a `Schema`, a `TextSpec`; None for "tensor".
        task: "classification", "binary", "multilabel" or "regression".
        classes: The classes' names in the order of the outputs; for regression the names of the outputs, if known.
        columns: The names of the columns that inputs stand in, where they come from a table: of the texts, of the image
            files, of the features; empty where none are known.
        outputs: "logits" (log-probabilities as well; of a regression the values); "probabilities", where the model ends
            in a sigmoid or softmax; "logarithms" of a regression's values.
    """

    kind: Kind
    preprocessing: Any
    task: Task
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    outputs: Outputs = "logits"

    @classmethod
    def find(
        cls,
        model: nn.Module,
        preprocessing: Any,
        classes: Sequence[Any] | None,
        task: str | None,
        outputs: str | None = None,
    ) -> Meaning:
        """What the caller said, else what the preprocessing, a dataset, or the model itself knows.

        Args:
            model: Its `preprocessing`, `schema`, `classes` and `num_outputs` are looked at.
            preprocessing: A `Preprocessing`, `Schema`, `TextSpec`, or a dataset that has one.
            classes: The names.
            task: The task.
            outputs: What the outputs are; None for logits.

        Raises:
            ArgumentError: something is missing or cannot be meant.
        """
        data = preprocessing
        spec = _spec(preprocessing if preprocessing is not None else _of_model(model))
        kind: Kind = "tensor" if spec is None else _KINDS[type(spec).__name__]
        names = classes if classes is not None else _names(spec, data, model)
        if kind == "table" and spec.target is not None:
            task = task or spec.target.task
        task = task or _guess(kind, names, data)
        if task not in _TASKS:
            raise ArgumentError(f"task must be one of {', '.join(_TASKS)}, not {task!r}")
        if outputs not in (None, *_OUTPUTS):
            raise ArgumentError(f"outputs must be one of {', '.join(_OUTPUTS)}, not {outputs!r}")
        if task != "regression" and not names:
            raise ArgumentError(
                'the classes are not known: pass classes=["ant", "bee"] in the order of the outputs, or '
                'task="regression" if the outputs are numbers'
            )
        if task == "regression" and not names:
            names = getattr(data, "target_columns", ())
        named = _named([str(name) for name in names or ()], "classes")
        columns = _columns(kind, spec, getattr(data, "input_columns", ()))
        return cls(
            kind=kind,
            preprocessing=spec,
            task=task,  # type: ignore[arg-type]
            classes=named,
            columns=columns,
            outputs=outputs or "logits",  # type: ignore[arg-type]
        )

    def document(self) -> dict[str, Any]:
        """As plain data."""
        spec: Any = self.preprocessing
        if self.kind == "image":
            spec = spec_of(spec)
        elif self.kind == "table":
            spec = json.loads(spec.to_json())
        elif self.kind == "text":
            spec = spec.spec()
        found = {"kind": self.kind, "spec": spec, "task": self.task, "classes": list(self.classes)}
        found |= {} if self.outputs == "logits" else {"outputs": self.outputs}
        return found if self.kind == "table" else found | {"columns": list(self.columns)}

    @classmethod
    def from_document(cls, document: Any, tokenizer: Any = None) -> Meaning:
        """What `document` gave, checked.

        Args:
            document: Plain data from anywhere.
            tokenizer: The tokenizing function, where the text was cut by one of the user's own.

        Raises:
            ModelFileError: it is no such document.
        """
        if not isinstance(document, Mapping) or document.get("task") not in _TASKS:
            raise ModelFileError(f"the model file does not say what the model does: {document!r:.200}")
        kind, spec = document.get("kind"), document.get("spec")
        try:
            classes = _named(document.get("classes"), "the model file's meaning.classes")
            columns = _named(
                document.get("columns", []), "the model file's meaning.columns"
            )  # the first files have none
        except ArgumentError as error:
            raise ModelFileError(str(error)) from error
        outputs = document.get("outputs", "logits")
        if outputs not in _OUTPUTS:
            raise ModelFileError(
                f"the model file's meaning.outputs must be one of {', '.join(_OUTPUTS)}: {outputs!r:.80}"
            )
        try:
            made = _read_spec(kind, spec, tokenizer)
        except Exception as error:  # it comes from outside, and whoever reads it may stumble in any way
            raise ModelFileError(f"the model file's preprocessing (meaning.spec) cannot be read: {error}") from error
        return cls(
            kind=kind,  # type: ignore[arg-type]
            preprocessing=made,
            task=document["task"],
            classes=classes,
            columns=_columns(kind, made, columns),
            outputs=outputs,
        )

    def check_outputs(self, shape: Sequence[int]) -> None:
        """Whether the classes fit what a model gives.

        Args:
            shape: Of the outputs for a batch.

        Raises:
            ArgumentError: there are more or fewer names than outputs.
        """
        width = shape[1] if len(shape) == 2 else 1
        wanted = 1 if self.task == "binary" else len(self.classes)
        if self.task == "classification" and width == 1 and len(self.classes) == 2:
            raise ArgumentError('the model gives one number for two classes; say task="binary"')
        if self.task != "regression" and (len(shape) > 2 or width != wanted):
            raise ArgumentError(
                f"the model gives {list(shape[1:])} values for an input, and {self.task} with the "
                f"{len(self.classes)} classes {list(self.classes)[:5]!r:.200} needs {wanted}"
            )


def _named(names: Any, field: str) -> tuple[str, ...]:
    """Classes or columns as they may stand in a file: each once, and none longer than a name."""
    if not isinstance(names, list):
        raise ArgumentError(f"{field} must be a list of names, not {names!r:.200}")
    if len({_bounds.text(name, f"{field} must be a list of names, each of which") for name in names}) < len(names):
        raise ArgumentError(f"{field} must be names that differ, not {names[:10]!r:.200}")
    return tuple(names)


def _columns(kind: Any, spec: Any, named: Sequence[str]) -> tuple[str, ...]:
    """The columns of the inputs: a schema knows its own."""
    return tuple(column.name for column in spec.columns if column.used) if kind == "table" else tuple(named)


def _read_spec(kind: Any, spec: Any, tokenizer: Any) -> Any:
    if kind == "tensor" and spec is None:
        return None
    if kind == "image" and isinstance(spec, Mapping):
        made = from_json(spec)
        if isinstance(made, Preprocessing):
            return made.for_evaluation()
    elif kind == "table" and isinstance(spec, Mapping):
        return importlib.import_module(_SCHEMA_HOME).Schema.from_json(json.dumps(spec))
    elif kind == "text" and isinstance(spec, Mapping):
        return TextSpec.from_spec(spec, tokenizer=tokenizer)
    raise ModelFileError(f"the model file says that the model takes {kind!r}, prepared by {type(spec).__name__}")


_KINDS: dict[str, Kind] = {"Preprocessing": "image", "Schema": "table", "TextSpec": "text"}


def _of_model(model: nn.Module) -> Any:
    own = getattr(model, "preprocessing", None)
    return own if own is not None else getattr(model, "schema", None)


def _spec(given: Any) -> Any:
    """The preprocessing itself, from one, from its plain data, or from a dataset."""
    if given is None:
        return None
    found = spec_in(from_json(given) if isinstance(given, Mapping) else given)
    if found is not None:
        return found
    raise ArgumentError(
        f"preprocessing must be a transform of dlkit.transforms, a Schema, a TextSpec, or a dataset that has one; "
        f"{type(given).__name__} has none that a file can hold"
    )


def _names(spec: Any, data: Any, model: nn.Module) -> Any:
    columns = getattr(getattr(spec, "target", None), "columns", None)
    return classes_in(spec) or classes_in(data) or columns or classes_in(model)


def _guess(kind: Kind, names: Any, data: Any) -> str | None:
    targets = getattr(data, "targets", None)
    if isinstance(targets, Tensor) and targets.is_floating_point():
        return "multilabel" if names and targets.dim() == 2 else "regression"
    if kind == "text" and not names:
        return "regression"
    return "classification"


def describe_example(meaning: Meaning, example: Any) -> Any:
    """A small input as plain data: shape, type and range of each tensor. Its values follow from these.

    Args:
        meaning: What the model takes.
        example: An input of the caller's own, where the kind is "tensor"; its batch is cut to two.

    Raises:
        ArgumentError: an example is needed, or is none of tensors.
    """
    if example is not None:
        return _described(example)
    spec = meaning.preprocessing
    if meaning.kind == "image":
        return _values([2, *spec.shape], "float32", -2.0, 2.0)
    if meaning.kind == "text":
        return {
            "input_ids": _values([2, 8], "int64", 0, len(spec.encoder)),
            "attention_mask": _values([2, 8], "bool", 1, 2),
        }
    if meaning.kind == "table":
        numbers, codes = len(spec.numeric_features), [size for size, _ in spec.embedding_sizes()]
        parts = {"numeric": _values([2, numbers], "float32", -2.0, 2.0)} if numbers else {}
        parts |= {"categorical": _values([2, len(codes)], "int64", 0, min(codes))} if codes else {}
        return parts if codes else parts["numeric"]
    raise ArgumentError("a model of bare tensors needs an example of its input: dlkit.save(..., example=batch)")


def _values(shape: Sequence[int], dtype: str, low: float, high: float) -> dict[str, Any]:
    return {"shape": list(shape), "dtype": dtype, "low": low, "high": high}


def _described(example: Any) -> Any:
    if isinstance(example, Tensor):
        dtype = "float32" if example.is_floating_point() else "bool" if example.dtype == torch.bool else "int64"
        known = example.double() if example.numel() else torch.zeros(1)
        low, high = float(known.min()), float(known.max())
        bounds = (low, max(high, low + 1e-6)) if dtype == "float32" else (int(low), int(high) + 1)
        return _values([min(example.shape[0], 2), *example.shape[1:]] if example.dim() else [], dtype, *bounds)
    if isinstance(example, Mapping):
        return {str(name): _described(value) for name, value in example.items()}
    if isinstance(example, tuple | list):
        return [_described(value) for value in example]
    raise ArgumentError(f"example must be a tensor, or a dict or tuple of tensors, not {type(example).__name__}")


def make_example(description: Any) -> Any:
    """The input that a description stands for: the same numbers on every machine, for ever.

    Args:
        description: What `describe_example` gave, also after a way through JSON.

    Raises:
        ModelFileError: it is no such description, or stands for far too much.
    """
    left = _bounds.EXAMPLE
    for field, shape in _shapes(description, "example.input"):
        left -= math.prod(shape)
        if left < 0:
            raise ModelFileError(
                f"the model file's example cannot be read: with {field}.shape={shape!r:.80} it has more than "
                f"{_bounds.EXAMPLE:,} values; save the model with a smaller example="
            )
    return _made(description)


def _shapes(description: Any, field: str) -> Iterator[tuple[str, list[int]]]:
    """The shape of each tensor of a description, checked, and which field has it."""
    parts: Any = None
    if isinstance(description, list):
        parts = enumerate(description)
    elif isinstance(description, Mapping) and set(description) != _FIELDS:
        parts = description.items()
    if parts is not None:
        if len(description) > _bounds.INPUTS:
            raise ModelFileError(f"the model file's {field} has {len(description)} parts; {_bounds.INPUTS} are allowed")
        for key, each in parts:
            yield from _shapes(each, f"{field}.{key}"[:200])
        return
    good = isinstance(description, Mapping) and description["dtype"] in list(_DTYPES)
    good = good and isinstance(description["shape"], list) and len(description["shape"]) <= _bounds.DIMENSIONS
    good = good and all(type(size) is int and 0 <= size <= _bounds.EXAMPLE for size in description["shape"])
    bounds = [description[name] for name in ("low", "high")] if good else []
    if (
        not good
        or not all(type(each) in (int, float) and abs(each) < 1e30 for each in bounds)
        or bounds[0] >= bounds[1]
    ):
        raise ModelFileError(f"the model file's example cannot be read: {field} is {description!r:.200}")
    yield field, description["shape"]


def _made(description: Any) -> Any:
    if isinstance(description, list):
        return tuple(_made(each) for each in description)
    if set(description) != _FIELDS:
        return {name: _made(each) for name, each in description.items()}
    shape, dtype, low, high = (description[name] for name in ("shape", "dtype", "low", "high"))
    # Knuth's multiplicative hash: integers below 2**53 throughout, so no machine rounds.
    steps = torch.arange(1, math.prod(shape) + 1, dtype=torch.int64) * 2654435761 % (1 << 32)
    values = low + (high - low) * (steps.double() / (1 << 32))
    return (values if dtype == "float32" else values.floor()).to(_DTYPES[dtype]).reshape(shape)
