"""Rows given one by one, straight to numbers: what `encode` makes of the same cells, without a table in between.

Most of what a server is asked is one row. Columns, dictionaries of strings and the like, made for it alone, cost ten
times as much as the numbers themselves. So what a spec says of its columns is looked up once, and each value of an
ordinary type becomes its number at once; a row with anything else, or with something wrong, is left to `encode`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dlkit.datasets.tables._encoding import bound
from dlkit.datasets.tables._images import ImageCells
from dlkit.datasets.tables._memory import Memory
from dlkit.reading.cells import EXACT, Array, cell_text
from dlkit.reading.parsing import parse_number, spelled, truth_of
from dlkit.reading.targets import ClassNumbers
from dlkit.specs.columns import FIRST, MISSING, UNSEEN, CategoryColumn, NumberColumn
from dlkit.specs.table import TableSpec

__all__ = ["StraightRows"]

_Numbers = tuple[float, ...]
_ABSENT = math.nan


class _Odd(Exception):  # noqa: N818  (nothing is wrong: the value is another path's)
    """A value that `encode` has to look at."""


class StraightRows:
    """Encodes rows of one spec.

    Args:
        spec: A fitted one; numbers, truth values and categories go straight, and a row of a spec with anything else
            never does.
    """

    def __init__(self, spec: TableSpec) -> None:
        self._possible = not any(column.kind in ("date", "text", "image") for column in spec.columns)
        marks = frozenset(spec.marks)
        self._numbers = [(c.name, _reader(c, marks), *_written(c)) for c in spec.numbers] if self._possible else []
        self._codes = [(c.name, _coder(c, marks)) for c in spec.categories]

    def encoded(self, row: Any) -> tuple[list[float], list[int]] | None:
        """The numbers (not yet float32) and the codes of a row; None for a row that is left to `encode`."""
        if not self._possible or not isinstance(row, Mapping):
            return None
        numbers = list[float]()
        try:
            for name, read, center, scale, absent, there in self._numbers:
                value = read(row[name])
                if value - value == 0:  # a finite number
                    numbers.append((value - center) / scale)
                    numbers += there
                else:
                    numbers += absent
            return numbers, [code(row[name]) for name, code in self._codes]
        except (_Odd, KeyError):
            return None

    def memory(self, rows: Sequence[tuple[list[float], list[int]]]) -> Memory:
        """Encoded rows as `encode` would have left them.

        Args:
            rows: From `encoded`.
        """
        numeric, codes = [row[0] for row in rows], [row[1] for row in rows]
        return Memory(
            numeric=torch.from_numpy(_float32(numeric)) if self._numbers else None,
            categorical=torch.from_numpy(np.array(codes, dtype=np.int32)) if self._codes else None,
            texts={},
            images={},
            targets=None,
            rows=torch.arange(len(rows)),
            options=ImageCells(),
        )


def _float32(rows: Sequence[Sequence[float]]) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return bound(np.array(rows).astype(np.float32))


def _written(column: NumberColumn) -> tuple[float, float, _Numbers, _Numbers]:
    """Center and scale, what stands for a value that is missing, and what follows one that is there."""
    (part,) = column.parts
    absent = (part.fill - part.center) / part.scale
    return part.center, part.scale, (absent, 1.0) if column.indicator else (absent,), (0.0,) * column.indicator


def _reader(column: NumberColumn, marks: frozenset[str]) -> Callable[[Any], float]:
    """What a value is as a number; NaN or infinite where it is missing."""
    truth, form = column.kind == "boolean", column.form

    def read(value: Any) -> float:
        kind = type(value)
        if kind is float or (kind is int and -EXACT < value < EXACT):
            if truth and value not in (0, 1) and math.isfinite(value):
                raise _Odd
            return float(value)
        if value is None:
            return _ABSENT
        if kind is bool and truth:
            return float(value)
        if kind is not str:
            raise _Odd
        text = spelled(value)
        if not text or text in marks:
            return _ABSENT
        found = truth_of(text) if truth else parse_number(text, form)
        if found is None or (type(found) is int and not -EXACT < found < EXACT):
            raise _Odd
        return float(found)

    return read


def _coder(column: CategoryColumn, marks: frozenset[str]) -> Callable[[Any], int]:
    """The code of a value."""
    known = ClassNumbers(column.vocabulary)

    def code(value: Any) -> int:
        kind = type(value)
        if value is None or (kind is float and value != value):
            return MISSING
        if kind is float or kind is bool or (kind is int and -EXACT < value < EXACT):
            value = str(value) if kind is bool else cell_text(float(value))
        elif kind is not str:
            raise _Odd
        text = spelled(value)
        return MISSING if not text or text in marks else known.get(text, UNSEEN - FIRST) + FIRST

    return code
