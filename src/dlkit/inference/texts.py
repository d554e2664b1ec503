"""Texts for a text model: given as such, or in files and tables whose column is known by name."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dlkit.artifact.inputs import Meaning
from dlkit.datasets.texts._rows import encoded_text
from dlkit.datasets.texts._sources import Column, Reader, Reading, column_names, open_source
from dlkit.datasets.texts.packed import PackedTextDataset
from dlkit.errors import ArgumentError, DataError
from dlkit.inference.batches import Batch, Inputs, check_options, in_batches, index_of, readable, total_of
from dlkit.specs.text import TextSpec

__all__ = ["column_of", "texts"]

_READING = ("encoding", "format", "header", "pattern", "quotes", "separator")


def texts(meaning: Meaning, given: Any, batch_size: int, options: Mapping[str, Any]) -> Inputs:
    """Texts for a text model.

    Args:
        meaning: The model's.
        given: A text, an iterable of texts (or of pairs of them); a path; a DataFrame, a dict or a list of dicts.
        batch_size: Texts at a time.
        options: `text` names the column; others say how a file is read, as in `TextDataset`.

    Raises:
        ArgumentError: something that holds no texts, or a table whose column of texts is not known.
        DataError: a file that cannot be read, or has no such column.
    """
    check_options(options, ("text", *_READING), "texts")
    if getattr(given, "ndim", 1) == 0:  # an array that is one text
        given = given.item()
    if isinstance(given, str | Mapping):
        given = [given]
    if isinstance(given, bytes | bytearray) or not isinstance(given, os.PathLike | Iterable):
        raise ArgumentError(
            f"this model takes texts: a string, a list of strings, or a file, Path('new.csv') or "
            f"predict_file('new.csv'); not {type(given).__name__} (bytes become a text by .decode())"
        )
    if isinstance(given, list | tuple) and given and all(isinstance(each, os.PathLike) for each in given):
        parts = [texts(meaning, each, batch_size, options) for each in given]
        batches = itertools.chain.from_iterable(part.batches for part in parts)
        return Inputs(batches=batches, headings=parts[0].headings)
    reader, pairs = _opened(meaning, given, options)
    headings = ("text", "text_2") if pairs else ("text",)
    return Inputs(
        batches=_batches(meaning.preprocessing, reader, headings, batch_size),
        headings=headings,
        total=total_of(given),
        index=index_of(given),
    )


def _opened(meaning: Meaning, given: Any, options: Mapping[str, Any]) -> tuple[Reader, bool]:
    """The texts, and whether they are pairs."""
    reading = _reading(options)
    if isinstance(given, os.PathLike) or hasattr(given, "columns"):
        columns = column_of(meaning, given, options)
        return open_source(given, columns, reading, labelled=False), len(columns) > 1
    rest = iter(given.tolist() if hasattr(given, "tolist") else given)
    some = list(itertools.islice(rest, 1))
    first, items = (some[0] if some else None), itertools.chain(some, rest)
    if isinstance(first, Mapping):
        columns = column_of(meaning, first, options)
    else:
        columns = (0, 1) if isinstance(first, tuple | list) else (0,)
    return open_source(items, columns, reading, labelled=False), len(columns) > 1


def _reading(options: Mapping[str, Any]) -> Reading:
    return Reading(**{name: value for name, value in options.items() if name in _READING})


def column_of(meaning: Meaning, given: Any, options: Mapping[str, Any]) -> tuple[Column, ...]:
    """The columns that the texts of a table stand in: those that the caller names, else those that the model knows.

    Args:
        meaning: The model's.
        given: A path, a DataFrame, a dict.
        options: The caller's: `text`, and how a file is read.

    Raises:
        ArgumentError: no column is known; the message lists those that there are.
        DataError: the column is not there; the message lists both.
    """
    asked = options.get("text")
    if asked is not None:
        return tuple(asked) if isinstance(asked, tuple) else (asked,)
    there = column_names(given, _reading(options))
    if there is None:  # one text per line, or per file of a folder
        return (0,)
    if not meaning.columns:
        raise ArgumentError(
            f"the model was trained on texts without names of columns; {_name(given)} has the columns "
            f"{', '.join(map(repr, there))}: say which holds the texts, text={there[0]!r}"
        )
    if lacking := [name for name in meaning.columns if name not in there]:
        raise DataError(
            f"{_name(given)} has no column {', '.join(map(repr, lacking))}, in which the model's texts stood; its "
            f"columns are {', '.join(map(repr, there))}; text=... names another"
        )
    return meaning.columns


def _name(given: Any) -> str:
    return str(given) if isinstance(given, os.PathLike) else f"the {type(given).__name__}"


def _batches(spec: TextSpec, reader: Reader, headings: Sequence[str], size: int) -> Iterator[Batch]:
    for _, some in in_batches(reader.rows, size):
        yield _batch(spec, reader, headings, some)


def _batch(spec: TextSpec, reader: Reader, headings: Sequence[str], rows: list[Any]) -> Batch:
    errors, good = dict[int, str](), list[int]()
    for number, (_, row) in enumerate(rows):
        problem = row if isinstance(row, str) else _problem(row)
        if problem:
            errors[number] = problem
        else:
            good.append(number)
    parts = [[rows[number][1][part] for number in good] for part in range(len(headings))]
    named = {
        heading: [None if isinstance(row, str) else readable(row[part]) for _, row in rows]
        for part, heading in enumerate(headings)
    }
    inputs = _encoded(spec, parts) if good else None

    def told(number: int) -> str:
        where = rows[number][0]
        place = f"{reader.name}/{where}" if isinstance(where, str) else f"{reader.name}, {reader.noun} {where}"
        return f"{place}: {errors[number]}"

    return Batch(size=len(rows), inputs=inputs, good=good, errors=errors, named=named, told=told)


def _problem(row: Sequence[Any]) -> str | None:
    return next((found for text in row if isinstance(found := encoded_text(text), str)), None)


def _encoded(spec: TextSpec, parts: Sequence[list[str]]) -> Any:
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
