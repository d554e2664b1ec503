"""The rows of a source of texts, packed: texts, targets, groups, and the place that each row came from."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dlkit.datasets.targets import TargetOptions
from dlkit.datasets.texts.items import ColumnName, target_cells
from dlkit.datasets.texts.opening import TextReading, TextSource, has_class_folders, open_source
from dlkit.errors import ArgumentError, DataError
from dlkit.reading._bytes import damage
from dlkit.reading.cells import Array, Cells, Skipped, Stacked, Strings, Table, by_row, strings_of, text_of
from dlkit.reading.frames import joined_texts
from dlkit.reading.policy import RowPolicy
from dlkit.storage.files import home_of
from dlkit.storage.strings import PackedStrings, StringsWriter

__all__ = ["BETWEEN", "TextRoles", "TextRows", "read_rows", "texts_of"]

#: What is between the columns of one text.
BETWEEN = "\n"
_GIVEN = "\0target"  # what targets that the caller gives are called among the columns


@dataclass(frozen=True, kw_only=True)
class TextRoles:
    """Which columns are what.

    Attributes:
        texts: The columns of each text, which are joined: one text, or two for pairs.
        target: A column, or a value for each row.
        group: A column.
        time: A column.
    """

    texts: tuple[tuple[ColumnName, ...], ...]
    target: Any = None
    group: ColumnName | None = None
    time: ColumnName | None = None

    @property
    def target_column(self) -> ColumnName | None:
        """The target where it is a column of the source."""
        return self.target if isinstance(self.target, int | str) else None


@dataclass(frozen=True)
class TextRows:
    """What was read.

    Attributes:
        texts: One or, for pairs, two lists of texts.
        others: The "target", "group" and "time" of each row as text, those that there are.
        decimal: The decimal mark of the source's numbers; "" where nothing tells.
        numbers: int64 [N], of each row among all that were read.
        places: Maps such a number to where the row stands.
        notes: How the source was understood.
        skipped: The rows that were left out.
        columns: The names of the columns of each text; empty where they have none.
        target_column: The name of the target's column; None where it has none.
    """

    texts: tuple[PackedStrings, ...]
    others: Mapping[str, Strings]
    numbers: Array
    places: Stacked
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = field(default=(), repr=False)
    columns: tuple[tuple[str, ...], ...] = ()
    decimal: str = ""
    target_column: str | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def select(self, indices: Array) -> TextRows:
        """Some of the rows.

        Args:
            indices: int64 [K].
        """
        return replace(
            self,
            texts=tuple(texts.select(indices) for texts in self.texts),
            others={name: cells.take(indices) for name, cells in self.others.items()},
            numbers=self.numbers[indices],
        )

    def target_cells(self) -> dict[str, Strings]:
        """The targets under the name of their column."""
        return {self.target_column or "target": self.others["target"]} if "target" in self.others else {}

    def without(self, bad: Mapping[int, str], policy: RowPolicy) -> TextRows:
        """The rows but some that cannot be used.

        Args:
            bad: What is wrong with each of these.
            policy: What is done about such rows.

        Raises:
            DataError: there are some, and they are not to be left out.
            TooManyErrorsError: there are too many.
        """
        if not bad:
            return self
        left_out = [self.places(int(self.numbers[row])).skipped(bad[row]) for row in sorted(bad)]
        skipped = (*self.skipped, *left_out)
        policy.judge(left_out, len(self), self.notes[0])
        policy.check_share(skipped, len(self) + len(self.skipped), self.notes[0])
        return replace(self.select(np.delete(np.arange(len(self)), list(bad))), skipped=skipped)

    def where(self, index: int) -> str:
        """The place of a row, in words.

        Args:
            index: Of the row.
        """
        return str(self.places(int(self.numbers[index])))


def read_rows(
    source: Any, roles: TextRoles, options: TextReading, targets: TargetOptions, *, budget: int = 1 << 30
) -> TextRows:
    """Read a source to its end.

    Args:
        source: See `TextDataset`.
        roles: Which columns are what.
        options: How to read, and what to do with bad rows.
        targets: What the caller says of the targets.
        budget: Bytes of text to keep in memory; more go to a file in the cache folder.

    Raises:
        DataError: the source cannot be read, or a row cannot and `on_error` is "raise".
        TooManyErrorsError: more rows cannot be used than `max_errors` allows.
    """
    if roles.target is None and isinstance(source, str | Path) and Path(source).expanduser().is_dir():
        labelled = has_class_folders(Path(source).expanduser(), options.pattern)
        roles = replace(roles, target="class") if labelled else roles
    texts = [column for columns in roles.texts for column in columns]
    others = [column for column in (roles.target_column, roles.group, roles.time) if column is not None]
    opened = open_source(source, [*texts, *others], len(texts), options)
    collected = _Collected(opened, roles, targets, budget)
    given = roles.target is not None and roles.target_column is None
    for table in _with_targets(opened.tables, _as_list(roles.target)) if given else opened.tables:
        collected.add(table)
    return collected.finish()


def _as_list(target: Any) -> list[Any]:
    if isinstance(target, Tensor | np.ndarray) or hasattr(target, "tolist"):
        return list(target.tolist())
    if isinstance(target, Mapping | set) or not isinstance(target, Sequence):
        raise ArgumentError(f"target must be a column's name or number, or a value per text, not {target!r:.80}")
    return list(target)


def _with_targets(tables: Iterable[Table], targets: list[Any]) -> Iterator[Table]:
    """Tables with targets that the caller gave, one for each row, the bad ones included."""
    cells, count = target_cells(targets), 0
    for table in tables:
        rows, bad = np.arange(len(table)), np.asarray(table.skipped_at, dtype=np.int64)
        numbers = count + rows + np.searchsorted(bad, rows, side="right")
        count += len(rows) + len(bad)
        if count <= len(targets):
            table.columns[_GIVEN] = cells.take(numbers)
            yield table
    if count != len(targets):
        raise ArgumentError(f"there are {count} texts but {len(targets)} targets")


class _Collected:
    """Rows that were read so far."""

    def __init__(self, source: TextSource, roles: TextRoles, wanted: TargetOptions, budget: int) -> None:
        self.source, self.options = source, source.options
        self.wanted = wanted
        names = iter(source.names)
        self.columns = tuple(tuple(next(names) for _ in columns) for columns in roles.texts)
        asked = {"target": roles.target_column, "group": roles.group, "time": roles.time}
        self.others = {role: next(names) for role, column in asked.items() if column is not None}
        if roles.target is not None:
            self.others.setdefault("target", _GIVEN)
        self.texts = [StringsWriter(budget=budget, folder=home_of("text")) for _ in self.columns]
        self.cells: dict[str, list[Cells]] = {role: [] for role in self.others}
        self.numbers, self.starts, self.places = list[Array](), [0], list[Any]()
        self.skipped: list[Skipped] = []
        self.decimal = ""

    def add(self, table: Table) -> None:
        """Take the rows of a table, or stop at the first bad one, or leave the bad ones out.

        Args:
            table: With all columns that were asked for.
        """
        self.decimal = self.decimal or table.decimal.sign
        texts, problems = texts_of(table, self.columns)
        others = {role: text_of(table.columns[name]) for role, name in self.others.items()}
        if "target" in others:
            others["target"], wrong = self.wanted.spelled(others["target"], self.options.missing)
            problems = wrong | problems
        self._leave_out(table, problems)
        good = np.delete(np.arange(len(table)), list(problems))
        for writer, cells in zip(self.texts, texts, strict=True):
            blob, offsets = cells.pool.select(cells.codes[good]).arrays()
            writer.extend(blob, np.diff(offsets))
        for role, cells in others.items():
            self.cells[role].append(cells.take(good))
        self.numbers.append(self.starts[-1] + good)
        self.places.append(table.places)
        self.starts.append(self.starts[-1] + len(table))

    def _leave_out(self, table: Table, problems: Mapping[int, str]) -> None:
        """Apply the policy to what cannot be used, in the order of the source."""
        records = zip(table.skipped_at, table.skipped, strict=True)
        rows = ((row, table.places(row).skipped(problems[row])) for row in sorted(problems))
        for _, skipped in heapq.merge(records, rows, key=lambda each: each[0]):
            self.options.stop_at([skipped])
            self.skipped.append(skipped)

    def finish(self) -> TextRows:
        """All that was taken."""
        texts = tuple(writer.finish() for writer in self.texts)
        origin, skipped = self.source.origin, self.skipped
        self.options.check_share(skipped, len(texts[0]) + len(skipped), origin)
        if not len(texts[0]):
            raise DataError(f"{origin} has no text" + (f"; the first row: {skipped[0]}" if skipped else ""))
        named, target = self.source.named, self.others.get("target")
        return TextRows(
            texts=texts,
            others={role: joined_texts(parts) for role, parts in self.cells.items()},
            numbers=np.concatenate(self.numbers),
            places=Stacked(self.starts[:-1], self.places),
            notes=(self.source.how,),
            skipped=tuple(skipped),
            columns=self.columns if named else (),
            decimal=self.decimal,
            target_column=target if named and target != _GIVEN else None,
        )


def texts_of(table: Table, columns: Sequence[Sequence[str]]) -> tuple[list[Strings], dict[int, str]]:
    """The texts of a table's rows, one list or two for pairs, and by row what is wrong with those that have none.

    Args:
        table: With these columns.
        columns: Of each text.

    Raises:
        DataError: a column does not hold text.
    """
    texts = [_joined([_text_cells(table, name) for name in names]) for names in columns]
    problems: dict[int, str] = {}
    for cells in texts:
        problems = by_row(cells, _damaged(cells.pool), "has no text") | problems
    return texts, problems


def _text_cells(table: Table, name: str) -> Strings:
    cells = table.columns[name]
    if not isinstance(cells, Strings) and not cells.missing().all():
        kind = type(cells).__name__.lower()
        raise DataError(f"column {name!r} of {table.origin} holds {kind}, where texts are expected")
    return text_of(cells)


def _joined(parts: Sequence[Strings]) -> Strings:
    """The columns of one text as one, without those that are empty; absent where all are."""
    if len(parts) == 1:
        return parts[0]
    rows = zip(*(part.tolist() for part in parts), strict=True)
    return strings_of(None if all(text is None for text in row) else BETWEEN.join(filter(None, row)) for row in rows)


def _damaged(pool: PackedStrings) -> dict[int, str]:
    """The strings with half a surrogate pair, or with a byte that could not be decoded and is kept as one."""
    blob, offsets = pool.arrays()
    places = np.flatnonzero((blob[:-1] == 0xED) & (blob[1:] >= 0xA0))
    found = np.unique(np.searchsorted(offsets, places, side="right") - 1).tolist()
    return {place: f"has {damage(pool[place])}" for place in found}
