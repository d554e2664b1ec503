"""What a table's columns mean and become: kinds, parameters fitted on the training rows, target. Plain JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from dlkit._files import atomic_write
from dlkit.errors import DataError, DataNotFoundError

__all__ = [
    "CategoryColumn",
    "Column",
    "FIRST",
    "MISSING",
    "NumberColumn",
    "PADDING",
    "Part",
    "Schema",
    "Target",
    "UNSEEN",
]

#: The codes before the vocabulary of every category.
PADDING, MISSING, UNSEEN, FIRST = 0, 1, 2, 3

Task = Literal["classification", "binary", "regression", "multilabel"]
_FORMAT, _VERSION = "dlkit.table-schema", 1
_USED = ("number", "boolean", "date", "category", "text", "image")
_LEFT_OUT = ("identifier", "constant", "free text", "dropped")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the table; this class itself where nothing is fitted (text, images, and what is left out).

    Attributes:
        name: As in the header.
        kind: number, boolean, date, category, text, image; or identifier, constant, free text, dropped: left out.
        why: Why it has this kind, in words.
        rows: Training rows.
        missing: How many of them had nothing here.
    """

    name: str
    kind: str
    why: str
    rows: int = 0
    missing: int = 0

    @property
    def used(self) -> bool:
        """Whether the model gets to see it."""
        return self.kind in _USED

    def becomes(self) -> str:
        """What samples hold in its place, in words."""
        return {"text": "a string", "image": "an image"}.get(self.kind, "left out")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One number of a sample: `(value - center) / scale`, with `fill` as the value where it is missing.

    Attributes:
        name: Of the part of a date; empty where the column is a number itself.
        center: In the column's own units, as the next ones.
        scale: More than 0.
        fill: The training rows' median.
    """

    name: str
    center: float
    scale: float
    fill: float


@dataclass(frozen=True, kw_only=True)
class NumberColumn(Column):
    """A number, a boolean (0 and 1) or the parts of a date.

    Attributes:
        form: How text is read as it, see `dlkit.datasets.tables._parsing`.
        parts: The numbers it becomes.
        indicator: Whether one more number tells that it was missing: where it sometimes was in the training rows.
    """

    form: str
    parts: tuple[Part, ...]
    indicator: bool = False

    def features(self) -> list[str]:
        """The names of the numbers it becomes."""
        names = [f"{self.name} {part.name}".rstrip() for part in self.parts]
        return [*names, f"{self.name} is missing"] if self.indicator else names

    def becomes(self) -> str:
        """What samples hold in its place, in words."""
        if self.kind == "date":
            shown = ", ".join(part.name for part in self.parts)
        else:
            part = self.parts[0]
            shown = f"(x - {part.center:.4g}) / {part.scale:.4g}" if (part.center, part.scale) != (0, 1) else "x"
        shown += f", {self.form}" if self.form not in ("plain", "boolean", "ISO8601") else ""
        return shown + (f"; missing: {self.parts[0].fill:.4g} and a flag" if self.indicator else "")


@dataclass(frozen=True, kw_only=True)
class CategoryColumn(Column):
    """A category: code 0 is padding, 1 missing, 2 unseen, then the vocabulary, most frequent first.

    Attributes:
        vocabulary: The values seen at least `min_freq` times in the training rows.
    """

    vocabulary: tuple[str, ...]

    @property
    def num_codes(self) -> int:
        """How many codes there are, the three special ones included."""
        return FIRST + len(self.vocabulary)

    def becomes(self) -> str:
        """What samples hold in its place, in words."""
        shown = ", ".join(self.vocabulary[:3]) + (", ..." if len(self.vocabulary) > 3 else "")
        return f"code of {len(self.vocabulary)}: {shown}"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be learnt.

    Attributes:
        columns: Its columns; several only for regression and multi-label data.
        task: classification (int64 class numbers), binary (float32 0 and 1), regression, multilabel (float32 0 and 1).
        why: Why it is this task, in words.
        classes: In the order of their numbers; for binary the second is 1; empty for regression.
        separator: Between the labels of one cell.
        form: How text is read as numbers.
        center: For regression, per column: samples hold `(value - center) / scale`.
        scale: See `center`.
    """

    columns: tuple[str, ...]
    task: Task
    why: str
    classes: tuple[str, ...] = ()
    separator: str | None = None
    form: str = "plain"
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    @property
    def num_outputs(self) -> int:
        """How many numbers a model has to give per row."""
        if self.task == "binary":
            return 1
        return len(self.columns) if self.task == "regression" else len(self.classes)

    def unscale(self, values: Tensor) -> Tensor:
        """Targets or predictions of a regression in the units of the file; anything else as it is.

        Args:
            values: [B] for one target column, [B, columns] for several.
        """
        if self.task != "regression":
            return values
        center, scale = (
            torch.tensor(both, dtype=values.dtype, device=values.device) for both in (self.center, self.scale)
        )
        return values * (scale[0] if len(scale) == 1 else scale) + (center[0] if len(center) == 1 else center)

    def __str__(self) -> str:
        shown = f"target {', '.join(self.columns)}: {self.task}"
        if self.task == "regression":
            spread = ", ".join(f"(y - {c:.4g}) / {s:.4g}" for c, s in zip(self.center, self.scale, strict=True))
            return f"{shown}, {spread} ({self.why})"
        few = ", ".join(f"{number} = {name}" for number, name in enumerate(self.classes[:10]))
        return f"{shown}, {len(self.classes)} classes: {few}{', ...' if len(self.classes) > 10 else ''} ({self.why})"


