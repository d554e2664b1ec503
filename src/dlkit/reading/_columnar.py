"""Files that Arrow reads as they are: Parquet, and Arrow's own files (Feather), in groups of rows."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlkit._opening import open_regular
from dlkit._textfiles import check_width
from dlkit.errors import DataError
from dlkit.reading._decimals import said_decimal
from dlkit.reading._delimited import chosen_columns
from dlkit.reading.cells import Block, Numbered, Table
from dlkit.reading.frames import arrow_columns
from dlkit.reading.policy import OF_TEXT_FILES, ReadOptions

__all__ = ["ColumnarFile", "columnar_kind"]

_STREAM = b"\xff\xff\xff\xff"
_BUFFER = 1 << 20
PIECE_ROWS = 1 << 16


def columnar_kind(head: bytes) -> str | None:
    """What a file of columns is by its first bytes; None for anything else.

    Raises:
        DataError: the first version of Feather, which Arrow no longer writes.
    """
    if head.startswith(b"FEA1"):
        raise DataError("this is a Feather file of version 1; read it with pandas.read_feather and write it again")
    marks = {b"PAR1": "Parquet", b"ARROW1\0\0": "Arrow", _STREAM: "an Arrow stream"}
    return next((kind for mark, kind in marks.items() if head.startswith(mark)), None)


@dataclass(frozen=True)
class ColumnarFile:
    """A file of columns, or its content.

    Attributes:
        source: The file; for content a name that errors call it by.
        kind: See `columnar_kind`.
        options: How to read.
        content: Of the file, where it is in memory.
    """

    source: Path
    kind: str
    options: ReadOptions
    content: bytes | None = None

    @classmethod
    def of(cls, path: Path, options: ReadOptions) -> ColumnarFile | None:
        """The file if it is one of columns, whose columns have different names."""
        with open_regular(path) as file:
            kind = columnar_kind(file.read(8))
        return None if kind is None else cls(path, kind, options)

    def __post_init__(self) -> None:
        way = "it stores its columns, types and encoding itself: leave it out"
        self.options.refuse(OF_TEXT_FILES, f"{self.source} ({self.kind})", way)

    @property
    def note(self) -> str:
        """What it is, and which index of pandas is left out."""
        left = "".join(f"; its pandas index {name!r} is left out" for name in self._schema()[1])
        return f"{self.source.name}: {self.kind}{left}"

    @property
    def names(self) -> list[str]:
        """The names of the columns to read."""
        return self._schema()[0]

    def _schema(self) -> tuple[list[str], list[str]]:
        """The columns to read, and the index of the DataFrame that it was written from."""
        with self._opened() as file:
            schema = file.schema_arrow if self.kind == "Parquet" else file.schema
        check_width(len(schema.names), self.source)
        if twice := sorted(name for name, count in Counter(schema.names).items() if count > 1):
            raise DataError(f"{self.source} has several columns of one name: {', '.join(twice)}")
        if self.options.columns is not None:
            return list(chosen_columns(schema.names, self.options.columns, str(self.source))), []
        index = _index_of(schema.metadata or {})
        return [name for name in schema.names if name not in index], [name for name in schema.names if name in index]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow as pa
        from pyarrow import ipc

        readers: dict[str, Callable[[Any], Any]] = {"Parquet": self._parquet, "Arrow": ipc.open_file}
        try:
            with contextlib.ExitStack() as stack:
                where = pa.memory_map(str(self.source)) if self.content is None else pa.BufferReader(self.content)
                stack.enter_context(where)
                yield stack.enter_context(readers.get(self.kind, ipc.open_stream)(where))
        except DataError:
            raise
        except (OSError, ValueError, pa.ArrowException) as error:
            kind = "Arrow" if self.kind != "Parquet" else self.kind
            raise DataError(f"{self.source} is a damaged {kind} file: {error}") from error

    def _parquet(self, where: Any) -> Any:
        from pyarrow import parquet

        return parquet.ParquetFile(where, buffer_size=_BUFFER)  # else whole columns of a group are read

    def _groups(self) -> list[int]:
        """How many rows each group has; a group is the least that can be read by itself."""
        with self._opened() as file:
            if self.kind == "Parquet":
                return [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            return [batch.num_rows for batch in _batches(file)]

    def blocks(self) -> Iterator[tuple[Block, None]]:
        """See `BlockFile`; the line of a block is how many rows are before it."""
        before = 0
        for number, rows in enumerate(self._groups()):
            if rows:
                yield Block(number, number + 1, before), None
            before += rows

    def whole(self) -> Table:
        """All rows."""
        names, origin = self.names, self.source.name
        with self._opened() as file:
            table = file.read(columns=names) if self.kind == "Parquet" else file.read_all().select(names)
        columns, decimal = arrow_columns(table, origin, threads=True), said_decimal(self.options, typed=True)
        return Table(columns, origin, Numbered(range(len(table)), origin, "row"), [self.note], decimal=decimal)

    def tables(
        self, block: Block, as_text: Collection[str], *, needed: Collection[str] | None = None, threads: bool = False
    ) -> Iterator[Table]:
        """See `BlockFile`; a group often has a million rows, so it comes in pieces.

        Args:
            block: One of `blocks`.
            as_text: Makes no difference: cells have the types of the file.
            needed: The columns to read at least; None for all.
            threads: Whether Arrow may use several.
        """
        import pyarrow as pa

        origin, first = self.source.name, 0
        names = [name for name in self.names if needed is None or name in needed]
        with self._opened() as file:
            for batch in self._pieces(file, block.start, names, threads=threads):
                cells = arrow_columns(pa.Table.from_batches([batch]).select(names), origin)
                rows = block.line + first
                place = Numbered(range(rows, rows + len(batch)), origin, "row")
                decimal = said_decimal(self.options, typed=True)
                yield Table(cells, origin, place, folder=self.source.parent, first=first, decimal=decimal)
                first += len(batch)
        pa.default_memory_pool().release_unused()  # it would keep what the largest group took

    def _pieces(self, file: Any, group: int, names: list[str], *, threads: bool) -> Iterator[Any]:
        if self.kind == "Parquet":
            return iter(file.iter_batches(PIECE_ROWS, [group], columns=names, use_threads=threads))
        batch = next(batch for number, batch in enumerate(_batches(file)) if number == group)
        return (batch.slice(start, PIECE_ROWS) for start in range(0, len(batch), PIECE_ROWS))


def _batches(file: Any) -> Iterator[Any]:
    if hasattr(file, "num_record_batches"):
        return (file.get_batch(number) for number in range(file.num_record_batches))
    return iter(file)


def _index_of(metadata: dict[bytes, bytes]) -> set[str]:
    """The columns that were the index of a DataFrame."""
    try:
        index = json.loads(metadata.get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError):
        return set()
    return {name for name in index if isinstance(name, str)}
