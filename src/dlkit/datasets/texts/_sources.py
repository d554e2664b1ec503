"""Reading texts from files: rows with the place each came from, and what is wrong with those that cannot be read."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dlkit._frames import as_pandas
from dlkit._opening import open_regular, regular
from dlkit.datasets.texts._records import (
    Record,
    decoded,
    find_separator,
    is_quoted,
    plain_records,
    quoted_records,
    text_lines,
)
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.bytes import local_path
from dlkit.reading.encodings import Buffer

__all__ = ["Column", "Reader", "Reading", "column_names", "open_source"]

Column = int | str
#: One row: where it stands (a line, a row, a file), and the asked columns' values or, as a string, what is wrong.
Row = tuple[int | str, tuple[Any, ...] | str]

_FORMATS = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".tab": "delimited",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PACKED = (".gz", ".bz2", ".xz", ".zip")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a file is read; the arguments of `TextDataset` of the same names."""

    format: Literal["auto", "delimited", "lines", "jsonl", "parquet", "folder"] = "auto"
    header: bool | None = None
    separator: str = "auto"
    quotes: bool | None = None
    encoding: str = "auto"
    pattern: str = "*.txt"


class Reader(NamedTuple):
    """A source that is ready to be read.

    Attributes:
        name: The file or folder, for errors.
        noun: What its places are: "line", "row", "item" or "file".
        rows: The rows, read while they are iterated.
        how: How the file was understood, in words.
        columns: The names of the asked columns; None for those that have none, as in a file without a header.
    """

    name: str
    noun: str
    rows: Iterator[Row]
    how: str
    columns: tuple[str | None, ...]


def open_source(source: Any, columns: Sequence[Column], reading: Reading, *, labelled: bool) -> Reader:
    """A reader of any source that `TextDataset` takes.

    Args:
        source: A path or URL, a list of texts, pairs or dicts, or a DataFrame.
        columns: Which columns of it each row gives, in this order.
        reading: How to read a file.
        labelled: Whether one of the columns is a target.
    """
    if not isinstance(source, str | os.PathLike):
        return _in_memory(source, columns)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, columns, reading)
    path = local_path(source)
    kind = reading.format if reading.format != "auto" else _format_of(path, columns, labelled)
    if kind == "parquet":
        return _parquet(path, columns)
    readers: dict[str, Callable[[Path, Sequence[Column], Reading], Reader]] = {
        "delimited": _delimited,
        "jsonl": _json,
        "lines": _lines,
    }
    if kind not in readers:
        raise ArgumentError(f"format must be one of {['auto', *sorted(readers), 'parquet', 'folder']}, not {kind!r}")
    return readers[kind](path, columns, reading)


def column_names(source: Any, reading: Reading) -> list[str] | None:
    """The names of the columns of a file, a DataFrame or a dict; None where there are none, as with a text per line.

    Args:
        source: A path or URL, a DataFrame, a dict.
        reading: How to read a file.
    """
    if not isinstance(source, str | os.PathLike):
        return [str(name) for name in getattr(source, "columns", source)]
    if reading.format == "folder" or Path(source).expanduser().is_dir():
        return None
    path = local_path(source)
    kind = reading.format if reading.format != "auto" else _format_of(path, [0], labelled=False)
    if kind == "parquet":
        with _open_parquet(path) as file:
            return list(file.schema_arrow.names)
    if kind == "jsonl":
        _, _, items = _json_of(path, reading)
        return next(([str(name) for name in item] for _, item in items if isinstance(item, dict)), None)
    if kind == "delimited" and reading.header is not False:
        records, _, _ = _records_of(path, reading)
        return [field.strip() for field in _first(records, path)[1]]
    return None


def _format_of(path: Path, columns: Sequence[Column], labelled: bool) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    if suffixes and suffixes[-1] in _FORMATS:
        return _FORMATS[suffixes[-1]]
    with open_regular(path) as file:
        if file.read(4) == b"PAR1":
            return "parquet"
    # A file of another name holds one text per line, unless columns of it are asked for.
    return "delimited" if labelled or list(columns) != [0] else "lines"


