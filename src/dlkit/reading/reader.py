"""Any source to a table of cells: files, several files under each other, DataFrames."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from dlkit._frames import as_pandas
from dlkit.errors import ArgumentError, DataError
from dlkit.reading._bytes import fetched_path
from dlkit.reading._columnar import ColumnarFile, columnar_kind
from dlkit.reading._decimals import one_mark, said_decimal
from dlkit.reading._delimited import chosen_columns
from dlkit.reading.blocks import whole_text
from dlkit.reading.cells import Cells, Stacked, Table
from dlkit.reading.frames import concatenated, table_of_frame
from dlkit.reading.policy import OF_TEXT_FILES, ReadOptions

__all__ = [
    "check_same_columns",
    "kept_columns",
    "paths_of",
    "read_table",
    "table_of_content",
]


def paths_of(source: Any) -> list[Path]:
    """The files of a source that is not a DataFrame; URLs are fetched.

    Args:
        source: A path, a URL, or a list of those.
    """
    if isinstance(source, str | os.PathLike):
        return [fetched_path(source)]
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        sources = list(source)
        if sources and all(isinstance(item, str | os.PathLike) for item in sources):
            return [fetched_path(item) for item in sources]
    raise ArgumentError(
        f"source must be a path, a URL, a list of those, or a DataFrame (pandas, polars), not {type(source).__name__}"
        + ("" if not isinstance(source, list | tuple) else f" of {len(source)} items: {source!r:.80}")
    )


def read_table(source: Any, options: ReadOptions, as_text: Collection[str] | None = ()) -> Table:
    """Read a path, a URL, a list of those, or a DataFrame.

    Args:
        source: See `CSVDataset`.
        options: How to read.
        as_text: Columns to keep as the text that is in the file; None for all.

    Raises:
        DataError: with file and line, column or row.
    """
    source = as_pandas(source)
    if type(source).__name__ == "DataFrame" and hasattr(source, "iloc"):
        return _chosen(table_of_frame(source), options)
    paths = paths_of(source)
    tables = [_read_file(path, options, as_text) for path in paths]
    if len(tables) == 1:
        return tables[0]
    check_same_columns(tables)
    joined = {name: concatenated([table.columns[name] for table in tables]) for name in tables[0].columns}
    if torn := [name for name, cells in joined.items() if cells is None]:  # numbers in one file and text in another
        if as_text is None or set(torn) <= set(as_text):
            raise DataError(
                f"column {torn[0]!r} holds text in one of {len(paths)} files and dates or numbers in another"
            )
        return read_table(source, options, {*as_text, *torn})
    return _stacked(tables, {name: cells for name, cells in joined.items() if cells is not None})


def _chosen(table: Table, options: ReadOptions) -> Table:
    names = chosen_columns(list(table.columns), options.columns, table.origin)
    options.refuse(OF_TEXT_FILES, table.origin, "it is already read: pass it where the file is read into it")
    table.columns = {name: table.columns[name] for name in names}
    table.decimal = said_decimal(options, typed=True)
    return table


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
        header=tables[0].header,
        decimal=reduce(lambda mark, table: one_mark(mark, table.decimal, table.origin), tables, tables[0].decimal),
    )


def _read_file(path: Path, options: ReadOptions, as_text: Collection[str] | None) -> Table:
    columnar = ColumnarFile.of(path, options)
    if columnar is None:
        table = whole_text(path, options, as_text, str(path))
        options.judge(table.skipped, len(table) + len(table.skipped), str(path))
    else:
        table = columnar.whole()
    if len(table) == 0:
        raise DataError(f"{path} has a header with {len(table.columns)} columns but no rows")
    table.folder = path.parent
    return table


def kept_columns(keep: Any, there: Sequence[str], origin: str, but: Sequence[str] = ()) -> list[str]:
    """The columns of a file that are to be beside its predictions.

    Args:
        keep: The caller's: their names, or True for all.
        there: The file's.
        origin: The file, for errors.
        but: Those that stand there anyhow.

    Raises:
        DataError: it has no such column.
    """
    if keep is True:
        return [name for name in there if name not in but]
    names = [keep] if isinstance(keep, str) else list(keep or ())
    if lacking := [name for name in names if name not in there]:
        raise DataError(
            f"{origin} has no column {', '.join(map(repr, lacking))} to keep; its columns are "
            f"{', '.join(map(repr, there))}"
        )
    return names


def table_of_content(content: bytes, options: ReadOptions, as_text: Collection[str] | None = ()) -> Table:
    """A table whose file's content is in memory: text in any encoding, Excel, Parquet or Arrow.

    Args:
        content: Of the file.
        options: How to read.
        as_text: Columns to keep as the text that stands there; None for all.

    Raises:
        DataError: it is empty, or is not text.
    """
    name = "the table"
    if not content:
        raise DataError(f"{name} is empty (0 bytes)")
    if (kind := columnar_kind(content[:8])) is not None:
        return ColumnarFile(Path(name), kind, options, content).whole()
    return whole_text(content, options, as_text, name)
