"""What one column looks like, gathered piece by piece: the same facts, to the last bit, however a table is cut up.

A table in memory is one piece, a stream as many as it has blocks. Sums are therefore taken over pieces of a fixed
number of rows, and medians over a sample of rows that depends on nothing but their numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from dlkit.reading.cells import Array, Cells, Dates, Numbers, Strings, sort_of, text_of
from dlkit.reading.parsing import present, whole_numbers

__all__ = [
    "MOST_VALUES",
    "ColumnFacts",
    "DateFacts",
    "Facts",
    "NumberFacts",
    "RowSample",
    "SAMPLED",
    "SAMPLED_TEXTS",
    "TextFacts",
    "date_parts",
    "row_keys",
]

MOST_VALUES = 100_000  # different texts that are counted; a column of more is not a category by itself
SAMPLED, SAMPLED_TEXTS = 200_000, 10_000  # rows: medians come from the first, the look of countless texts from these
_PIECE = 1 << 14  # rows whose numbers stay in the processor's cache
_HUGE, _SMALLER = 1e140, 2.0**-600  # beyond the first, squares overflow; the second is exact to multiply by


@dataclass(frozen=True, kw_only=True)
class NumberFacts:
    """Numbers: `rows` in all, `missing` of them; the rest describes the others.

    Attributes:
        whole: All are integers.
        low: The smallest; NaN where all are missing, as in the next ones.
        high: The largest.
        mean: Their mean.
        std: Their standard deviation (of the population).
        median: The value in the middle, of at most 200,000 rows.
        spread: The distance between the quartiles of the same rows; NaN where it is not asked for.
        distinct: Whether they are whole, and no two of those rows are equal.
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
    distinct: bool = False


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """Text: how often each value occurs, blanks around it removed and missing marks left out.

    Attributes:
        rows: All rows.
        missing: Rows without text.
        counts: Rows per value; of a sample of the rows where there are `more`.
        more: Whether there are more values than are counted.
    """

    rows: int
    missing: int
    counts: dict[str, int]
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


class RowSample:
    """Some rows of a table, spread evenly over it: those whose numbers have the smallest hashes; all of a few.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._bound = np.uint64(2**64 - 1)
        self._keys: list[Array] = []
        self._values: dict[str, list[Array]] = {}

    def choose(self, keys: Array) -> Array:
        """Which of some rows may belong to the sample, as places among them.

        Args:
            keys: uint64 [N], see `row_keys`.
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
        """Keep nothing of a column, whose pieces do not fit together.

        Args:
            name: Of the column.
        """
        self._values[name] = [np.full(len(part), None) for part in self._values[name]]

    def shrink(self) -> None:
        """Forget rows that other ones have displaced, once these are the half."""
        if sum(map(len, self._keys)) > 2 * self.size:
            self._keep()

    def values(self, name: str) -> Array:
        """What the rows of the sample hold in a column, in the order of the table.

        Args:
            name: Of the column.
        """
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


def row_keys(rows: Array) -> Array:
    """A well mixed number for each row number (Steele, Lea and Flood 2014, "Fast splittable pseudorandom numbers").

    Args:
        rows: int64 [N].
    """
    keys = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys ^= keys >> np.uint64(shift)
        keys *= np.uint64(factor)
    keys ^= keys >> np.uint64(31)
    return keys


