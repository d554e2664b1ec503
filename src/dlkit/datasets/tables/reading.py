"""Files to cells: through Arrow where that is exact, cell by cell through Python's csv module where it is not."""

from __future__ import annotations

import csv
import itertools
import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlkit._optional import require
from dlkit.datasets.tables.cells import Array, Cells, Skipped, StringPool, Strings, Table
from dlkit.datasets.tables.dialect import Dialect, audit_quotes, find_dialect, records
from dlkit.datasets.tables.frames import cells_of_arrow, concatenated, table_of_frame
from dlkit.datasets.tables.parsing import DEFAULT_MISSING, exceeds_float, is_code, settled
from dlkit.datasets.tables.source import Buffer, contents, local_path, to_utf8
from dlkit.errors import ArgumentError, DataError, MissingExtraError, TooManyErrorsError

__all__ = ["ReadOptions", "arrow_columns", "is_parquet", "paths_of", "read_table"]

_SOME_ROWS = 1000  # in which codes with leading zeros are looked for, as Arrow would read those as numbers
_ALWAYS_SKIPPED = 10  # bad rows that a small file may have whatever share of it they are
_LONGEST_CELL = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read; the arguments of `CSVDataset` of the same names."""

    encoding: str = "auto"
    separator: str = "auto"
    names: tuple[str, ...] | None = None
    missing: tuple[str, ...] = DEFAULT_MISSING
    on_error: Literal["raise", "skip"] = "raise"
    max_errors: float = 0.1

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise ArgumentError(f"on_error must be 'raise' or 'skip', not {self.on_error!r}")
        if not 0 <= self.max_errors <= 1:
            raise ArgumentError(f"max_errors is a share of the rows, from 0 to 1, not {self.max_errors}")
        if isinstance(self.missing, str):
            raise ArgumentError(f"missing must be a list of marks, not the string {self.missing!r}: [{self.missing!r}]")

    def check_share(self, bad: Sequence[Skipped], rows: int, origin: str) -> None:
        """Stop when more rows were bad than `max_errors` allows."""
        if len(bad) > max(_ALWAYS_SKIPPED, self.max_errors * rows):
            first = "; ".join(f"{place} {why}" for place, why in bad[:3])
            raise TooManyErrorsError(
                f"{origin}: {len(bad)} of {rows} rows cannot be read, more than max_errors={self.max_errors:g} allows; "
                f"the first: {first}"
            )


def paths_of(source: Any) -> list[Path]:
    """The files of a source that is no DataFrame; URLs are fetched."""
    if isinstance(source, str | os.PathLike):
        return [local_path(source)]
    if isinstance(source, Iterable):
        sources = list(source)
        if sources and all(isinstance(item, str | os.PathLike) for item in sources):
            return [local_path(item) for item in sources]
    raise ArgumentError(
        f"source must be a path, a URL, a list of those, or a pandas DataFrame, not {type(source).__name__}"
        + ("" if not isinstance(source, list | tuple) else f" of {len(source)} items: {source!r:.80}")
    )


def read_table(source: Any, options: ReadOptions, as_text: Collection[str] = ()) -> Table:
    """Read a path, a URL, a list of those, or a DataFrame.

    Args:
        source: See `CSVDataset`.
        options: How to read.
        as_text: Columns to keep as the text that stands in the file.

    Raises:
        DataError: with file and line, column or row.
    """
    if type(source).__name__ == "DataFrame" and hasattr(source, "iloc"):
        return table_of_frame(source)
    paths = paths_of(source)
    tables = [_read_file(path, options, as_text) for path in paths]
    if len(tables) == 1:
        return tables[0]
    _check_same_columns(tables)
    joined = {name: concatenated([table.columns[name] for table in tables]) for name in tables[0].columns}
    if torn := [name for name, cells in joined.items() if cells is None]:  # numbers in one file and text in another
        if set(torn) <= set(as_text):
            raise DataError(f"column {torn[0]!r} holds text in one of {len(paths)} files and dates or numbers in another")
        return read_table(source, options, {*as_text, *torn})
    return _stacked(tables, {name: cells for name, cells in joined.items() if cells is not None})


def _check_same_columns(tables: Sequence[Table]) -> None:
    first = tables[0]
    for table in tables[1:]:
        lacking = [name for name in first.columns if name not in table.columns]
        extra = [name for name in table.columns if name not in first.columns]
        if lacking or extra:
            told = [f"lacks {', '.join(map(repr, lacking))}"] if lacking else []
            told += [f"has {', '.join(map(repr, extra))} besides"] if extra else []
            raise DataError(f"{table.origin} {' and '.join(told)}; the columns of {first.origin} must be in every file")


def _stacked(tables: Sequence[Table], columns: dict[str, Cells]) -> Table:
    starts = [0, *itertools.accumulate(len(table) for table in tables)]
    place = _InFiles(tuple(starts[:-1]), tuple(table.places for table in tables))
    return Table(
        columns,
        f"{tables[0].origin} and {len(tables) - 1} more",
        place,
        notes=[note for table in tables for note in table.notes],
        skipped=[skip for table in tables for skip in table.skipped],
        folder=tables[0].folder,
    )


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its first bytes."""
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def arrow_columns(table: Any, origin: str) -> dict[str, Cells]:
    """The columns of an Arrow table as cells."""
    return {name: cells_of_arrow(column, name, origin) for name, column in zip(table.column_names, table.columns, strict=True)}


