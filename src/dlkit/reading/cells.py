"""One column as it was read. Strings are codes into a pool of distinct ones, so every question about text is asked
once per distinct value, and no Python object is kept per cell."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from dlkit.storage.strings import PackedStrings

__all__ = [
    "Block",
    "Cells",
    "Dates",
    "DecimalMark",
    "EXACT",
    "Numbered",
    "Numbers",
    "Place",
    "Skipped",
    "Stacked",
    "Strings",
    "Table",
    "by_row",
    "cell_text",
    "ranks_of",
    "sort_of",
    "strings_of",
    "text_of",
]

Array = np.ndarray[Any, np.dtype[Any]]
#: Whole numbers up to here survive in a float64.
EXACT = 1 << 53


@dataclass(frozen=True)
class Place:
    """Where a row stands; as a string in the words with which errors name it.

    Attributes:
        file: The file, or "the DataFrame" and the like where there is none.
        row: Its number in the file: of the line, from 1 on; where there are no lines of the row, from 0 on; of a
            DataFrame the label. None for a file that is one row.
        noun: What is counted by `row`: "line", "row" or "item".

    >>> print(Place("a.csv", 7, "line"))
    line 7 of a.csv
    """

    file: str
    row: Any = None
    noun: str = "row"

    def __str__(self) -> str:
        return self.file if self.row is None else f"{self.noun} {self.row!r} of {self.file}"

    def skipped(self, reason: str) -> Skipped:
        """This row as one that was left out.

        Args:
            reason: What is wrong with it, to follow the place in a sentence.
        """
        return Skipped(self.file, self.row, reason, self.noun)


@dataclass(frozen=True)
class Skipped:
    """A row or file that was left out; as a string the sentence that says so.

    Attributes:
        file: The file it is in, or it is; "the DataFrame" where there is none.
        row: Its number in the file, see `Place`; None for a file that is left out as a whole.
        reason: What is wrong with it, to follow the place in a sentence.
        noun: What is counted by `row`: "line", "row" or "item".

    >>> print(Skipped("a.csv", 7, "has 2 cells where the header has 3", "line"))
    line 7 of a.csv has 2 cells where the header has 3
    """

    file: str
    row: Any
    reason: str
    noun: str = "row"

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return str(Place(self.file, self.row, self.noun))

    def __str__(self) -> str:
        return f"{self.place} {self.reason}"


@dataclass(frozen=True)
class Numbered:
    """Names rows whose lines, numbers or labels are known.

    Attributes:
        labels: Of each row.
        origin: The file.
        noun: What the labels count.
    """

    labels: Any
    origin: str
    noun: str = "line"

    def __call__(self, row: int) -> Place:
        label = self.labels[row]
        return Place(self.origin, label.item() if isinstance(label, np.generic) else label, self.noun)


@dataclass(frozen=True)
class Stacked:
    """Names a row of several tables under each other.

    Attributes:
        starts: The number of the first row of each.
        places: Those of each.
    """

    starts: Sequence[int]
    places: Sequence[Callable[[int], Place]]

    def __call__(self, row: int) -> Place:
        part = bisect_right(self.starts, row) - 1
        return self.places[part](row - self.starts[part])


@dataclass(frozen=True)
class Numbers:
    """A column of numbers.

    Attributes:
        values: float64 [N] with NaN for missing, or int64 [N], which has no missing ones.
    """

    values: Array

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Array) -> Self:
        """The cells of some rows."""
        return type(self)(self.values[rows])

    @cached_property
    def complete(self) -> bool:
        """Whether surely no cell is missing; a sum is the quickest way to look."""
        with np.errstate(over="ignore"):
            return self.values.dtype.kind != "f" or math.isfinite(float(self.values.sum()))

    def missing(self) -> Array:
        """Which cells hold no finite number, as bool [N]."""
        if self.values.dtype.kind != "f":
            return np.zeros(len(self.values), dtype=bool)
        return ~np.isfinite(self.values)


@dataclass(frozen=True)
class Dates:
    """A column of moments.

    Attributes:
        values: datetime64[us] [N] in UTC, NaT for missing.
    """

    values: Array

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Array) -> Self:
        """The cells of some rows."""
        return type(self)(self.values[rows])

    @cached_property
    def complete(self) -> bool:
        """Whether no cell is missing."""
        return not self.missing().any()

    def missing(self) -> Array:
        """Which cells are empty, as bool [N]."""
        return np.isnat(self.values)


@dataclass(frozen=True)
class Strings:
    """A column of text as read, blanks and missing marks included: codes into a pool, -1 where absent.

    A string is in the pool once; or, in long columns where surely all differ, once per row.

    Attributes:
        codes: int32 [N].
        pool: The strings.
        typed: The places in the pool of strings that were numbers beside text, whose mark is a point whatever the mark
            of the others is; the same string may stand there as text, too.
    """

    codes: Array
    pool: PackedStrings
    typed: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: Array) -> Strings:
        """The cells of some rows, with the same pool."""
        return replace(self, codes=self.codes[rows])

    def counts(self) -> Array:
        """How often each string of the pool occurs, as int64 [len(pool)]."""
        return np.bincount(self.codes + 1, minlength=len(self.pool) + 1)[1:]

    def tolist(self) -> list[str | None]:
        """Every cell as a Python string, None where absent; for small tables."""
        strings: list[str | None] = [*self.pool.tolist(), None]
        return [strings[code] for code in self.codes.tolist()]

    def mapped(self, values: Sequence[Any] | Array, absent: Any, dtype: Any) -> Array:
        """`values[i]` wherever string i of the pool stands, `absent` where nothing does, as an array of `dtype`."""
        lookup = np.empty(len(self.pool) + 1, dtype=dtype)
        lookup[:-1], lookup[-1] = values, absent
        return lookup[self.codes]


Cells = Numbers | Dates | Strings


def sort_of(cells: Cells) -> str:
    """What cells are as read: number, long (whole ones beyond 53 bits), date, time, truth, text; or nothing.

    Args:
        cells: A column, or a part of one.
    """
    if isinstance(cells, Strings):
        return "truth" if len(cells.pool) == 2 and cells.pool.tolist() == ["False", "True"] else "text"
    if not len(cells) or (not cells.complete and cells.missing().all()):
        return "nothing"
    if isinstance(cells, Numbers):
        whole = cells.values.dtype.kind == "i"
        return "long" if whole and max(-int(cells.values.min()), int(cells.values.max())) >= EXACT else "number"
    there = cells.values[~cells.missing()]
    # Arrow reads times as moments of the first day.
    return "time" if (there.astype("datetime64[D]") == np.datetime64(0, "D")).all() else "date"


def ranks_of(values: Array) -> tuple[Array, Array]:
    """Distinct values in ascending order and the place of each value among them, as `numpy.unique` gives them.

    Integers of a small range, such as labels, are counted instead of sorted: some fifty times faster.

    >>> ranks_of(np.array([7, 5, 7]))
    (array([5, 7]), array([1, 0, 1]))
    """
    if values.dtype.kind in "iu" and len(values):
        low, high = int(values.min()), int(values.max())
        if high - low < max(1024, len(values)):
            places = values - low
            there = np.bincount(places, minlength=high - low + 1) > 0
            return np.flatnonzero(there) + low, (np.cumsum(there) - 1)[places]
    distinct, codes = np.unique(values, return_inverse=True)
    return distinct, codes.reshape(-1)


def strings_of(values: Iterable[str | None]) -> Strings:
    """Distinct strings and codes from Python strings, in order of appearance.

    Args:
        values: Cells, None where absent.

    >>> strings_of(["b", "a", None, "b"]).codes.tolist()
    [0, 1, -1, 0]
    """
    index: defaultdict[str, int] = defaultdict()
    index.default_factory = index.__len__
    codes = np.fromiter((-1 if value is None else index[value] for value in values), dtype=np.int32)
    return Strings(codes, PackedStrings.of(index))


def by_row(cells: Strings, wrong: Mapping[int, str], absent: str | None = None) -> dict[int, str]:
    """What is wrong with each row, from what is wrong with each different text.

    Args:
        cells: A column.
        wrong: By the place of the text in the pool.
        absent: What is wrong with a row that has none; None for nothing.
    """
    bad = np.isin(cells.codes, list(wrong))
    bad |= (cells.codes < 0) & (absent is not None)
    return {row: wrong.get(int(cells.codes[row])) or absent or "" for row in np.flatnonzero(bad).tolist()}


def text_of(cells: Cells) -> Strings:
    """Any cells as text, as labels and categories want them: 1.0 and 1 are both "1"."""
    if isinstance(cells, Strings):
        return cells
    if isinstance(cells, Numbers):
        values, codes = ranks_of(cells.values)
        # As labels and categories have them: 1.0 and 1 are both "1", NaN is absent.
        pool = strings_of(None if value != value else cell_text(value) for value in values.tolist())
        return Strings(pool.codes[codes].astype(np.int32), pool.pool)
    return strings_of(
        None if absent else str(value) for value, absent in zip(cells.values, cells.missing(), strict=True)
    )


def cell_text(value: Any) -> str:
    """A cell as the text that a CSV file would hold.

    Args:
        value: A number or anything else; whole floats lose their point, as the integers they came from.
    """
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(float(value)) < EXACT:
        return str(int(value))
    return str(value)


@dataclass(frozen=True)
class Block:
    """A part of a file.

    Attributes:
        start: Its first byte, or its row group.
        stop: The byte after it, or the next row group.
        line: The line it begins with.
    """

    start: int
    stop: int
    line: int = 0


@dataclass(frozen=True)
class DecimalMark:
    """The decimal mark of a table.

    Attributes:
        sign: "," or "."; "" where nothing tells, which is a point.
        proof: What it is known by.
        typed: Whether the cells of numbers had types already, so that no mark is in them.
    """

    sign: str = ""
    proof: str = ""
    typed: bool = False


@dataclass
class Table:
    """A whole table as read.

    Attributes:
        columns: Cells by column name, all of one length.
        origin: What it was read from, as errors name it.
        places: Maps a row number to where that row stands: "line 12 of adult.data" in words.
        notes: What was found and decided while reading, in sentences.
        skipped: Records that could not be read and were left out by policy.
        skipped_at: How many rows stand before each of these, where that is known.
        categories: Columns that the source itself declares to be categories.
        folder: Where it lies, which paths in cells are relative to.
        first: For a piece of a block of a stream, the number of its first row in the block.
        header: The names of all columns of a file that has no header row; else empty.
        decimal: The decimal mark of its numbers.
    """

    columns: dict[str, Cells]
    origin: str
    places: Callable[[int], Place]
    notes: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    skipped_at: list[int] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    folder: Path | None = None
    first: int = 0
    header: tuple[str, ...] = ()
    decimal: DecimalMark = field(default_factory=DecimalMark)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0
