"""What one column looks like, gathered piece by piece: the same facts, to the last bit, however a table is cut up.

A table in memory is one piece, a stream as many as it has blocks. Sums are therefore taken over pieces of a fixed
number of rows, and medians over a sample of rows that depends on nothing but their numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlkit.datasets.tables._tally import NumberFacts, NumberTally
from dlkit.datasets.targets import TargetColumn
from dlkit.reading.cells import Array, Cells, Dates, Numbers, Strings, ranks_of, sort_of, text_of
from dlkit.reading.parsing import without_marks
from dlkit.reading.targets import few_integers
from dlkit.reading.typed import MOST_VALUES, TextFacts
from dlkit.splits._values import mixed

__all__ = [
    "ColumnFacts",
    "DateFacts",
    "Facts",
    "RowSample",
    "SAMPLED",
    "SAMPLED_TEXTS",
    "TargetFacts",
    "date_parts",
    "sampling_keys",
]

SAMPLED, SAMPLED_TEXTS = 200_000, 10_000  # rows: medians come from the first, the look of countless texts from these


@dataclass(frozen=True, kw_only=True)
class DateFacts:
    """Dates: what their parts look like.

    Attributes:
        rows: All rows.
        missing: Rows without a date.
        parts: Facts by the name of the part, see `date_parts`.
    """

    rows: int
    missing: int
    parts: dict[str, NumberFacts] = field(default_factory=dict)


Facts = NumberFacts | TextFacts | DateFacts


class RowSample:
    """Some rows of a table, spread evenly over it: those whose numbers have the smallest hashes; all of a few."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._bound = np.uint64(2**64 - 1)
        self._keys: list[Array] = []
        self._values: dict[str, list[Array]] = {}

    def choose(self, keys: Array) -> Array:
        """Which of some rows may belong to the sample, as places among them.

        Args:
            keys: uint64 [N], see `sampling_keys`.
        """
        if len(keys) > self.size:
            self._bound = min(self._bound, np.partition(keys, self.size - 1)[self.size - 1])
        chosen = np.flatnonzero(keys <= self._bound)
        self._keys.append(keys[chosen])
        return chosen

    def add(self, name: str, values: Array) -> None:
        """Keep what the chosen rows hold in a column.

        Args:
            name: Of the column.
            values: [chosen].
        """
        self._values.setdefault(name, []).append(values)

    def forget(self, name: str) -> None:
        """Keep nothing of a column, whose pieces do not fit together."""
        self._values[name] = [np.full(len(part), None) for part in self._values[name]]

    def shrink(self) -> None:
        """Forget rows that other ones have displaced, once these are the half."""
        if sum(map(len, self._keys)) > 2 * self.size:
            self._keep()

    def values(self, name: str) -> Array:
        """What the rows of the sample hold in a column, in the order of the table."""
        if len(self._keys) > 1 or len(self._keys[0]) > self.size:
            self._keep()
        return self._values[name][0]

    def _keep(self) -> None:
        keys = np.concatenate(self._keys)
        if len(keys) > self.size:
            self._bound = np.partition(keys, self.size - 1)[self.size - 1]
        kept = keys <= self._bound
        self._keys = [keys[kept]]
        self._values = {name: [np.concatenate(parts)[kept]] for name, parts in self._values.items()}


def sampling_keys(rows: Array) -> Array:
    """A well mixed number (uint64) for each row number, int64 [N]."""
    return mixed((rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))


