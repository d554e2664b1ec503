"""Texts for a text model: given as such, or in files and tables whose column is known by name."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from dlkit.artifact.inputs import Meaning
from dlkit.datasets.texts.items import ColumnName
from dlkit.datasets.texts.opening import TextReading, TextSource, open_source, source_columns, text_in
from dlkit.datasets.texts.packed import PackedTextDataset
from dlkit.datasets.texts.rows import texts_of
from dlkit.errors import ArgumentError, DataError, DlkitError
from dlkit.inference.batches import Batch, Inputs, check_options, in_batches, index_of, readable, total_of
from dlkit.reading.cells import Place, text_of
from dlkit.reading.reader import kept_columns, table_of_content
from dlkit.specs.text import TextSpec

__all__ = ["columns_of", "texts", "texts_in_table"]

Columns = tuple[tuple[ColumnName, ...], ...]
_BYTES = bytes | bytearray | memoryview
_READING = ("encoding", "format", "header", "pattern", "quotes", "separator")


def texts(meaning: Meaning, given: Any, batch_size: int, options: Mapping[str, Any]) -> Inputs:
    """Texts for a text model.

    Args:
        meaning: The model's.
        given: A text, an iterable of texts (or of pairs of them); a path; a DataFrame, a dict or a list of dicts.
            Bytes are one text, as a file holds it.
        batch_size: Texts at a time.
        options: `text` and `pair` name the columns; others say how a file is read, as in `TextDataset`.

    Raises:
        ArgumentError: something that holds no texts, or a table whose column of texts is not known.
        DataError: a file that cannot be read, or has no such column.
    """
    check_options(options, ("text", "pair", "keep", *_READING), "texts")
    if getattr(given, "ndim", 1) == 0:  # an array that is one text
        given = given.item()
    if isinstance(given, str | Mapping | _BYTES):
        given = [given]
    if not isinstance(given, os.PathLike | Iterable):
        raise ArgumentError(
            "this model takes texts: a string, bytes, a list of these, or a file, Path('new.csv') or "
            f"predict_file('new.csv'); not {type(given).__name__}"
        )
    if isinstance(given, list | tuple) and given and all(isinstance(each, os.PathLike) for each in given):
        parts = [texts(meaning, each, batch_size, options) for each in given]
        batches = itertools.chain.from_iterable(part.batches for part in parts)
        return Inputs(batches=batches, headings=parts[0].headings)
    source, columns, kept = _opened(meaning, given, options)
    filed = isinstance(given, os.PathLike) and os.path.isdir(given)
    headings = (*("file",) * filed, *("text", "text_2")[: len(columns)], *kept)
    rows = in_batches(_rows(source, columns, kept), batch_size)
    return Inputs(
        batches=(_batch(meaning.preprocessing, headings, some) for _, some in rows),
        headings=headings,
        total=total_of(given),
        index=index_of(given),
    )


def texts_in_table(meaning: Meaning, content: bytes) -> Iterator[tuple[str, ...] | str]:
    """The texts in the content of a table: of each row its text, or a pair, or as a string what is wrong with it.

    Args:
        meaning: The model's, which knows its column; the only column of a table needs no name that it knows.
        content: Of a CSV file.

    Raises:
        ArgumentError: the column is not known.
        DataError: the content is not a table, or has no such column.
    """
    reading = _reading({})
    table = table_of_content(content, reading, None)
    try:
        columns = columns_of(meaning, table, {})
    except DlkitError:
        if len(table.columns) > 1:
            raise
        columns = (tuple(table.columns),)
    asked = tuple(str(column) for part in columns for column in part)
    source = TextSource(table.origin, "", asked, True, [table], reading)
    return (row for _, row, _ in _rows(source, columns))


def _opened(meaning: Meaning, given: Any, options: Mapping[str, Any]) -> tuple[TextSource, Columns, list[str]]:
    """The source, the columns of each text in it, and those that are kept."""
    reading, keep, kept = _reading(options), options.get("keep"), list[str]()
    if keep and not isinstance(given, os.PathLike):
        raise ArgumentError("keep= takes columns of a file; the rows of a DataFrame keep their index, to join them by")
    if isinstance(given, os.PathLike) or hasattr(given, "columns"):
        columns = columns_of(meaning, given, options)
    else:
        rest = iter(given.tolist() if hasattr(given, "tolist") else given)
        some = list(itertools.islice(rest, 1))
        given, first = map(_read, itertools.chain(some, rest)), some[0] if some else None
        pairs = isinstance(first, tuple | list)
        columns = columns_of(meaning, first, options) if isinstance(first, Mapping) else ((0,), (1,))[: 1 + pairs]
    asked = [column for part in columns for column in part]
    if keep:
        there = source_columns(given, reading) or []
        kept = kept_columns(keep, there, _name(given), but=[str(column) for column in asked])
    return open_source(given, [*asked, *kept], len(asked), reading), columns, kept


def _read(item: Any) -> Any:
    """An item whose bytes are texts, or the error in its place."""
    try:
        if isinstance(item, _BYTES):
            return text_in(bytes(item))
        if isinstance(item, tuple | list) and any(isinstance(part, _BYTES) for part in item):
            return tuple(map(_part, item))
        if isinstance(item, Mapping) and any(isinstance(part, _BYTES) for part in item.values()):
            return {name: _part(part) for name, part in item.items()}
    except DataError as error:
        return ValueError(str(error))
    return item


def _part(value: Any) -> Any:
    return text_in(bytes(value)) if isinstance(value, _BYTES) else value


def _reading(options: Mapping[str, Any]) -> TextReading:
    return TextReading.of({"on_error": "skip", **{name: options[name] for name in _READING if name in options}})


def columns_of(meaning: Meaning, given: Any, options: Mapping[str, Any]) -> Columns:
    """The columns that the texts of a table are in: those that the caller names, else those that the model knows.

    Args:
        meaning: The model's.
        given: A path, a DataFrame, a dict.
        options: The caller's: `text` and `pair`, and how a file is read.

    Raises:
        ArgumentError: no column is known; the message lists those that there are.
        DataError: the column is not there; the message lists both.
    """
    asked = [options[name] for name in ("text", "pair") if options.get(name) is not None]
    if asked:
        return tuple((each,) if isinstance(each, str | int) else tuple(each) for each in asked)
    there = source_columns(given, _reading(options))
    if there is None:  # one text per line, or per file of a folder
        return ((0,),)
    spec = meaning.preprocessing
    known = tuple(part for part in (spec.text, spec.pair) if part) or tuple((name,) for name in meaning.columns)
    if not known:
        raise ArgumentError(
            f"the model was trained on texts without names of columns; {_name(given)} has the columns "
            f"{', '.join(map(repr, there))}: say which holds the texts, text={there[0]!r}"
        )
    if lacking := [name for part in known for name in part if name not in there]:
        raise DataError(
            f"{_name(given)} has no column {', '.join(map(repr, lacking))}, which held the model's texts; its "
            f"columns are {', '.join(map(repr, there))}; text=... names another"
        )
    return known


def _name(given: Any) -> str:
    return str(given) if isinstance(given, os.PathLike) else f"the {type(given).__name__}"


#: One row: where it stands, when somebody asks; its texts or, as a string, what is wrong; its cells that are kept.
Row = tuple[Callable[[], Place], tuple[str, ...] | str, Sequence[str | None]]


def _rows(source: TextSource, columns: Columns, kept: Sequence[str] = ()) -> Iterator[Row]:
    """The texts row by row, the bad ones in their places."""
    names, nothing = iter(source.names), (None,) * len(kept)
    parts = [[next(names) for _ in part] for part in columns]
    for table in source.tables:
        texts, problems = texts_of(table, parts)
        rows = list(zip(*(cells.tolist() for cells in texts), strict=True))
        beside = [text_of(table.columns[name]).tolist() for name in kept]
        broken = list(zip(table.skipped_at, table.skipped, strict=True))[::-1]
        for number in range(len(rows) + 1):
            while broken and broken[-1][0] == number:
                record = broken.pop()[1]
                yield partial(Place, record.file, record.row, record.noun), record.reason, nothing
            if number < len(rows):
                cells = [column[number] for column in beside]
                yield partial(table.places, number), problems.get(number) or rows[number], cells


def _batch(spec: TextSpec, headings: Sequence[str], rows: list[Row]) -> Batch:
    errors = {number: row for number, (_, row, _) in enumerate(rows) if isinstance(row, str)}
    good = {number: row for number, (_, row, _) in enumerate(rows) if not isinstance(row, str)}
    named: dict[str, Sequence[Any]] = {}
    if headings[0] == "file":
        named["file"], headings = [readable(place().file) for place, _, _ in rows], headings[1:]
    texts = len(headings) - len(rows[0][2])
    for part, heading in enumerate(headings[:texts]):
        named[heading] = [readable(good[number][part]) if number in good else None for number in range(len(rows))]
    named |= {heading: [cells[part] for _, _, cells in rows] for part, heading in enumerate(headings[texts:])}
    inputs = _encoded(spec, list(zip(*good.values(), strict=True))) if good else None

    def told(number: int) -> str:
        return f"{rows[number][0]()} {errors[number]}"

    return Batch(size=len(rows), inputs=inputs, good=list(good), errors=errors, named=named, told=told)


def _encoded(spec: TextSpec, parts: Sequence[Sequence[str]]) -> Any:
    """Texts as the model takes them, by the way that a `TextDataset` goes."""
    encoded = spec.encoder.encode_batch(parts[0], parts[1] if len(parts) > 1 else None, max_length=spec.max_length)
    data = PackedTextDataset(
        encoded.ids,
        encoded.lengths,
        types=encoded.types,
        pad_id=spec.encoder.pad_id,
        padding_side=spec.encoder.padding_side,
    )
    return data.collate(data.__getitems__(range(len(data))))
