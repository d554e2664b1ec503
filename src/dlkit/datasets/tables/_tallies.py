"""Facts gathered block by block, where a column does not fit into memory: all exact but the median."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dlkit.datasets.tables._facts import (
    DateFacts,
    Facts,
    NumberFacts,
    TextFacts,
    date_parts,
    number_facts,
    quantiles,
    text_facts,
)
from dlkit.datasets.tables._fitting import recognised
from dlkit.reading.cells import Array, Cells, Dates, Numbers, Strings, text_of
from dlkit.reading.parsing import as_dates, as_numbers

__all__ = ["ColumnTally", "NumberTally", "TextTally"]

_MOST_VALUES = 100_000  # different texts that are counted; a column of more is no category
_MOST_DIFFERENT = 50_000  # different numbers that are counted, to tell amounts from labels


@dataclass
class NumberTally:
    """`NumberFacts` of numbers that come in pieces (Chan, Golub and LeVeque 1983 for the variance)."""

    rows: int = 0
    missing: int = 0
    whole: bool = True
    low: float = math.inf
    high: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0
    ascending: bool = True
    sample: list[Array] = field(default_factory=list)

    def add(self, values: Array, chosen: Array) -> None:
        """Count `values`; `chosen` (bool [N]) picks the sample that median and quartiles are taken from."""
        facts = number_facts(values)
        there = values[np.isfinite(values)] if facts.missing else values
        count, before = facts.rows - facts.missing, self.rows - self.missing
        self.rows, self.missing = self.rows + facts.rows, self.missing + facts.missing
        if not count:
            return
        rising = bool((np.diff(there) > 0).all()) and (not before or float(there[0]) > self.high)
        self.ascending = self.ascending and rising
        self.whole, self.low, self.high = (
            self.whole and facts.whole,
            min(self.low, facts.low),
            max(self.high, facts.high),
        )
        distance, share = facts.mean - self.mean, count / (before + count)
        self.mean += distance * share
        self.squares += facts.std * facts.std * count + distance * distance * before * share
        self.sample.append(values[chosen & np.isfinite(values)].astype(np.float64))

    def facts(self) -> NumberFacts:
        """What `number_facts` would say; whether all differ is only known of rising numbers."""
        count = self.rows - self.missing
        if not count:
            return NumberFacts(rows=self.rows, missing=self.missing)
        sample = np.concatenate(self.sample)
        first, middle, third = quantiles(sample, (0.25, 0.5, 0.75)) if len(sample) else (self.mean,) * 3
        return NumberFacts(
            rows=self.rows,
            missing=self.missing,
            whole=self.whole,
            low=self.low,
            high=self.high,
            mean=self.mean,
            std=math.sqrt(self.squares / count),
            median=middle,
            spread=third - first,
            consecutive=self.whole and self.ascending and self.high - self.low + 1 == count,
            distinct=self.ascending or None,
        )


@dataclass
class TextTally:
    """`TextFacts` of text that comes in pieces."""

    rows: int = 0
    missing: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    more: bool = False

    def add(self, cells: Strings, marks: Sequence[str]) -> None:
        """Count cells; beyond a hundred thousand values only that there are more."""
        facts = text_facts(cells, marks)
        self.rows, self.missing = self.rows + facts.rows, self.missing + facts.missing
        for text, count in facts.counts.items():
            if text in self.counts or not self.more:
                self.counts[text] = self.counts.get(text, 0) + count
        self.more = self.more or len(self.counts) >= _MOST_VALUES

    def facts(self) -> TextFacts:
        """What `text_facts` would say."""
        return TextFacts(rows=self.rows, missing=self.missing, counts=self.counts, more=self.more)


class ColumnTally:
    """One column of whatever kind, found out from the first rows that have a value.

    Args:
        name: The column's name.
        marks: Missing marks.
        forced: "number", "date" or "text" where the caller says so.
        unique: Whether numbers that all differ make it an identifier.
        date_form: How dates are written, where the caller says so.
    """

    def __init__(
        self, name: str, marks: Sequence[str], forced: str | None, *, unique: bool, date_form: str | None = None
    ) -> None:
        self.name, self.marks, self.forced, self.unique = name, marks, forced, unique
        self.date_form = date_form
        self.form = "plain"
        self.tally: NumberTally | TextTally | dict[str, NumberTally] | None = TextTally() if forced == "text" else None
        self.rows = self.missing = 0

    @property
    def is_text(self) -> bool:
        """Whether the column must be read as the text that stands in the file."""
        return isinstance(self.tally, TextTally) or self.form == "boolean"

    def read(self, cells: Cells) -> tuple[Cells, Array | None]:
        """The cells as what this column holds, and which rows hold something else (bool [N], None for no row)."""
        if self.tally is None:
            self._recognise(cells)
        if self.tally is None or isinstance(self.tally, TextTally):
            return (cells if self.tally is None else text_of(cells)), None
        wanted = Numbers if isinstance(self.tally, NumberTally) else Dates
        if isinstance(cells, wanted):
            return cells, None
        if isinstance(cells, Strings):
            read = as_numbers if wanted is Numbers else as_dates
            parsed, bad = read(cells, self.form, self.marks)
            return parsed, cells.mapped(bad, False, bool) if bad.any() else None
        nothing = np.full(len(cells), np.nan)
        empty = Numbers(nothing) if wanted is Numbers else Dates(nothing.astype("datetime64[us]"))
        return empty, None if cells.missing().all() else ~cells.missing()

    def _recognise(self, cells: Cells) -> None:
        found, form = recognised(cells, self.marks, forced=self.forced, name=self.name, date_form=self.date_form)
        if isinstance(found, Strings):
            if text_facts(found, self.marks).counts:
                self.tally = TextTally()
        elif not found.missing().all():
            self.tally, self.form = (NumberTally() if isinstance(found, Numbers) else {}), form

    def add(self, cells: Cells, chosen: Array) -> None:
        """Count what `read` gave, or some rows of it."""
        self.rows += len(cells)
        if self.tally is None:
            self.missing += len(cells)
        elif isinstance(self.tally, TextTally) and isinstance(cells, Strings):
            self.tally.add(cells, self.marks)
        elif isinstance(self.tally, NumberTally) and isinstance(cells, Numbers):
            self.tally.add(cells.values, chosen)
        elif isinstance(self.tally, dict) and isinstance(cells, Dates):
            there = ~cells.missing()
            self.missing += int((~there).sum())
            for part, values in date_parts(cells.values[there]).items():
                self.tally.setdefault(part, NumberTally()).add(values, chosen[there])

    def facts(self) -> Facts:
        """The facts of all that was counted."""
        if self.tally is None:
            return NumberFacts(rows=self.rows, missing=self.missing)
        if isinstance(self.tally, dict):
            parts = {part: tally.facts() for part, tally in self.tally.items()}
            return DateFacts(rows=self.rows, missing=self.missing, parts=parts)
        facts = self.tally.facts()
        before = self.rows - facts.rows  # rows that went by before the first value
        return type(facts)(**{**vars(facts), "rows": self.rows, "missing": facts.missing + before})