class ColumnFacts:
    """The facts of a column of whatever kind, gathered from its pieces.

    First `look` at the cells of a piece as they are; when it is decided how to read them, `add` what was read.

    Args:
        name: Of the column.
        marks: Missing marks.
        sample: The rows that medians come from.
        texts: The rows whose texts are kept, to know what they look like where they are too many to be counted.
        text: Whether the cells are to be taken as text whatever they are.
        countless: Whether more than `MOST_VALUES` texts are counted, too: where the caller says that it is a category.
        decimal: The decimal mark of the table; "" where nothing tells.
    """

    def __init__(
        self,
        name: str,
        marks: Collection[str],
        sample: RowSample,
        texts: RowSample,
        *,
        text: bool = False,
        countless: bool = False,
        decimal: str = "",
    ) -> None:
        self.name, self._marks, self._sample, self._texts = name, frozenset(marks), sample, texts
        self._text, self.decimal = text, decimal
        self.fixed = False  # whether the caller says all that is to be said of it
        self.raw: set[str] = set()  # what its pieces hold, see `sort_of`
        self._floats = False
        self.example = ""
        self.rows = self.empty = 0
        self._most = math.inf if countless else MOST_VALUES
        self._counts: dict[str, int] = {}
        self._typed: frozenset[str] = frozenset()
        self.more = False
        self._without = 0
        self._numbers = NumberTally()
        self._parts: dict[str, NumberTally] = {}

    @property
    def torn(self) -> bool:
        """Whether some pieces hold numbers or dates and others text: read again as text, they are all alike."""
        kinds = {"number" if sort == "long" else sort for sort in self.raw}
        return not self._text and (len(kinds) > 1 or ("long" in self.raw and self._floats))

    @property
    def sorts(self) -> set[str]:
        """What the column holds, as far as it was read."""
        return {"text"} if self._text else self.raw

    def look(self, cells: Cells, chosen: Array, *, raw: Cells | None = None) -> None:
        """Take in how the cells of a piece are, `raw` before classes were renamed, and count texts."""
        self.rows += len(cells)
        raw = cells if raw is None else raw
        self.raw |= {sort_of(raw)} - {"nothing"}
        self._floats = self._floats or (isinstance(raw, Numbers) and raw.values.dtype.kind == "f")
        if self.fixed:
            self.empty += int((cells.codes < 0).sum() if isinstance(cells, Strings) else cells.missing().sum())
        elif self._text or isinstance(cells, Strings):
            self._texts.add(self.name, self._count(text_of(cells), chosen))
        else:
            self._without += len(cells)
            if not self.example and self.raw:
                there = cells.values[0 if cells.complete else int(np.argmin(cells.missing()))]
                self.example = str(there).removesuffix(".000000").removesuffix("T00:00:00")
            self._texts.add(self.name, np.full(len(chosen), None))

    def _count(self, cells: Strings, chosen: Array) -> Array:
        used, texts = cells.counts().tolist(), without_marks(cells.pool.tolist(), self._marks)
        there = 0
        for text, count in zip(texts, used, strict=True):
            if text is not None and count:
                there += count
                if not self.more:
                    self._counts[text] = self._counts.get(text, 0) + count
                    self.more = len(self._counts) > self._most
        self._without += len(cells) - there
        self._typed |= {text for place in cells.typed if (text := texts[place]) is not None}
        return np.array([*texts, None], dtype=object)[cells.codes[chosen]]

    def add(self, cells: Cells | None, chosen: Array) -> None:
        """Count numbers or dates.

        Args:
            cells: What the cells of a piece were read as; None where they are not.
            chosen: The places of the rows that medians come from.
        """
        if isinstance(cells, Numbers) and not self.torn:
            self._numbers.add(cells.values)
            self._sample.add(self.name, cells.values[chosen])
        elif isinstance(cells, Dates) and not self.torn:
            for part, values in date_parts(cells.values[~cells.missing()]).items():
                self._parts.setdefault(part, NumberTally()).add(values)
            self._sample.add(self.name, cells.values[chosen])
        else:
            self._sample.add(self.name, np.full(len(chosen), None))
            if self.torn:
                self._sample.forget(self.name)

    def add_nothing(self, rows: int, chosen: Array) -> None:
        """Count rows without a value, before it is known what the column holds."""
        self._numbers.add(np.full(rows, np.nan))
        self._sample.add(self.name, np.full(len(chosen), None))

    def texts(self) -> TextFacts:
        """What was counted of text."""
        counts = self._counts
        if self.more:
            counts = dict(Counter(text for text in self._texts.values(self.name).tolist() if text is not None))
        return TextFacts(rows=self.rows, missing=self._without, counts=counts, more=self.more, typed=self._typed)

    def numbers(self, *, spread: bool = False) -> NumberFacts:
        """What was counted of numbers.

        Args:
            spread: Whether the distance between the quartiles is needed.
        """
        values = self._sample.values(self.name)
        values = values.astype(np.float64) if values.dtype == object else values
        return self._numbers.facts(values, self.rows, spread=spread)

    def fraction(self) -> str:
        """A number with a fraction as text, of a column whose cells were read as numbers; "" where all are whole."""
        if self._text or "number" not in self.raw or (facts := self.numbers()).whole or not math.isfinite(facts.low):
            return ""
        numbers = [*self._sample.values(self.name).tolist(), facts.low, facts.high, facts.mean]
        return next((f"{value:.15g}" for value in numbers if math.isfinite(value) and value % 1), "")

    def dates(self, *, spread: bool = False) -> DateFacts:
        """What was counted of dates.

        Args:
            spread: Whether the distances between the quartiles are needed.
        """
        moments = self._sample.values(self.name).astype("datetime64[us]")
        seen = date_parts(moments[~np.isnat(moments)])
        parts = {name: tally.facts(seen[name], tally.rows, spread=spread) for name, tally in self._parts.items()}
        count = next(iter(parts.values())).rows if parts else 0
        return DateFacts(rows=self.rows, missing=self.rows - count, parts=parts if count else {})


