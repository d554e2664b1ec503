"""Text cells to numbers, dates and booleans, in the ways people write them; each distinct text is looked at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from dlkit.datasets.tables._cells import Array, Cells, Dates, Numbers, Strings

__all__ = [
    "DEFAULT_MISSING",
    "as_dates",
    "as_numbers",
    "boolean_words",
    "date_format",
    "fitting_form",
    "is_code",
    "number_format",
    "present",
    "settled",
]

#: What counts as missing in a cell of its own, blanks around it aside. An empty cell always does.
DEFAULT_MISSING = (
    "",
    "?",
    "-",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "<NA>",
    "NaN",
    "nan",
    "NULL",
    "Null",
    "null",
    "None",
)

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.I | re.A)
_CODE = re.compile(r"[+-]?0(\d+|x[\da-f]+)", re.I | re.A)
_HAS_DIGIT = re.compile(r"\d|^[+-]?inf", re.I | re.A)
_GROUPED = {
    # "1,234.5"; "1 234.5" with the blanks that typesetters and Excel use; "1'234.5"; "1.234,5" and "0,5"
    "thousands ,": (re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", re.A), {",": None}),
    "thousands blank": (
        re.compile(r"[+-]?\d{1,3}([ \u00a0\u202f]\d{3})+(\.\d*)?", re.A),
        dict.fromkeys(" \u00a0\u202f"),
    ),
    "thousands '": (re.compile(r"[+-]?\d{1,3}(['\u2019]\d{3})+(\.\d*)?", re.A), dict.fromkeys("'\u2019")),
    "decimal ,": (re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d*)?|[+-]?,\d+", re.A), {".": None, ",": "."}),
}
_TABLES = {name: str.maketrans(change) for name, (_, change) in _GROUPED.items()}

_ISO = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?", re.A)
_TIME = re.compile(r"\d\d:\d\d(:\d\d(\.\d+)?)?", re.A)
# Month before day where both would fit all values, as most such files come from there; the schema says what was taken.
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
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_DATE_LIKE = re.compile(r"\d.*[-/. ,년].*\d", re.A)

_BOOLEANS = (("false", "true"), ("f", "t"), ("no", "yes"), ("n", "y"), ("off", "on"))


def is_code(text: str) -> bool:
    """Whether digits are a code and no amount: `01234`, or `0x1F`, which Arrow would take for 31."""
    return _CODE.fullmatch(text) is not None


def present(strings: Sequence[str], missing: Collection[str]) -> list[str | None]:
    """Each string without blanks around it, None where it is a missing mark."""
    return [None if (text := string.strip()) == "" or text in missing else text for string in strings]


def fitting_form(cells: Strings, form: str, missing: Collection[str]) -> str:
    """A schema's way of writing numbers, unless this file plainly has another one."""
    if form != "plain":
        return form
    return number_format([text for text in present(cells.pool.tolist(), missing) if text is not None]) or form


def boolean_words(values: Collection[str]) -> bool:
    """Whether values are one pair of words for false and true, in any case of letters."""
    if not 2 <= len(values) <= 6:  # both words, in at most three spellings each
        return False
    return {value.lower() for value in values} in [set(pair) for pair in _BOOLEANS]


def _is_true(text: str) -> float | None:
    word = text.lower()
    for false, true in (*_BOOLEANS, ("0", "1"), ("0.0", "1.0")):
        if word in (false, true):
            return float(word == true)
    return None


def number_format(values: Sequence[str]) -> str | None:
    """How all of `values` are written as numbers: "plain", a name with the separator in it, or None.

    >>> number_format(["1,234", "12"]), number_format(["0,5"]), number_format(["x"]), number_format(["01"])
    ('thousands ,', 'decimal ,', None, None)
    """
    if not all(_HAS_DIGIT.search(text) for text in _spread(values)):
        return None  # most columns of text are recognised by a few cells
    if not values or any(_CODE.fullmatch(text) for text in values):
        return None
    odd = [text for text in values if not _PLAIN.fullmatch(text)]
    if not odd:
        return "plain"
    for name, (pattern, _) in _GROUPED.items():
        if all(pattern.fullmatch(text) for text in odd) and (name != "decimal ," or _comma_decimals(values)):
            return name
    return None


def _comma_decimals(values: Sequence[str]) -> bool:
    """With commas as decimals, a point may only group thousands: "1.5" beside "0,5" is no number format."""
    pattern = _GROUPED["decimal ,"][0]
    return all(pattern.fullmatch(text) for text in values)