def _delimited(path: Path, columns: Sequence[Column], reading: Reading) -> Reader:
    records, how, quoted = _records_of(path, reading)
    header = reading.header if reading.header is not None else any(isinstance(column, str) for column in columns)
    how += ["with header" if header else "no header"]
    how += [] if quoted else ["quotes taken as ordinary characters"]
    first = _first(records, path)
    fields = [field.strip() for field in first[1]]
    places = _places(columns, fields if header else range(len(fields)), str(path))
    named = tuple(fields[place] if header else None for place in places)
    what = "the header" if header else "the first row"
    rows = _chosen(records if header else itertools.chain([first], records), places, len(fields), what)
    return Reader(str(path), "line", rows, ", ".join(how), named)


def _records_of(path: Path, reading: Reading) -> tuple[Iterator[Record], list[str], bool]:
    """All records, the header included, how they are written, and whether quotes quote."""
    data, encoding = decoded(path, reading.encoding)
    separator = find_separator(path, data) if reading.separator == "auto" else reading.separator
    if len(separator) != 1:
        raise ArgumentError(f"separator must be one character or 'auto', not {separator!r}")
    quoted = reading.quotes if reading.quotes is not None else separator != "\t" or is_quoted(data)
    records = quoted_records(data, separator) if quoted else plain_records(data, separator)
    return records, [encoding, "separator tab" if separator == "\t" else f"separator {separator!r}"], quoted


def _first(records: Iterator[Record], path: Path) -> tuple[int, list[str]]:
    """The header, or the first row of a file without one."""
    line, fields = next(records, (0, ""))
    if line == 0:
        raise DataError(f"{path} holds no row")
    if isinstance(fields, str):
        raise DataError(f"{path}, line {line}: {fields}")
    return line, fields


def _chosen(records: Iterable[Record], places: Sequence[int], width: int, what: str) -> Iterator[Row]:
    """The asked columns of each record; a record of another width than the first one is wrong."""
    for line, record in records:
        if isinstance(record, str):
            yield line, record
        elif len(record) != width:
            noun = "field" if len(record) == 1 else "fields"
            yield line, f"{len(record)} {noun} where {what} has {width}"
        else:
            yield line, tuple(record[place] for place in places)


def _places(columns: Sequence[Column], names: Sequence[Any], origin: str) -> list[int]:
    """Where the asked columns are; `names` has the name of each, or its number where there are no names."""
    shown = ", ".join(map(repr, names))
    places = []
    for column in columns:
        if isinstance(column, int):
            if not -len(names) <= column < len(names):
                raise DataError(f"{origin} has {len(names)} columns, so there is no column {column}")
            places.append(column % len(names))
        elif list(names).count(column) != 1:
            many = f"{list(names).count(column)} columns" if column in names else "no column"
            raise DataError(f"{origin} has {many} {column!r}; its columns are {shown}")
        else:
            places.append(list(names).index(column))
    return places


def _lines(path: Path, columns: Sequence[Column], reading: Reading) -> Reader:
    if list(columns) != [0]:
        raise ArgumentError(f"{path} is read as one text per line, which has no columns; format='delimited' has")
    data, encoding = decoded(path, reading.encoding)
    rows = ((line, (text.rstrip("\r\n"),)) for line, text in enumerate(text_lines(data, "\n"), 1))
    return Reader(str(path), "line", rows, f"{encoding}, one text per line", (None,))


def _json(path: Path, columns: Sequence[Column], reading: Reading) -> Reader:
    noun, how, items = _json_of(path, reading)
    return Reader(str(path), noun, _named(items, columns), how, _names(columns))


def _json_of(path: Path, reading: Reading) -> tuple[str, str, Iterator[tuple[int, Any]]]:
    """What places are, how the file was understood, and its values, or `ValueError`s where there is no JSON."""
    data, encoding = decoded(path, reading.encoding)
    if bytes(memoryview(data)[:64]).lstrip()[:1] == b"[":
        return "item", f"{encoding}, one JSON array", _json_items(path, data)
    lines = ((line, _json_value(text)) for line, text in enumerate(text_lines(data, "\n"), 1) if text.strip())
    return "line", f"{encoding}, JSON lines", lines


def _names(columns: Sequence[Column]) -> tuple[str | None, ...]:
    """Columns that are asked for by name have one."""
    return tuple(column if isinstance(column, str) else None for column in columns)


def _json_items(path: Path, data: Buffer) -> Iterator[tuple[int, Any]]:
    items = _json_value(text_lines(data, "").read())
    if isinstance(items, ValueError):
        raise DataError(f"{path} begins like a JSON array but is none: {items}") from items
    return enumerate(items)


def _json_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # thousands of brackets inside each other
        return ValueError(f"no JSON: {error}")


