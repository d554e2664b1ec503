"""Any source to a table of cells: files, several files under each other, DataFrames."""

from __future__ import annotations

import io
import itertools
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlkit._frames import as_pandas
from dlkit._opening import open_regular
from dlkit._textfiles import check_width
from dlkit.errors import ArgumentError, DataError
from dlkit.reading._text_rows import fitting_dialect, line_of, parse_text
from dlkit.reading.bytes import contents, local_path, to_utf8
from dlkit.reading.cells import Array, Cells, Place, Table
from dlkit.reading.delimited import Dialect, find_dialect
from dlkit.reading.frames import arrow_columns, concatenated, table_of_frame
from dlkit.reading.policy import ReadOptions

__all__ = [
    "Numbered",
    "Stacked",
    "check_names",
    "check_same_columns",
    "is_parquet",
    "paths_of",
    "read_table",
    "table_of_content",
]


def paths_of(source: Any) -> list[Path]:
    """The files of a source that is no DataFrame; URLs are fetched.

    Args:
        source: A path, a URL, or a list of those.
    """
    if isinstance(source, str | os.PathLike):
        return [local_path(source)]
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        sources = list(source)
        if sources and all(isinstance(item, str | os.PathLike) for item in sources):
            return [local_path(item) for item in sources]
    raise ArgumentError(
        f"source must be a path, a URL, a list of those, or a DataFrame (pandas, polars), not {type(source).__name__}"
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
    source = as_pandas(source)
    if type(source).__name__ == "DataFrame" and hasattr(source, "iloc"):
        return table_of_frame(source)
    paths = paths_of(source)
    tables = [_read_file(path, options, as_text) for path in paths]
    if len(tables) == 1:
        return tables[0]
    check_same_columns(tables)
    joined = {name: concatenated([table.columns[name] for table in tables]) for name in tables[0].columns}
    if torn := [name for name, cells in joined.items() if cells is None]:  # numbers in one file and text in another
        if set(torn) <= set(as_text):
            raise DataError(
                f"column {torn[0]!r} holds text in one of {len(paths)} files and dates or numbers in another"
            )
        return read_table(source, options, {*as_text, *torn})
    return _stacked(tables, {name: cells for name, cells in joined.items() if cells is not None})


def check_same_columns(tables: Sequence[Table]) -> None:
    """All parts of a table must have the columns of the first.

    Args:
        tables: The parts.
    """
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
    place = Stacked(tuple(starts[:-1]), tuple(table.places for table in tables))
    return Table(
        columns,
        f"{tables[0].origin} and {len(tables) - 1} more",
        place,
        notes=[note for table in tables for note in table.notes],
        skipped=[skip for table in tables for skip in table.skipped],
        folder=tables[0].folder,
    )


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its first bytes.

    Args:
        path: The file.
    """
    with open_regular(path) as file:
        return file.read(4) == b"PAR1"


def _read_file(path: Path, options: ReadOptions, as_text: Collection[str]) -> Table:
    if is_parquet(path):
        return _read_parquet(path)
    data, encoding = to_utf8(contents(path), options.encoding, str(path))
    dialect = fitting_dialect(data, find_dialect(data, str(path), options.separator, options.names), str(path))
    parsed = parse_text(data, dialect, options, as_text, path.name)
    place = _Lines(path, encoding, dialect) if parsed.lines is None else Numbered(parsed.lines, path.name)
    table = Table(parsed.columns, path.name, place, [f"{path.name}: {encoding}, {dialect}"], parsed.bad)
    options.judge(parsed.bad, len(table) + len(parsed.bad), str(path))
    return _filled(table, path)


def table_of_content(content: bytes, options: ReadOptions, as_text: Collection[str]) -> Table:
    """A table whose file's content is in memory: text in any encoding, or Parquet.

    Args:
        content: Of the file.
        options: How to read.
        as_text: Columns to keep as the text that stands there.

    Raises:
        DataError: it is empty, or is no text.
    """
    name = "the table"
    if not content:
        raise DataError(f"{name} is empty (0 bytes)")
    if content.startswith(b"PAR1"):
        return _parquet_table(io.BytesIO(content), Path(name))
    data, encoding = to_utf8(content, options.encoding, name)
    dialect = fitting_dialect(data, find_dialect(data, name, options.separator, options.names), name)
    parsed = parse_text(data, dialect, options, as_text, name)

    def place(row: int) -> Place:
        return Place(name, line_of(data, dialect, row), "line")

    return Table(
        parsed.columns,
        name,
        place if parsed.lines is None else Numbered(parsed.lines, name),
        [f"{name}: {encoding}, {dialect}"],
        parsed.bad,
        parsed.bad_at,
    )


def _filled(table: Table, path: Path) -> Table:
    if len(table) == 0:
        raise DataError(f"{path} has a header with {len(table.columns)} columns but no rows")
    table.folder = path.parent
    return table


def _read_parquet(path: Path) -> Table:
    return _filled(_parquet_table(path, path), path)


def _parquet_table(source: Any, path: Path) -> Table:
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(source) as file:
            check_width(file.metadata.num_columns, path)
            table = file.read()
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is a damaged Parquet file: {error}") from error
    check_names(table.column_names, path)
    columns = arrow_columns(table, path.name, threads=True)
    return Table(columns, path.name, Rows(path.name), [f"{path.name}: Parquet"])


def check_names(names: Sequence[str], path: Path) -> None:
    """Parquet allows several columns of one name; nobody could say which one is meant.

    Args:
        names: Of its columns.
        path: The file, for errors.
    """
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(f"{path} has several columns of one name: {', '.join(twice)}")


@dataclass(frozen=True)
class _Lines:
    """Names the line of a row by reading up to it again: only errors ask, so neither lines nor the file are kept."""

    path: Path
    encoding: str
    dialect: Dialect

    def __call__(self, row: int) -> Place:
        data, _ = to_utf8(contents(self.path), self.encoding, str(self.path))
        line = line_of(data, self.dialect, row)
        return Place(self.path.name, row) if line is None else Place(self.path.name, line, "line")


@dataclass(frozen=True)
class Numbered:
    """Names rows whose lines or other numbers are known.

    Attributes:
        lines: The number of each row.
        origin: The file.
        noun: What the numbers count.
    """

    lines: Array
    origin: str
    noun: str = "line"

    def __call__(self, row: int) -> Place:
        return Place(self.origin, int(self.lines[row]), self.noun)


@dataclass(frozen=True)
class Rows:
    """Names a row by its number, where there are no lines."""

    origin: str

    def __call__(self, row: int) -> Place:
        return Place(self.origin, row)


@dataclass(frozen=True)
class Stacked:
    """Names a row of several tables under each other.

    Attributes:
        starts: The number of the first row of each.
        places: Those of each.
    """

    starts: Sequence[int]
    places: Sequence[Callable[[int], Place]]

    def __call__(self, row: int) -> Place:
        part = bisect_right(self.starts, row) - 1
        return self.places[part](row - self.starts[part])
