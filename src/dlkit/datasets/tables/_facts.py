"""What one column looks like: counts, spread, values. All that fitting needs to know, and nothing per row."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from dlkit.reading.cells import Array, Cells, Dates, Numbers, Strings
from dlkit.reading.parsing import present, whole_numbers

__all__ = [
    "DateFacts",
    "Facts",
    "NumberFacts",
    "TextFacts",
    "date_parts",
    "facts_of",
    "many_texts",
    "number_facts",
    "quantiles",
]

_SELECT_ABOVE = 50_000  # shorter columns are sorted out by numpy at once
_PIECE = 1 << 14
_MANY = 50_000


@dataclass(frozen=True, kw_only=True)
class NumberFacts:
    """Numbers: `rows` in all, `missing` of them; the rest describes the others.

    Attributes:
        whole: All are integers.
        low: The smallest; NaN where all are missing, as in the next ones.
        high: The largest.
        mean: Their mean.
        std: Their standard deviation (of the population).
        median: The value in the middle.
        spread: The distance between the quartiles; NaN where nobody asked.
        consecutive: They are some range of integers, each once: row numbers, in whatever order.
        distinct: Whether no two are equal; None where nobody asked.
    """

    rows: int
    missing: int
    whole: bool = False
    low: float = math.nan
    high: float = math.nan
    mean: float = math.nan
    std: float = math.nan
    median: float = math.nan
    spread: float = math.nan
    consecutive: bool = False
    distinct: bool | None = None


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """Text: how often each value occurs, blanks around it removed and missing marks left out.

    Attributes:
        rows: All rows.
        missing: Rows without text.
        counts: Rows per value.
        distinct: How many values there are where `counts` has only some of them; -1 where it has all.
        more: Whether there are more values than anybody counted.
    """

    rows: int
    missing: int
    counts: dict[str, int]
    distinct: int = -1
    more: bool = False


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


def facts_of(cells: Cells, missing: Collection[str], *, unique: bool = False, spread: bool = False) -> Facts:
    """The facts of a column's cells.

    Args:
        cells: The rows that may be looked at (the training rows).
        missing: Missing marks.
        unique: Find out whether numbers are all different.
        spread: Find out the distance between the quartiles.
    """
    if isinstance(cells, Numbers):
        return number_facts(cells.values, unique=unique, spread=spread)
    if isinstance(cells, Dates):
        there = cells.values[~cells.missing()]
        parts = date_parts(there).items() if len(there) else ()
        facts = {name: number_facts(values, spread=spread) for name, values in parts}
        return DateFacts(rows=len(cells), missing=len(cells) - len(there), parts=facts)
    return text_facts(cells, missing)


def text_facts(cells: Strings, missing: Collection[str]) -> TextFacts:
    """The facts of a column of text."""
    counts: dict[str, int] = {}
    used = cells.counts()
    for text, count in zip(present(cells.pool.tolist(), missing), used.tolist(), strict=True):
        if text is not None and count:
            counts[text] = counts.get(text, 0) + count
    return TextFacts(rows=len(cells), missing=len(cells) - sum(counts.values()), counts=counts)


def many_texts(cells: Strings, missing: Collection[str]) -> TextFacts | None:
    """The facts of a long column in which most values differ, from a thousand of them; None for any other column.

    Such a column is an identifier or free text, so nobody needs to count its values one by one.
    """
    if len(cells.pool) < _MANY:
        return None
    there, distinct = int(np.count_nonzero(cells.codes >= 0)), int(np.count_nonzero(cells.counts()))
    if 2 * distinct <= there:
        return None
    some = [cells.pool[place] for place in range(0, len(cells.pool), len(cells.pool) // 1000)]
    counts = dict.fromkeys((text for text in present(some, missing) if text is not None), 1)
    return TextFacts(rows=len(cells), missing=len(cells) - there, counts=counts, distinct=distinct)


def number_facts(values: Array, *, unique: bool = False, spread: bool = False) -> NumberFacts:
    """The facts of numbers; NaN and infinite ones are missing."""
    rows = len(values)
    with np.errstate(over="ignore"):
        total = float(values.sum())
    there = values if math.isfinite(total) else values[np.isfinite(values)]
    if not len(there):
        return NumberFacts(rows=rows, missing=rows)
    low, high = float(there.min()), float(there.max())
    whole = there.dtype.kind in "iu" or (whole_numbers(there[:1000]) and whole_numbers(there))
    mean, std = _mean_and_std(there, max(-low, high), total if there is values else None)
    first, middle, third = quantiles(there, (0.25, 0.5, 0.75)) if spread else (0.0, *quantiles(there, (0.5,)), math.nan)
    return NumberFacts(
        rows=rows,
        missing=rows - len(there),
        whole=whole,
        low=low,
        high=high,
        mean=mean,
        std=std,
        median=middle,
        spread=third - first,
        consecutive=whole and high - low + 1 == len(there) and _all_different(there),
        distinct=_all_different(there) if unique else None,
    )


def _mean_and_std(values: Array, largest: float, total: float | None) -> tuple[float, float]:
    with np.errstate(over="ignore", invalid="ignore"):
        mean = (float(values.sum()) if total is None else total) / len(values)
        squares = _squares(values, mean)
        if not math.isfinite(squares):  # numbers so large that their sum or squares are none: measured by the largest
            values = values / largest
            mean = float((values / len(values)).sum())
            return mean * largest, math.sqrt(_squares(values, mean) / len(values)) * largest
    return mean, math.sqrt(squares / len(values))


def _squares(values: Array, mean: float) -> float:
    """The sum of squared distances from the mean, piece by piece, so that nothing leaves the processor's cache."""
    total = 0.0
    for start in range(0, len(values), _PIECE):
        centred = np.subtract(values[start : start + _PIECE], mean, dtype=np.float64)
        total += float(np.square(centred, out=centred).sum())  # `@` would wake BLAS's threads for each piece
    return total


def _all_different(values: Array) -> bool:
    return len(np.unique(values)) == len(values)


def quantiles(values: Array, shares: Sequence[float]) -> list[float]:
    """Exact quantiles, with linear interpolation between neighbours as in `numpy.quantile`, some five times faster.

    A small sample brackets each one, and only what lies between the brackets is sorted (Floyd and Rivest 1975,
    "Expected time bounds for selection").

    Args:
        values: [N], all finite, N at least 1.
        shares: From 0 to 1.

    >>> quantiles(np.array([4.0, 1.0, 3.0, 2.0]), [0.5, 1.0])
    [2.5, 4.0]
    """
    sample = np.sort(values[:: len(values) // 4096]) if len(values) >= _SELECT_ABOVE else None
    results = []
    for share in shares:
        place = share * (len(values) - 1)
        low, high = _neighbours(values, sample, math.floor(place), math.ceil(place))
        part = place - math.floor(place)
        results.append(low + (high - low) * part if part else low)
    return results


def _neighbours(values: Array, sample: Array | None, low: int, high: int) -> tuple[float, float]:
    """The values of two neighbouring ranks."""
    if sample is not None:
        place = low * len(sample) // len(values)
        # 200 places in a sample of 4096 are six standard deviations: what lies outside costs time and is rare.
        bottom, top = sample[max(place - 200, 0)], sample[min(place + 200, len(sample) - 1)]
        below = int(np.count_nonzero(values < bottom))
        inside = values[(values >= bottom) & (values <= top)]
        if below <= low and high < below + len(inside):
            values, low, high = inside, low - below, high - below
    chosen = np.partition(values, (low, high))
    return float(chosen[low]), float(chosen[high])


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
