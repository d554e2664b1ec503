"""What is to be learnt: classes, numbers or labels, found in the target columns and turned into tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlkit.datasets.tables._facts import NumberFacts, number_facts
from dlkit.datasets.tables._fitting import recognised
from dlkit.errors import ArgumentError
from dlkit.reading.cells import Array, Cells, Dates, Numbers, Strings, Table, text_of
from dlkit.reading.parsing import as_numbers, fitting_form, present
from dlkit.reading.targets import ClassNumbers, check_count, class_names, class_order, task_of_numbers
from dlkit.specs.table import Target

__all__ = [
    "TargetOptions",
    "classes_of",
    "encode_target",
    "find_target",
    "scaled_by",
    "scaled_target",
    "split_labels",
    "target_numbers",
    "unscaled_target",
]

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


def find_target(table: Table, columns: Sequence[str], options: TargetOptions, missing: Sequence[str]) -> Target:
    """What kind of target some columns are, with its classes but without the scale of a regression.

    Classes are a fact about the task and not a statistic, so they may come from all rows.
    """
    cells = {name: table.columns[name] for name in columns}
    if len(columns) > 1:
        return _several(cells, options, missing)
    name = columns[0]
    if options.label_separator is not None or options.task == "multilabel":
        return _delimited(name, cells[name], options, missing)
    task, why = _task(name, cells[name], options, missing)
    if task == "regression":
        return Target(columns=(name,), task="regression", why=why, forms=(_form(name, cells[name], missing),))
    values = _values(cells[name], missing)
    classes = classes_of(name, values, len(table), options)
    if task == "binary" and len(classes) != 2:
        raise ArgumentError(
            f"task='binary' needs 2 classes in column {name!r}, not {len(classes)}: {', '.join(classes[:9])}"
        )
    return Target(columns=(name,), task="binary" if task == "binary" else "classification", why=why, classes=classes)


def _values(cells: Cells, missing: Sequence[str]) -> list[str]:
    """The distinct texts of a column."""
    strings = text_of(cells)
    used = strings.counts() > 0
    texts = present(strings.pool.tolist(), missing)
    return list(dict.fromkeys(text for text, use in zip(texts, used, strict=True) if use and text is not None))


def _task(name: str, cells: Cells, options: TargetOptions, missing: Sequence[str]) -> tuple[str, str]:
    if options.task != "auto":
        return options.task, "named by you"
    if options.classes is not None:
        return "classification", "classes named by you"
    settled, form = recognised(cells, missing)
    if isinstance(settled, Dates):
        raise ArgumentError(f"target {name!r} holds dates; name a column of classes or numbers")
    if isinstance(settled, Strings) or form == "boolean":
        return "classification", "text in the target column"
    there = settled.values[~settled.missing()]
    return task_of_numbers(there, len(there))


def _form(name: str, cells: Cells, missing: Sequence[str]) -> str:
    settled, form = recognised(cells, missing, forced="number")
    if not isinstance(settled, Numbers):
        example = _values(cells, missing)[:1]
        raise ArgumentError(
            f"regression needs numbers in column {name!r}, but there is {', '.join(map(repr, example))}"
        )
    return form


def classes_of(name: str, values: Sequence[str], rows: int, options: TargetOptions) -> tuple[str, ...]:
    """The classes of a column with these distinct values, in their order."""
    if options.classes is not None:
        return options.classes
    classes = class_names(values)
    check_count(name, len(classes), rows)
    return classes


def _several(cells: Mapping[str, Cells], options: TargetOptions, missing: Sequence[str]) -> Target:
    names = tuple(cells)
    settled = {name: recognised(column, missing) for name, column in cells.items()}
    if odd := [name for name, (column, _) in settled.items() if not isinstance(column, Numbers)]:
        raise ArgumentError(f"several target columns must be numbers, or 0 and 1 for labels; {odd[0]!r} is neither")
    if options.task in ("classification", "binary"):
        raise ArgumentError(f"task={options.task!r} takes one target column, not {len(names)}: {', '.join(names)}")
    flags = all(
        np.isin(column.values[~column.missing()], (0, 1)).all()
        for column, _ in settled.values()
        if isinstance(column, Numbers)
    )
    forms = tuple(form for _, form in settled.values())
    if options.task == "multilabel" or (options.task == "auto" and flags):
        if not flags:
            raise ArgumentError(f"multi-label columns hold 0 and 1; those of {', '.join(names)} hold other numbers too")
        why = "named by you" if options.task == "multilabel" else "several columns of 0 and 1"
        return Target(columns=names, task="multilabel", why=why, classes=names, forms=forms)
    return Target(columns=names, task="regression", why="several columns of numbers", forms=forms)


def _delimited(name: str, cells: Cells, options: TargetOptions, missing: Sequence[str]) -> Target:
    separator = options.label_separator
    if separator is None or separator == "":
        raise ArgumentError(
            f"multi-label data in the one column {name!r} needs label_separator=, for example '|'; "
            "or name several target columns of 0 and 1"
        )
    if options.task not in ("auto", "multilabel"):
        raise ArgumentError(f"label_separator= means several labels per row, which task={options.task!r} has not")
    labels = {label for value in _values(cells, missing) for label in split_labels(value, separator)}
    classes = options.classes if options.classes is not None else class_order(labels)
    return Target(columns=(name,), task="multilabel", why="labels in one column", classes=classes, separator=separator)


def split_labels(text: str, separator: str) -> list[str]:
    """The labels of one cell, without blanks around them; empty ones are none."""
    return [label for part in text.split(separator) if (label := part.strip())]


def unscaled_target(target: Target) -> Target:
    """A regression's target that samples hold in the units of the file; any other as it is."""
    if target.task != "regression":
        return target
    return replace(target, center=(0.0,) * len(target.columns), scale=(1.0,) * len(target.columns))


