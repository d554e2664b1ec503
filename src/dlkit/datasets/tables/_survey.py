"""The first pass over a stream: where its blocks are, which of their rows can be used, and the schema."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dlkit import rng
from dlkit.datasets.tables._blocks import Block, BlockFile, ParquetFile, block_file
from dlkit.datasets.tables._building import (
    Settings,
    check_no_roles,
    class_column,
    rename_classes,
    text_columns,
    usable,
)
from dlkit.datasets.tables._cells import Array, Skipped, Strings, Table
from dlkit.datasets.tables._encoding import Problem, encode, target_problems, unreadable
from dlkit.datasets.tables._facts import Facts
from dlkit.datasets.tables._fitting import (
    category,
    check_any_used,
    decide,
    fixed_column,
    forced_kind,
    like_id,
    text_of,
)
from dlkit.datasets.tables._options import ReadOptions
from dlkit.datasets.tables._parsing import present
from dlkit.datasets.tables._reading import check_same_columns, paths_of
from dlkit.datasets.tables._tallies import ColumnTally, NumberTally, TextTally
from dlkit.datasets.tables._targets import (
    classes_of,
    encode_target,
    find_target,
    scaled_by,
    sorted_classes,
    split_labels,
    target_numbers,
    unscaled_target,
)
from dlkit.datasets.tables.schema import Column, Schema, Target
from dlkit.errors import ArgumentError, DataError
from dlkit.splits import content_keys, part_of_keys

__all__ = ["Cut", "Survey", "survey"]

_SAMPLE = 200_000  # rows from which medians are taken
_LISTED = 1000  # skipped rows that are listed; the rest is counted


@dataclass(frozen=True)
class Cut:
    """How rows are dealt to the parts of a split, each by itself.

    Attributes:
        fractions: The share of each part.
        seed: Another seed gives another split.
        group: A column whose equal values go together.
    """

    fractions: tuple[float, ...] = (1.0,)
    seed: int = 0
    group: str | None = None

    def parts(self, number: int, table: Table) -> Array:
        """The part of each row of a block."""
        if len(self.fractions) == 1:
            return np.zeros(len(table), dtype=np.int64)
        if self.group is None:
            keys = (np.uint64(number) << np.uint64(32)) + np.arange(len(table), dtype=np.uint64)
            return part_of_keys(keys, self.fractions, seed=self.seed)
        cells = text_of(table.columns[self.group])
        parts = part_of_keys(content_keys([*cells.pool.tolist(), ""]), self.fractions, seed=self.seed)
        return parts[cells.codes]


@dataclass
class Survey:
    """What the first pass found.

    Attributes:
        files: The files.
        blocks: The number of its file and the place of each block.
        counts: int64 [blocks, parts], the rows of each part that can be used.
        unusable: Row numbers that cannot be used, by the number of the block.
        cut: How rows are dealt to parts.
        schema: Given or fitted.
        facts: What was counted of the training rows, by column; empty with a given schema.
        skipped: The first rows left out by policy.
    """

    files: list[BlockFile]
    cut: Cut
    blocks: list[tuple[int, Block]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    per_part: list[Array] = field(default_factory=list)
    unusable: dict[int, Array] = field(default_factory=dict)
    schema: Schema = field(default_factory=lambda: Schema(columns=()))
    facts: dict[str, Facts] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    num_skipped: int = 0
    mistakes: int = 0

    @property
    def counts(self) -> Array:
        """int64 [blocks, parts], the rows of each part that can be used."""
        return np.array(self.per_part, dtype=np.int64).reshape(-1, len(self.cut.fractions))

    @property
    def origin(self) -> str:
        """The files, as errors name them."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0].path.name}{more}"


def survey(source: Any, settings: Settings, schema: Schema | None, cut: Cut) -> Survey:
    """Read a source once, from the first block to the last.

    Raises:
        DataError: as reading it as a whole would, with file and line.
    """
    if hasattr(source, "iloc"):
        raise ArgumentError("a DataFrame is in memory already; streaming=True is for files")
    read = settings.read if schema is None else ReadOptions(**{**vars(settings.read), "missing": schema.marks})
    found = Survey([block_file(path, read) for path in paths_of(source)], cut)
    if schema is not None:
        check_no_roles(settings, schema)
        _count(found, settings, schema, read)
        found.schema = schema
    else:
        _Fitting(found, settings).run()
    if not found.counts.sum():
        raise DataError(f"{found.origin} has no rows that can be used" + _first(found.skipped))
    return found


def _first(skipped: Sequence[Skipped]) -> str:
    return f"; the first: {' '.join(skipped[0])}" if skipped else ""


