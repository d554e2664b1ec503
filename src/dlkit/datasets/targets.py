"""What is to be learnt: the one rule for the task, the classes and their order, and what a label means.

Tables in memory and streamed, texts, and tables of images and sounds ask here; recipes and the model file go by the
answer. `dlkit.reading.targets` has how the names of classes are compared and ordered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from dlkit._kinds import Task
from dlkit._language import Message
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.cells import Array, Cells, Numbers, Strings, by_row, cell_text, strings_of, text_of
from dlkit.reading.parsing import as_numbers, fitting_form, without_marks
from dlkit.reading.targets import (
    ClassNumbers,
    check_count,
    class_names,
    class_order,
    label_rows,
    shown_names,
    split_labels,
    stated_order,
    task_of,
    task_of_numbers,
)
from dlkit.reading.typed import MOST_VALUES, Reading, TextFacts, read_cells, reading_of
from dlkit.specs.table import Target

__all__ = [
    "TargetColumn",
    "TargetOptions",
    "TaskChoice",
    "encode_target",
    "find_target",
    "forms_in_file",
    "target_numbers",
    "target_tensor",
]

TaskChoice = Literal["auto", "classification", "regression", "multilabel"]
_TASKS = ("auto", "classification", "binary", "regression", "multilabel")


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """What the caller says of targets.

    A new kind of dataset reads its table (`dlkit.reading.reader.read_table`, columns as text), takes each target column
    through `spelled` and deals with the rows that have no target, asks `find_target` what all rows together are, and
    `target_tensor` for those rows, or for a part of them. One that has files in a table does it by
    `dlkit.datasets.files.table.FilesInTable`.

    Args:
        task: "auto" decides by the cells: words, truth values and few different whole numbers are classes.
        classes: Their names in the order of the numbers, or a mapping to these; None for those that occur.
        label_separator: Between the labels of one cell; None for one target each.
        scale_target: Whether the numbers of a regression are scaled.

    Raises:
        ArgumentError: no such task, or classes that are not an order.

    >>> options = TargetOptions()
    >>> cells, problems = options.spelled(strings_of(["b10", "b2", " b10"]), missing=["NA"])
    >>> target = find_target([TargetColumn.of("label", cells)], options)
    >>> target.classes, target_tensor(target, {"label": cells})
    (('b2', 'b10'), (tensor([1, 0, 1]), {}))
    """

    task: str = "auto"
    classes: Mapping[str, int] | Sequence[Any] | None = None
    label_separator: str | None = None
    scale_target: bool = True

    def __post_init__(self) -> None:
        if self.task not in _TASKS:
            raise ArgumentError(f"task must be one of {', '.join(_TASKS)}, not {self.task!r}")
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(stated_order(self.classes)))

    def spelled(self, cells: Strings, missing: Collection[str]) -> tuple[Strings, dict[int, str]]:
        """Cells as targets are compared, and what is wrong with the rows that have none, to follow the row's place.

        Args:
            cells: A column as it was read, or a part of one.
            missing: Marks that mean "no target".

        Returns:
            The cells, absent where there is no target; by row why it has none, or one that is not among the classes.
        """
        raw = cells.pool.tolist()
        texts = without_marks(raw, missing)
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
        labels = [text] if self.label_separator is None else split_labels(text, self.label_separator)
        odd = next((label for label in labels if known.get(label) < 0), None)
        return odd and f"has the target {odd!r:.80}, which is not among the classes {shown_names(list(known))}"


@dataclass(frozen=True, kw_only=True)
class TargetColumn:
    """What all rows of a column of targets hold.

    Attributes:
        name: Of the column.
        texts: Its texts.
        sorts: What it holds, see `dlkit.reading.cells.sort_of`.
        numbers: Its different finite numbers, where it was read as numbers; `infinite` has the others.
        infinite: See `numbers`.
        there: How many rows hold one of `numbers`.
        decimal: The decimal mark of the table; "" where nothing tells.
    """

    name: str
    texts: TextFacts
    sorts: frozenset[str] = frozenset({"text"})
    numbers: tuple[float, ...] = ()
    infinite: tuple[float, ...] = ()
    there: int = 0
    decimal: str = ""

    @classmethod
    def of(cls, name: str, cells: Strings, decimal: str = "") -> Self:
        """A column that is at hand as a whole.

        Args:
            name: Of the column.
            cells: As `TargetOptions.spelled` gives them.
            decimal: The decimal mark of the table; "" where nothing tells.
        """
        counts = {
            text: count for text, count in zip(cells.pool.tolist(), cells.counts().tolist(), strict=True) if count
        }
        texts = TextFacts(rows=len(cells), missing=int((cells.codes < 0).sum()), counts=counts)
        return cls(name=name, texts=texts, decimal=decimal)

    def task(self) -> tuple[Task, str]:
        """What the column is if it holds no dates, and why."""
        if self.sorts & {"text", "truth"}:
            counts = self.texts.counts
            return task_of(list(counts), list(counts.values()), self.decimal)[:2]
        return task_of_numbers(np.array(self.numbers, dtype=np.float64), self.there)

    def reading(self, forced: str | None = None) -> Reading:
        """How the column is read.

        Args:
            forced: "number" where it has to be one.
        """
        return reading_of(self.sorts, self.texts, decimal=self.decimal, forced=forced)

    def are_flags(self, form: str) -> bool:
        """Whether there are no numbers but 0 and 1.

        Args:
            form: How they are written.
        """
        numbers = as_numbers(strings_of(self.texts.counts), form, ())[0].values
        return {*numbers[np.isfinite(numbers)].tolist(), *self.numbers} <= {0, 1}

    def values(self) -> list[str]:
        """The distinct texts, and numbers as texts."""
        return [*self.texts.counts, *map(cell_text, (*self.numbers, *self.infinite))]


def find_target(columns: Sequence[TargetColumn], options: TargetOptions) -> Target:
    """What some columns are to a model, with the classes; numbers in the units of the file.

    Args:
        columns: One, or several of numbers or of the labels 0 and 1.
        options: What the caller says.

    Raises:
        ArgumentError: they are not what the caller says.
        DataError: nearly every row is its own class, or there is no target at all.
    """
    if len(columns) > 1:
        return _several(columns, options)
    (column,) = columns
    if options.label_separator is not None or options.task == "multilabel":
        return _delimited(column, options)
    task, why = _task(column, options)
    if task == "regression":
        return _unscaled((column.name,), why, (column.reading(forced="number").form,))
    classes = _classes(column, options)
    if task == "binary" and len(classes) != 2:
        raise ArgumentError(
            f"task='binary' needs 2 classes in column {column.name!r}, not {len(classes)}: {', '.join(classes[:9])}"
        )
    known: Task = "binary" if task == "binary" else "classification"
    return Target(columns=(column.name,), task=known, why=why, classes=classes)


def _task(column: TargetColumn, options: TargetOptions) -> tuple[str, str]:
    if options.task != "auto":
        return options.task, Message("named by you")
    if options.classes is not None:
        return "classification", Message("classes named by you")
    if column.reading().kind == "date":
        raise ArgumentError(f"target {column.name!r} holds dates; name a column of classes or numbers")
    return column.task()


def _classes(column: TargetColumn, options: TargetOptions) -> tuple[str, ...]:
    if options.classes is not None:
        return tuple(options.classes)
    if column.texts.more:
        raise DataError(
            f"target {column.name!r} has more than {MOST_VALUES:,} different values, too many for classes; "
            "task='regression' for quantities, classes=[...] if they are right, or another column"
        )
    classes = class_names(column.values())
    check_count(column.name, len(classes), sum(column.texts.counts.values()) + column.there)
    return classes


def _several(columns: Sequence[TargetColumn], options: TargetOptions) -> Target:
    names, auto = tuple(column.name for column in columns), options.task == "auto"
    if options.task in ("classification", "binary"):
        raise ArgumentError(f"task={options.task!r} takes one target column, not {len(names)}: {', '.join(names)}")
    readings = [column.reading(None if auto else "number") for column in columns]
    odd = [name for name, reading in zip(names, readings, strict=True) if reading.kind not in ("number", "boolean")]
    if odd and auto:
        raise ArgumentError(f"several target columns must be numbers, or 0 and 1 for labels; {odd[0]!r} is neither")
    forms = tuple(reading.form for reading in readings)
    if options.task == "multilabel" or (auto and all(map(TargetColumn.are_flags, columns, forms))):
        why = Message("several columns of 0 and 1") if auto else Message("named by you")
        return Target(columns=names, task="multilabel", why=why, classes=names, forms=forms)
    return _unscaled(names, Message("several columns of numbers"), forms)


def _delimited(column: TargetColumn, options: TargetOptions) -> Target:
    separator, name = options.label_separator, column.name
    if not separator:
        raise ArgumentError(
            f"multi-label data in the one column {name!r} needs label_separator=, for example '|'; "
            "or name several target columns of 0 and 1"
        )
    if options.task not in ("auto", "multilabel"):
        raise ArgumentError(f"label_separator= means several labels per row, which task={options.task!r} has not")
    labels = {label for value in column.values() for label in split_labels(value, separator)}
    classes = class_order(labels) if options.classes is None else tuple(options.classes)
    return Target(
        columns=(name,),
        task="multilabel",
        why=Message("labels in one column"),
        classes=classes,
        label_separator=separator,
    )


def _unscaled(names: tuple[str, ...], why: str, forms: tuple[str, ...]) -> Target:
    """A regression's target that samples hold in the units of the file."""
    zeros, ones = (0.0,) * len(names), (1.0,) * len(names)
    return Target(columns=names, task="regression", why=why, forms=forms, center=zeros, scale=ones)


