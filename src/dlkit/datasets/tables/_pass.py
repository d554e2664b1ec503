"""One pass over the pieces of a table: its columns are counted, its target is found, unusable rows are noted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from dlkit._cores import default_threads, for_each
from dlkit.datasets.tables._encoding import target_problems, unreadable
from dlkit.datasets.tables._facts import SAMPLED, SAMPLED_TEXTS, ColumnFacts, RowSample, TargetFacts, sampling_keys
from dlkit.datasets.tables._images import missing_files
from dlkit.datasets.tables._problems import Problem, Problems
from dlkit.datasets.tables._settings import TableSettings
from dlkit.datasets.targets import encode_target, target_numbers
from dlkit.errors import ArgumentError, DataError
from dlkit.reading._decimals import MarksSeen, one_mark
from dlkit.reading.cells import Array, Cells, DecimalMark, Numbers, Skipped, Strings, Table, sort_of, text_of
from dlkit.reading.typed import Reading, read_cells
from dlkit.specs.table import TableSpec, Target
from dlkit.storage.strings import PackedStrings

__all__ = ["RowDealer", "Known", "Pass", "rename_classes"]


_LONG = 1 << 16  # rows of a block whose columns are worth a thread each


class RowDealer(Protocol):
    """Deals rows to the parts of a split."""

    def parts(self, piece: Table, before: int, usable: Array, target: Target | None, values: Array | None) -> Array:
        """The part of each row of a piece (int64 [N]).

        Args:
            piece: Of the table.
            before: How many rows are before it.
            usable: bool [N], which of its rows have a target.
            target: What that is.
            values: The targets.
        """


@dataclass
class Known:
    """What a pass has found out and the next one begins with.

    Attributes:
        text: Columns that must be read as the text that is in the file.
        torn: Those of them that are numbers or dates in some blocks.
        readings: How columns are read.
        target: What the target is, in the units of the file.
        target_forms: How its numbers are written.
        decimal: The decimal mark of the table.
    """

    text: set[str]
    torn: set[str] = field(default_factory=set)
    readings: dict[str, Reading] = field(default_factory=dict)
    target: Target | None = None
    target_forms: tuple[str, ...] = ()
    decimal: DecimalMark = field(default_factory=DecimalMark)

    def all_readings(self) -> dict[str, Reading]:
        """How all columns are read, those of the target included."""
        names = () if self.target is None else self.target.columns
        forms = zip(names, self.target_forms, strict=False)
        return {**self.readings, **{name: Reading("number", form) for name, form in forms}}


class Pass:
    """One pass over the pieces of a table.

    Args:
        settings: What the caller says.
        dealt: Assigns rows to parts; None for one part.
        known: From the pass before; grows by what is found out.

    Attributes:
        facts: Of the columns.
        targets: The same of the target's columns, of all rows.
        rows: How many there are.
        labelled: How many of them have a target.
        unlabelled: The others.
        problems: Rows that cannot be used for another reason.
        values: The targets of the last piece.
        decimal: The decimal mark of the table.
    """

    _fits_a_spec = True  # facts are only needed for one
    _classes_given = True
    _classes_wanted = False  # whether numbers are to be classes, too

    def __init__(self, settings: TableSettings, dealt: RowDealer | None, known: Known) -> None:
        self.settings, self.dealt, self.known = settings, dealt, known
        self.marks: Sequence[str] = settings.read.missing
        self.facts: dict[str, ColumnFacts] = {}
        self.targets: list[TargetFacts] = []
        self.rows = self.labelled = 0
        self.unlabelled, self.problems = Problems(), Problems()
        self.values: Array | None = None
        self.decimal = known.decimal
        self._sample, self._texts, self._target_texts = (RowSample(n) for n in (SAMPLED, SAMPLED_TEXTS, SAMPLED_TEXTS))
        self._fits: set[str] = set()  # columns with a cell that could be read
        self._counts: set[str] = set()  # columns of numbers besides 0 and 1 that should be truth values
        self._unread: set[str] = set()  # columns with cells that came before it was known how to read them

    def _begin(self, piece: Table) -> None:
        """Make the facts of all columns that are to be looked at."""
        raise NotImplementedError

    def _look_at(self, name: str, *, text: bool, countless: bool = False) -> None:
        """Count what a column holds, as text where its pieces do not fit together."""
        text = text or name in self.known.torn
        samples, mark = (self._sample, self._texts), self.decimal.sign
        self.facts[name] = ColumnFacts(name, self.marks, *samples, text=text, countless=countless, decimal=mark)

    def _look_at_targets(self, names: Iterable[str]) -> None:
        """The same of the target's columns."""
        samples, mark, torn = (self._sample, self._target_texts), self.decimal.sign, self.known.torn
        self.targets = [TargetFacts(name, self.marks, *samples, text=name in torn, decimal=mark) for name in names]

    def _find_target(self) -> tuple[Target | None, tuple[str, ...]]:
        """What the target is, and how its numbers are written, by what is known of its columns."""
        raise NotImplementedError

    def _reading(self, facts: ColumnFacts) -> Reading:
        """How a column is read, by what is known of it."""
        raise NotImplementedError

    def _images(self) -> Iterable[str]:
        """The columns that name image files."""
        raise NotImplementedError

    def finish(self, origin: str) -> tuple[TableSpec, list[Skipped]]:
        """The spec, fitted or given, and the rows that have no target where it was fitted on the others.

        Raises:
            DataError: rows without a target, where those are not to be skipped; columns are not what a spec says.
        """
        raise NotImplementedError

    def judge(self, origin: str, among: Array | None = None) -> list[Skipped]:
        """Apply the policy to rows that cannot be used, those aside that `finish` gave.

        Args:
            origin: The table, for errors.
            among: The only rows that count; None for all.
        """
        total = self.rows if self.unlabelled is self.problems else self.labelled
        return self.problems.judge(self.settings.read, total if among is None else len(among), origin, among)

    def add(self, piece: Table) -> tuple[Array, Array]:
        """Take in a piece of the table.

        Returns:
            bool [N], which rows can be used; int64 [N], the part of each.
        """
        before, self.rows = self.rows, self.rows + len(piece)
        unknown = not before and not self.decimal.sign
        self.decimal = piece.decimal if unknown else one_mark(self.decimal, piece.decimal, piece.origin)
        if not before:
            self.known.decimal = self.decimal
            self._begin(piece)
            looked = {*self.facts, *(column.name for column in self.targets)}
            self.known.text |= {name for name in looked if sort_of(piece.columns[name]) == "text"}
        keys = sampling_keys(before + np.arange(len(piece)))
        good = self._add_target(piece, before, keys)
        self.labelled += int(good.sum())
        parts = np.zeros(len(piece), dtype=np.int64)
        if self.dealt is not None:
            parts = self.dealt.parts(piece, before, good, self.known.target, self.values)
        chosen = np.flatnonzero(good & (parts == 0)) if self._fits_a_spec else np.arange(len(piece))
        self._add_columns(piece, before, chosen, keys[chosen], good)
        return good, parts

    def _add_target(self, piece: Table, before: int, keys: Array) -> Array:
        """Which rows of a piece have a target."""
        names = [column.name for column in self.targets]
        raw = [piece.columns[name] for name in names]
        self._rename(piece)
        chosen = self._target_texts.choose(keys)
        for column, cells in zip(self.targets, raw, strict=True):
            column.look(piece.columns[column.name], chosen, raw=cells)
            column.look_for_classes(piece.columns[column.name], wanted=self._classes_wanted)
        self._target_texts.shrink()
        if names and self.known.target is None:
            with contextlib.suppress(ArgumentError, DataError):  # where the whole table says the same, it is raised
                self.known.target, self.known.target_forms = self._find_target()
        target = self.known.target
        if target is None:
            self._unread.update(names)
            return np.ones(len(piece), dtype=bool)
        good = np.ones(len(piece), dtype=bool)
        with np.errstate(over="ignore"):  # quantities in the units of the file may be too large for a float32
            self.values, lacking, wrong = encode_target(target, piece.columns, self.marks, self.known.target_forms)
        if target.task != "regression" and not self._classes_given:
            wrong[:] = False  # all classes are only known at the end
        self.unlabelled.add(target_problems(piece, target, lacking, wrong), piece, before, good)
        return good

    def _rename(self, piece: Table) -> None:
        rename_classes(piece, [column.name for column in self.targets], self.settings.aliases)

    def _add_columns(self, piece: Table, before: int, chosen: Array, keys: Array, good: Array) -> None:
        """Take in the chosen rows of all columns; rows of the piece that have bad cells are not good any more."""
        sampled, texts = self._sample.choose(keys), self._texts.choose(keys)
        rows, names = None if len(chosen) == len(piece) else chosen, list(self.facts)
        found: list[Problem | None] = [None] * len(names)

        def take(place: int) -> None:
            facts = self.facts[names[place]]
            found[place] = self._add_column(facts, piece.columns[facts.name], rows, sampled, texts)

        for_each(take, len(names), default_threads() if len(piece) > _LONG else 1)
        if self._fits_a_spec:
            self._add_target_numbers(piece, chosen, sampled)
        self._sample.shrink()
        self._texts.shrink()
        images = self.settings.images.beside(piece)
        found += [missing_files(name, text_of(piece.columns[name]), images) for name in self._images()]
        self.problems.add([problem for problem in found if problem is not None], piece, before, good)

    def _add_column(
        self, facts: ColumnFacts, cells: Cells, rows: Array | None, sampled: Array, texts: Array
    ) -> Problem | None:
        facts.look(cells if rows is None else cells.take(rows), texts)
        if facts.fixed:
            return None
        if facts.raw and facts.name not in self.known.readings:
            self.known.readings[facts.name] = self._reading(facts)
        reading = self.known.readings.get(facts.name)
        if reading is None:
            if sort_of(cells) != "nothing":
                self._unread.add(facts.name)
            facts.add_nothing(len(cells) if rows is None else len(rows), sampled)
            return None
        if reading.kind == "text":
            facts.add(None, sampled)
            return None
        read, bad = read_cells(cells, reading, self.marks)
        if not self._fits_a_spec and not read.missing().all():
            self._fits.add(facts.name)
        if reading.kind == "boolean" and bad is not None and isinstance(cells, Numbers):
            self._counts.add(facts.name)
        if self._fits_a_spec:
            facts.add(read if rows is None else read.take(rows), sampled)
        return None if bad is None else unreadable(facts.name, reading.kind, cells, np.flatnonzero(bad))

    def _add_target_numbers(self, piece: Table, chosen: Array, sampled: Array) -> None:
        target = self.known.target
        for place, column in enumerate(self.targets):
            if target is None or target.task != "regression":
                column.add(None, sampled)
            else:
                form = self.known.target_forms[place]
                values, _ = target_numbers(piece.columns[column.name], form, self.marks)
                column.add(Numbers(values[chosen]), sampled)

    def known_better(self) -> Known | None:
        """What another pass has to begin with; None where this one knew all from the beginning."""
        columns = [*self.facts.values(), *self.targets]
        if torn := {column.name for column in columns if column.torn}:
            readings = {name: reading for name, reading in self.known.readings.items() if name not in torn}
            text, torn = {*self.known.text, *torn}, {*self.known.torn, *torn}
            return Known(text, torn, readings, decimal=self.decimal)
        if self.decimal.sign != self.known.decimal.sign:  # a later file tells
            return Known(self.known.text, self.known.torn, decimal=self.decimal)
        target, target_forms = self._find_target() if self.targets else (None, ())
        readings = {name: self._reading(facts) for name, facts in self.facts.items() if facts.raw and not facts.fixed}
        before, self.known.target = self.known.target, target
        alike = target_forms == self.known.target_forms and _kind(before) == _kind(target)
        if (
            alike
            and not self._unread & {*readings, *(column.name for column in self.targets)}
            and readings == {name: self.known.readings.get(name) for name in readings}
        ):
            return None
        return Known(self.known.text, self.known.torn, readings, target, target_forms, self.decimal)

    def _check_marks(self, origin: str) -> None:
        """Refuse a table in which one column of numbers has a decimal comma and another one a point."""
        read, columns = self.settings.read, [*self.facts.values(), *self.targets]
        if self.decimal.typed and not any("text" in facts.raw for facts in columns):
            read.refuse(("decimal", "thousands"), f"{origin}, whose numbers are not text", "leave it out")
        if self.decimal.typed and not self.decimal.sign:
            return
        seen, readings = MarksSeen(self.settings.read), self.known.all_readings()
        numbers = [facts for facts in columns if facts.name in readings and readings[facts.name].kind == "number"]
        for facts in numbers:
            seen.add(facts.name, facts.texts().written)
        if self._fits_a_spec and not self.decimal.typed and not self.decimal.sign and seen.commas:
            for facts in numbers:
                seen.add_point(facts.name, facts.fraction())
        seen.check(self.decimal, origin)


def _kind(target: Target | None) -> Target | None:
    return None if target is None else replace(target, why="", classes=())


def rename_classes(table: Table, columns: Iterable[str], aliases: Mapping[str, str]) -> None:
    """Put the usual spelling for others in the columns of classes."""
    for name in columns if aliases else ():
        if name not in table.columns:
            continue
        cells = text_of(table.columns[name])
        renamed = [aliases.get(text.strip(), text) for text in cells.pool.tolist()]
        index: dict[str, int] = {}
        codes = [index.setdefault(text, len(index)) for text in renamed]
        table.columns[name] = Strings(cells.mapped(codes, -1, np.int32), PackedStrings.of(index))
