"""Which rows of a file that is larger than memory can be used: passed over block by block, and kept as numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlkit._cores import default_threads
from dlkit._frames import as_pandas
from dlkit.datasets.tables._building import pass_over, row_keys
from dlkit.datasets.tables._facts import Facts
from dlkit.datasets.tables._pass import RowDealer
from dlkit.datasets.tables._pipeline import FittingPass
from dlkit.datasets.tables._settings import TableSettings, under_spec
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.blocks import Block, BlockFile, TextFile, block_file, watched
from dlkit.reading.cells import Array, Skipped, Table, text_of
from dlkit.reading.policy import ReadOptions
from dlkit.reading.reader import check_same_columns, paths_of
from dlkit.reading.typed import Reading
from dlkit.specs.table import TableSpec, Target
from dlkit.splits import content_keys, part_of_keys

__all__ = ["HashSplit", "StreamIndex", "stream_index"]

_LISTED = 1000  # skipped rows that are listed; the rest is counted


@dataclass(frozen=True)
class HashSplit:
    """Deals each row by itself, by its number or by what it belongs to.

    Attributes:
        fractions: The share of each part.
        seed: Another seed gives another split.
        group: A column whose equal values go together.
        dedupe: Whether rows that are equal in every column go together.
    """

    fractions: tuple[float, ...]
    seed: int
    group: str | None
    dedupe: bool

    def __post_init__(self) -> None:
        if self.dedupe and self.group is not None:
            raise ArgumentError("a stream keeps groups or equal rows together, not both; leave out group= or dedupe=")

    def parts(self, piece: Table, before: int, usable: Array, target: Target | None, values: Array | None) -> Array:
        """See `RowDealer`."""
        if self.dedupe:
            return part_of_keys(row_keys(piece), self.fractions, seed=self.seed)
        if self.group is None:
            keys = np.arange(before, before + len(piece), dtype=np.uint64)
            return part_of_keys(keys, self.fractions, seed=self.seed)
        cells = text_of(piece.columns[self.group])
        parts = part_of_keys(content_keys([*cells.pool.tolist(), ""]), self.fractions, seed=self.seed)
        return parts[cells.codes]


@dataclass
class StreamIndex:
    """What is known of a file, or several, after the last pass.

    Attributes:
        files: The files.
        dealt: Assigns rows to parts; None for one part.
        num_parts: How many parts there are.
        read: How to read.
        blocks: The number of its file and the place of each block.
        rows: How many rows each block has.
        counts: int64 [blocks, parts], how many of them can be used.
        unusable: Row numbers that cannot be used, by the number of the block.
        text: Columns that are read as the text that is in the file.
        readings: How columns are read.
        spec: Given or fitted.
        facts: What was counted of the training rows, by column; empty with a given spec.
        skipped: The first rows left out by policy.
    """

    files: list[BlockFile]
    dealt: RowDealer | None
    num_parts: int
    read: ReadOptions
    blocks: list[tuple[int, Block]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    counts: Array = field(default_factory=lambda: np.zeros((0, 1), dtype=np.int64))
    unusable: dict[int, Array] = field(default_factory=dict)
    text: set[str] = field(default_factory=set)
    readings: dict[str, Reading] = field(default_factory=dict)
    spec: TableSpec = field(default_factory=lambda: TableSpec(columns=()))
    facts: dict[str, Facts] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def origin(self) -> str:
        """The files, as errors name them."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0].source.name}{more}"

    def pieces(self, text: set[str]) -> Iterator[Table]:
        """See `Rereadable`."""
        self.blocks, self.rows, self.unusable, self.skipped = [], [], {}, []
        self._per_block: list[Array] = []
        first: Table | None = None
        for number, file in enumerate(self.files):
            rows, bad = 0, list[Skipped]()
            for block, piece in _text_pieces(file, text) if isinstance(file, TextFile) else _pieces(file, text):
                first = first or piece
                check_same_columns([first, piece])
                if piece.first == 0:
                    self.blocks.append((number, block))
                    self.rows.append(0)
                    self._per_block.append(np.zeros(self.num_parts, dtype=np.int64))
                self.rows[-1] += len(piece)
                rows += len(piece)
                bad += piece.skipped
                if len(piece):
                    yield piece
            self.read.judge(bad, rows + len(bad), str(file.source))
            self.skipped += bad[: _LISTED - len(self.skipped)]
            if not rows:
                raise DataError(f"{file.source} has a header with {len(file.names)} columns but no rows")
        self.counts = np.array(self._per_block, dtype=np.int64).reshape(-1, self.num_parts)

    def record(self, piece: Table, good: Array, parts: Array) -> None:
        """See `Rereadable`."""
        number = len(self.blocks) - 1
        self._per_block[-1] += np.bincount(parts[good], minlength=self.num_parts)
        if not good.all():
            known = self.unusable.get(number, np.zeros(0, dtype=np.int64))
            self.unusable[number] = np.append(known, piece.first + np.flatnonzero(~good))


def stream_index(source: Any, settings: TableSettings, spec: TableSpec | None, split: HashSplit | None) -> StreamIndex:
    """Pass over a source from the first block to the last.

    Args:
        source: See `CSVDataset`; no DataFrame.
        settings: What the caller says.
        spec: Of the training data; None to fit one on the first part.
        split: How rows are assigned; None for one part.

    Raises:
        DataError: as reading it as a whole would.
    """
    if hasattr(as_pandas(source), "iloc"):
        raise ArgumentError("a DataFrame is in memory already; streaming=True is for files")
    if spec is not None:
        settings, spec = under_spec(settings, spec)
    files = [block_file(path, settings.read) for path in paths_of(source)]
    found = StreamIndex(files, split, 1 if split is None else len(split.fractions), settings.read)
    run = pass_over(found, settings, found.dealt, spec)
    found.spec, unlabelled = run.finish(found.origin)
    found.skipped = [*found.skipped, *unlabelled, *run.judge(found.origin)][:_LISTED]
    found.text, found.readings = run.known.text, run.known.all_readings()
    if isinstance(run, FittingPass):
        found.facts = {name: run.facts_of(name) for name, facts in run.facts.items() if not facts.fixed}
    return found


def _pieces(file: BlockFile, text: set[str]) -> Iterator[tuple[Block, Table]]:
    for block, _ in watched(file):
        for piece in file.tables(block, text, threads=True):
            yield block, piece


def _text_pieces(file: TextFile, text: set[str]) -> Iterator[tuple[Block, Table]]:
    """Read ahead by as many threads as there are cores; not before the first block has told which columns are text."""
    threads, waiting = default_threads(), deque[tuple[Block, Future[Table]]]()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for number, (block, content) in enumerate(watched(file)):
            if number == 0:
                yield block, file.table(block, text, content, threads=True)
                continue
            waiting.append((block, pool.submit(file.table, block, text, content)))
            if len(waiting) > threads:
                done, task = waiting.popleft()
                yield done, task.result()
        for done, task in waiting:
            yield done, task.result()
