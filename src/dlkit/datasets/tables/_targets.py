"""What is to be learnt: classes, numbers or labels, found in the target columns and turned into tensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlkit._kinds import Task
from dlkit.datasets.tables._facts import MOST_VALUES, ColumnFacts, RowSample
from dlkit.datasets.tables._fitting import Reading, read_cells, reading_of
from dlkit.datasets.tables._tally import NumberFacts
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.cells import Array, Cells, Numbers, Table, plain_text, ranked, strings_of, text_of
from dlkit.reading.parsing import as_numbers, fitting_form, present
from dlkit.reading.targets import (
    ClassNumbers,
    check_count,
    class_names,
    class_order,
    few_integers,
    label_rows,
    split_labels,
    task_of,
    task_of_numbers,
)
from dlkit.specs.table import Target

__all__ = ["TargetFacts", "TargetOptions", "encode_target", "find_target", "readings_in_file", "scaled_by"]

_TASKS = ("auto", "classification", "binary", "regression", "multilabel")


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """What the caller says about the target; the arguments of `CSVDataset` of the same names."""

    task: str = "auto"
    classes: tuple[str, ...] | None = None
    label_separator: str | None = None
    scale_target: bool = True

    def __post_init__(self) -> None:
        if self.task not in _TASKS:
            raise ArgumentError(f"task must be one of {', '.join(_TASKS)}, not {self.task!r}")


class TargetFacts(ColumnFacts):
    """The facts of a column of targets: of all rows, as a task and its classes are not statistics.

    Args:
        name: Of the column.
        marks: Missing marks.
    """

    def __init__(
        self,
        name: str,
        marks: Collection[str],
        sample: RowSample,
        texts: RowSample,
        *,
        text: bool = False,
        decimal: str = "",
    ) -> None:
        super().__init__(name, marks, sample, texts, text=text, decimal=decimal)
        self._different: dict[float, None] = {}  # finite numbers
        self._infinite: dict[float, None] = {}
        self._many = False
        self._there = 0

    def look_for_classes(self, cells: Cells, *, wanted: bool) -> None:
        """Find out which numbers there are, until they are too many for classes or have fractions.

        Args:
            cells: A piece of the column, as it was read.
            wanted: Whether the caller wants classes, however many.
        """
        if not isinstance(cells, Numbers) or self._many:
            return
        finite = cells.values if cells.complete else cells.values[~cells.missing()]
        infinite = cells.values[np.isinf(cells.values)] if cells.values.dtype.kind == "f" else finite[:0]
        self._there += len(finite)
        few = wanted or few_integers(finite[:1000]) is not None
        self._different.update(dict.fromkeys(ranked(finite if few else finite[:1000])[0].tolist()))
        self._infinite.update(dict.fromkeys(infinite.tolist()))
        self.more = wanted and len(self._different) > MOST_VALUES
        self._many = self.more or not (wanted or not self._different or few_integers(self._numbers_seen()) is not None)

    def _numbers_seen(self) -> Array:
        return np.array(list(self._different), dtype=np.float64)

    def task(self) -> tuple[str, str]:
        """What the column is if it holds no dates, and why."""
        if self.sorts & {"text", "truth"}:
            counts = self.texts().counts
            return task_of(list(counts), list(counts.values()), self.decimal)[:2]
        return task_of_numbers(self._numbers_seen(), self._there)

    def reading(self, forced: str | None = None) -> Reading:
        """How the column is read.

        Args:
            forced: "number" where it has to be one.
        """
        return reading_of(self.sorts, self.texts(), decimal=self.decimal, forced=forced)

    def are_flags(self, form: str) -> bool:
        """Whether there are no numbers but 0 and 1.

        Args:
            form: How they are written.
        """
        numbers = as_numbers(strings_of(self.texts().counts), form, ())[0].values
        there = [*numbers[np.isfinite(numbers)].tolist(), *self._different]
        return set(there) <= {0, 1}

    def values(self) -> list[str]:
        """The distinct texts, and numbers as texts."""
        return [*self.texts().counts, *(plain_text(value) for value in (*self._different, *self._infinite))]


def find_target(facts: Sequence[TargetFacts], rows: int, options: TargetOptions) -> tuple[Target, tuple[Reading, ...]]:
    """What kind of target some columns are, with its classes but in the units of the file; and how they are read.

    Args:
        facts: Of the columns.
        rows: How many rows there are.
        options: What the caller says.
    """
    if len(facts) > 1:
        return _several(facts, options)
    column = facts[0]
    if options.label_separator is not None or options.task == "multilabel":
        return _delimited(column, options), (Reading("text"),)
    task, why = _task(column, options)
    if task == "regression":
        reading = column.reading(forced="number")
        if reading.kind not in ("number", "boolean"):
            examples = ", ".join(map(repr, column.values()[:1]))
            raise ArgumentError(f"regression needs numbers in column {column.name!r}, but there is {examples}")
        return _unscaled((column.name,), why, (reading,)), (reading,)
    classes = classes_of(column, rows, options)
    if task == "binary" and len(classes) != 2:
        raise ArgumentError(
            f"task='binary' needs 2 classes in column {column.name!r}, not {len(classes)}: {', '.join(classes[:9])}"
        )
    known: Task = "binary" if task == "binary" else "classification"
    return Target(columns=(column.name,), task=known, why=why, classes=classes), (Reading("text"),)


def _task(column: TargetFacts, options: TargetOptions) -> tuple[str, str]:
    if options.task != "auto":
        return options.task, "named by you"
    if options.classes is not None:
        return "classification", "classes named by you"
    if column.reading().kind == "date":
        raise ArgumentError(f"target {column.name!r} holds dates; name a column of classes or numbers")
    return column.task()


def classes_of(column: TargetFacts, rows: int, options: TargetOptions) -> tuple[str, ...]:
    """The classes of a column, in their order.

    Args:
        column: What is known of it.
        rows: How many rows there are.
        options: What the caller says.
    """
    if options.classes is not None:
        return options.classes
    if column.more:
        raise DataError(
            f"target {column.name!r} has more than {MOST_VALUES:,} different values, too many for classes; "
            "task='regression' for quantities, classes=[...] if they are right, or another column"
        )
    classes = class_names(column.values())
    check_count(column.name, len(classes), rows)
    return classes


def _several(facts: Sequence[TargetFacts], options: TargetOptions) -> tuple[Target, tuple[Reading, ...]]:
    names, readings = tuple(column.name for column in facts), tuple(column.reading() for column in facts)
    odd = [name for name, reading in zip(names, readings, strict=True) if reading.kind not in ("number", "boolean")]
    if odd:
        raise ArgumentError(f"several target columns must be numbers, or 0 and 1 for labels; {odd[0]!r} is neither")
    if options.task in ("classification", "binary"):
        raise ArgumentError(f"task={options.task!r} takes one target column, not {len(names)}: {', '.join(names)}")
    flags = all(column.are_flags(reading.form) for column, reading in zip(facts, readings, strict=True))
    if options.task == "multilabel" or (options.task == "auto" and flags):
        if not flags:
            raise ArgumentError(f"multi-label columns hold 0 and 1; those of {', '.join(names)} hold other numbers too")
        why = "named by you" if options.task == "multilabel" else "several columns of 0 and 1"
        forms = tuple(reading.form for reading in readings)
        return Target(columns=names, task="multilabel", why=why, classes=names, forms=forms), readings
    return _unscaled(names, "several columns of numbers", readings), readings


def _delimited(column: TargetFacts, options: TargetOptions) -> Target:
    separator, name = options.label_separator, column.name
    if separator is None or separator == "":
        raise ArgumentError(
            f"multi-label data in the one column {name!r} needs label_separator=, for example '|'; "
            "or name several target columns of 0 and 1"
        )
    if options.task not in ("auto", "multilabel"):
        raise ArgumentError(f"label_separator= means several labels per row, which task={options.task!r} has not")
    labels = {label for value in column.values() for label in split_labels(value, separator)}
    classes = options.classes if options.classes is not None else class_order(labels)
    return Target(
        columns=(name,), task="multilabel", why="labels in one column", classes=classes, label_separator=separator
    )


def _unscaled(names: tuple[str, ...], why: str, readings: Sequence[Reading]) -> Target:
    """A regression's target that samples hold in the units of the file."""
    forms, zeros, ones = tuple(reading.form for reading in readings), (0.0,) * len(names), (1.0,) * len(names)
    return Target(columns=names, task="regression", why=why, forms=forms, center=zeros, scale=ones)