class _NumberTally:
    """Sums of numbers that come in pieces (Chan, Golub and LeVeque 1983 for the variance)."""

    def __init__(self) -> None:
        self.rows = self.count = 0
        self.whole, self.low, self.high = True, math.inf, -math.inf
        self._mean = self._squares = 0.0
        self._unit = 1.0
        self._rest = np.zeros(0)

    def add(self, values: Array) -> None:
        """Count numbers; NaN and infinite ones are missing."""
        self.rows += len(values)
        if len(self._rest):
            values = np.concatenate([self._rest, values])
        whole = len(values) - len(values) % _PIECE
        for start in range(0, whole, _PIECE):
            self._count(values[start : start + _PIECE])
        self._rest = values[whole:].astype(np.float64)

    def _count(self, values: Array) -> None:
        there = values.astype(np.float64)
        with np.errstate(over="ignore"):
            if not math.isfinite(float(there.sum())):
                there = there[np.isfinite(there)]
        if not len(there):
            return
        low, high = float(there.min()), float(there.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.whole = self.whole and (values.dtype.kind in "iu" or whole_numbers(there))
        if self._unit == 1 and max(high, -low) > _HUGE:
            self._unit, self._mean, self._squares = (
                _SMALLER,
                self._mean * _SMALLER,
                self._squares * _SMALLER * _SMALLER,
            )
        there = there if self._unit == 1 else there * self._unit
        mean = low * self._unit if low == high else float(there.sum()) / len(there)
        centred = there - mean
        squares = float(np.square(centred, out=centred).sum())  # `@` would wake BLAS's threads for each piece
        distance, share = mean - self._mean, len(there) / (self.count + len(there))
        self._mean += distance * share
        self._squares += squares + distance * distance * self.count * share
        self.count += len(there)

    def facts(self, sample: Array, rows: int, *, spread: bool) -> NumberFacts:
        """What was counted, with quantiles from a sample; `rows` that held nothing may not have been counted."""
        if len(self._rest):
            self._count(self._rest)
            self._rest = self._rest[:0]
        if not self.count:
            return NumberFacts(rows=rows, missing=rows)
        sample = sample[np.isfinite(sample)]
        shares = (0.5, 0.25, 0.75) if spread else (0.5,)
        middle, *quartiles = _quantiles(sample, shares) if len(sample) else [self.low] * len(shares)
        differ = self.whole and self.high - self.low + 1 >= len(sample) and len(np.unique(sample)) == len(sample)
        return NumberFacts(
            rows=rows,
            missing=rows - self.count,
            whole=self.whole,
            low=self.low,
            high=self.high,
            mean=self._mean / self._unit,
            std=math.sqrt(self._squares / self.count) / self._unit,
            median=middle,
            spread=quartiles[1] - quartiles[0] if spread else math.nan,
            distinct=differ,
        )


def _quantiles(values: Array, shares: Sequence[float]) -> list[float]:
    """As `numpy.quantile` gives them, none of which overflow in between."""
    places = [share * (len(values) - 1) for share in shares]
    values = np.partition(values, sorted({around(place) for place in places for around in (math.floor, math.ceil)}))
    results = []
    for place in places:
        low, high = float(values[math.floor(place)]), float(values[math.ceil(place)])
        part = place - math.floor(place)
        results.append(low + (high - low) * part if part else low)
    return results


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
        self.more = False
        self._without = 0
        self._numbers = _NumberTally()
        self._parts: dict[str, _NumberTally] = {}

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
        """Take in how the cells of a piece are, and count texts.

        Args:
            cells: As they were read.
            chosen: The places of the rows whose texts are kept.
            raw: The same before classes were renamed.
        """
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
                there = cells.values[int(np.argmin(cells.missing()))]
                self.example = str(there).removesuffix(".000000").removesuffix("T00:00:00")
            self._texts.add(self.name, np.full(len(chosen), None))

    def _count(self, cells: Strings, chosen: Array) -> Array:
        used, texts = cells.counts().tolist(), present(cells.pool.tolist(), self._marks)
        there = 0
        for text, count in zip(texts, used, strict=True):
            if text is not None and count:
                there += count
                if not self.more:
                    self._counts[text] = self._counts.get(text, 0) + count
                    self.more = len(self._counts) > self._most
        self._without += len(cells) - there
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
                self._parts.setdefault(part, _NumberTally()).add(values)
            self._sample.add(self.name, cells.values[chosen])
        else:
            self._sample.add(self.name, np.full(len(chosen), None))
            if self.torn:
                self._sample.forget(self.name)

    def add_nothing(self, rows: int, chosen: Array) -> None:
        """Count rows without a value, before it is known what the column holds.

        Args:
            rows: How many.
            chosen: The places of the rows that medians come from.
        """
        self._numbers.add(np.full(rows, np.nan))
        self._sample.add(self.name, np.full(len(chosen), None))

    def texts(self) -> TextFacts:
        """What was counted of text."""
        counts = self._counts
        if self.more:
            counts = dict(Counter(text for text in self._texts.values(self.name).tolist() if text is not None))
        return TextFacts(rows=self.rows, missing=self._without, counts=counts, more=self.more)

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
