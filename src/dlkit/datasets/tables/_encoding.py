"""Cells and a spec to arrays: the same for training data, new files, and the blocks of a stream."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from dlkit._cores import default_threads, for_each
from dlkit.datasets.tables._facts import ColumnFacts, date_parts
from dlkit.datasets.tables._images import ImageCells
from dlkit.datasets.tables._memory import Memory
from dlkit.datasets.tables._problems import Problem
from dlkit.datasets.targets import encode_target
from dlkit.errors import DataError
from dlkit.reading.cells import Array, Cells, Dates, Strings, Table, strings_of, text_of
from dlkit.reading.dates import as_dates, date_format, unmistakable
from dlkit.reading.parsing import fitting_form, number_format, under_mark, without_marks
from dlkit.reading.targets import ClassNumbers
from dlkit.reading.typed import Reading, read_cells
from dlkit.specs.columns import FIRST, MISSING, UNSEEN, CategoryColumn, Column, NumberColumn
from dlkit.specs.table import TableSpec, Target, part_names

__all__ = [
    "bound",
    "check_kind",
    "check_spec_columns",
    "encode",
    "reading_in_file",
    "shown_cell",
    "target_problems",
    "unreadable",
]

_LARGEST = float(np.finfo(np.float32).max)
_PIECE, _SHARE = 1 << 14, 1 << 17  # rows written at once, and by one thread
_ENOUGH_TO_TELL = 5  # cells that must be numbers before a column of categories counts as another kind of column


def encode(
    table: Table,
    spec: TableSpec,
    images: ImageCells,
    readings: Mapping[str, Reading] = MappingProxyType({}),
    targets: Array | None = None,
) -> tuple[Memory, list[Problem]]:
    """Turn a table into arrays, each cell by itself: a row means the same whatever rows are beside it.

    Args:
        table: Any table that has the spec's columns, in any order, and maybe more.
        spec: A fitted one.
        images: How images are loaded.
        readings: How columns are read that this file writes in another way than the training data.
        targets: What `encode_target` gave for this table and spec, where it was asked before.

    Returns:
        All rows, and those that cannot be used.

    Raises:
        DataError: a column is missing.
    """
    check_spec_columns(list(table.columns), spec, table.origin)
    problems: list[Problem] = []
    numeric, categorical, wanted = _numeric(table, spec, readings, problems), _categorical(table, spec), spec.target
    if targets is None and wanted is not None and all(name in table.columns for name in wanted.columns):
        usual = {name: Reading("number", wanted.form(place)) for place, name in enumerate(wanted.columns)}
        forms = [readings.get(name, reading).form for name, reading in usual.items()]
        targets, lacking, wrong = encode_target(wanted, table.columns, spec.marks, forms)
        problems += target_problems(table, wanted, lacking, wrong)

    def strings(kind: str) -> dict[str, Strings]:
        names = [column.name for column in spec.of_kind(kind)]
        return {part: text_of(table.columns[name]) for part, name in zip(part_names(kind, names), names, strict=True)}

    tensors = (None if values is None else torch.from_numpy(values) for values in (numeric, categorical, targets))
    numbers, codes, goal = tensors
    return Memory(numbers, codes, strings("text"), strings("image"), goal, torch.arange(len(table)), images), problems


def target_problems(table: Table, target: Target, lacking: Array, wrong: Array) -> list[Problem]:
    """Rows without a target, or with one that is not known."""
    names, problems = ", ".join(map(repr, target.columns)), []
    if wrong.any():
        columns = [table.columns[name] for name in target.columns]
        known = (
            f"the classes are {', '.join(map(repr, target.classes[:20]))}" if target.classes else "it must be a number"
        )
        known = "labels are 0 and 1" if target.task == "multilabel" and target.label_separator is None else known
        remedy = f"{known}; repair the file, or on_error='skip' leaves such rows out"

        def has(row: int) -> str:
            return ", " + " and ".join(repr(shown_cell(cells, row)) for cells in columns)

        problems.append(Problem(np.flatnonzero(wrong), f"has an unknown target {names}", remedy, has))
    if lacking.any():
        remedy = (
            "on_error='skip' leaves such rows out; to predict for them, leave the target's column out of the file; "
            "if a mark such as 'NA' is a class, missing=[] keeps it"
        )
        problems.append(Problem(np.flatnonzero(lacking), f"has no target {names}", remedy, mistake=False))
    return problems


def shown_cell(cells: Cells, row: int) -> str:
    """One cell as text, for messages."""
    if isinstance(cells, Strings):
        return "" if cells.codes[row] < 0 else cells.pool[int(cells.codes[row])][:60]
    return str(cells.values[row]).removesuffix(".000000").removesuffix("T00:00:00")


def check_spec_columns(names: Sequence[str], spec: TableSpec, origin: str) -> None:
    """Whether all columns that the spec uses are there.

    Raises:
        DataError: some are not; the message lists those, and what there is.
    """
    lacking = [column.name for column in spec.columns if column.used and column.name not in names]
    if lacking:
        raise DataError(
            f"{origin} lacks the column{'s' if len(lacking) > 1 else ''} {', '.join(map(repr, lacking))} "
            f"of the spec; it has {', '.join(map(repr, names))}"
        )


@dataclass(frozen=True)
class _Number:
    """One number of all samples, not yet scaled: where `absent`, it is `fill`."""

    values: Array
    center: float = 0.0
    scale: float = 1.0
    fill: float = 0.0
    absent: Array | None = None

    def write(self, out: Array, start: int, stop: int) -> None:
        scaled = (self.values[start:stop] - self.center) / self.scale
        if self.absent is not None:
            scaled[self.absent[start:stop]] = (self.fill - self.center) / self.scale
        out[:] = scaled


def _numeric(table: Table, spec: TableSpec, readings: Mapping[str, Reading], problems: list[Problem]) -> Array | None:
    if not spec.numbers:
        return None
    numbers = [
        number
        for column in spec.numbers
        for number in _numbers_of(column, table, readings.get(column.name), spec.marks, problems)
    ]
    matrix = np.empty((len(table), len(numbers)), dtype=np.float32)

    def fill(share: int) -> None:
        # Some thousand rows at a time stay in the processor's cache until all of their columns are written.
        for first in range(share * _SHARE, min((share + 1) * _SHARE, len(table)), _PIECE):
            stop = min(first + _PIECE, (share + 1) * _SHARE, len(table))
            rows = matrix[first:stop]
            with np.errstate(over="ignore", invalid="ignore"):
                for place, number in enumerate(numbers):
                    number.write(rows[:, place], first, stop)
                bound(rows)

    for_each(fill, -(-len(table) // _SHARE), default_threads())
    return matrix


def bound(numbers: Array) -> Array:
    """Numbers beyond what float32 holds become its largest ones: infinite inputs would make every weight NaN."""
    return numbers if np.isfinite(numbers.sum()) else np.clip(numbers, -_LARGEST, _LARGEST, out=numbers)


def _numbers_of(
    column: NumberColumn, table: Table, reading: Reading | None, marks: Collection[str], problems: list[Problem]
) -> list[_Number]:
    cells = table.columns[column.name]
    if reading is None:
        numbers_in_text = column.kind == "number" and table.decimal.sign
        reading = Reading(column.kind, under_mark(column.form, table.decimal.sign) if numbers_in_text else column.form)
    read, bad = read_cells(cells, reading, marks)
    if bad is not None:
        problems.append(unreadable(column.name, column.kind, cells, np.flatnonzero(bad)))
    absent = read.missing() if column.indicator or not read.complete else None
    gaps = absent if absent is not None and absent.any() else None
    numbers = date_parts(read.values) if isinstance(read, Dates) else {"": read.values}
    parts = [_Number(numbers[part.name], part.center, part.scale, part.fill, gaps) for part in column.parts]
    return [*parts, _Number(absent.astype(np.float32))] if column.indicator and absent is not None else parts


def unreadable(name: str, kind: str, cells: Cells, rows: Array) -> Problem:
    """Cells that are not what their column holds."""
    kind = "truth value" if kind == "boolean" else kind
    remedy = (
        "add it to missing= if it means that there is none, name the column in categorical= or drop= if it holds no "
        f"{kind}s, or on_error='skip' leaves such rows out"
    )
    return Problem(rows, f"has no {kind} in column {name!r}", remedy, lambda row: f" but {shown_cell(cells, row)!r}")


def reading_in_file(column: NumberColumn, texts: Collection[str], decimal: str) -> Reading:
    """How a file writes a fitted column, which as a whole may be another way than that of the training data.

    Args:
        column: The fitted one.
        texts: Those of the column in this file, missing marks left out.
        decimal: The decimal mark of this file; "" where nothing tells.
    """
    if not texts or column.kind == "boolean":
        return Reading(column.kind, column.form)
    if column.kind == "number":
        return Reading("number", fitting_form(texts, column.form, decimal))
    # A date in another form is that row's mistake, and turns no other row around. Only a file in which no cell is
    # written as the spec says may be written in another way, if that way leaves no choice.
    if int(as_dates(strings_of(texts), column.form, ())[1].sum()) < len(texts):
        return Reading("date", column.form)
    other = date_format(list(texts))
    return Reading("date", other if other is not None and unmistakable(other) else column.form)


def check_kind(column: Column, facts: ColumnFacts, origin: str, *, fits: bool) -> None:
    """Whether a file's column is what the spec says.

    Args:
        column: The fitted one.
        facts: Of the column in this file.
        origin: The file.
        fits: Whether any of its cells could be read.

    Raises:
        DataError: none could, or it holds numbers where categories were words.
    """
    texts = facts.texts()
    if isinstance(column, CategoryColumn):
        known, dates = ClassNumbers(column.vocabulary), bool(facts.raw & {"date", "time"})
        new = not any(known.get(text) >= 0 for text in texts.counts)
        enough = dates or texts.rows - texts.missing >= _ENOUGH_TO_TELL
        numbers = dates or number_format(list(texts.counts)) is not None
        odd = new and enough and numbers and not any(number_format([word]) for word in column.vocabulary)
    else:
        odd = not fits and bool(facts.raw)
    if odd:
        example = next(iter(texts.counts), facts.example)
        words = {"number": "numbers", "date": "dates", "time": "dates"}
        raise DataError(
            f"column {column.name!r} of {origin} is of another kind: the spec has a {column.kind} there, and the "
            f"file has {words.get(min(facts.raw), 'text')}, for example {example!r}; is it the same column?"
        )


def _categorical(table: Table, spec: TableSpec) -> Array | None:
    if not spec.categories:
        return None
    matrix = np.empty((len(table), len(spec.categories)), dtype=np.int32)
    for place, column in enumerate(spec.categories):
        cells = table.columns[column.name]
        strings = text_of(cells)
        texts = without_marks(strings.pool.tolist(), spec.marks)
        known = ClassNumbers(column.vocabulary)
        codes = [MISSING if text is None else known.get(text, UNSEEN - FIRST) + FIRST for text in texts]
        matrix[:, place] = strings.mapped(codes, MISSING, np.int32)
    return matrix