def _read_file(path: Path, options: ReadOptions, as_text: Collection[str]) -> Table:
    origin = path.name
    if is_parquet(path):
        return _read_parquet(path)
    data, encoding = to_utf8(contents(path), options.encoding, str(path))
    dialect = find_dialect(data, str(path), options.separator, options.names)
    notes = [f"{origin}: {encoding}, {dialect}"]
    columns = _through_arrow(data, dialect, options, as_text, origin)
    if columns is None:
        return _exactly(data, dialect, options, as_text, path, encoding)
    return _with_rows(Table(columns, origin, _Lines(path, options.encoding, dialect), notes=notes, folder=path.parent))


def _with_rows(table: Table) -> Table:
    if len(table) == 0:
        raise DataError(f"{table.origin} has a header with {len(table.columns)} columns but no rows")
    return table


def _read_parquet(path: Path) -> Table:
    parquet = require("pyarrow.parquet", extra="tables")
    try:
        with parquet.ParquetFile(path) as file:
            table = file.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is a damaged Parquet file: {error}") from error
    names = [str(name) for name in table.column_names]
    if len(set(names)) < len(names):
        raise DataError(f"{path} has several columns of one name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
    columns = arrow_columns(table, path.name)
    return _with_rows(Table(columns, path.name, _Rows(path.name), notes=[f"{path.name}: Parquet"], folder=path.parent))


@dataclass(frozen=True)
class _Lines:
    """Names the line of a row by reading up to it again: only errors ask, so neither lines nor the file are kept."""

    path: Path
    encoding: str
    dialect: Dialect

    def __call__(self, row: int) -> str:
        data, _ = to_utf8(contents(self.path), self.encoding, str(self.path))
        with _long_cells():
            found = next(itertools.islice(records(data, self.dialect), row, None), None)
        return f"row {row} of {self.path.name}" if found is None else f"line {found[0]} of {self.path.name}"


@dataclass(frozen=True)
class _Numbered:
    """Names the line of a row that is known."""

    lines: Array
    origin: str

    def __call__(self, row: int) -> str:
        return f"line {self.lines[row]} of {self.origin}"


@dataclass(frozen=True)
class _Rows:
    """Names a row by its number, where there are no lines."""

    origin: str

    def __call__(self, row: int) -> str:
        return f"row {row} of {self.origin}"


@dataclass(frozen=True)
class _InFiles:
    """Names a row of several files under each other."""

    starts: tuple[int, ...]
    places: tuple[Callable[[int], str], ...]

    def __call__(self, row: int) -> str:
        part = bisect_right(self.starts, row) - 1
        return self.places[part](row - self.starts[part])


def _through_arrow(
    data: Buffer, dialect: Dialect, options: ReadOptions, as_text: Collection[str], origin: str
) -> dict[str, Cells] | None:
    """The columns as Arrow's reader gives them, or None where only reading cell by cell is exact."""
    try:
        arrow = require("pyarrow", extra="tables")
    except MissingExtraError:
        return None
    if not dialect.separator.isascii():
        return None
    quotes = audit_quotes(data, dialect)
    if not quotes.regular:
        return None
    texts = {*as_text, *_code_columns(data, dialect)} & set(dialect.names)
    try:
        table = arrow_table(memoryview(data)[dialect.start :], dialect, options, texts, multiline=quotes.multiline)
    except arrow.ArrowInvalid:
        return None  # ragged rows and the like: the exact reader finds the line, or the way
    if any(arrow.types.is_binary(field.type) for field in table.schema):
        return None
    columns = arrow_columns(table, origin)
    rounded = {name for name, cells in columns.items() if not isinstance(cells, Strings) and exceeds_float(cells.values)}
    return _through_arrow(data, dialect, options, texts | rounded, origin) if rounded else columns


def arrow_table(
    data: Buffer, dialect: Dialect, options: ReadOptions, as_text: Collection[str], *, multiline: bool, threads: bool = True
) -> Any:
    """The rows in `data` as an Arrow table.

    Raises:
        pyarrow.ArrowInvalid: rows of different width, and the like.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    marks = ["", *options.missing, *(f" {mark}" for mark in options.missing)]
    return arrow_csv.read_csv(
        pa.BufferReader(pa.py_buffer(data)),
        arrow_csv.ReadOptions(column_names=list(dialect.names), block_size=4 << 20, use_threads=threads),
        arrow_csv.ParseOptions(
            delimiter=dialect.separator,
            quote_char='"' if dialect.quoted else False,
            newlines_in_values=multiline and dialect.quoted,
        ),
        arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(as_text, pa.string()),
            null_values=marks,
            strings_can_be_null=False,
            # Arrow's own defaults make a column of 1 and "true" boolean.
            true_values=["true", "True", "TRUE"],
            false_values=["false", "False", "FALSE"],
        ),
    )


def _code_columns(data: Buffer, dialect: Dialect) -> set[str]:
    found: set[str] = set()
    head = bytes(memoryview(data)[dialect.start : dialect.start + (1 << 18)])
    for _, record in itertools.islice(records(head, replace(dialect, start=0)), _SOME_ROWS):
        if not isinstance(record, csv.Error):
            found.update(name for name, cell in zip(dialect.names, record, strict=False) if is_code(cell.strip()))
    return found


def _exactly(
    data: Buffer, dialect: Dialect, options: ReadOptions, as_text: Collection[str], path: Path, encoding: str
) -> Table:
    with _long_cells():
        dialect = _fitting_dialect(data, dialect)
        bad: list[Skipped] = []
        lines: list[int] = []
        columns = _columns_of(_good_records(data, dialect, path.name, bad, lines), len(dialect.names))
    if bad and options.on_error == "raise":
        raise DataError(
            f"{' '.join(bad[0])}" + (f", and {len(bad) - 1} more such rows" if len(bad) > 1 else "")
            + "; repair the file, or on_error='skip' leaves such rows out and lists them in .skipped"
        )
    options.check_share(bad, len(lines) + len(bad), str(path))
    cells: dict[str, Cells] = {
        name: column if name in as_text else settled(column, options.missing)
        for name, column in zip(dialect.names, columns, strict=True)
    }
    place = _Numbered(np.array(lines, dtype=np.int64), path.name)
    notes = [f"{path.name}: {encoding}, {dialect}"]
    return _with_rows(Table(cells, path.name, place, notes=notes, skipped=bad, folder=path.parent))


@contextmanager
def _long_cells() -> Iterator[None]:
    """The csv module refuses cells over 128 KB unless told, for the whole process."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _fitting_dialect(data: Buffer, dialect: Dialect) -> Dialect:
    """The reading of quotes that leaves the fewest bad rows: as quotes, after blanks too, or as plain characters."""
    best, fewest = dialect, _bad_rows(data, dialect, 100)
    for other in (replace(dialect, blanks=True), replace(dialect, quoted=False)):
        if fewest and (count := _bad_rows(data, other, fewest)) < fewest:
            # A few damaged quotes in a quoted file are damage; a file full of them does not quote at all.
            if other.quoted or count <= fewest // 5:
                best, fewest = other, count
    return best


def _bad_rows(data: Buffer, dialect: Dialect, enough: int) -> int:
    width = len(dialect.names)
    bad = (1 for _, record in records(data, dialect) if isinstance(record, csv.Error) or len(record) != width)
    return sum(itertools.islice(bad, enough))


def _good_records(
    data: Buffer, dialect: Dialect, name: str, bad: list[Skipped], lines: list[int]
) -> Iterator[list[str]]:
    width = len(dialect.names)
    for line, record in records(data, dialect):
        if isinstance(record, csv.Error):
            bad.append((f"line {line} of {name}", f"has a broken quote ({record})"))
        elif len(record) != width:
            bad.append((f"line {line} of {name}", f"has {len(record)} cells where the header has {width}"))
        else:
            lines.append(line)
            yield record


def _columns_of(rows: Iterator[list[str]], width: int) -> list[Strings]:
    indexes: list[defaultdict[str, int]] = []
    for _ in range(width):
        index: defaultdict[str, int] = defaultdict()
        index.default_factory = index.__len__
        indexes.append(index)
    codes: list[list[np.ndarray[Any, Any]]] = [[] for _ in range(width)]
    while batch := list(itertools.islice(rows, 10_000)):
        for place, column in enumerate(zip(*batch, strict=True)):
            index = indexes[place]
            codes[place].append(np.fromiter((index[cell] for cell in column), dtype=np.int32, count=len(column)))
    return [
        Strings(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32), StringPool.of(index))
        for parts, index in zip(codes, indexes, strict=True)
    ]
