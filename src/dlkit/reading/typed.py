"""What the cells of a column are (numbers, truth values, dates or text), and the cells as that."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from dlkit.reading.cells import Array, Cells, Dates, Numbers, Strings, strings_of
from dlkit.reading.dates import as_dates, date_format
from dlkit.reading.parsing import as_numbers, boolean_words, mostly_numbers, number_format, parse_number, under_mark

__all__ = ["MOST_VALUES", "Reading", "TextFacts", "read_cells", "reading_of"]

MOST_VALUES = 100_000  # different texts that are counted; a column of more is not a category by itself


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """Text: how often each value occurs, blanks around it removed and missing marks left out.

    Attributes:
        rows: All rows.
        missing: Rows without text.
        counts: Rows per value; of a sample of the rows where there are `more`.
        more: Whether there are more values than are counted.
        typed: Those of them that were numbers, which tell nothing of how the others are written.
    """

    rows: int
    missing: int
    counts: dict[str, int]
    more: bool = False
    typed: frozenset[str] = frozenset()

    @property
    def written(self) -> dict[str, int]:
        """The counts without the typed ones."""
        return {text: count for text, count in self.counts.items() if text not in self.typed}


@dataclass(frozen=True)
class Reading:
    """How the cells of a column are taken.

    Attributes:
        kind: number, boolean, date, or text.
        form: How they are written, see `dlkit.reading.parsing`.
    """

    kind: str
    form: str = "plain"


def read_cells(cells: Cells, reading: Reading, marks: Collection[str]) -> tuple[Numbers | Dates, Array | None]:
    """Cells as what their column holds, each by itself, and which hold something else (bool [N]; None for no row).

    Args:
        cells: As they were read.
        reading: What the column holds; not text.
        marks: Missing marks.
    """
    dates = reading.kind == "date"
    if isinstance(cells, Strings):
        read: Numbers | Dates
        read, wrong = (as_dates if dates else as_numbers)(cells, reading.form, marks)
        return read, cells.mapped(wrong, False, bool) if wrong.any() else None
    if isinstance(cells, Dates if dates else Numbers):
        if reading.kind != "boolean":
            return cells, None
        bad = ~cells.missing() & ~np.isin(cells.values, (0, 1))
    else:
        bad, nothing = ~cells.missing(), np.full(len(cells), np.nan)
        cells = Dates(nothing.astype("datetime64[us]")) if dates else Numbers(nothing)
    return cells, bad if bad.any() else None


def reading_of(
    sorts: Collection[str], text: TextFacts, *, decimal: str, forced: str | None = None, date_form: str = ""
) -> Reading:
    """What a column holds, as all of its pieces together tell.

    All texts must be dates or truth values; a few cells among numbers are rows for the policy, not another kind of
    column.

    Args:
        sorts: See `ColumnFacts`; not torn.
        text: Its texts.
        decimal: The decimal mark of the file; "" where nothing tells.
        forced: "number", "date" or "text" where the caller says so.
        date_form: How dates are written, where the caller says so.
    """
    if forced == "text":
        return Reading("text")
    if not {"text", "truth"} & set(sorts):
        return Reading("date", "ISO8601") if {"date", "time"} & set(sorts) else Reading("number")
    values = list(text.written)
    if text.typed and not values:
        return Reading("number")
    if forced != "date" and not text.more and boolean_words(values):
        return Reading("boolean", "boolean")
    if forced != "date" and (form := number_format(values, decimal)) is not None:
        return Reading("number", form)
    if date_form:
        odd = int(as_dates(strings_of(values), date_form, ())[1].sum())
        return Reading("date", date_form) if odd < len(values) or not values else Reading("text")
    if forced != "number" and (form := date_format(values)) is not None:
        return Reading("date", form)
    if forced == "number" and values:
        # Codes with leading zeros count as numbers only where the caller says so.
        form = number_format([value.lstrip("0") or "0" for value in values], decimal)
        form = form or under_mark("plain", decimal)
        # Single bad cells are for the policy.
        some = any(parse_number(value, form) is not None for value in text.counts)
        return Reading("number", form) if some else Reading("text")
    counts = {value: text.counts[value] for value in sorted(text.counts)}
    form = mostly_numbers(counts, decimal) if forced is None else number_format(values, decimal)
    return Reading("text") if form is None else Reading("number", form)
