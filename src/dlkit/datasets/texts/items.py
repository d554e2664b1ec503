"""Texts that come one by one, in lists, lines, JSON and files: rows of the asked columns, and tables of these."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dlkit.errors import ArgumentError
from dlkit.reading.cells import Numbered, Place, Strings, Table, strings_of
from dlkit.reading.targets import target_text
from dlkit.storage.strings import PackedStrings

__all__ = ["ColumnName", "Items", "Row", "rows_of_items", "tables_of_rows", "target_cells"]

ColumnName = int | str
#: One row: the line, item or file, and the asked columns' values or, as a string, what is wrong, to follow the place.
Row = tuple[int | str, tuple[Any, ...] | str]
Items = Iterator[tuple[int, Any]]
_ROWS = 4096  # that are made into one table


def rows_of_items(items: Items, columns: Sequence[ColumnName]) -> Iterator[Row]:
    """The asked columns of texts, tuples and dicts.

    Args:
        items: Each with its place; a `ValueError` where there is none.
        columns: Names of dicts, or numbers of tuples; [0] of texts.
    """
    alone = list(columns) == [0]
    for place, item in items:
        if isinstance(item, dict):
            missing = [column for column in columns if column not in item]
            told = f"has no {missing[0]!r} among its names {sorted(map(str, item))}"[:300] if missing else ""
            yield place, told or tuple([item[column] for column in columns])
        elif isinstance(item, tuple | list):
            if alone and len(item) == 2:
                raise ArgumentError("the texts are pairs; text=0, pair=1 takes both")
            there = [item[column] for column in columns if isinstance(column, int) and column < len(item)]
            told = f"has {len(item)} parts, of which {list(columns)} were asked for"
            yield place, tuple(there) if len(there) == len(columns) else told
        elif isinstance(item, ValueError):
            yield place, str(item)
        else:
            yield place, (item,) if alone else f"is one {type(item).__name__}, without columns {list(columns)}"


_TARGETS = {str, int, float, bool, type(None)}


def tables_of_rows(rows: Iterator[Row], names: Sequence[str], texts: int, where: tuple[str, str]) -> Iterator[Table]:
    """Rows that come one by one as tables, with what is wrong with the others.

    Args:
        rows: See `Row`.
        names: Of their columns.
        texts: How many columns, from the first on, hold texts.
        where: The file, and what is counted in it.
    """
    while some := list(itertools.islice(rows, _ROWS)):
        bad = {number: row for number, (_, row) in enumerate(some) if isinstance(row, str)}
        cells = list(zip(*(row for _, row in some if not isinstance(row, str)), strict=True))
        usual = [set(map(type, column)) <= ({str} if at < texts else _TARGETS) for at, column in enumerate(cells)]
        if not all(usual):  # each row is asked only where a look at the types does not do
            found = ((number, _problem(row, texts)) for number, (_, row) in enumerate(some) if number not in bad)
            bad |= {number: why for number, why in found if why is not None}
            cells = list(zip(*(row for number, (_, row) in enumerate(some) if number not in bad), strict=True))
        columns = [_texts(column) if at < texts else _targets(column) for at, column in enumerate(cells)]
        numbers = sorted(bad)
        yield Table(
            dict(zip(names, columns or [strings_of(())] * len(names), strict=True)),
            where[0],
            _places_of([place for number, (place, _) in enumerate(some) if number not in bad], *where),
            skipped=[_places_of([some[number][0]], *where)(0).skipped(bad[number]) for number in numbers],
            skipped_at=[number - before for before, number in enumerate(numbers)],
        )


def _texts(column: Sequence[Any]) -> Strings:
    """Texts as they are: looking for equal ones would take longer than all else."""
    if set(map(type, column)) == {str}:
        return Strings(np.arange(len(column), dtype=np.int32), PackedStrings.of(column))
    return strings_of(map(_text_or_none, column))


def _targets(column: Sequence[Any]) -> Strings:
    if set(map(type, column)) == {str}:
        known = {label: _as_text(label) for label in set(column)}
        return strings_of(map(known.__getitem__, column))
    return strings_of(map(_as_text, column))


def _places_of(numbers: Sequence[Any], origin: str, noun: str) -> Callable[[int], Place]:
    if noun == "file":
        return _Files(PackedStrings.of(numbers))
    return Numbered(np.array(numbers, dtype=np.int64), origin, noun)


@dataclass(frozen=True)
class _Files:
    """Names rows that are files."""

    names: PackedStrings

    def __call__(self, row: int) -> Place:
        return Place(self.names[row])


def _problem(row: Sequence[Any], texts: int) -> str | None:
    for text in row[:texts]:
        if not isinstance(text, str) and _text_or_none(text) is not None:
            return f"has a value of type {type(text).__name__} where a text is expected"
    for value in row[texts:]:
        if not _is_target(value):
            return f"has a value of type {type(value).__name__} where a word or a number is expected"
    return None


def _text_or_none(value: Any) -> Any:
    return value if isinstance(value, str) else target_text(value, ())


def _plain(value: Any) -> Any:
    """A number of numpy or torch as one of Python."""
    return value.item() if isinstance(value, Tensor | np.generic) and value.ndim == 0 else value


def _as_text(value: Any) -> str | None:
    return target_text(_plain(value), ())


def target_cells(values: Sequence[Any]) -> Strings:
    """Targets that the caller gives as a column.

    Args:
        values: Words, numbers, truth values; None and NaN are missing.

    Raises:
        ArgumentError: there is something else among them.
    """
    if odd := [value for value in values if not _is_target(value)]:
        raise ArgumentError(f"targets must be words or numbers, not {type(odd[0]).__name__}: {odd[0]!r:.80}")
    return strings_of(map(_as_text, values))


def _is_target(value: Any) -> bool:
    return isinstance(_plain(value), str | int | float) or target_text(value, ()) is None
