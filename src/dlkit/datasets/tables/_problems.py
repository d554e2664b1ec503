"""Rows of a table that cannot be used: gathered piece by piece, and judged when all of them are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dlkit.errors import DataError
from dlkit.reading.cells import Array, Skipped, Table
from dlkit.reading.policy import ReadOptions

__all__ = ["Problem", "Problems"]


@dataclass(frozen=True)
class Problem:
    """Rows of one piece of a table that cannot become samples.

    Attributes:
        rows: Their numbers in the piece.
        reason: What is wrong with them, to follow the name of a row.
        remedy: What to do.
        example: What one of them has, by its number, in words that follow the reason.
        mistake: Whether something is wrong with them; rows without a target are only unlabelled.
    """

    rows: Array
    reason: str
    remedy: str
    example: Callable[[int], str] = lambda _: ""
    mistake: bool = True


@dataclass
class _Kind:
    """All rows that have the same thing wrong with them; the piece with the first of them says where they are."""

    piece: Table
    problem: Problem
    before: int
    rows: list[Array] = field(default_factory=list)

    def told(self, rows: Array) -> str:
        row = int(rows[0]) - self.before
        more = ""
        if len(rows) > 1:
            listed = ", ".join(map(str, rows[1:9].tolist())) + (", ..." if len(rows) > 9 else "")
            more = f", as have {len(rows) - 1} more (rows {listed}, counted from 0)"
        problem = self.problem
        return f"{self.piece.places(row)} {problem.reason}{problem.example(row)}{more}: {problem.remedy}"


class Problems:
    """What is wrong with the rows of a table, whatever the pieces in which it was read."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(self, problems: Sequence[Problem], piece: Table, before: int, good: Array) -> None:
        """Take in what is wrong with those rows of a piece that were good so far.

        Args:
            problems: Of the piece.
            piece: Of the table.
            before: How many rows are before it.
            good: bool [N], which of its rows can be used; is changed.
        """
        was_good = good.copy()
        for problem in problems:
            rows = problem.rows[was_good[problem.rows]]
            if len(rows):
                good[rows] = False
                self._kinds.setdefault(problem.reason, _Kind(piece, problem, before)).rows.append(rows + before)

    def judge(self, read: ReadOptions, total: int, origin: str, among: Array | None = None) -> list[Skipped]:
        """Apply the policy, and list the rows that are left out.

        Args:
            read: Has the policy.
            total: How many rows there are.
            origin: The table, for errors.
            among: The only rows that count, of those that are still in memory; None for all.

        Raises:
            DataError: there are some, and `on_error` is "raise"; or nothing is left.
            TooManyErrorsError: there are more than `max_errors` allows.
        """
        hit = [(kind, np.concatenate(kind.rows)) for kind in self._kinds.values()]
        if among is not None:
            hit = [(kind, np.intersect1d(rows, among)) for kind, rows in hit]
        hit = sorted(((kind, rows) for kind, rows in hit if len(rows)), key=lambda each: int(each[1][0]))
        if hit and read.on_error == "raise":
            raise DataError("; ".join(kind.told(rows) for kind, rows in hit))
        listed = [(Skipped(origin, row, kind.problem.reason), kind) for kind, rows in hit for row in rows.tolist()]
        read.check_share([skipped for skipped, kind in listed if kind.problem.mistake], total, origin)
        if hit and len(np.unique(np.concatenate([rows for _, rows in hit]))) >= total:
            raise DataError(f"no row of {origin} can be used; the first: {listed[0][0]}")
        return [skipped for skipped, _ in listed]