def scaled_target(target: Target, table: Table, rows: Array | None, missing: Sequence[str]) -> Target:
    """A regression's target with mean and standard deviation of the training rows; any other as it is."""
    if target.task != "regression":
        return target
    facts = []
    for place, name in enumerate(target.columns):
        numbers, _ = target_numbers(table.columns[name], target.form(place), missing)
        facts.append(number_facts(numbers if rows is None else numbers[rows]))
    return scaled_by(target, facts)


def scaled_by(target: Target, facts: Sequence[NumberFacts]) -> Target:
    """A regression's target with the mean and standard deviation of its columns' facts."""
    return replace(
        target,
        center=tuple(fact.mean if fact.rows > fact.missing else 0.0 for fact in facts),
        scale=tuple(fact.std if fact.rows > fact.missing and fact.std > 0 else 1.0 for fact in facts),
    )


def target_numbers(cells: Cells, form: str, missing: Sequence[str]) -> tuple[Array, Array]:
    """Numbers (float64 [N], NaN where missing) and which cells are neither (bool [N])."""
    if isinstance(cells, Strings):
        form = "boolean" if _is_boolean(cells, missing) else fitting_form(cells, form, missing)
        numbers, bad = as_numbers(cells, form, missing)
        return numbers.values.astype(np.float64), cells.mapped(bad, False, bool)
    if isinstance(cells, Numbers):
        return np.where(cells.missing(), np.nan, cells.values), np.zeros(len(cells), dtype=bool)
    return np.full(len(cells), np.nan), ~cells.missing()


def _is_boolean(cells: Strings, missing: Sequence[str]) -> bool:
    return {value.lower() for value in _values(cells, missing)} <= {"false", "true"}


def encode_target(target: Target, table: Table, missing: Sequence[str]) -> tuple[Array, Array, Array]:
    """A target's columns as an array, which rows have none, and which have one that cannot be.

    Returns:
        int64 [N] class numbers, float32 [N] (binary, regression), or float32 [N, outputs]; bool [N]; bool [N].
    """
    if target.task == "regression" or (target.task == "multilabel" and target.separator is None):
        return _encode_numbers(target, table, missing)
    strings = text_of(table.columns[target.columns[0]])
    texts = present(strings.pool.tolist(), missing)
    if target.task == "multilabel":
        return _encode_labels(target, strings, texts)
    known = ClassNumbers(target.classes)
    numbers = [-1 if text is None else known.get(text, -2) for text in texts]
    codes = strings.mapped(numbers, -1, np.int64)
    values = codes if target.task == "classification" else codes.astype(np.float32)
    return values, codes == -1, codes == -2


def _encode_labels(target: Target, strings: Strings, texts: Sequence[str | None]) -> tuple[Array, Array, Array]:
    known = {name: number for number, name in enumerate(target.classes)}
    table = np.zeros((len(texts) + 1, len(known)), dtype=np.float32)
    bad = np.zeros(len(texts) + 1, dtype=bool)
    for place, text in enumerate(texts):
        for label in split_labels(text or "", target.separator or ","):
            if label in known:
                table[place, known[label]] = 1
            else:
                bad[place] = True
    # An empty cell of labels is a row without labels, which is an answer and not a gap.
    return table[strings.codes], np.zeros(len(strings), dtype=bool), bad[strings.codes]


def _encode_numbers(target: Target, table: Table, missing: Sequence[str]) -> tuple[Array, Array, Array]:
    columns, lacking, wrong = [], [], []
    for place, name in enumerate(target.columns):
        numbers, bad = target_numbers(table.columns[name], target.form(place), missing)
        lacking.append(~np.isfinite(numbers) & ~bad)
        if target.task == "regression":
            numbers = (numbers - target.center[place]) / target.scale[place]
        columns.append(numbers.astype(np.float32))
        wrong.append(bad)
    single = len(columns) == 1 and target.task == "regression"
    values = columns[0] if single else np.stack(columns, axis=1)
    return values, np.logical_or.reduce(lacking), np.logical_or.reduce(wrong)