def scaled_by(target: Target, facts: Sequence[NumberFacts]) -> Target:
    """A regression's target with the mean and standard deviation of its columns' facts."""
    return replace(
        target,
        center=tuple(fact.mean if fact.rows > fact.missing else 0.0 for fact in facts),
        scale=tuple(fact.std if fact.rows > fact.missing and fact.std > 0 else 1.0 for fact in facts),
    )


def readings_in_file(target: Target, facts: Sequence[TargetFacts]) -> tuple[Reading, ...]:
    """How a file writes the numbers of a fitted target, which may be another way than that of the training data.

    Args:
        target: The fitted one.
        facts: Of its columns in this file.
    """
    if not _is_numeric(target):
        return (Reading("text"),)
    readings = []
    for place, column in enumerate(facts):
        form, texts = target.form(place), column.texts().written
        if texts:
            truth = {text.lower() for text in texts} <= {"false", "true"}
            form = "boolean" if truth else fitting_form(texts, form, column.decimal)
        readings.append(Reading("number", form))
    return tuple(readings)


def _is_numeric(target: Target) -> bool:
    return target.task == "regression" or (target.task == "multilabel" and target.label_separator is None)


def encode_target(
    target: Target, table: Table, marks: Collection[str], readings: Sequence[Reading]
) -> tuple[Array, Array, Array]:
    """A target's columns as an array, which rows have none, and which have one that cannot be.

    Args:
        target: What is to be learnt; without classes, no class is wrong.
        table: Has its columns.
        marks: Missing marks.
        readings: How they are read.

    Returns:
        int64 [N] class numbers, float32 [N] (binary, regression), or float32 [N, outputs]; bool [N]; bool [N].
    """
    if _is_numeric(target):
        return _encode_numbers(target, table, marks, readings)
    strings = text_of(table.columns[target.columns[0]])
    texts = present(strings.pool.tolist(), marks)
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
    target: Target, table: Table, marks: Collection[str], readings: Sequence[Reading]
) -> tuple[Array, Array, Array]:
    columns, lacking, wrong = [], [], []
    for place, (name, reading) in enumerate(zip(target.columns, readings, strict=True)):
        numbers, bad = target_numbers(table.columns[name], reading, marks)
        lacking.append(~np.isfinite(numbers) & ~bad)
        if target.task == "regression":
            numbers = (numbers - target.center[place]) / target.scale[place]
        columns.append(numbers.astype(np.float32))
        wrong.append(bad)
    single = len(columns) == 1 and target.task == "regression"
    values = columns[0] if single else np.stack(columns, axis=1)
    return values, np.logical_or.reduce(lacking), np.logical_or.reduce(wrong)


def target_numbers(cells: Cells, reading: Reading, marks: Collection[str]) -> tuple[Array, Array]:
    """Numbers (float64 [N], NaN where missing) and which cells are neither (bool [N]).

    Args:
        cells: A column of targets.
        reading: How its numbers are written.
        marks: Missing marks.
    """
    read, bad = read_cells(cells, Reading("number", reading.form), marks)
    values = np.where(read.missing(), np.nan, read.values) if isinstance(read, Numbers) else np.full(len(read), np.nan)
    return values, np.zeros(len(read), dtype=bool) if bad is None else bad