def _is_numeric(target: Target) -> bool:
    return target.task == "regression" or (target.task == "multilabel" and target.label_separator is None)


def forms_in_file(target: Target, columns: Sequence[TargetColumn]) -> tuple[str, ...]:
    """How a file writes the numbers of a fitted target, which may be another way than that of the training data.

    Args:
        target: The fitted one.
        columns: Its columns in this file.
    """
    forms = []
    for place, column in enumerate(columns if _is_numeric(target) else ()):
        form, texts = target.form(place), column.texts.written
        if texts:
            truth = {text.lower() for text in texts} <= {"false", "true"}
            form = "boolean" if truth else fitting_form(texts, form, column.decimal)
        forms.append(form)
    return tuple(forms)


def encode_target(
    target: Target, columns: Mapping[str, Cells], missing: Collection[str], forms: Sequence[str] = ()
) -> tuple[Array, Array, Array]:
    """A target's columns as an array, which rows have none, and which have one that cannot be.

    Args:
        target: What is to be learnt; without classes, no class is wrong.
        columns: By name; more than the target's do not count.
        missing: Marks that mean "no target".
        forms: How their numbers are written; empty for as `target` says.

    Returns:
        int64 [N] class numbers, float32 [N] (binary, regression), or float32 [N, outputs]; bool [N]; bool [N].
    """
    if _is_numeric(target):
        return _encode_numbers(target, columns, missing, forms)
    strings = text_of(columns[target.columns[0]])
    texts = without_marks(strings.pool.tolist(), missing)
    if target.task == "multilabel":
        # An empty cell of labels is a row without labels, which is an answer and not a gap.
        labels, odd = label_rows(texts, target.classes, target.label_separator or ",")
        return labels[strings.codes], np.zeros(len(strings), dtype=bool), odd[strings.codes]
    known = ClassNumbers(target.classes)
    numbers = [-1 if text is None else known.get(text, -2) for text in texts]
    codes = strings.mapped(numbers, -1, np.int64)
    values = codes if target.task == "classification" else codes.astype(np.float32)
    return values, codes == -1, codes == -2


