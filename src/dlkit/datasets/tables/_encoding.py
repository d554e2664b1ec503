"""Cells and a schema to arrays: the same for training data, new files, and the blocks of a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from dlkit.datasets.tables._facts import date_parts
from dlkit.datasets.tables._targets import encode_target
from dlkit.errors import DataError
from dlkit.reading.cells import Array, Cells, Dates, Numbers, Strings, Table, text_of
from dlkit.reading.parsing import (
    as_dates,
    as_numbers,
    date_format,
    fitting_form,
    number_format,
    present,
    unmistakable,
)
from dlkit.reading.targets import ClassNumbers
from dlkit.specs.columns import FIRST, MISSING, UNSEEN, CategoryColumn, NumberColumn
from dlkit.specs.table import Schema

__all__ = ["Encoded", "Problem", "check_columns", "encode"]

_LARGEST = float(np.finfo(np.float32).max)
_BLOCK, _SHARE = 1 << 14, 1 << 17  # rows written at once, and by one thread
_ENOUGH_TO_TELL = 5  # cells that must be numbers before a column of categories counts as another kind of column


@dataclass(frozen=True)
class Problem:
    """Rows that cannot become samples.

    Attributes:
        rows: Their numbers.
        reason: What is wrong with them, to follow the name of a row.
        remedy: What to do.
        example: What one of them has, by its number, in words that follow the reason.
        mistake: Whether something is wrong with them; rows without a target are only unlabelled.
    """

    rows: Array
    reason: str
    remedy: str
    example: Callable[[int], str] = lambda _: ""
    mistake: bool = True


@dataclass
class Encoded:
    """A table as arrays, row by row.

    Attributes:
        numeric: float32 [N, numbers], or None.
        categorical: int32 [N, codes], or None.
        texts: Columns of text as read.
        images: Columns of paths as read.
        targets: See `encode_target`; None for unlabelled data.
        problems: Rows that cannot be used.
    """

    numeric: Array | None
    categorical: Array | None
    texts: dict[str, Strings]
    images: dict[str, Strings]
    targets: Array | None = None
    problems: list[Problem] = field(default_factory=list)


def encode(
    table: Table, schema: Schema, target: tuple[Array, Array, Array] | None = None, *, by_row: bool = False
) -> Encoded:
    """Turn a table into arrays.

    Args:
        table: Any table that has the schema's columns, in any order, and maybe more.
        schema: A fitted one.
        target: What `encode_target` gave for this table and schema, where it was asked before.
        by_row: Read every cell by the schema alone, so that a row means the same whatever rows stand beside it. Else a
            whole column may be written in another way than the training data's, and one without a single fitting cell
            is an error.

    Raises:
        DataError: a column is missing or of another kind.
    """
    check_columns(list(table.columns), schema, table.origin)
    problems: list[Problem] = []
    encoded = Encoded(
        _numeric(table, schema, problems, by_row=by_row),
        _categorical(table, schema),
        {column.name: _raw(table, column.name) for column in schema.of_kind("text")},
        {column.name: _raw(table, column.name) for column in schema.of_kind("image")},
        problems=problems,
    )
    wanted = schema.target
    if wanted is not None and all(name in table.columns for name in wanted.columns):
        encoded.targets, lacking, wrong = target or encode_target(wanted, table, schema.marks)
        problems += target_problems(table, schema, lacking, wrong)
    return encoded


def target_problems(table: Table, schema: Schema, lacking: Array, wrong: Array) -> list[Problem]:
    """Rows without a target, or with one that the schema does not know."""
    target = schema.target
    if target is None:
        return []
    names, problems = ", ".join(map(repr, target.columns)), []
    if wrong.any():
        columns = [table.columns[name] for name in target.columns]
        known = (
            f"the classes are {', '.join(map(repr, target.classes[:20]))}" if target.classes else "it must be a number"
        )
        remedy = f"{known}; repair the file, or on_error='skip' leaves such rows out"

        def has(row: int) -> str:
            return ", " + " and ".join(repr(shown(cells, row)) for cells in columns)

        problems.append(Problem(np.flatnonzero(wrong), f"has an unknown target {names}", remedy, has))
    if lacking.any():
        remedy = (
            "on_error='skip' leaves such rows out; to predict for them, leave the target's column out of the file; "
            "if a mark such as 'NA' is a class, missing=[] keeps it"
        )
        problems.append(Problem(np.flatnonzero(lacking), f"has no target {names}", remedy, mistake=False))
    return problems


def check_columns(names: Sequence[str], schema: Schema, origin: str) -> None:
    """Whether all columns that the schema uses are there.

    Raises:
        DataError: some are not; the message lists those, and what there is.
    """
    lacking = [column.name for column in schema.columns if column.used and column.name not in names]
    if lacking:
        raise DataError(
            f"{origin} lacks the column{'s' if len(lacking) > 1 else ''} {', '.join(map(repr, lacking))} "
            f"of the schema; it has {', '.join(map(repr, names))}"
        )


def _raw(table: Table, name: str) -> Strings:
    return text_of(table.columns[name])


@dataclass(frozen=True)
class _Lane:
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


def _numeric(table: Table, schema: Schema, problems: list[Problem], *, by_row: bool) -> Array | None:
    if not schema.numbers:
        return None
    lanes = [lane for column in schema.numbers for lane in _lanes(column, table, schema.marks, problems, by_row)]
    matrix = np.empty((len(table), len(lanes)), dtype=np.float32)

    def fill(start: int) -> None:
        # Some thousand rows at a time stay in the processor's cache until all of their columns are written.
        for first in range(start, min(start + _SHARE, len(table)), _BLOCK):
            stop = min(first + _BLOCK, start + _SHARE, len(table))
            rows = matrix[first:stop]
            with np.errstate(over="ignore", invalid="ignore"):
                for place, lane in enumerate(lanes):
                    lane.write(rows[:, place], first, stop)
                overflown = not np.isfinite(rows.sum())
            if overflown:  # a float64 beyond what float32 holds; infinite inputs would make every weight NaN
                np.clip(rows, -_LARGEST, _LARGEST, out=rows)

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(fill, range(0, len(table), _SHARE)))
    return matrix


def _lanes(
    column: NumberColumn, table: Table, marks: Sequence[str], problems: list[Problem], by_row: bool
) -> list[_Lane]:
    cells = table.columns[column.name]
    read, bad = _parsed_by_row(cells, column, marks) if by_row else _parsed(cells, column, table.origin, marks)
    if bad is not None:
        kind = {"date": "date", "boolean": "truth value"}.get(column.kind, "number")
        problems.append(unreadable(column.name, kind, cells, np.flatnonzero(bad)))
    absent = read.missing() if column.indicator or not read.complete() else None
    gaps = absent if absent is not None and absent.any() else None
    numbers = date_parts(read.values) if isinstance(read, Dates) else {"": read.values}
    lanes = [_Lane(numbers[part.name], part.center, part.scale, part.fill, gaps) for part in column.parts]
    return [*lanes, _Lane(absent.astype(np.float32))] if column.indicator and absent is not None else lanes


def unreadable(name: str, kind: str, cells: Cells, rows: Array) -> Problem:
    """Cells that are no number or date."""
    remedy = (
        "add it to missing= if it means that there is none, name the column in categorical= or drop= if it holds no "
        f"{kind}s, or on_error='skip' leaves such rows out"
    )
    return Problem(rows, f"has no {kind} in column {name!r}", remedy, lambda row: f" but {shown(cells, row)!r}")


def _parsed(
    cells: Cells, column: NumberColumn, origin: str, marks: Sequence[str]
) -> tuple[Numbers | Dates, Array | None]:
    """The cells as numbers or dates, and which rows are neither (None where all is well)."""
    dates = column.kind == "date"
    if isinstance(cells, Strings):
        read, bad = _read_text(cells, column, marks)
        if not bad.any():
            return read, None
        wrong = cells.mapped(bad, False, bool)
        if int(wrong.sum()) < len(cells) - int(_absent(cells, marks).sum()):
            return read, wrong
    elif isinstance(cells, Dates if dates else Numbers):
        if column.kind == "boolean":
            _check_booleans(cells, column, origin)
        return cells, None
    elif cells.missing().all():
        nothing = np.full(len(cells), np.nan)
        return Dates(nothing.astype("datetime64[us]")) if dates else Numbers(nothing), None
    raise another_kind(cells, column, origin)


def _parsed_by_row(cells: Cells, column: NumberColumn, marks: Sequence[str]) -> tuple[Numbers | Dates, Array | None]:
    """The same, each cell in the schema's own way of writing; nothing is concluded from the others."""
    dates = column.kind == "date"
    if isinstance(cells, Strings):
        read, wrong = as_dates(cells, column.form, marks) if dates else as_numbers(cells, column.form, marks)
        return read, cells.mapped(wrong, False, bool) if wrong.any() else None
    if isinstance(cells, Dates if dates else Numbers):
        there = ~cells.missing()
        bad = there & ~np.isin(cells.values, (0, 1)) if column.kind == "boolean" else np.zeros(len(cells), dtype=bool)
        return cells, bad if bad.any() else None
    bad, nothing = ~cells.missing(), np.full(len(cells), np.nan)
    return Dates(nothing.astype("datetime64[us]")) if dates else Numbers(nothing), bad if bad.any() else None


