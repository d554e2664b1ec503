"""Where the rows of tables stand, for rows whose lines are known and for tables under each other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlkit.reading.cells import Array, Place

__all__ = ["Numbered", "Stacked"]


@dataclass(frozen=True)
class Numbered:
    """Names rows whose lines or other numbers are known.

    Attributes:
        lines: The number of each row.
        origin: The file.
        noun: What the numbers count.
    """

    lines: Array
    origin: str
    noun: str = "line"

    def __call__(self, row: int) -> Place:
        return Place(self.origin, int(self.lines[row]), self.noun)


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
