"""What a table's columns mean and become: kinds, parameters fitted on the training rows, target. Plain JSON."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from dlkit import _bounds
from dlkit._documents import Document, DocumentPart
from dlkit._html import facts, table
from dlkit._kinds import Spec, Task, values
from dlkit._language import Message
from dlkit._near import hint
from dlkit._opening import open_regular
from dlkit._showing import Lines, safe
from dlkit.errors import ArgumentError, DataError
from dlkit.specs.columns import CategoryColumn, Column, NumberColumn
from dlkit.storage.files import write_json

__all__ = ["TableSpec", "Target", "part_names"]

_HEAD = ("column", "kind", "missing", "becomes", "why")
_SMALL = 64  # pixels of an example
_COARSE = 1e-4  # of the target's scale: a rounding that shows in no error of a model
# Of a column or target: how it was found, not what it means.
_FOUND = ("rows", "missing", "why")


@dataclass(frozen=True, kw_only=True)
class Target(Document):
    """What is to be learnt.

    Attributes:
        columns: Its columns; several only for regression and multi-label data.
        task: classification (int64 class numbers), binary (float32 0 and 1), regression, multilabel (float32 0 and 1).
        why: Why it is this task, in words.
        classes: In the order of their numbers; for binary the second is 1; empty for regression.
        label_separator: Between the labels of one cell.
        forms: Per column, how text is read as numbers; empty for "plain".
        center: For regression, per column: samples hold `(value - center) / scale`.
        scale: See `center`.
    """

    columns: tuple[str, ...]
    task: Task
    why: str
    classes: tuple[str, ...] = ()
    label_separator: str | None = None
    forms: tuple[str, ...] = ()
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def form(self, place: int) -> str:
        """How the text of a column is read as numbers.

        Args:
            place: Which column, 0 for the first.
        """
        return self.forms[place] if self.forms else "plain"

    @property
    def num_outputs(self) -> int:
        """How many numbers a model has to give per row."""
        if self.task == "binary":
            return 1
        return len(self.columns) if self.task == "regression" else len(self.classes)

    def unscale(self, values: Tensor) -> Tensor:
        """Targets or predictions of a regression in the units of the file; anything else as it is.

        Computed in float64, and given in the type of `values` unless that is too coarse for the unit: around 10**9
        float32 knows only every 64th number.

        Args:
            values: [B] for one target column, [B, columns] for several; or these in more dimensions, in the same order.
        """
        if self.task != "regression":
            return values
        exact = torch.float32 if values.device.type == "mps" else torch.float64  # MPS has no float64
        center, scale = (torch.tensor(both, dtype=exact, device=values.device) for both in (self.center, self.scale))
        if values.dim() > 2:
            return self.unscale(values.flatten(1)).view(values.shape)
        back = values.to(exact) * (scale[0] if len(scale) == 1 else scale) + (center[0] if len(center) == 1 else center)
        given = values.dtype if values.is_floating_point() else exact
        step = torch.finfo(given).eps
        coarse = any(abs(c) * step > _COARSE * s for c, s in zip(self.center, self.scale, strict=True))
        return back if coarse else back.to(given)

    def __str__(self) -> str:
        return str(self._told())

    def _told(self) -> Message:
        own = {"columns": ", ".join(self.columns), "task": self.task, "why": self.why}
        if self.task == "regression":
            spread = ", ".join(f"(y - {c:.4g}) / {s:.4g}" for c, s in zip(self.center, self.scale, strict=True))
            return Message("target {columns}: {task}, {spread} ({why})", spread=spread, **own)
        few = ", ".join(f"{number} = {name}" for number, name in enumerate(self.classes[:10]))
        few += ", ..." if len(self.classes) > 10 else ""
        count = len(self.classes)
        return Message("target {columns}: {task}, {count} classes: {classes} ({why})", count=count, classes=few, **own)


@dataclass(frozen=True, kw_only=True)
class TableSpec(Spec):
    """How the rows of a table become tensors; `print` it to see, `save` it to keep it.

    Attributes:
        columns: In the table's order, without the target.
        target: None for data without one.
        marks: What counted as missing.
        header: The names of all columns of data without a header row, the target included; new data is read so, too.
        decimal: "," where that was the decimal mark of the data; else "".
        images: How images are prepared for evaluation, as the JSON of a `Preprocessing`; empty without images, and
            where a custom transform prepares them.

    >>> column = CategoryColumn(name="sex", kind="category", why="2 values", vocabulary=("male", "female"))
    >>> spec = TableSpec(columns=(column,))
    >>> TableSpec.from_json(spec.to_json()) == spec
    True
    >>> spec["sex"].num_codes, spec.categorical_features
    (5, ['sex'])
    """

    kind: ClassVar[str] = "table"
    noun: ClassVar[str] = "a table"
    way: ClassVar[str] = (
        "read it with the same spec: CSVDataset(..., spec=train.spec), or cut one table into parts: CSVDataset.split"
    )
    _title: ClassVar[str] = "the table spec"
    _head: ClassVar[Mapping[str, Any]] = {"format": "dlkit.table-schema", "version": 1}

    columns: tuple[Column, ...]
    target: Target | None = None
    marks: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    decimal: str = ""
    images: str = ""

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"no column {name!r}; {hint(name, (column.name for column in self.columns))}")

    def of_kind(self, *kinds: str) -> list[Column]:
        """The columns of some kinds, in order.

        Args:
            kinds: See `Column.kind`.
        """
        return [column for column in self.columns if column.kind in kinds]

    @property
    def numbers(self) -> list[NumberColumn]:
        """The columns that become numbers (numeric, boolean and date columns)."""
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
        """The parts of a sample's inputs, a subset of "numeric", "categorical", "text", "image"."""
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

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that the model gets to see."""
        return tuple(column.name for column in self.columns if column.used)

    def example(self, *, small: bool = False) -> Any:
        """Numbers and codes of two rows; of texts the numbers of eight words, as models of `dlkit.models` take them.

        Args:
            small: Smaller images, where they are large.

        Raises:
            ArgumentError: there are images, and a custom transform prepares them.
        """
        texts, pictures = ([column.name for column in self.of_kind(kind)] for kind in ("text", "image"))
        if pictures and not self.images:
            raise ArgumentError(
                f"a model of tables with the image column {pictures[0]!r}, which a custom transform prepares, "
                "needs an example of its input: dlkit.save(..., example=batch)"
            )
        numbers, codes = len(self.numeric_features), [column.num_codes for column in self.categories]
        parts = {"numeric": values([2, numbers], "float32", -2.0, 2.0)} if numbers else {}
        parts |= {"categorical": values([2, len(codes)], "int64", 0, min(codes))} if codes else {}
        parts |= {name: values([2, 8], "int64", 0, 100) for name in part_names("text", texts)}
        parts |= {name: self._example_image(small) for name in part_names("image", pictures)}
        return parts if set(parts) != {"numeric"} else parts["numeric"]

    def _example_image(self, small: bool) -> Any:
        prepared = json.loads(self.images)
        sides = [min(side, _SMALL) if small else side for side in prepared["size"]]
        return values([2, len(prepared["mean"]), *sides], "float32", -2.0, 2.0)

    def compared(self) -> dict[str, Any]:
        """Target, names, columns and marks, without how they were found."""
        columns = {column.name: column.document() for column in self.columns if column.used}
        plain = {
            "columns": list(columns),
            "column": {name: {k: v for k, v in column.items() if k not in _FOUND} for name, column in columns.items()},
            "missing values": list(self.marks),
        }
        if self.target is None:  # which says nothing of it
            return plain
        return {"target": {k: v for k, v in self.target.document().items() if k not in _FOUND}, **plain}

    @classmethod
    def _read(cls, document: Mapping[str, Any], place: DocumentPart, tokenizer: Any) -> Self:
        spec = super()._read(document, place, tokenizer)
        _check(spec)
        return spec

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the spec to a JSON file, whole or not at all.

        Args:
            path: The file.
        """
        write_json(path, self.document())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TableSpec:
        """Read the spec that `save` wrote.

        Args:
            path: The file.
        """
        with open_regular(path, noun="spec file") as file:
            content = file.read()
        try:
            return cls.from_json(content)
        except ArgumentError as error:
            raise DataError(f"{path}: {error}") from error

    def __repr__(self) -> str:
        kinds = Counter(column.kind for column in self.columns)
        found = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
        target = "no target" if self.target is None else f"target {', '.join(self.target.columns)}: {self.target.task}"
        return safe(f"TableSpec({len(self.columns):,} columns: {found}; {target})")

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        return [(c.name, c.kind, _share(c.missing, c.rows), c.becomes(), c.why) for c in self.columns]

    def _repr_html_(self) -> str:
        return facts(str(self.target or "no target"), {}) + table(_HEAD, self._rows())

    def __str__(self) -> str:
        rows = [_HEAD, *self._rows()]
        widths = [max(len(row[place]) for row in rows) for place in range(4)]
        told = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
            for row in rows
        ]
        return Lines.of(*told, str(self.target or "no target")).plain()


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.0%})" if part else "0"