def _read_text(cells: Strings, column: NumberColumn, marks: Sequence[str]) -> tuple[Numbers | Dates, Array]:
    if column.kind == "date":
        return _dates_of(cells, column.form, marks)
    form = "boolean" if column.kind == "boolean" else fitting_form(cells, column.form, marks)
    return as_numbers(cells, form, marks)


def _dates_of(cells: Strings, form: str, marks: Sequence[str]) -> tuple[Dates, Array]:
    """Dates in the schema's form; a cell that has another one is that row's mistake, and turns no other row around.

    Only a file in which no cell is written like that may be written in another way, if that way leaves no choice.
    """
    read, bad = as_dates(cells, form, marks)
    texts = [text for text in present(cells.pool.tolist(), marks) if text is not None]
    if not bad.any() or int(bad.sum()) < len(set(texts)):
        return read, bad
    other = date_format(texts)
    return as_dates(cells, other, marks) if other is not None and unmistakable(other) else (read, bad)


def _check_booleans(cells: Cells, column: NumberColumn, origin: str) -> None:
    there = cells.values[~cells.missing()] if isinstance(cells, Numbers) else np.zeros(0)
    if not np.isin(there, (0, 1)).all():
        raise another_kind(cells, column, origin)


def another_kind(cells: Cells, column: NumberColumn | CategoryColumn, origin: str) -> DataError:
    """The error for a column that is not what the schema says."""
    there = np.flatnonzero(~_absent(cells, ("",)))
    example = f", for example {shown(cells, int(there[0]))!r}" if len(there) else ""
    has = {Strings: "text", Numbers: "numbers", Dates: "dates"}[type(cells)]
    return DataError(
        f"column {column.name!r} of {origin} is of another kind: the schema has a {column.kind} there, "
        f"and the file has {has}{example}; is it the same column?"
    )