@dataclass(frozen=True, kw_only=True)
class Schema:
    """How the rows of a table become tensors; `print` it to see, `save` it to keep it.

    Attributes:
        columns: In the table's order, without the target.
        target: None for data without one.
        marks: What counted as missing.

    >>> column = CategoryColumn(name="sex", kind="category", why="2 values", vocabulary=("male", "female"))
    >>> schema = Schema(columns=(column,))
    >>> Schema.from_json(schema.to_json()) == schema
    True
    >>> schema["sex"].num_codes, schema.categorical_features
    (5, ['sex'])
    """

    columns: tuple[Column, ...]
    target: Target | None = None
    marks: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"no column {name!r}; there are {', '.join(column.name for column in self.columns)}")

    def of_kind(self, *kinds: str) -> list[Column]:
        """The columns of some kinds, in order.

        Args:
            kinds: See `Column.kind`.
        """
        return [column for column in self.columns if column.kind in kinds]

    @property
    def numbers(self) -> list[NumberColumn]:
        """The columns that become numbers: numbers, booleans and dates."""
        return [column for column in self.columns if isinstance(column, NumberColumn)]

    @property
    def categories(self) -> list[CategoryColumn]:
        """The columns that become codes."""
        return [column for column in self.columns if isinstance(column, CategoryColumn)]

    @property
    def numeric_features(self) -> list[str]:
        """The names of the numbers of a sample, in order."""
        return [name for column in self.numbers for name in column.features()]

    @property
    def categorical_features(self) -> list[str]:
        """The names of the codes of a sample, in order."""
        return [column.name for column in self.categories]

    @property
    def parts(self) -> list[str]:
        """Which parts a sample's inputs have: some of "numeric", "categorical", "text", "image"."""
        there = {
            "numeric": bool(self.numbers),
            "categorical": bool(self.categories),
            "text": bool(self.of_kind("text")),
            "image": bool(self.of_kind("image")),
        }
        return [name for name, has in there.items() if has]

    def embedding_sizes(self) -> list[tuple[int, int]]:
        """(codes, dimensions) per category for `torch.nn.Embedding`: fastai's rule min(600, 1.6 * values ** 0.56)."""
        return [
            (column.num_codes, min(600, round(1.6 * max(len(column.vocabulary), 1) ** 0.56)))
            for column in self.categories
        ]

    def to_json(self) -> str:
        """The whole schema as JSON text; `from_json` gives an equal one."""
        columns = [{"type": type(column).__name__, **_plain(column)} for column in self.columns]
        document = {
            "format": _FORMAT,
            "version": _VERSION,
            "marks": list(self.marks),
            "columns": columns,
            "target": None if self.target is None else _plain(self.target),
        }
        return json.dumps(document, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """The schema that `to_json` wrote.

        Args:
            text: JSON; checked field by field, since it may come from anywhere.

        Raises:
            DataError: it is no such schema; the message names the field.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise DataError(f"a table schema must be JSON, and this is not: {error}") from error
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise DataError(f'this JSON is no table schema: it lacks "format": "{_FORMAT}"')
        if document.get("version") != _VERSION:
            raise DataError(
                f"the table schema has version {document.get('version')!r}, and this dlkit reads version {_VERSION}; "
                "a newer dlkit may read it"
            )
        return _schema_of(document)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the schema to a JSON file, whole or not at all.

        Args:
            path: The file.
        """
        with atomic_write(path) as file:
            file.write(self.to_json().encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Schema:
        """Read the schema that `save` wrote.

        Args:
            path: The file.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise DataNotFoundError(f"no schema file {path}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no table schema: {error}") from error
        try:
            return cls.from_json(text)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def __str__(self) -> str:
        head = ("column", "kind", "missing", "becomes", "why")
        rows = [(c.name, c.kind, _share(c.missing, c.rows), c.becomes(), c.why) for c in self.columns]
        widths = [max(len(row[place]) for row in [head, *rows]) for place in range(4)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
            for row in [head, *rows]
        ]
        return "\n".join([*lines, str(self.target or "no target")])


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.0%})" if part else "0"


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON values; floats keep every bit, as Python writes the shortest text that reads back."""
    return cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(value))))