def _spread(values: Sequence[str], count: int = 50) -> Sequence[str]:
    return values[:: max(1, len(values) // count)]


def parse_number(text: str, form: str) -> float | int | None:
    """A number written in a form of `number_format`, or plainly; None where it is neither."""
    if form != "decimal ," and _PLAIN.fullmatch(text):
        return _plain_number(text)
    if form in _GROUPED and _GROUPED[form][0].fullmatch(text):
        return _plain_number(text.translate(_TABLES[form]))
    return _plain_number(text) if _PLAIN.fullmatch(text) else None


def _plain_number(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        return float(text)


def as_numbers(cells: Strings, form: str, missing: Collection[str]) -> tuple[Numbers, Array]:
    """Text as numbers, and which strings of the pool are neither a number nor a missing mark (bool [len(pool)]).

    Args:
        cells: The column.
        form: "boolean", or a form of `number_format`.
        missing: Missing marks.
    """
    parse: Callable[[str], Any] = _is_true if form == "boolean" else lambda text: parse_number(text, form)
    texts = present(cells.pool.tolist(), missing)
    parsed = [None if text is None else parse(text) for text in texts]
    bad = np.array([value is None and text is not None for value, text in zip(parsed, texts, strict=True)], dtype=bool)
    used = cells.counts() > 0
    whole = all(type(value) is int and abs(value) < 1 << 63 for value, use in zip(parsed, used, strict=True) if use)
    if whole and form != "boolean" and not (cells.codes < 0).any():
        integers = [value if type(value) is int and abs(value) < 1 << 63 else 0 for value in parsed]
        return Numbers(cells.mapped(integers, 0, np.int64)), bad & used
    floats = [np.nan if value is None else float(value) for value in parsed]
    return Numbers(cells.mapped(floats, np.nan, np.float64)), bad & used


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
    few = _spread(values)
    if not all(len(text) <= 40 and _DATE_LIKE.search(text) for text in few):
        return None
    for form in (day + clock for day in _DATE_FORMATS for clock in _CLOCKS):
        if not np.isnat(_dates(few, form)).any() and not np.isnat(_dates(values, form)).any():
            return form
    return None


def _dates(values: Sequence[str], form: str) -> Array:
    import pandas as pd

    if form == "time":
        values, form = [f"1970-01-01 {value}" for value in values], "ISO8601"
    parsed = pd.to_datetime(pd.Series(list(values), dtype=object), format=form, errors="coerce", utc=True)
    return parsed.dt.tz_localize(None).to_numpy().astype("datetime64[us]")


def as_dates(cells: Strings, form: str, missing: Collection[str]) -> tuple[Dates, Array]:
    """Text as dates, and which strings of the pool are neither a date nor a missing mark (bool [len(pool)])."""
    texts = present(cells.pool.tolist(), missing)
    parsed = np.full(len(texts), np.datetime64("NaT", "us"))
    there = np.array([text is not None for text in texts], dtype=bool)
    parsed[there] = _dates([text for text in texts if text is not None], form)
    bad = there & np.isnat(parsed) & (cells.counts() > 0)
    return Dates(cells.mapped(parsed, np.datetime64("NaT", "us"), "datetime64[us]")), bad


def settled(cells: Strings, missing: Collection[str]) -> Cells:
    """What Arrow would have made of the same text: plain numbers and ISO dates as such, everything else as it is."""
    texts = [text for text in present(cells.pool.tolist(), missing) if text is not None]
    if not texts:
        return Numbers(np.full(len(cells), np.nan))
    if number_format(texts) == "plain":
        numbers = as_numbers(cells, "plain", missing)[0]
        return cells if exceeds_float(numbers.values) else numbers
    if all(_ISO.fullmatch(text) for text in texts) or all(_TIME.fullmatch(text) for text in texts):
        dates, bad = as_dates(cells, "time" if _TIME.fullmatch(texts[0]) else "ISO8601", missing)
        return cells if bad.any() else dates
    return cells


def exceeds_float(values: Array) -> bool:
    """Whether whole numbers were rounded because they have more than 53 bits, as long identifiers do."""
    if values.dtype.kind != "f" or not whole_numbers(values[:1000]):
        return False
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and bool(np.abs(finite).max() >= 2**53) and whole_numbers(finite)


def whole_numbers(values: Array) -> bool:
    """Whether no number has a fraction; missing ones do not count."""
    finite = values[np.isfinite(values)]
    return bool((finite == np.floor(finite)).all())
