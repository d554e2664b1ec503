"""Numbers counted piece by piece: the same facts, to the last bit, however a table is cut up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlkit.reading.cells import Array
from dlkit.reading.parsing import whole_numbers

__all__ = ["NumberFacts", "NumberTally"]


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


class NumberTally:
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
        there = values.astype(np.float64, copy=False)
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
        finite = np.isfinite(sample)
        sample = sample.copy() if finite.all() else sample[finite]
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
    """As `numpy.quantile` gives them, none of which overflow in between; brings the values into another order."""
    results = []
    for share in shares:
        place = share * (len(values) - 1)
        above = math.ceil(place)
        values.partition(above)  # one place at a time: for several, numpy takes five times as long
        high, part = float(values[above]), place - math.floor(place)
        low = float(values[:above].max()) if part else high
        results.append(low + (high - low) * part)
    return results