def _named(items: Iterable[tuple[int, Any]], columns: Sequence[Column]) -> Iterator[Row]:
    """The asked columns of dicts; a bare string is column 0."""
    for place, item in items:
        if isinstance(item, ValueError):
            yield place, str(item)
        elif isinstance(item, str) and list(columns) == [0]:
            yield place, (item,)
        elif not isinstance(item, dict):
            yield place, f"a {type(item).__name__}, not an object with names"
        elif missing := [column for column in columns if column not in item]:
            yield place, f"no {missing[0]!r} among its names {sorted(map(str, item))}"[:300]
        else:
            yield place, tuple(item[column] for column in columns)


def _parquet(path: Path, columns: Sequence[Column]) -> Reader:
    file = _open_parquet(path)
    names = file.schema_arrow.names
    asked = [names[place] for place in _places(columns, names, str(path))]

    def rows() -> Iterator[Row]:
        done = 0
        with file:
            try:
                for batch in file.iter_batches(columns=asked):
                    cells = zip(*(batch.column(name).to_pylist() for name in asked), strict=True)
                    yield from enumerate(cells, done)
                    done += batch.num_rows
            except (OSError, ValueError) as error:
                raise DataError(f"{path} is damaged after row {done}: {error}") from error

    return Reader(str(path), "row", rows(), "Parquet", tuple(asked))


def _open_parquet(path: Path) -> Any:
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no Parquet file, or a damaged one: {error}") from error


def _folder(path: Path, columns: Sequence[Column], reading: Reading) -> Reader:
    """One text per file; the folder in `path` that a file lies in is its class."""
    if columns[0] != 0 or len(columns) > 2 or (len(columns) == 2 and isinstance(columns[1], int)):
        raise ArgumentError(
            f"{path} is a folder, which has texts and their classes; columns {list(columns)} it has not"
        )
    files = sorted(file for file in path.rglob(reading.pattern) if not file.is_dir() and not _is_hidden(file, path))
    if not files:
        raise DataError(f"{path} and its folders have no file {reading.pattern!r}; pattern= names another")

    def rows() -> Iterator[Row]:
        for file in files:
            inside = file.relative_to(path)
            try:
                text = _whole(file, reading.encoding)
            except DataError as error:
                yield str(inside), str(error)
                continue
            yield str(inside), (text, inside.parts[0])[: len(columns)]

    return Reader(str(path), "file", rows(), f"{len(files):,} files {reading.pattern}", (None,) * len(columns))


def has_class_folders(path: Path, pattern: str) -> bool:
    """Whether the files lie in folders inside `path`, which are then their classes."""
    return any(len(file.relative_to(path).parts) > 1 for file in path.rglob(pattern) if not _is_hidden(file, path))


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _whole(file: Path, encoding: str) -> str:
    if regular(file).st_size == 0:
        return ""
    data, _ = decoded(file, encoding, "a text", ("page",))  # pages may be what is to be learned
    return bytes(data).decode("utf-8", "surrogateescape").removesuffix("\n")


def _in_memory(source: Any, columns: Sequence[Column]) -> Reader:
    source = as_pandas(source)
    if hasattr(source, "columns") and hasattr(source, "iloc"):
        names = [str(name) for name in source.columns]
        places = _places(columns, names, "the DataFrame")
        cells = zip(*(source.iloc[:, place].tolist() for place in places), strict=True)
        return Reader("the DataFrame", "row", enumerate(cells), "DataFrame", tuple(names[place] for place in places))
    if not isinstance(source, Iterable):
        raise ArgumentError(f"source must be a path, a list of texts or a DataFrame, not {type(source).__name__}")
    return Reader("the list", "item", _items(source, columns), "list", _names(columns))


def _items(source: Iterable[Any], columns: Sequence[Column]) -> Iterator[Row]:
    for place, item in enumerate(source):
        if isinstance(item, tuple | list):
            if list(columns) == [0] and len(item) == 2:
                raise ArgumentError("the texts are pairs; text=(0, 1) takes both")
            if any(not isinstance(column, int) or column >= len(item) for column in columns):
                yield place, f"{len(item)} parts, of which {list(columns)} were asked for"
                continue
            yield place, tuple(item[column] for column in columns if isinstance(column, int))
        elif isinstance(item, dict):
            yield from _named([(place, item)], columns)
        else:
            yield (
                place,
                (item,) if list(columns) == [0] else f"one {type(item).__name__}, without columns {list(columns)}",
            )