class TargetFacts(ColumnFacts):
    """The facts of a column of targets: of all rows, as a task and its classes are not statistics.

    Args:
        facts: As for `ColumnFacts`.
        how: As for `ColumnFacts`.
    """

    def __init__(self, *facts: Any, **how: Any) -> None:
        super().__init__(*facts, **how)
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
        self._different.update(dict.fromkeys(ranks_of(finite if few else finite[:1000])[0].tolist()))
        self._infinite.update(dict.fromkeys(infinite.tolist()))
        self.more = wanted and len(self._different) > MOST_VALUES
        self._many = self.more or not (wanted or not self._different or few_integers(self._numbers_seen()) is not None)

    def _numbers_seen(self) -> Array:
        return np.array(list(self._different), dtype=np.float64)

    def known(self) -> TargetColumn:
        """All that a target is found by."""
        return TargetColumn(
            name=self.name,
            sorts=frozenset(self.sorts),
            texts=self.texts(),
            numbers=tuple(self._different),
            infinite=tuple(self._infinite),
            there=self._there,
            decimal=self.decimal,
        )


def date_parts(moments: Array) -> dict[str, Array]:
    """Dates as numbers: year, month, day, weekday (Monday 0), day of year, hour, minute, and days since 1970.

    Args:
        moments: datetime64[us] [N]; where NaT, every part is NaN.
    """
    absent = np.isnat(moments)
    filled = np.where(absent, np.datetime64(0, "us"), moments)
    days, months, years = (filled.astype(f"datetime64[{unit}]") for unit in "DMY")
    minutes = (filled - days).astype("timedelta64[m]").astype(np.int64)
    elapsed = filled.astype(np.int64) / 86_400e6
    parts = {
        "year": years.astype(np.int64) + 1970,
        "month": months.astype(np.int64) % 12 + 1,
        "day": (days - months).astype(np.int64) + 1,
        "weekday": (days.astype(np.int64) + 3) % 7,
        "day of year": (days - years).astype(np.int64) + 1,
        "hour": minutes // 60,
        "minute": minutes % 60,
        "days": elapsed,
    }
    return {name: np.where(absent, np.nan, values.astype(np.float64)) for name, values in parts.items()}