def _encode_numbers(
    target: Target, columns: Mapping[str, Cells], missing: Collection[str], forms: Sequence[str]
) -> tuple[Array, Array, Array]:
    encoded, lacking, wrong = [], [], []
    for place, name in enumerate(target.columns):
        form = forms[place] if forms else target.form(place)
        numbers, none, odd = _numbers(target, columns[name], form, missing)
        if target.task == "regression":
            numbers = (numbers - target.center[place]) / target.scale[place]
        lacking.append(none)
        encoded.append(numbers.astype(np.float32))
        wrong.append(odd)
    single = len(encoded) == 1 and target.task == "regression"
    values = encoded[0] if single else np.stack(encoded, axis=1)
    return values, np.logical_or.reduce(lacking), np.logical_or.reduce(wrong)


def _numbers(target: Target, cells: Cells, form: str, missing: Collection[str]) -> tuple[Array, Array, Array]:
    """Numbers in the units of the file, which rows have none, and which have one that the target cannot be."""
    numbers, odd = target_numbers(cells, form, missing)
    finite = np.isfinite(numbers)
    if target.task == "multilabel":
        odd = odd | (finite & ~np.isin(numbers, (0, 1)))
    return numbers, ~finite & ~odd, odd


def target_numbers(cells: Cells, form: str, missing: Collection[str]) -> tuple[Array, Array]:
    """Numbers (float64 [N], NaN where missing) and which cells are neither (bool [N]).

    Args:
        cells: A column of targets.
        form: How its numbers are written.
        missing: Marks that mean "no target".
    """
    read, bad = read_cells(cells, Reading("number", form), missing)
    values = np.where(read.missing(), np.nan, read.values) if isinstance(read, Numbers) else np.full(len(read), np.nan)
    return values, np.zeros(len(read), dtype=bool) if bad is None else bad


def target_tensor(target: Target, columns: Mapping[str, Strings]) -> tuple[Tensor, dict[int, str]]:
    """The targets of some rows, and what is wrong with those that are not numbers but should be.

    Args:
        target: What `find_target` said.
        columns: As it was given them, with the same or fewer rows.

    Returns:
        See `encode_target`; and by row what is wrong with it, to follow its place. What stands instead of such a
        row means nothing.
    """
    values, lacking, wrong = encode_target(target, columns, ())
    problems: dict[int, str] = {}
    if _is_numeric(target) and (lacking | wrong).any():
        what = "0 or 1" if target.task == "multilabel" else "a number"
        for place, (name, cells) in enumerate(columns.items()):
            where, texts = f" in column {name!r}" if len(columns) > 1 else "", [*cells.pool.tolist(), ""]
            _, none, odd = _numbers(target, cells, target.form(place), ())
            for row in np.flatnonzero(none | odd).tolist():
                problems.setdefault(row, f"has the target {texts[cells.codes[row]]!r:.80}{where}, which is not {what}")
    return torch.from_numpy(values), problems
