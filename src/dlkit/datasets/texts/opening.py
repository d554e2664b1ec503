"""Any source of texts as tables of its columns: tables by `dlkit.reading`; lines, JSON, folders and lists here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from dlkit._encodings import Buffer
from dlkit._filekinds import HEAD
from dlkit._frames import as_pandas
from dlkit._near import hint
from dlkit._opening import open_regular, regular
from dlkit._textfiles import check_text, control_in, has_controls, rare_controls
from dlkit.datasets.texts.items import ColumnName, Items, Row, rows_of_items, tables_of_rows
from dlkit.errors import ArgumentError, DataError
from dlkit.reading._bytes import contents, fetched_path, text_stream, to_utf8
from dlkit.reading._columnar import ColumnarFile
from dlkit.reading._headers import plainly_names
from dlkit.reading.blocks import BlockFile, TextFile, block_file, watched
from dlkit.reading.cells import Table
from dlkit.reading.frames import table_of_frame
from dlkit.reading.policy import OF_TEXT_FILES, ReadArguments, ReadOptions

__all__ = [
    "TextArguments",
    "TextReading",
    "TextSource",
    "has_class_folders",
    "open_source",
    "source_columns",
    "text_in",
]

Format = Literal["auto", "delimited", "lines", "jsonl", "parquet", "folder"]

_FORMATS = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".tab": "delimited",
    ".xlsx": "delimited",
    ".xlsm": "delimited",
    ".feather": "parquet",
    ".arrow": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_TEXTS = ("page",)  # pages may be what is to be learned
_PACKED = (".gz", ".bz2", ".xz", ".zip")
_IN_TABLES = ("columns", "decimal", "thousands", "quotes")
_OF_TABLES = (*(name for name in OF_TEXT_FILES if name != "encoding"), *_IN_TABLES)


class TextArguments(ReadArguments, total=False):
    """How a source of texts is read: keyword arguments of `TextDataset`, most of them those of tables.

    Attributes:
        format: "auto" goes by the file's name; a file of another name is one text per line, or has columns where
            columns were asked for.
        quotes: Whether `"` quotes; None for yes, except in tab-separated files whose quotes are not all in pairs.
        pattern: Which files of a folder are texts; "*.txt" if not given.
    """

    format: Format
    quotes: bool | None
    pattern: str


@dataclass(frozen=True, kw_only=True)
class TextReading(ReadOptions):
    """How a source of texts is read, checked.

    Attributes:
        format: See `TextArguments`.
        quotes: See `TextArguments`.
        pattern: See `TextArguments`.
    """

    format: Format = "auto"
    quotes: bool | None = None
    pattern: str = "*.txt"

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """The options among a dataset's keyword arguments.

        Args:
            arguments: Any; those of `TextArguments` are taken.

        Raises:
            ArgumentError: an invalid argument.
        """
        own = {name: arguments[name] for name in ("format", "quotes", "pattern") if name in arguments}
        return replace(super().of(arguments), **own)


@dataclass(frozen=True)
class TextSource:
    """A source that is ready to be read.

    Attributes:
        origin: The file or folder, for errors.
        how: How it was understood, in words.
        names: What the asked columns are called in the tables.
        named: Whether the source itself calls them so.
        tables: Its rows, read while they are iterated.
        options: How it is read.
    """

    origin: str
    how: str
    names: tuple[str, ...]
    named: bool
    tables: Iterable[Table]
    options: TextReading


def open_source(source: Any, columns: Sequence[ColumnName], texts: int, options: TextReading) -> TextSource:
    """Any source that `TextDataset` takes.

    Args:
        source: A path or address, a list of texts, of tuples or dicts, or a DataFrame.
        columns: Which columns of it the tables have.
        texts: How many of them, from the first on, hold texts; others may hold anything.
        options: How to read.

    Raises:
        DataError: the source cannot be read, or lacks a column.
        ArgumentError: it is none, or columns are asked for that such a source does not have.
    """
    if not isinstance(source, str | os.PathLike):
        return _in_memory(source, columns, texts, options)
    path = Path(source).expanduser()
    if path.is_dir():
        options.refuse(_OF_TABLES, f"the folder {path}, of whose files each is one text", "leave it out")
        return _folder(path, columns, options)
    path = fetched_path(source)
    options.refuse(["pattern"], str(path), "only a folder has files to choose from: leave it out")
    kind = _format_of(path, options, asked=len(columns) > texts or list(columns) != [0])
    if kind in ("delimited", "parquet"):
        return _table(path, columns, options)
    what = "one text per line" if kind == "lines" else "JSON"
    options.refuse(_OF_TABLES, f"{path}, read as {what}", "format='delimited' reads it as a table")
    if kind == "lines" and list(columns) != [0]:
        raise ArgumentError(f"{path} is read as one text per line, which has no columns; format='delimited' has")
    how, noun, items = (_lines if kind == "lines" else _json)(path, options)
    return _of_items(items, columns, texts, (path.name, noun), how, options)


def _of_items(
    items: Items, columns: Sequence[ColumnName], texts: int, where: tuple[str, str], how: str, options: TextReading
) -> TextSource:
    names = tuple(map(str, columns))
    named = all(isinstance(column, str) for column in columns)
    return TextSource(
        where[0], how, names, named, tables_of_rows(rows_of_items(items, columns), names, texts, where), options
    )


def source_columns(source: Any, options: TextReading) -> list[str] | None:
    """The names of the columns of a file, a DataFrame or a dict; None where there are none, as with a text per line.

    Args:
        source: A path or address, a DataFrame, a dict.
        options: How to read a file.
    """
    if not isinstance(source, str | os.PathLike):
        return [str(name) for name in getattr(source, "columns", source)]
    if Path(source).expanduser().is_dir():
        return None
    path = fetched_path(source)
    kind = _format_of(path, options, asked=False)
    if kind == "jsonl":
        items = (item for _, item in _json(path, options)[2])
        return next(([str(name) for name in item] for item in items if isinstance(item, dict)), None)
    if kind in ("delimited", "parquet") and options.header is not False:
        return block_file(path, options, again=False).names
    return None


def _format_of(path: Path, options: TextReading, *, asked: bool) -> str:
    known = {*_FORMATS.values(), "lines"}
    if options.format != "auto":
        if options.format not in known:
            raise ArgumentError(f"format must be one of {['auto', *sorted(known), 'folder']}, not {options.format!r}")
        return options.format
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    if suffixes and suffixes[-1] in _FORMATS:
        return _FORMATS[suffixes[-1]]
    with open_regular(path) as file:
        if file.read(4) == b"PAR1":
            return "parquet"
    # A file of another name holds one text per line, unless columns of it are asked for.
    return "delimited" if asked else "lines"


def _table(path: Path, columns: Sequence[ColumnName], options: TextReading) -> TextSource:
    file = _opened(path, columns, options)
    names = [file.names[place] for place in _places(columns, file.names, str(path))]
    tables = (table for block, _ in watched(file) for table in file.tables(block, names, needed=names))
    named = not isinstance(file, TextFile) or file.dialect.headed or isinstance(options.header, tuple)
    return TextSource(str(path), file.note, tuple(names), named, tables, options)


def _opened(path: Path, columns: Sequence[ColumnName], options: TextReading) -> BlockFile:
    """The file, with a header where columns are asked for by name, or a first row plainly is one."""
    if (columnar := ColumnarFile.of(path, options)) is not None:
        return columnar
    by_name = any(isinstance(column, str) for column in columns)
    header = by_name if options.header is None else options.header
    file = block_file(path, replace(options, header=header), again=False, quotes=options.quotes)
    if options.header is None and not by_name and isinstance(file, TextFile):
        first, *rows = file.first_rows() or [[]]
        if plainly_names(first, rows, options.missing):
            return block_file(path, replace(options, header=True), again=False, quotes=options.quotes)
    return file


def _places(columns: Sequence[ColumnName], names: Sequence[str], origin: str) -> list[int]:
    """Where the asked columns are."""
    places = []
    for column in columns:
        if isinstance(column, int):
            if not -len(names) <= column < len(names):
                raise DataError(f"{origin} has {len(names)} columns, so there is no column {column}")
            places.append(column % len(names))
        elif list(names).count(column) != 1:
            many = f"{list(names).count(column)} columns" if column in names else "no column"
            near = hint(column, [name for name in names if name != column], has="its columns are").rstrip("?")
            raise DataError(
                f"{origin} has {many} {column!r}; {near}. If its first row does not name them, "
                "header=[...] does, or ask for them by number"
            )
        else:
            places.append(list(names).index(column))
    return places


def _text_of(path: Path, options: TextReading) -> tuple[Buffer, str]:
    lenient = options.on_error == "skip"
    data, encoding = to_utf8(contents(path, "a file of texts"), options.encoding, str(path), lenient=lenient)
    return data, encoding + rare_controls(data, path.name)


def _lines(path: Path, options: TextReading) -> tuple[str, str, Items]:
    data, encoding = _text_of(path, options)
    odd = control_in if has_controls(data) else lambda text: None
    lines = ((line, text.rstrip("\r\n")) for line, text in enumerate(text_stream(data, "\n"), 1))
    items = ((line, text if (why := odd(text)) is None else ValueError(why)) for line, text in lines)
    return f"{path.name}: {encoding}, one text per line", "line", items


def _json(path: Path, options: TextReading) -> tuple[str, str, Items]:
    """How a file was understood, what is counted in it, and its values, or `ValueError`s where there is no JSON."""
    data, encoding = _text_of(path, options)
    if bytes(memoryview(data)[:64]).lstrip()[:1] == b"[":
        values = _json_value(text_stream(data).read())
        if isinstance(values, ValueError):
            raise DataError(f"{path} begins like a JSON array but is not one: {values}") from values
        return f"{path.name}: {encoding}, one JSON array", "item", enumerate(values)
    items = ((line, _json_value(text)) for line, text in enumerate(text_stream(data, "\n"), 1) if text.strip())
    return f"{path.name}: {encoding}, JSON lines", "line", items


def _json_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # thousands of brackets inside each other
        return ValueError(f"is not JSON: {error}")


def _folder(path: Path, columns: Sequence[ColumnName], options: TextReading) -> TextSource:
    """One text per file; the folder in `path` that a file is in is its class."""
    if columns[0] != 0 or len(columns) > 2 or (len(columns) == 2 and isinstance(columns[1], int)):
        raise ArgumentError(
            f"{path} is a folder, which has texts and their classes; it does not have the columns {list(columns)}"
        )
    files = sorted(file for file in path.rglob(options.pattern) if not file.is_dir() and not _is_hidden(file, path))
    if not files:
        raise DataError(f"{path} and its folders have no file {options.pattern!r}; pattern= names another")

    def rows() -> Iterator[Row]:
        for file in files:
            inside = file.relative_to(path)
            try:
                yield str(file), (_whole(file, options), inside.parts[0])[: len(columns)]
            except DataError as error:
                yield str(file), f"cannot be read: {error}"

    names = ("text", "class")[: len(columns)]
    how = f"{path}: {len(files):,} files {options.pattern}"
    # The name of a folder is a class whatever it is; cells may mean that there is none.
    tables = tables_of_rows(rows(), names, 1, (str(path), "file"))
    return TextSource(str(path), how, names, False, tables, replace(options, missing=()))


def has_class_folders(path: Path, pattern: str) -> bool:
    """Whether the files are in folders inside `path`, which are then their classes.

    Args:
        path: The folder.
        pattern: Of the files.
    """
    return any(len(file.relative_to(path).parts) > 1 for file in path.rglob(pattern) if not _is_hidden(file, path))


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _whole(file: Path, options: TextReading) -> str:
    if regular(file).st_size == 0:
        return ""
    return _decoded(contents(file, "a text", _TEXTS), options.encoding, str(file))


def text_in(data: bytes) -> str:
    """The text in the content of a file that holds one, as it is read from a folder of such files.

    Args:
        data: The bytes, in an encoding that is found out.

    Raises:
        DataError: they are another kind of file, or their encoding is not known.

    >>> text_in("\ufeffgood film\\n".encode("utf-16-le"))
    'good film'
    """
    check_text(data[:HEAD], "it", "a text", _TEXTS)
    return _decoded(data, "auto", "it")


def _decoded(data: Buffer, encoding: str, origin: str) -> str:
    return text_stream(to_utf8(data, encoding, origin)[0]).read().removesuffix("\n")


def _in_memory(source: Any, columns: Sequence[ColumnName], texts: int, options: TextReading) -> TextSource:
    source = as_pandas(source)
    way = "it is in memory already: pass it where the file is read"
    options.refuse([*OF_TEXT_FILES, *_IN_TABLES, "pattern"], "texts in memory", way)
    if hasattr(source, "columns") and hasattr(source, "iloc"):
        return _frame(source, columns, texts, options)
    if not isinstance(source, Iterable):
        raise ArgumentError(f"source must be a path, a list of texts or a DataFrame, not {type(source).__name__}")
    return _of_items(enumerate(source), columns, texts, ("the list", "item"), "list", options)


def _frame(source: Any, columns: Sequence[ColumnName], texts: int, options: TextReading) -> TextSource:
    places = _places(columns, [str(name) for name in source.columns], "the DataFrame")
    table = table_of_frame(source.iloc[:, sorted(set(places))])
    order = dict(zip(sorted(set(places)), table.columns, strict=True))
    names = tuple(order[place] for place in places)
    return TextSource("the DataFrame", "DataFrame", names, True, [table], options)
