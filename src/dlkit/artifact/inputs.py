"""What a model takes and what its outputs mean, as plain data for the model file, and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dlkit import _bounds
from dlkit._kinds import Spec, Task, values
from dlkit.declared import check_same, classes_in, spec_in, target_in, task_in
from dlkit.errors import ArgumentError, ModelFileError
from dlkit.specs.builtin import KINDS
from dlkit.specs.table import Target

__all__ = ["Meaning", "describe_example", "make_example"]

Outputs = Literal["logits", "probabilities", "logarithms"]

_TASKS = get_args(Task)
_OUTPUTS = ("logits", "probabilities", "logarithms")
_FIELDS = {"shape", "dtype", "low", "high"}
_DTYPES = {str(kind).removeprefix("torch."): kind for kind in (torch.float32, torch.int64, torch.bool)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meaning:
    """What goes in and what comes out.

    Attributes:
        kind: That of the spec, such as "image", "table" or "text"; "tensor" for what the caller prepares.
        preprocessing: The `Spec`: a `Preprocessing`, a `TableSpec`, a `TextSpec`; None for "tensor".
        task: "classification", "binary", "multilabel" or "regression".
        classes: The classes' names in the order of the outputs; for regression the names of the outputs, if known.
        columns: The names of the columns that inputs are in, where they come from a table: of the texts, of the image
            files, of the features; empty where none are known.
        outputs: "logits" (log-probabilities as well; of a regression the values); "probabilities", where the model ends
            in a sigmoid or softmax; "logarithms" of a regression's values.
        scaled: How the numbers of a regression are scaled, where the spec of the inputs says nothing of targets.
        thresholds: Of two classes, one: above which probability of the second it is the answer; of several labels one
            each, above which it is there. Empty for one half.
    """

    kind: str
    preprocessing: Any
    task: Task
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    outputs: Outputs = "logits"
    scaled: Target | None = None
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.thresholds:
            return
        wanted = len(self.classes) if self.task == "multilabel" else 1
        if self.task == "regression" or (wanted == 1 and len(self.classes) != 2) or len(self.thresholds) != wanted:
            raise ArgumentError(
                "thresholds are one for two classes, or one for each of several labels; "
                f"{self.task} with {len(self.classes)} classes has {len(self.thresholds)}"
            )
        if not all(type(each) is float and 0 < each < 1 for each in self.thresholds):
            raise ArgumentError(f"thresholds must be probabilities between 0 and 1, not {self.thresholds!r:.200}")

    @property
    def target(self) -> Target | None:
        """How the numbers of a regression are scaled back, as the spec or the data says; None where they are not."""
        own: Target | None = getattr(self.preprocessing, "target", None)
        return own or self.scaled

    @classmethod
    def find(
        cls,
        model: nn.Module,
        preprocessing: Any,
        classes: Sequence[Any] | None,
        task: str | None,
        outputs: str | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> Meaning:
        """What the caller said, else what the preprocessing, a dataset, or the model itself knows.

        Args:
            model: Its `preprocessing`, `spec`, `classes` and `num_outputs` are looked at.
            preprocessing: A `Preprocessing`, `TableSpec`, `TextSpec`, or a dataset that has one.
            classes: The names.
            task: The task.
            outputs: What the outputs are; None for logits.
            thresholds: See `Meaning`; None for one half.

        Raises:
            ArgumentError: something is missing or invalid.
            DataError: the model hears sounds of another rate.
        """
        data = preprocessing
        spec = spec_in(preprocessing if preprocessing is not None else model)
        if spec is None and preprocessing is not None:
            raise ArgumentError(
                "preprocessing must be a transform of dlkit.transforms, a TableSpec, a TextSpec, or a dataset that has "
                f"one; {type(preprocessing).__name__} has none that a file can hold"
            )
        if isinstance(heard := getattr(model, "spec", None), Spec):
            check_same(heard, spec, there="the model", here="the preprocessing")
        names = classes if classes is not None else _names(spec, data, model)
        task = task or task_in(data) or task_in(spec) or "classification"
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
        return cls(
            kind="tensor" if spec is None else spec.kind,
            preprocessing=spec,
            task=task,  # type: ignore[arg-type]
            classes=named,
            columns=_columns(spec, getattr(data, "input_columns", ())),
            outputs=outputs or "logits",  # type: ignore[arg-type]
            thresholds=tuple(map(float, thresholds or ())),
            scaled=None if hasattr(spec, "target") or task != "regression" else target_in(data),
        )

    def document(self) -> dict[str, Any]:
        """As plain data."""
        spec = self.preprocessing
        found = {
            "kind": self.kind,
            "spec": None if spec is None else spec.document(),
            "task": self.task,
            "classes": list(self.classes),
        }
        found |= {} if self.outputs == "logits" else {"outputs": self.outputs}
        found |= {"thresholds": list(self.thresholds)} if self.thresholds else {}
        found |= {} if self.scaled is None else {"target": self.scaled.document()}
        return found if spec is not None and spec.input_columns else found | {"columns": list(self.columns)}

    @classmethod
    def from_document(cls, document: Any, tokenizer: Any = None) -> Meaning:
        """What `document` gave, checked.

        Args:
            document: Plain data from anywhere.
            tokenizer: The tokenizing function, where the text was cut by one of the user's own.

        Raises:
            ModelFileError: it is not such a document.
        """
        if not isinstance(document, Mapping) or document.get("task") not in _TASKS:
            raise ModelFileError(f"the model file does not say what the model does: {document!r:.200}")
        kind, spec = str(document.get("kind")), document.get("spec")
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
            scaled = Target.from_document(document["target"]) if "target" in document else None
        except Exception as error:  # it comes from outside, and whoever reads it may stumble in any way
            raise ModelFileError(f"the model file's preprocessing (meaning.spec) cannot be read: {error}") from error
        thresholds = document.get("thresholds", [])
        if not isinstance(thresholds, list):
            raise ModelFileError(f"the model file's meaning.thresholds must be a list: {thresholds!r:.80}")
        try:
            return cls(
                kind=kind,
                preprocessing=made,
                task=document["task"],
                classes=classes,
                columns=_columns(made, columns),
                outputs=outputs,
                scaled=scaled,
                thresholds=tuple(thresholds),
            )
        except ArgumentError as error:
            raise ModelFileError(f"the model file's meaning.thresholds: {error}") from error

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
    """Classes or columns as they may be in a file: each once, and none longer than a name."""
    if not isinstance(names, list):
        raise ArgumentError(f"{field} must be a list of names, not {names!r:.200}")
    if len({_bounds.text(name, f"{field} must be a list of names, each of which") for name in names}) < len(names):
        raise ArgumentError(f"{field} must be names that differ, not {names[:10]!r:.200}")
    return tuple(names)


def _columns(spec: Spec | None, named: Sequence[str]) -> tuple[str, ...]:
    """The columns of the inputs, unless the spec itself says which."""
    return (spec is not None and spec.input_columns) or tuple(named)


def _read_spec(kind: str, spec: Any, tokenizer: Any) -> Spec | None:
    if kind == "tensor" and spec is None:
        return None
    if kind not in KINDS:
        raise ModelFileError(
            f"the model takes inputs of the kind {kind!r:.60}, which is not known here: there are {', '.join(KINDS)}; "
            "import the module that defines it before loading"
        )
    return KINDS[kind].from_document(spec, tokenizer=tokenizer).for_evaluation()


def _names(spec: Any, data: Any, model: nn.Module) -> Any:
    columns = getattr(getattr(spec, "target", None), "columns", None)
    return classes_in(spec) or classes_in(data) or columns or classes_in(model)


def describe_example(meaning: Meaning, example: Any, *, small: bool = False) -> Any:
    """A small input as plain data: shape, type and range of each tensor. Its values follow from these.

    Args:
        meaning: What the model takes.
        example: An input of the caller's own, where the kind is "tensor"; its batch is cut to two.
        small: See `Spec.example`.

    Raises:
        ArgumentError: an example is needed, or is none of tensors.
    """
    if example is not None:
        return _described(example)
    if meaning.preprocessing is None:
        raise ArgumentError("a model of bare tensors needs an example of its input: dlkit.save(..., example=batch)")
    return meaning.preprocessing.example(small=small)


def _described(example: Any) -> Any:
    if isinstance(example, Tensor):
        dtype = "float32" if example.is_floating_point() else "bool" if example.dtype == torch.bool else "int64"
        known = example.double() if example.numel() else torch.zeros(1)
        low, high = float(known.min()), float(known.max())
        bounds = (low, max(high, low + 1e-6)) if dtype == "float32" else (int(low), int(high) + 1)
        return values([min(example.shape[0], 2), *example.shape[1:]] if example.dim() else [], dtype, *bounds)
    if isinstance(example, Mapping):
        return {str(name): _described(value) for name, value in example.items()}
    if isinstance(example, tuple | list):
        return [_described(value) for value in example]
    raise ArgumentError(f"example must be a tensor, or a dict or tuple of tensors, not {type(example).__name__}")


def make_example(description: Any) -> Any:
    """The input that a description stands for: the same numbers on every machine, forever.

    Args:
        description: What `describe_example` gave, also after a way through JSON.

    Raises:
        ModelFileError: it is not such a description, or stands for far too much.
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
    numbers = low + (high - low) * (steps.double() / (1 << 32))
    return (numbers if dtype == "float32" else numbers.floor()).to(_DTYPES[dtype]).reshape(shape)
