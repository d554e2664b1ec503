"""Passes over a source until nothing contradicts what they began with, and encoded rows: tables in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dlkit._near import hint
from dlkit.datasets.tables._encoding import encode
from dlkit.datasets.tables._memory import Memory
from dlkit.datasets.tables._pass import Known, Pass, RowDealer
from dlkit.datasets.tables._pipeline import ApplyingPass, FittingPass
from dlkit.datasets.tables._settings import TableSettings, text_columns, under_spec
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.cells import Array, Skipped, Strings, Table, ranks_of, text_of
from dlkit.reading.dates import moments
from dlkit.reading.policy import ReadOptions
from dlkit.reading.reader import read_table
from dlkit.specs.table import TableSpec, Target
from dlkit.splits import Fold, Fractions, content_keys, num_parts, split_indices

__all__ = ["Built", "ExactSplit", "Rereadable", "build_rows", "pass_over"]

_STRATA = 10  # a regression's target is cut into tenths to be stratified


@dataclass
class Built:
    """Rows ready to be used, with the table they come from."""

    table: Table
    spec: TableSpec
    memory: Memory
    skipped: list[Skipped]


@dataclass
class ExactSplit:
    """Deals the rows of a table in memory, so that the shares are met exactly.

    Attributes:
        fractions: See `CSVDataset.split`, as the next ones.
        stratify: Whether the shares of the classes are kept.
        group: A column whose equal values go together.
        seed: Another seed gives another split.
        dedupe: Whether rows that are equal in every column go together.
        strict: Whether rows that cannot be used stop everything.
        time: A column whose order the parts follow.
        marks: Missing marks.
        date_form: How the caller says that its dates are written.
        within: The rows that are assigned, others belonging to no part; None for all.
    """

    fractions: Fractions
    stratify: bool
    group: str | None
    seed: int
    dedupe: bool
    strict: bool
    time: str | None = None
    marks: Sequence[str] = ()
    date_form: str = ""
    within: Array | None = None

    @property
    def num_parts(self) -> int:
        """How many parts there are."""
        return num_parts(self.fractions)

    def parts(self, piece: Table, before: int, usable: Array, target: Target | None, values: Array | None) -> Array:
        """See `RowDealer`."""
        rows = np.flatnonzero(usable)
        if not len(rows) or (self.strict and len(rows) < len(piece)):
            return np.zeros(len(piece), dtype=np.int64)  # an error is about to say why
        if self.within is not None:
            rows = np.intersect1d(rows, self.within)
        shared_by = self.fractions.of if isinstance(self.fractions, Fold) else self.num_parts
        named = target is not None and target.task in ("classification", "binary")
        cut = split_indices(
            len(rows),
            self.fractions,
            stratify=_strata(target, values[rows], shared_by)
            if self.stratify and target is not None and values is not None
            else None,
            class_names=target.classes if target is not None and named else None,
            group=None if self.group is None else _keys(piece, self.group)[rows],
            dedupe=row_keys(piece)[rows] if self.dedupe else None,
            time=None if self.time is None else self._moments(piece, self.time, rows),
            seed=self.seed,
        )
        parts = np.full(len(piece), -1, dtype=np.int64)
        for number, part in enumerate(cut):
            parts[rows[part]] = number
        return parts

    def _moments(self, piece: Table, column: str, rows: Array) -> Array:
        if column not in piece.columns:
            near = hint(column, piece.columns, has="its columns are")
            raise ArgumentError(f"time: {piece.origin} has no column {column!r}; {near}")
        try:
            found = moments(piece.columns[column], self.marks, self.date_form)[rows]
        except DataError as error:
            raise DataError(f"time: in column {column!r} of {piece.origin} {error}") from error
        if (missing := found != found).any():
            place = piece.places(int(rows[np.argmax(missing)]))
            raise DataError(f"{place} has no time in column {column!r}, so it belongs to no part; leave it out first")
        return found


def row_keys(table: Table) -> Array:
    """A number per row, the same for rows that are equal in every column, in whichever block they lie."""
    cells = {name: text_of(column) for name, column in table.columns.items()}
    return content_keys({name: content_keys([*each.pool.tolist(), ""])[each.codes] for name, each in cells.items()})


def _keys(table: Table, column: str) -> Array:
    cells = table.columns[column]
    if not isinstance(cells, Strings):
        return ranks_of(cells.values)[1]
    index: dict[str, int] = {}
    return cells.mapped([index.setdefault(text, len(index)) for text in cells.pool.tolist()], -1, np.int64)


def _strata(target: Target, values: Array, parts: int) -> Array | None:
    """What to keep the shares of: classes, combinations of labels, or tenths of a regression's first target."""
    if target.task in ("classification", "binary"):
        return values
    if target.task == "regression":
        first = values if values.ndim == 1 else values[:, 0]
        strata = min(_STRATA, len(values) // (5 * parts))
        return np.argsort(np.argsort(first, kind="stable")) * strata // len(values) if strata > 1 else None
    combinations = np.unique(values, axis=0, return_inverse=True)[1].reshape(-1)
    counts = np.bincount(combinations)
    # Combinations too rare to be in every part count as the most frequent one.
    return np.where(counts[combinations] < parts, counts.argmax(), combinations) if counts.max() >= parts else None


class Rereadable(Protocol):
    """A table that can be passed over more than once."""

    def pieces(self, text: set[str]) -> Iterator[Table]:
        """The pieces of the table, in order.

        Args:
            text: Columns to give as the text that is in the file; may grow after the first piece.
        """

    def record(self, piece: Table, good: Array, parts: Array) -> None:
        """Take note of what a pass found out about a piece.

        Args:
            piece: The last one.
            good: bool [N], which of its rows can be used.
            parts: int64 [N], the part of each.
        """


def pass_over(source: Rereadable, settings: TableSettings, dealt: RowDealer | None, spec: TableSpec | None) -> Pass:
    """Pass over a source until nothing in it contradicts what the pass began with.

    Args:
        source: The table.
        settings: What the caller says.
        dealt: Assigns rows to parts; None for one part.
        spec: That of the training data; None to fit one.
    """
    known: Known | None = Known(settings.roles.as_text() if spec is None else text_columns(spec))
    while known is not None:
        run = FittingPass(settings, dealt, known) if spec is None else ApplyingPass(settings, dealt, known, spec)
        for piece in source.pieces(known.text):
            source.record(piece, *run.add(piece))
        known = run.known_better()
    return run


class _InMemory:
    """A table that is read as a whole: a stream of one piece."""

    table: Table
    good: Array
    parts: Array

    def __init__(self, source: Any, read: ReadOptions) -> None:
        self._source, self._read = source, read

    @property
    def origin(self) -> str:
        return self.table.origin

    def pieces(self, text: set[str]) -> Iterator[Table]:
        self.table = read_table(self._source, self._read, text)
        yield self.table

    def record(self, piece: Table, good: Array, parts: Array) -> None:
        self.good, self.parts = good, parts


def build_rows(
    source: Any, settings: TableSettings, spec: TableSpec | None, split: ExactSplit | None = None
) -> list[Built]:
    """Read and encode a source, with the spec given, or with one that is fitted on the first part of its rows.

    Args:
        source: See `CSVDataset`.
        settings: What the caller says.
        spec: Of the training data.
        split: How the rows are assigned; None for one part.
    """
    if spec is not None:
        settings, spec = under_spec(settings, spec)
    place, read = _InMemory(source, settings.read), settings.read
    run = pass_over(place, settings, split, spec)
    table = place.table
    spec, unlabelled = run.finish(table.origin)
    skipped = [*table.skipped, *unlabelled]
    regression = spec.target is not None and spec.target.task == "regression"
    images = settings.images.beside(table)
    images = images.policed(read, len(table), table.origin) if spec.of_kind("image") else images
    encoded, _ = encode(table, spec, images, run.known.all_readings(), None if regression else run.values)
    built = []
    for part in range(1 if split is None else split.num_parts):
        rows = None if split is None else np.flatnonzero(place.parts == part)
        more = run.judge(table.origin, rows)
        kept = np.flatnonzero(place.good if split is None else place.good & (place.parts == part))
        memory = encoded.select(None if len(kept) == len(table) else kept)
        built.append(Built(table, spec, memory, [*skipped, *more]))
    return built
