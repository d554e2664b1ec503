"""The first pass over a file that is bigger than memory: where its rows are, and the schema of the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dlkit import rng
from dlkit._frames import as_pandas
from dlkit.datasets.tables._building import (
    Settings,
    class_column,
    lost_images,
    rename_classes,
    text_columns,
    under_schema,
)
from dlkit.datasets.tables._encoding import Problem, encode, target_problems, unreadable
from dlkit.datasets.tables._fitting import (
    category,
    check_any_used,
    decide,
    fixed_column,
    forced_kind,
    like_id,
)
from dlkit.datasets.tables._survey import Cut, Survey, judge, record, tables_of
from dlkit.datasets.tables._tallies import ColumnTally, NumberTally, TextTally
from dlkit.datasets.tables._targets import (
    classes_of,
    encode_target,
    find_target,
    scaled_by,
    split_labels,
    target_numbers,
    unscaled_target,
)
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.blocks import Block, block_file
from dlkit.reading.cells import Array, Skipped, Strings, Table, text_of
from dlkit.reading.parsing import present
from dlkit.reading.policy import ReadOptions
from dlkit.reading.reader import paths_of
from dlkit.reading.targets import class_order
from dlkit.specs.columns import Column
from dlkit.specs.table import Schema, Target

__all__ = ["survey"]

_SAMPLE = 200_000  # rows from which medians are taken


def survey(source: Any, settings: Settings, schema: Schema | None, cut: Cut) -> Survey:
    """Read a source once, from the first block to the last.

    Raises:
        DataError: as reading it as a whole would, with file and line.
    """
    if hasattr(as_pandas(source), "iloc"):
        raise ArgumentError("a DataFrame is in memory already; streaming=True is for files")
    read, schema = (settings.read, None) if schema is None else under_schema(settings, schema)
    found = Survey([block_file(path, read) for path in paths_of(source)], cut)
    if schema is not None:
        _count(found, settings, schema, read)
        found.schema = schema
    else:
        _Fitting(found, settings).run()
    if not found.counts.sum():
        raise DataError(f"{found.origin} has no rows that can be used" + _first(found.skipped))
    return found


def _first(skipped: Sequence[Skipped]) -> str:
    return f"; the first: {skipped[0]}" if skipped else ""


def _count(found: Survey, settings: Settings, schema: Schema, read: ReadOptions) -> None:
    for file, block, table in tables_of(found, text_columns(schema)):
        rename_classes(table, class_column(schema.target), settings.aliases)
        encoded = encode(table, schema)
        problems = [*encoded.problems, *lost_images(encoded.images, settings.images, table)]
        record(found, file, block, table, problems, read)
    judge(found, read)


class _Fitting:
    """A survey that also gathers what the schema is made of."""

    def __init__(self, found: Survey, settings: Settings) -> None:
        self.found, self.settings, self.roles = found, settings, settings.roles
        self.marks, self.read = settings.read.missing, settings.read
        self.target: Target | None = None
        self.numbers: list[NumberTally] = []
        self.classes = TextTally()
        self.labels: set[str] = set()
        self.tallies: dict[str, ColumnTally] = {}
        self.share = 1.0

    def run(self) -> None:
        """Go through all blocks."""
        as_text = self._look_at_the_first_block()
        for number, (file, block, table) in enumerate(tables_of(self.found, as_text)):
            self._add(number, file, block, table)
        judge(self.found, self.read)
        columns = tuple(self._column(name) for name in self.names if name not in self.roles.target)
        check_any_used(columns, self.found.origin)
        self.found.schema = Schema(
            columns=columns,
            target=self._target(),
            marks=tuple(self.marks),
            header=self.header,
            decimal=self.decimal,
        )
        self.found.facts = {name: tally.facts() for name, tally in self.tallies.items()}

    def _look_at_the_first_block(self) -> set[str]:
        """Set up the tallies, and say which columns are needed as text."""
        file = self.found.files[0]
        block = next((block for block, _ in file.blocks()), None)
        if block is None:
            raise DataError(f"{file.source} has no rows")
        table = next(file.tables(block, self.roles.as_text()))
        self.read.stop_at(table.skipped)
        self.names, self.header, self.decimal = list(table.columns), table.header, table.decimal
        self.roles.check(self.names, table.origin)
        sizes = [file.source.stat().st_size for file in self.found.files]
        self.share = min(1.0, _SAMPLE * sizes[0] / (max(1.0, file.total(block, table)) * sum(sizes)))
        if self.roles.target:
            rename_classes(table, self.roles.target, self.settings.aliases)
            self.target = unscaled_target(find_target(table, self.roles.target, self.settings.target, self.marks))
            self.numbers = [NumberTally() for _ in self.target.columns]
        for name in self.names:
            if name in self.roles.target or fixed_column(name, self.roles, 0, 0) is not None:
                continue
            forced = "text" if name in self.roles.categorical else forced_kind(name, self.roles)
            date_form = self.roles.date_form(name)
            self.tallies[name] = ColumnTally(name, self.marks, forced, unique=like_id(name), date_form=date_form)
            self.tallies[name].read(table.columns[name])
        texts = {name for name, tally in self.tallies.items() if tally.is_text}
        return {*self.roles.as_text(), *texts, *class_column(self.target)}

    def _add(self, number: int, file: int, block: Block, table: Table) -> None:
        problems, read = [], {}
        for name, tally in self.tallies.items():
            read[name], bad = tally.read(table.columns[name])
            if bad is not None:
                kind = "date" if isinstance(tally.tally, dict) else "number"
                problems.append(_contradiction(name, kind, table, bad))
        rename_classes(table, class_column(self.target), self.settings.aliases)
        problems += self._target_problems(table)
        problems += lost_images(self._image_paths(table), self.settings.images, table)
        rows, parts = record(self.found, file, block, table, problems, self.read)
        self._count_target(table, rows, rows[parts[rows] == 0])
        train = rows[parts[rows] == 0]
        chosen = np.random.default_rng(rng.derive(0, rng.SPLIT, number)).random(len(train)) < self.share
        for name, tally in self.tallies.items():
            cells = read[name]
            tally.add(cells if len(train) == len(table) else cells.take(train), chosen)

    def _image_paths(self, table: Table) -> dict[str, Strings]:
        return {name: text_of(table.columns[name]) for name in self.roles.image}

    def _target_problems(self, table: Table) -> list[Problem]:
        if self.target is None:
            return []
        _, lacking, wrong = encode_target(self.target, table, self.marks)
        if self.target.task != "regression" and self.settings.target.classes is None:
            wrong[:] = False  # the classes are only known at the end
        return target_problems(table, Schema(columns=(), target=self.target), lacking, wrong)

    def _count_target(self, table: Table, rows: Array, train: Array) -> None:
        if self.target is None:
            return
        if self.target.task == "regression":
            for place, (tally, name) in enumerate(zip(self.numbers, self.target.columns, strict=True)):
                values, _ = target_numbers(table.columns[name], self.target.form(place), self.marks)
                tally.add(values[train], np.zeros(len(train), dtype=bool))
        elif len(self.target.columns) == 1:
            cells = text_of(table.columns[self.target.columns[0]]).take(rows)
            if self.target.separator is None:
                self.classes.add(cells, self.marks)
            else:
                self._count_labels(cells, self.target.separator)

    def _count_labels(self, cells: Strings, separator: str) -> None:
        used = cells.counts() > 0
        for text, use in zip(present(cells.pool.tolist(), self.marks), used, strict=True):
            if text is not None and use:
                self.labels.update(split_labels(text, separator))

    def _target(self) -> Target | None:
        target, options = self.target, self.settings.target
        if target is None or (len(target.columns) > 1 and target.task == "multilabel"):
            return target
        if target.task == "regression":
            return scaled_by(target, [tally.facts() for tally in self.numbers]) if options.scale_target else target
        if target.separator is not None:
            classes = options.classes or class_order(self.labels)
            return replace(target, classes=classes)
        if self.classes.more:
            raise DataError(f"target {target.columns[0]!r} has more different values than classes can be")
        classes = classes_of(target.columns[0], list(self.classes.counts), self.classes.rows, options)
        if target.task == "binary" and len(classes) != 2:
            raise ArgumentError(f"task='binary' needs 2 classes in column {target.columns[0]!r}, not {len(classes)}")
        return replace(target, classes=classes)

    def _column(self, name: str) -> Column:
        rows = int(self.found.counts[:, 0].sum())
        if (fixed := fixed_column(name, self.roles, rows, 0)) is not None:
            return fixed
        tally, options = self.tallies[name], self.settings.fit
        if name in self.roles.categorical:
            return category(name, tally.facts(), options, "named by you")
        return decide(name, tally.facts(), tally.form, options, forced=forced_kind(name, self.roles))


def _contradiction(name: str, kind: str, table: Table, bad: Array) -> Problem:
    """A cell that is not what the column's first rows were."""
    problem = unreadable(name, kind, table.columns[name], np.flatnonzero(bad))
    remedy = f"the first rows have {kind}s there; if it is none, name it in categorical= or drop=; or {problem.remedy}"
    return replace(problem, remedy=remedy)