def _schema_of(document: Mapping[str, Any]) -> Schema:
    kinds = {kind.__name__: kind for kind in (Column, NumberColumn, CategoryColumn)}
    columns = document.get("columns")
    if not isinstance(columns, list) or not all(isinstance(column, dict) for column in columns):
        raise DataError("the table schema's columns must be a list of objects")
    decoded = []
    for column in columns:
        where = f"column {column.get('name')!r}"
        if column.get("type") not in kinds or column.get("kind") not in _USED + _LEFT_OUT:
            raise DataError(f"{where} of the table schema has the unknown kind {column.get('kind')!r}")
        decoded.append(_decode(kinds[column["type"]], {k: v for k, v in column.items() if k != "type"}, where))
    target = document.get("target")
    schema = Schema(
        columns=tuple(decoded),
        target=None if target is None else _decode(Target, target, "the target"),
        marks=_value(tuple[str, ...], document.get("marks"), "marks"),
    )
    _check(schema)
    return schema


def _check(schema: Schema) -> None:
    names = [column.name for column in schema.columns]
    if len(set(names)) < len(names):
        raise DataError("the table schema names a column twice")
    for column in schema.numbers:
        if not column.parts or any(not part.scale > 0 for part in column.parts):
            raise DataError(f"column {column.name!r} of the table schema needs parts with a scale above 0")
    target = schema.target
    if target is None:
        return
    if target.task not in typing.get_args(Task) or not target.columns:
        raise DataError(f"the target of the table schema has the unknown task {target.task!r}, or no columns")
    if target.task == "regression" and not len(target.columns) == len(target.center) == len(target.scale):
        raise DataError("the target of the table schema needs a center and a scale per column")


def _decode(kind: type[_T], data: Any, where: str) -> _T:
    """A dataclass from JSON values, each checked against its type."""
    hints = typing.get_type_hints(kind)
    if not isinstance(data, dict) or set(data) - set(hints):
        raise DataError(f"{where} of the table schema must be an object with {', '.join(hints)}")
    lacking = [
        field.name
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.name not in data
    ]
    if lacking:
        raise DataError(f"{where} of the table schema lacks {', '.join(lacking)}")
    return kind(**{name: _value(hints[name], value, f"{name} of {where}") for name, value in data.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(inner[0], item, where) for item in value)
    if origin is Literal and value in inner:
        return value
    if hint == (str | None) and (value is None or isinstance(value, str)):
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _decode(hint, value, where)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint in (str, int, bool) and type(value) is hint:
        return value
    raise DataError(f"{where} in the table schema must be {getattr(hint, '__name__', hint)}, not {value!r:.60}")
