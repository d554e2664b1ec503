"""Rows for a table's model: files, DataFrames and dicts, in batches whose borders do not depend on how they are
read."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dlkit.datasets.tables.unlabelled import OPTIONS, EncodedPiece, RowReader, take_spans
from dlkit.errors import ArgumentError
from dlkit.inference.batches import Batch, Inputs, check_options, index_of, total_of
from dlkit.reading.cells import text_of

__all__ = ["rows"]


def rows(reader: RowReader, given: Any, batch_size: int, options: Mapping[str, Any]) -> Inputs:
    """Rows for a model of tables.

    Args:
        reader: For the model's spec.
        given: A path (or a list of those), the content of a file or an open binary file; a DataFrame, a dict or a
            Series (one row), an iterable of dicts.
        batch_size: Rows at a time.
        options: See `dlkit.datasets.tables.unlabelled.OPTIONS`.

    Raises:
        ArgumentError: something that holds no rows.
    """
    check_options(options, (*OPTIONS, "keep"), "tables")
    given = [dict(given)] if isinstance(given, Mapping) or _is_series(given) else given
    if isinstance(given, bytes | bytearray | memoryview) or hasattr(given, "read"):
        given = _content(given)
    elif isinstance(given, str) or not isinstance(given, os.PathLike | Iterable):
        raise ArgumentError(
            "this model takes rows of a table: a DataFrame, dicts, the bytes of a file, or a file, "
            f"Path('new.csv') or predict_file('new.csv'); not a {type(given).__name__}, {given!r:.80}"
        )
    if isinstance(given, list | tuple) and any(isinstance(each, str) for each in given):
        raise ArgumentError("a list of strings holds no rows; predict_file takes the names of files")
    keep, options = options.get("keep"), {name: value for name, value in options.items() if name != "keep"}
    if keep and not _are_paths(given):
        raise ArgumentError("keep= takes columns of a file; the rows of a DataFrame keep their index, to join them by")
    pieces = reader.pieces(given, options, keep=keep or ())
    headings: tuple[str, ...] = ()
    if keep:  # which columns there are is known when the file is open
        some = list(itertools.islice(pieces, 1))
        headings = tuple(some[0].kept) if some else ()
        pieces = itertools.chain(some, pieces)
    spans = _cut(pieces, batch_size)
    return Inputs(
        batches=_batches(spans, headings),
        headings=headings,
        total=None if isinstance(given, bytes) or _are_paths(given) else total_of(given),
        index=index_of(given),
    )


def _content(given: Any) -> bytes:
    """What is in a file that is in memory, or open."""
    data = given.read() if hasattr(given, "read") else bytes(given)
    if not isinstance(data, bytes):
        raise ArgumentError("the file is open as text; open it with mode 'rb', so that its encoding can be found")
    return data


def _is_series(given: Any) -> bool:
    return type(given).__name__ == "Series" and hasattr(given, "index")


def _are_paths(given: Any) -> bool:
    return isinstance(given, os.PathLike) or (
        isinstance(given, list) and bool(given) and isinstance(given[0], os.PathLike)
    )


Spans = list[tuple[EncodedPiece, int, int]]


def _cut(pieces: Iterable[EncodedPiece], size: int) -> Iterator[Spans]:
    """Rows in batches of `size`, wherever one piece ends and the next begins."""
    spans, room = list[tuple[EncodedPiece, int, int]](), size
    for piece in pieces:
        begin = 0
        while begin < piece.size:
            end = min(piece.size, begin + room)
            spans.append((piece, begin, end))
            room, begin = room - (end - begin), end
            if not room:
                yield spans
                spans, room = [], size
    if spans:
        yield spans


def _batches(cut: Iterable[Spans], headings: Sequence[str]) -> Iterator[Batch]:
    start = 0
    for spans in cut:
        inputs, good, errors = take_spans(spans)
        size = sum(end - begin for _, begin, end in spans)
        told = _telling(spans, start, errors)
        named = {name: [cell for span in spans for cell in _kept(name, *span)] for name in headings}
        yield Batch(size=size, inputs=inputs, good=good, errors=errors, named=named, told=told)
        start += size


def _kept(name: str, piece: EncodedPiece, begin: int, end: int) -> list[str | None]:
    """The cells of a column as they are written, empty where a row could not be read."""
    cells: list[str | None] = [None] * (end - begin)
    first, last = np.searchsorted(piece.places, [begin, end])
    found = text_of(piece.kept[name].take(np.arange(first, last))).tolist()
    for place, cell in zip(piece.places[first:last].tolist(), found, strict=True):
        cells[place - begin] = cell
    return cells


def _telling(spans: Spans, start: int, errors: Mapping[int, str]) -> Callable[[int], str]:
    def told(place: int) -> str:
        before = [0, *itertools.accumulate(end - begin for _, begin, end in spans)]
        number = next(number for number, first in enumerate(before[1:]) if place < first)
        piece, begin, _ = spans[number]
        return f"{piece.name(begin + place - before[number]) or f'row {start + place}'} {errors[place]}"

    return told
