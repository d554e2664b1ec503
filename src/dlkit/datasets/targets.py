"""Targets of samples that are all at hand: what they are, and their tensor; for images, texts and sounds alike.

`dlkit.reading.targets` has the rule itself. A table's own targets, which may come from a stream, follow the same rule
in `dlkit.datasets.tables`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlkit.errors import ArgumentError
from dlkit.reading.cells import Array, Strings, by_row, strings_of
from dlkit.reading.classes import few, stated_order
from dlkit.reading.parsing import DEFAULT_MISSING, mostly_numbers, number_format, parse_number, under_mark
from dlkit.reading.targets import (
    ClassNumbers,
    check_count,
    class_names,
    class_order,
    label_rows,
    split_labels,
    target_text,
    task_of,
)

__all__ = ["TargetReader", "Targets", "TaskChoice"]

TaskChoice = Literal["auto", "classification", "regression", "multilabel"]
_TASKS = ("auto", "classification", "regression", "multilabel")


@dataclass(frozen=True, kw_only=True)
class TargetReader:
    """What the caller says of targets, and what follows for the columns that hold them.

    A new kind of dataset reads its table (`dlkit.reading.reader.read_table`, columns as text), takes each target column
    through `spelled` and deals with the rows that have no target, hands all rows to `find`, and asks the answer to
    `encode` them, or the rows of a part of them. One that has files in a table does it by
    `dlkit.datasets.files.table.read_file_table`.

    Args:
        task: "auto" decides by the cells: words, truth values and few different whole numbers are classes.
        classes: Their names in the order of the numbers, or a mapping to these; None for those that occur.
        label_separator: Between the labels of one cell; None for one target each.
        missing: Marks that mean "no target".
        decimal: The decimal mark of the file; "" where nothing tells.

    Raises:
        ArgumentError: no such task, or classes that are not an order.

    >>> reader = TargetReader()
    >>> cells, problems = reader.spelled(strings_of(["b10", "b2", " b10"]))
    >>> found = reader.find(columns := {"label": cells})
    >>> found.classes, found.encode(columns)
    (('b2', 'b10'), (tensor([1, 0, 1]), {}))
    """

    task: TaskChoice = "auto"
    classes: Mapping[str, int] | Sequence[Any] | None = None
    label_separator: str | None = None
    missing: Sequence[str] = DEFAULT_MISSING
    decimal: str = ""

    def __post_init__(self) -> None:
        if self.task not in _TASKS:
            raise ArgumentError(f"task must be one of {', '.join(_TASKS)}, not {self.task!r}")
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(stated_order(self.classes)))

    def spelled(self, cells: Strings) -> tuple[Strings, dict[int, str]]:
        """Cells as targets are compared, and what is wrong with the rows that have none, to follow the row's place.

        Args:
            cells: A column as it was read, or a part of one.

        Returns:
            The cells, absent where there is no target; by row why it has none, or one that is not among the classes.
        """
        raw = cells.pool.tolist()
        texts = [target_text(text, self.missing) for text in raw]
        known = None if self.classes is None else ClassNumbers(tuple(self.classes))
        problems = ((code, self._problem(raw[code], text, known)) for code, text in enumerate(texts))
        wrong = {code: why for code, why in problems if why is not None}
        found = strings_of(texts)
        return Strings(cells.mapped(found.codes, -1, np.int32), found.pool), by_row(cells, wrong, "has no target")

    def _problem(self, raw: str, text: str | None, known: ClassNumbers | None) -> str | None:
        if text is None:
            means = f": {raw!r} means that there is none; missing=[] keeps it" if raw.strip() else ""
            return f"has no target{means}"
        if known is None:
            return None
        several = self.label_separator is not None or self.task == "multilabel"
        odd = next(
            (name for name in (split_labels(text, self._between) if several else [text]) if known.get(name) < 0), None
        )
        return odd and f"has the target {odd!r:.80}, which is not among the classes {few(list(known))}"

    @property
    def _between(self) -> str:
        return self.label_separator or "|"

    def find(self, columns: Mapping[str, Strings]) -> Targets:
        """What some columns are.

        Args:
            columns: One, or several of numbers or of the labels 0 and 1, `spelled`; all rows.

        Raises:
            ArgumentError: they are not what `task` says.
            DataError: nearly every row is a class of its own, or there is no target at all.
        """
        if len(columns) > 1:
            return self._several(columns)
        ((name, cells),) = columns.items()
        counts = _counts(cells)
        if self.task == "multilabel" or (self.task == "auto" and self.label_separator is not None):
            labels = {label for text in counts for label in split_labels(text, self._between)}
            return Targets("multilabel", tuple(self.classes or class_order(labels)), separator=self._between)
        if self.task == "regression" or (self.task == "auto" and self.classes is None and self._are_quantities(counts)):
            return Targets("regression", forms=(self._form(counts),))
        if self.classes is not None:
            return Targets("classification", tuple(self.classes))
        names = class_names(counts)
        check_count(name, len(names), sum(counts.values()))
        return Targets("classification", names)

    def _are_quantities(self, counts: Mapping[str, int]) -> bool:
        return task_of(list(counts), list(counts.values()), self.decimal)[0] == "regression"

    def _form(self, counts: Mapping[str, int]) -> str:
        found = number_format(list(counts), self.decimal) or mostly_numbers(counts, self.decimal)
        return found or under_mark("plain", self.decimal)

    def _several(self, columns: Mapping[str, Strings]) -> Targets:
        if self.task == "classification":
            raise ArgumentError("classification takes one target column; several are labels (multilabel) or numbers")
        forms = tuple(self._form(_counts(cells)) for cells in columns.values())
        flags = all(
            parse_number(text, form) in (0, 1)
            for cells, form in zip(columns.values(), forms, strict=True)
            for text in _counts(cells)
        )
        if self.task == "multilabel" or (self.task == "auto" and flags):
            return Targets("multilabel", tuple(columns), forms=forms)
        return Targets("regression", forms=forms)


@dataclass(frozen=True)
class Targets:
    """What the targets of samples are.

    Attributes:
        task: Of a model that learns them.
        classes: Class or label names in the order of the targets; empty for a regression.
        forms: How numbers are written, for each column that holds numbers; see `dlkit.reading.parsing.number_format`.
        separator: Between the labels of one cell.
    """

    task: Literal["classification", "regression", "multilabel"]
    classes: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    separator: str | None = None

    def encode(self, columns: Mapping[str, Strings]) -> tuple[Tensor, dict[int, str]]:
        """The targets of some rows, and what is wrong with those that are no numbers but should be.

        Args:
            columns: As `TargetReader.find` was given them, with the same or fewer rows.

        Returns:
            int64 [N] class numbers; float32 [N] for a regression, [N, K] for several columns or labels; and by row what
            is wrong with it, to follow its place. What stands in the place of such a row means nothing.
        """
        if self.forms:
            return self._numbers(columns)
        ((_, cells),) = columns.items()
        known, texts = ClassNumbers(self.classes), cells.pool.tolist()
        if self.separator is None:
            return torch.from_numpy(cells.mapped([known.get(text) for text in texts], -1, np.int64)), {}
        return torch.from_numpy(label_rows(texts, self.classes, self.separator)[0][cells.codes]), {}

    def _numbers(self, columns: Mapping[str, Strings]) -> tuple[Tensor, dict[int, str]]:
        flags, problems, values = self.task == "multilabel", dict[int, str](), list[Array]()
        for (name, cells), form in zip(columns.items(), self.forms, strict=True):
            texts, where = cells.pool.tolist(), f" in column {name!r}" if len(columns) > 1 else ""
            numbers = [parse_number(text, form) for text in texts]
            wrong = {
                code: f"has the target {texts[code]!r:.80}{where}, which is not {'0 or 1' if flags else 'a number'}"
                for code, number in enumerate(numbers)
                if number is None or not (number in (0, 1) if flags else np.isfinite(number))
            }
            problems = by_row(cells, wrong) | problems
            values.append(cells.mapped([number or 0.0 for number in numbers], 0.0, np.float64).astype(np.float32))
        return torch.from_numpy(np.stack(values, 1) if len(values) > 1 else values[0]), problems


def _counts(cells: Strings) -> dict[str, int]:
    """How often each target occurs."""
    every = zip(cells.pool.tolist(), cells.counts().tolist(), strict=True)
    return {text: count for text, count in every if count}