def _tables(found: Survey, as_text: set[str]) -> Iterator[tuple[int, Block, Table]]:
    """All blocks in order, read by two threads that are at most two blocks ahead."""
    waiting: deque[tuple[int, Block, Future[Table]]] = deque()
    first: Table | None = None
    with ThreadPoolExecutor(max_workers=2) as pool:
        for number, file in enumerate(found.files):
            ahead = 0 if isinstance(file, ParquetFile) else 2  # row groups are large, and Arrow's threads share one
            for block, content in file.blocks():
                task = pool.submit(file.table, block, as_text, content, threads=ahead == 0)
                waiting.append((number, block, task))
                while len(waiting) > ahead:
                    place, done, task = waiting.popleft()
                    table = task.result()
                    first = first or table
                    check_same_columns([first, table])
                    yield place, done, table
        for place, done, task in waiting:
            yield place, done, task.result()


def _record(
    found: Survey, file: int, block: Block, table: Table, problems: Sequence[Problem], read: ReadOptions
) -> tuple[Array, Array]:
    """Note a block, apply the policy to its bad rows, and give the rows that can be used and the part of each row."""
    number = len(found.blocks)
    read.stop_at(table.skipped)
    # Whether too much is bad is judged over the whole file, so here nothing is too much.
    kept, skipped = usable(table, problems, replace(read, max_errors=1.0), None, empty=True)
    rows = np.arange(len(table)) if kept is None else kept
    if kept is not None:
        found.unusable[number] = np.setdiff1d(np.arange(len(table)), kept)
    parts = found.cut.parts(number, table)
    found.blocks.append((file, block))
    found.rows.append(len(table))
    found.per_part.append(np.bincount(parts[rows], minlength=len(found.cut.fractions)))
    bad = [*table.skipped, *skipped]
    found.skipped += bad[: max(0, _LISTED - len(found.skipped))]
    found.num_skipped += len(bad)
    found.mistakes += len(table.skipped) + len(
        set().union(*(problem.rows.tolist() for problem in problems if problem.mistake))
    )
    return rows, parts


def _judge(found: Survey, read: ReadOptions) -> None:
    if found.mistakes:
        first = found.skipped[:1] * found.mistakes
        read.check_share(first, sum(found.rows) + found.mistakes, found.origin)


def _count(found: Survey, settings: Settings, schema: Schema, read: ReadOptions) -> None:
    for file, block, table in _tables(found, text_columns(schema)):
        rename_classes(table, class_column(schema.target), settings.aliases)
        _record(found, file, block, table, encode(table, schema).problems, read)
    _judge(found, read)


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
        for number, (file, block, table) in enumerate(_tables(self.found, as_text)):
            self._add(number, file, block, table)
        _judge(self.found, self.read)
        columns = tuple(self._column(name) for name in self.names if name not in self.roles.target)
        check_any_used(columns, self.found.origin)
        self.found.schema = Schema(columns=columns, target=self._target(), marks=tuple(self.marks))
        self.found.facts = {name: tally.facts() for name, tally in self.tallies.items()}

    def _look_at_the_first_block(self) -> set[str]:
        """Set up the tallies, and say which columns are needed as text."""
        file = self.found.files[0]
        block, content = next(iter(file.blocks()), (None, None))
        if block is None:
            raise DataError(f"{file.path} has no rows")
        table = file.table(block, self.roles.as_text(), content)
        self.read.stop_at(table.skipped)
        self.names = list(table.columns)
        self.roles.check(self.names, table.origin)
        size = sum(file.path.stat().st_size for file in self.found.files)
        self.share = min(1.0, _SAMPLE / max(1, len(table) * size // max(1, block.stop - block.start)))
        if self.roles.target:
            rename_classes(table, self.roles.target, self.settings.aliases)
            self.target = unscaled_target(find_target(table, self.roles.target, self.settings.target, self.marks))
            self.numbers = [NumberTally() for _ in self.target.columns]
        for name in self.names:
            if name in self.roles.target or fixed_column(name, self.roles, 0, 0) is not None:
                continue
            forced = "text" if name in self.roles.categorical else forced_kind(name, self.roles)
            self.tallies[name] = ColumnTally(name, self.marks, forced, unique=like_id(name))
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
        rows, parts = _record(self.found, file, block, table, problems, self.read)
        self._count_target(table, rows, rows[parts[rows] == 0])
        train = rows[parts[rows] == 0]
        chosen = np.random.default_rng(rng.derive(0, rng.SPLIT, number)).random(len(train)) < self.share
        for name, tally in self.tallies.items():
            cells = read[name]
            tally.add(cells if len(train) == len(table) else cells.take(train), chosen)

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
            for tally, name in zip(self.numbers, self.target.columns, strict=True):
                values, _ = target_numbers(table.columns[name], self.target.form, self.marks)
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
            classes = options.classes or sorted_classes(sorted(self.labels))
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
