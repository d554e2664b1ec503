"""Cells and a schema to arrays: the same for training data, new files, and the blocks of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from dlkit.datasets.tables.cells import Array, Cells, Dates, Numbers, Strings, Table
from dlkit.datasets.tables.facts import date_parts
from dlkit.datasets.tables.fitting import text_of
from dlkit.datasets.tables.parsing import as_dates, as_numbers, date_format, number_format, present
from dlkit.datasets.tables.schema import FIRST, MISSING, UNSEEN, CategoryColumn, NumberColumn, Schema
from dlkit.datasets.tables.targets import ClassNumbers, encode_target
from dlkit.errors import DataError

__all__ = ["Encoded", "Problem", "encode"]

_ENOUGH_TO_TELL = 5  # cells that must be numbers before a column of categories counts as another kind of column


@dataclass(frozen=True)
class Problem:
    """Rows that cannot become samples.

    Attributes:
        rows: Their numbers.
        reason: What is wrong with them, to follow the name of a row.
        remedy: What to do.
        example: What the first of them has, in words that follow the reason.
        mistake: Whether something is wrong with them; rows without a target are only unlabelled.
    """

    rows: Array
    reason: str
    remedy: str
    example: str = ""
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


def encode(table: Table, schema: Schema) -> Encoded:
    """Turn a table into arrays.

    Args:
        table: Any table that has the schema's columns, in any order, and maybe more.
        schema: A fitted one.

    Raises:
        DataError: a column is missing or of another kind.
    """
    _check_columns(table, schema)
    problems: list[Problem] = []
    encoded = Encoded(
        _numeric(table, schema, problems),
        _categorical(table, schema),
        {column.name: _raw(table, column.name) for column in schema.of_kind("text")},
        {column.name: _raw(table, column.name) for column in schema.of_kind("image")},
        problems=problems,
    )
    target = schema.target
    if target is not None and all(name in table.columns for name in target.columns):
        encoded.targets, lacking, wrong = encode_target(target, table, schema.marks)
        problems += target_problems(table, schema, lacking, wrong)
    return encoded


def target_problems(table: Table, schema: Schema, lacking: Array, wrong: Array) -> list[Problem]:
    """Rows without a target, or with one that the schema does not know."""
    target = schema.target
    if target is None:
        return []
    names, problems = ", ".join(map(repr, target.columns)), []
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        cells = " and ".join(repr(shown(table.columns[name], row)) for name in target.columns)
        known = f"the classes are {', '.join(map(repr, target.classes[:20]))}" if target.classes else "it must be a number"
        remedy = f"{known}; repair the file, or on_error='skip' leaves such rows out"
        problems.append(Problem(np.flatnonzero(wrong), f"has an unknown target {names}", remedy, f", {cells}"))
    if lacking.any():
        remedy = "on_error='skip' leaves such rows out; to predict for them, leave the target's column out of the file"
        problems.append(Problem(np.flatnonzero(lacking), f"has no target {names}", remedy, mistake=False))
    return problems


def _check_columns(table: Table, schema: Schema) -> None:
    lacking = [column.name for column in schema.columns if column.used and column.name not in table.columns]
    if lacking:
        raise DataError(
            f"{table.origin} lacks the column{'s' if len(lacking) > 1 else ''} {', '.join(map(repr, lacking))} "
            f"of the schema; it has {', '.join(map(repr, table.columns))}"
        )


def _raw(table: Table, name: str) -> Strings:
    return text_of(table.columns[name])


def _numeric(table: Table, schema: Schema, problems: list[Problem]) -> Array | None:
    if not schema.numbers:
        return None
    matrix = np.empty((len(table), len(schema.numeric_features)), dtype=np.float32)
    places, width = [], 0
    for column in schema.numbers:
        places.append(width)
        width += len(column.features())

    def fill(column: NumberColumn, place: int) -> Problem | None:
        return _fill(matrix, place, column, table, schema.marks)

    with ThreadPoolExecutor(max_workers=2) as pool:
        problems += [found for found in pool.map(fill, schema.numbers, places) if found is not None]
    return matrix


def _fill(matrix: Array, place: int, column: NumberColumn, table: Table, marks: Sequence[str]) -> Problem | None:
    cells = table.columns[column.name]
    read, bad = _parsed(cells, column, table.origin, marks)
    absent = read.missing()
    any_absent = bool(absent.any())
    numbers = date_parts(read.values) if isinstance(read, Dates) else {"": read.values}
    for part in column.parts:
        values = numbers[part.name]
        scaled = (values - part.center) / part.scale
        if any_absent:
            scaled[absent] = (part.fill - part.center) / part.scale
        matrix[:, place] = scaled
        place += 1
    if column.indicator:
        matrix[:, place] = absent
    if bad is None:
        return None
    rows = np.flatnonzero(bad)
    kind = "date" if column.kind == "date" else "number"
    remedy = "add it to missing= if it means that there is none, or on_error='skip' leaves such rows out"
    example = f" but {shown(cells, int(rows[0]))!r}"
    return Problem(rows, f"has no {kind} in column {column.name!r}", remedy, example)


def _parsed(
    cells: Cells, column: NumberColumn, origin: str, marks: Sequence[str]
) -> tuple[Numbers | Dates, Array | None]:
    """The cells as numbers or dates, and which rows are neither (None where all is well)."""
    wanted = Dates if column.kind == "date" else Numbers
    if isinstance(cells, Strings):
        form = column.form
        if wanted is Numbers:
            form = "boolean" if column.kind == "boolean" else _form_of(cells, form, marks)
            read, bad = as_numbers(cells, form, marks)
        else:
            read, bad = _dates_of(cells, form, marks)
        if not bad.any():
            return read, None
        wrong = cells.mapped(bad, False, bool)
        if int(wrong.sum()) < len(cells) - int(_absent(cells, marks).sum()):
            return read, wrong
    elif isinstance(cells, wanted):
        if column.kind == "boolean":
            _check_booleans(cells, column, origin)
        return cells, None
    elif cells.missing().all():
        return (Dates(np.full(len(cells), np.datetime64("NaT", "us"))) if wanted is Dates else Numbers(np.full(len(cells), np.nan))), None
    raise another_kind(cells, column, origin)


def _form_of(cells: Strings, form: str, marks: Sequence[str]) -> str:
    """The schema's way of writing numbers, unless this file plainly has another one."""
    if form != "plain":
        return form
    return number_format([text for text in present(cells.pool.tolist(), marks) if text is not None]) or form


def _dates_of(cells: Strings, form: str, marks: Sequence[str]) -> tuple[Dates, Array]:
    read, bad = as_dates(cells, form, marks)
    if bad.any() and (other := date_format([text for text in present(cells.pool.tolist(), marks) if text is not None])):
        return as_dates(cells, other, marks)
    return read, bad


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
    return str(cells.values[row])


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