def _check(spec: TableSpec) -> None:
    names = [column.name for column in spec.columns]
    if len(set(names)) < len(names):
        raise ArgumentError("the table spec names a column twice")
    for column in spec.numbers:
        if not column.parts:
            raise ArgumentError(f"column {column.name!r} of the table spec needs parts")
        for part in column.parts:
            _check_scaling(f"column {column.name!r}", part.center, part.scale, part.fill)
    if spec.decimal not in ("", ","):
        raise ArgumentError(f"the table spec has the unknown decimal mark {spec.decimal!r}")
    if len(spec.header) > _bounds.COLUMNS or len(set(spec.header)) < len(spec.header):
        raise ArgumentError("the header of the table spec has too many names, or one twice")
    target = spec.target
    if target is None:
        return
    if not target.columns:
        raise ArgumentError("the target of the table spec has no columns")
    if target.task == "regression" and not len(target.columns) == len(target.center) == len(target.scale):
        raise ArgumentError("the target of the table spec needs a center and a scale per column")
    for center, scale in zip(target.center, target.scale, strict=False):
        _check_scaling("the target", center, scale)
    if target.forms and len(target.forms) != len(target.columns):
        raise ArgumentError("the target of the table spec needs a form per column, or none")
    if target.task != "regression" and len(set(target.classes)) < max(1, len(target.classes)):
        raise ArgumentError("the target of the table spec needs classes, and each of them once")
    if target.task == "binary" and len(target.classes) != 2:
        raise ArgumentError(f"a binary target of the table spec needs 2 classes, not {len(target.classes)}")


def _check_scaling(where: str, center: float, scale: float, fill: float = 0.0) -> None:
    """A sample holds (value - center) / scale, computed in float64, so both must be such numbers."""
    _bounds.number(scale, f"scale of {where} of the table spec", _bounds.SCALE)
    _bounds.number(center, f"center of {where} of the table spec", _bounds.CENTER)
    _bounds.number(fill, f"fill of {where} of the table spec", _bounds.CENTER)


def part_names(part: str, columns: Sequence[str]) -> list[str]:
    """The names that columns of text or images have in a sample: `text` alone, `text_<column>` among several.

    Args:
        part: "text" or "image".
        columns: The names of the columns.
    """
    return [part] if len(columns) == 1 else [f"{part}_{column}" for column in columns]
