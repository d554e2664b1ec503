"""What is known of a file that is bigger than memory: where its rows are, and which of them can be used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from dlkit.datasets.tables._building import row_keys, usable
from dlkit.datasets.tables._encoding import Problem
from dlkit.datasets.tables._facts import Facts
from dlkit.errors import ArgumentError
from dlkit.reading.blocks import Block, BlockFile, TextFile
from dlkit.reading.cells import Array, Skipped, Table, text_of
from dlkit.reading.policy import ReadOptions
from dlkit.reading.reader import check_same_columns
from dlkit.specs.table import Schema
from dlkit.splits import content_keys, part_of_keys

__all__ = ["Cut", "Survey", "judge", "record", "tables_of"]

_LISTED = 1000  # skipped rows that are listed; the rest is counted


@dataclass(frozen=True)
class Cut:
    """How rows are dealt to the parts of a split, each by itself.

    Attributes:
        fractions: The share of each part.
        seed: Another seed gives another split.
        group: A column whose equal values go together.
        dedupe: Whether rows that are equal in every column go together.
    """

    fractions: tuple[float, ...] = (1.0,)
    seed: int = 0
    group: str | None = None
    dedupe: bool = False

    def parts(self, number: int, table: Table) -> Array:
        """The part of each row of a block."""
        if len(self.fractions) == 1:
            return np.zeros(len(table), dtype=np.int64)
        if self.dedupe:
            if self.group is not None:
                raise ArgumentError(
                    "a stream keeps groups or equal rows together, not both; leave out group= or dedupe="
                )
            return part_of_keys(row_keys(table), self.fractions, seed=self.seed)
        if self.group is None:
            keys = (
                (np.uint64(number) << np.uint64(32)) + np.arange(len(table), dtype=np.uint64) + np.uint64(table.first)
            )
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
        return f"{self.files[0].source.name}{more}"


def tables_of(found: Survey, as_text: set[str]) -> Iterator[tuple[int, Block, Table]]:
    """All blocks in order, piece by piece."""
    first: Table | None = None
    for number, file in enumerate(found.files):
        for block, table in _text_tables(file, as_text) if isinstance(file, TextFile) else _tables(file, as_text):
            first = first or table
            check_same_columns([first, table])
            yield number, block, table


def _tables(file: BlockFile, as_text: set[str]) -> Iterator[tuple[Block, Table]]:
    for block, _ in file.blocks():
        for table in file.tables(block, as_text, threads=True):
            yield block, table


def _text_tables(file: TextFile, as_text: set[str]) -> Iterator[tuple[Block, Table]]:
    """Read by two threads that are at most two blocks ahead."""
    waiting: deque[tuple[Block, Future[Table]]] = deque()
    with ThreadPoolExecutor(max_workers=2) as pool:
        for block, content in file.blocks():
            waiting.append((block, pool.submit(file.table, block, as_text, content)))
            while len(waiting) > 2:
                done, task = waiting.popleft()
                yield done, task.result()
        for done, task in waiting:
            yield done, task.result()


def record(
    found: Survey, file: int, block: Block, table: Table, problems: Sequence[Problem], read: ReadOptions
) -> tuple[Array, Array]:
    """Note a piece of a block, apply the policy to its bad rows, and give its usable rows and the part of each row."""
    if table.first == 0:
        found.blocks.append((file, block))
        found.rows.append(0)
        found.per_part.append(np.zeros(len(found.cut.fractions), dtype=np.int64))
    number = len(found.blocks) - 1
    read.stop_at(table.skipped)
    # Whether too much is bad is judged over the whole file, so here nothing is too much.
    before = _rows_before(found, file) if any(len(problem.rows) for problem in problems) else 0
    kept, skipped = usable(table, problems, replace(read, max_errors=1.0), None, empty=True, start=before)
    rows = np.arange(len(table)) if kept is None else kept
    if kept is not None:
        known = found.unusable.get(number, np.zeros(0, dtype=np.int64))
        found.unusable[number] = np.append(known, table.first + np.setdiff1d(np.arange(len(table)), kept))
    parts = found.cut.parts(number, table)
    found.rows[-1] += len(table)
    found.per_part[-1] += np.bincount(parts[rows], minlength=len(found.cut.fractions))
    bad = [*table.skipped, *skipped]
    found.skipped += bad[: max(0, _LISTED - len(found.skipped))]
    found.num_skipped += len(bad)
    found.mistakes += len(table.skipped) + len(
        set().union(*(problem.rows.tolist() for problem in problems if problem.mistake))
    )
    return rows, parts


def _rows_before(found: Survey, file: int) -> int:
    return sum(rows for (each, _), rows in zip(found.blocks, found.rows, strict=True) if each == file)


def judge(found: Survey, read: ReadOptions) -> None:
    """Stop if too many rows of all could not be read."""
    if found.mistakes:
        first = found.skipped[:1] * found.mistakes
        read.check_share(first, sum(found.rows) + found.mistakes, found.origin)
