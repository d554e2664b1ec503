"""Text cells to dates, in the ways people write them; and columns of dates or numbers as their text tells."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

from dlkit.errors import DataError
from dlkit.reading.cells import Array, Cells, Dates, Numbers, Strings
from dlkit.reading.parsing import arrow_reads, as_numbers, exceeds_float, number_format, spread, without_marks

__all__ = ["as_dates", "date_format", "day_first", "fits", "moments", "settled", "unmistakable"]

_ISO = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?", re.A)
_TIME = re.compile(r"\d\d:\d\d(:\d\d(\.\d+)?)?", re.A)
# Month before day where both would fit all values, as most such files come from there; the spec says what was taken.
_DATE_FORMATS = (
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m-%d-%Y",
    "%d-%m-%Y",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d.%m.%y",
    "%d-%b-%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%Y년 %m월 %d일",
    "%Y. %m. %d.",
    "%y. %m. %d.",
)
_SWAPPED = {"%m/%d": "%d/%m", "%m-%d": "%d-%m"}
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_DATE_LIKE = re.compile(r"\d.*[-/. ,년].*\d", re.A)


def date_format(values: Sequence[str]) -> str | None:
    """The form in which all of `values` are dates: "ISO8601", "time", a `strptime` format, or None.

    >>> date_format(["2020-01-02", "2020-01-02 10:00"]), date_format(["31.12.2020"]), date_format(["soon"])
    ('ISO8601', '%d.%m.%Y', None)
    """
    if not values:
        return None
    if all(_ISO.fullmatch(text) for text in values):
        return "ISO8601"
    if all(_TIME.fullmatch(text) for text in values):
        return "time"
    few = spread(values)
    if not all(len(text) <= 40 and _DATE_LIKE.search(text) for text in few):
        return None
    for form in (day + clock for day in _DATE_FORMATS for clock in _CLOCKS):
        if not np.isnat(_dates(few, form)).any() and not np.isnat(_dates(values, form)).any():
            return form
    return None


def day_first(form: str) -> str | None:
    """The form with day and month the other way round, where only numbers tell which is which.

    >>> day_first("%m/%d/%Y"), day_first("%d.%m.%Y")
    ('%d/%m/%Y', None)
    """
    return next((new + form.removeprefix(old) for old, new in _SWAPPED.items() if form.startswith(old)), None)


def unmistakable(form: str) -> bool:
    """Whether no other form could mean another day: the year first and with four digits, or the month as a word."""
    return form in ("ISO8601", "time") or form.startswith("%Y") or "%b" in form or "%B" in form


def fits(values: Sequence[str], form: str) -> bool:
    """Whether all of `values` are dates written in a form."""
    return not np.isnat(_dates(values, form)).any()


def _dates(values: Sequence[str], form: str) -> Array:
    import pandas as pd

    if form == "time":
        values, form = [f"1970-01-01 {value}" for value in values], "ISO8601"
    parsed = pd.to_datetime(pd.Series(list(values), dtype=object), format=form, errors="coerce", utc=True)
    return parsed.dt.tz_localize(None).to_numpy().astype("datetime64[us]")


def as_dates(cells: Strings, form: str, missing: Collection[str]) -> tuple[Dates, Array]:
    """Text as dates, and which strings of the pool are neither a date nor a missing mark (bool [len(pool)]).

    Args:
        cells: The column.
        form: See `date_format`.
        missing: Missing marks.
    """
    texts = without_marks(cells.pool.tolist(), missing)
    parsed = np.full(len(texts), np.datetime64("NaT", "us"))
    there = np.array([text is not None for text in texts], dtype=bool)
    parsed[there] = _dates([text for text in texts if text is not None], form)
    bad = there & np.isnat(parsed) & (cells.counts() > 0)
    return Dates(cells.mapped(parsed, np.datetime64("NaT", "us"), "datetime64[us]")), bad


def moments(cells: Cells, missing: Collection[str], form: str = "") -> Array:
    """A column of dates or numbers as values that have an order; NaT or NaN where there is none.

    Args:
        cells: The column.
        missing: Missing marks.
        form: How dates are written, where that is known.

    Raises:
        DataError: there are neither dates nor numbers, or dates that may have the day or the month first.
    """
    if not isinstance(cells, Strings):
        return cells.values
    texts = [text for text in without_marks(cells.pool.tolist(), missing) if text is not None]
    dates = form or date_format(texts)
    if dates is not None:
        other = None if form else day_first(dates)
        if other is not None and fits(texts, other):
            raise DataError(
                f"{texts[0]!r} may be {dates} or {other}, which are different orders in time: say dates={{...: "
                f"{other!r}}} of a table, or write such dates as 2024-12-31"
            )
        return as_dates(cells, dates, missing)[0].values
    numbers = number_format(texts)
    if numbers is None:
        raise DataError(f"{next(iter(texts), '')!r} and others are neither dates nor numbers, which have an order")
    return as_numbers(cells, numbers, missing)[0].values


def settled(cells: Strings, missing: Collection[str], decimal: str = "") -> Cells:
    """What Arrow would have made of the same text: plain numbers and ISO dates as such, everything else as it is.

    Args:
        cells: The column.
        missing: Missing marks.
        decimal: The decimal mark of the file; "" for a point.
    """
    texts = [text for text in without_marks(cells.pool.tolist(), missing) if text is not None]
    if not texts:
        return Numbers(np.full(len(cells), np.nan))
    if arrow_reads(texts, decimal):
        numbers = as_numbers(cells, "decimal ," if decimal == "," else "plain", missing)[0]
        return cells if exceeds_float(numbers.values) else numbers
    if all(_ISO.fullmatch(text) for text in texts) or all(_TIME.fullmatch(text) for text in texts):
        dates, bad = as_dates(cells, "time" if _TIME.fullmatch(texts[0]) else "ISO8601", missing)
        return cells if bad.any() else dates
    return cells