def shown(cells: Cells, row: int) -> str:
    """One cell as text, for messages."""
    if isinstance(cells, Strings):
        return "" if cells.codes[row] < 0 else cells.pool[int(cells.codes[row])][:60]
    return str(cells.values[row]).removesuffix(".000000").removesuffix("T00:00:00")


def _absent(cells: Cells, marks: Sequence[str]) -> Array:
    if isinstance(cells, Strings):
        return cells.mapped([text is None for text in present(cells.pool.tolist(), marks)], True, bool)
    return cells.missing()


def _categorical(table: Table, schema: Schema) -> Array | None:
    if not schema.categories:
        return None
    matrix = np.empty((len(table), len(schema.categories)), dtype=np.int32)
    for place, column in enumerate(schema.categories):
        cells = table.columns[column.name]
        strings = text_of(cells)
        texts = present(strings.pool.tolist(), schema.marks)
        known = ClassNumbers(column.vocabulary)
        codes = [MISSING if text is None else known.get(text, UNSEEN - FIRST) + FIRST for text in texts]
        matrix[:, place] = strings.mapped(codes, MISSING, np.int32)
        if UNSEEN in codes and (matrix[:, place] >= FIRST).sum() == 0:
            _check_category(cells, texts, column, table.origin)
    return matrix


def _check_category(cells: Cells, texts: Sequence[str | None], column: CategoryColumn, origin: str) -> None:
    """Nothing known at all: new categories are fine, numbers where words were are another column."""
    there = [text for text in texts if text is not None]
    enough = isinstance(cells, Dates) or int((~_absent(cells, ("",))).sum()) >= _ENOUGH_TO_TELL
    numbers = isinstance(cells, Dates) or number_format(there) is not None
    if enough and numbers and not any(number_format([word]) for word in column.vocabulary):
        raise another_kind(cells, column, origin)
