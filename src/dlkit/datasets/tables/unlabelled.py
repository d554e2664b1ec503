"""Rows to predict for: piece by piece, each in its place, with what is wrong with those that cannot be used."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlkit.datasets.tables._encoding import check_spec_columns, encode
from dlkit.datasets.tables._images import missing_files
from dlkit.datasets.tables._memory import Memory
from dlkit.datasets.tables._problems import Problem
from dlkit.datasets.tables._settings import TableSettings, table_settings, text_columns, under_spec
from dlkit.datasets.tables._straight import StraightRows
from dlkit.datasets.tables._streaming import together
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.blocks import block_file
from dlkit.reading.cells import Array, Cells, Place, Table, text_of
from dlkit.reading.frames import cells_of_values, table_of_frame
from dlkit.reading.reader import kept_columns, paths_of, table_of_content
from dlkit.specs.table import TableSpec

__all__ = ["EncodedPiece", "OPTIONS", "RowReader", "take_spans"]

#: What a caller may say about a source.
OPTIONS = (
    *("comment", "decimal", "encoding", "header", "image_root", "missing", "separator", "sheet", "skip_rows"),
    "thousands",
)

_FRAME_ROWS = 1 << 16  # rows of a DataFrame that are encoded at once
_DICTS = 1 << 10  # rows given one by one that are made a table at once
_NESTED = (list, tuple, dict, set, bytes, np.ndarray, Tensor)
_LARGEST = 1 << 1000  # a whole number beyond what a float holds


@dataclass(frozen=True, kw_only=True)
class EncodedPiece:
    """Some rows of a source, one after the other.

    Attributes:
        size: How many there are, those included that cannot be used.
        memory: The encoded ones.
        places: int64 [encoded], where each of those stands among the `size`; ascending.
        errors: Why others cannot be used, by their place.
        table: The encoded rows as they were read; None for rows that came one by one.
        names: What errors call rows whose place in the source has a name, such as a line.
        kept: Columns that the caller wants to see beside the encoded rows, as they are written.
    """

    size: int
    memory: Memory | None
    places: Array
    errors: Mapping[int, str]
    table: Table | None = None
    names: Mapping[int, str]
    kept: Mapping[str, Cells] = field(default_factory=dict)

    def name(self, place: int) -> str | None:
        """What errors call a row; None where its number says all.

        Args:
            place: Of the row.
        """
        if place in self.names or self.table is None:
            return self.names.get(place)
        return str(self.table.places(int(np.searchsorted(self.places, place))))


class RowReader:
    """Reads rows for a model of tables; what a spec says is looked up once.

    Args:
        spec: Of the training data; its target is not looked for.
    """

    def __init__(self, spec: TableSpec) -> None:
        self._bare = replace(spec, target=None)
        self._usual = self._settled({})
        self._straight = StraightRows(spec)

    def _settled(self, options: Mapping[str, Any]) -> tuple[TableSettings, TableSpec]:
        return under_spec(table_settings({**options, "on_error": "skip", "max_errors": 1.0}), self._bare)

    def pieces(
        self, source: Any, options: Mapping[str, Any], *, keep: bool | str | Sequence[str] = ()
    ) -> Iterator[EncodedPiece]:
        """The rows of a file, a DataFrame, or of dicts, in order.

        Args:
            source: A path or a list of paths (no strings); the content of a file; a DataFrame; an iterable of dicts.
            options: Some of `OPTIONS`.
            keep: Columns of files to hand over as they are written; True for all.

        Raises:
            DataError: a column of the spec is missing, or a file cannot be read.
            ArgumentError: an option that there is not.
        """
        settings, spec = self._settled(options) if options else self._usual
        straight = StraightRows(spec) if options else self._straight
        yield from (
            _of_files(source, spec, settings, keep) if _is_named(source) else _pieces(source, spec, settings, straight)
        )


def _pieces(source: Any, spec: TableSpec, settings: TableSettings, straight: StraightRows) -> Iterator[EncodedPiece]:
    read = settings.read
    _check_image_root(spec, settings)
    if hasattr(source, "iloc"):
        check_spec_columns(list(map(str, source.columns)), spec, "the DataFrame")
        for start in range(0, len(source), _FRAME_ROWS):
            yield _piece(table_of_frame(source.iloc[start : start + _FRAME_ROWS]), spec, settings)
    elif isinstance(source, bytes):
        table = table_of_content(source, read, text_columns(spec))
        check_spec_columns(list(table.columns), spec, table.origin)
        yield _piece(table, spec, settings)
    else:
        rows = iter(source)
        while some := list(itertools.islice(rows, _DICTS)):
            both = zip(map(straight.encoded, some), some, strict=True)
            for odd, run in itertools.groupby(both, key=lambda pair: pair[0] is None):
                pairs = list(run)
                if odd:
                    yield _of_dicts([row for _, row in pairs], spec, settings)
                    continue
                memory = straight.memory([encoded for encoded, _ in pairs if encoded is not None])
                yield EncodedPiece(size=len(pairs), memory=memory, places=memory.rows.numpy(), errors={}, names={})


def _of_files(
    source: Any, spec: TableSpec, settings: TableSettings, keep: bool | str | Sequence[str]
) -> Iterator[EncodedPiece]:
    for path in paths_of(source):
        file = block_file(path, settings.read)
        check_spec_columns(file.names, spec, path.name)
        kept = kept_columns(keep, file.names, path.name)
        needed = {*kept, *(column.name for column in spec.columns if column.used)}
        as_text = {*kept, *text_columns(spec)}
        for block, _ in file.blocks():
            for table in file.tables(block, as_text, needed=needed, threads=True):
                yield replace(_piece(table, spec, settings), kept={name: table.columns[name] for name in kept})


def _is_named(source: Any) -> bool:
    paths = source if isinstance(source, list) else [source]
    return bool(paths) and all(isinstance(path, os.PathLike) for path in paths)


def _check_image_root(spec: TableSpec, settings: TableSettings) -> None:
    """Rows in memory name files only below a folder that the caller states: else a stranger's text would open one."""
    if settings.images.root is None and (columns := [column.name for column in spec.of_kind("image")]):
        raise ArgumentError(
            f"the column {columns[0]!r} names image files: pass the folder that holds them, image_root='photos'"
        )


def _piece(table: Table, spec: TableSpec, settings: TableSettings) -> EncodedPiece:
    memory, problems = encode(table, spec, settings.images.beside(table))
    columns = [column.name for column in spec.of_kind("image")]
    lost = [missing_files(name, text_of(table.columns[name]), memory.options) for name in columns]
    problems += [problem for problem in lost if problem is not None]
    rows = np.arange(len(table))
    places = rows + np.searchsorted(np.asarray(table.skipped_at, dtype=np.int64), rows, side="right")
    broken = dict(zip((at + n for n, at in enumerate(table.skipped_at)), table.skipped, strict=True))
    errors = _errors(problems, places) | {place: row.reason for place, row in broken.items()}
    return EncodedPiece(
        size=len(table) + len(broken),
        memory=memory,
        places=places,
        errors=errors,
        table=table,
        names={place: row.place for place, row in broken.items()},
    )


def _errors(problems: Sequence[Problem], places: Array) -> dict[int, str]:
    found: dict[int, list[str]] = {}
    for problem in problems:
        for row in problem.rows.tolist():
            found.setdefault(int(places[row]), []).append(f"{problem.reason}{problem.example(row)}")
    return {place: "; ".join(reasons) for place, reasons in found.items()}


def _of_dicts(rows: Sequence[Any], spec: TableSpec, settings: TableSettings) -> EncodedPiece:
    """Rows that came one by one, each of which may lack something else."""
    needed = [column.name for column in spec.columns if column.used]
    wrong = {place: problem for place, row in enumerate(rows) if (problem := _problem(row, needed))}
    good = [place for place in range(len(rows)) if place not in wrong]
    if not good:
        nothing = np.zeros(0, dtype=np.int64)
        return EncodedPiece(size=len(rows), memory=None, places=nothing, errors=wrong, names={})
    columns = {name: cells_of_values([_cell(rows[place][name]) for place in good]) for name in needed}
    piece = _piece(Table(columns, "the rows", partial(Place, "the rows")), spec, settings)
    errors = {good[place]: why for place, why in piece.errors.items()} | wrong
    return replace(piece, size=len(rows), places=np.array(good), errors=errors, table=None)


def _cell(value: Any) -> Any:
    """Truth values as words: beside numbers they would become numbers, and mean something else than alone."""
    return str(value) if isinstance(value, bool | np.bool_) else value


def _problem(row: Any, needed: Collection[str]) -> str | None:
    if not isinstance(row, Mapping):
        return f"is of type {type(row).__name__}, not a row with names"
    if lacking := [name for name in needed if name not in row]:
        return f"lacks {', '.join(map(repr, lacking))}; it has {', '.join(map(repr, row))} (None stands for missing)"
    for name in needed:
        if isinstance(value := row[name], _NESTED):
            return f"holds a {type(value).__name__} in column {name!r}, where a number or a text is expected"
        if isinstance(value, int) and abs(value) >= _LARGEST:
            return f"holds a whole number in column {name!r} that is beyond what a float can hold"
    return None


def take_spans(spans: Iterable[tuple[EncodedPiece, int, int]]) -> tuple[Any, list[int], dict[int, str]]:
    """The inputs of some rows, which may be in several pieces.

    Args:
        spans: Pieces, each with a first place and one after the last.

    Returns:
        Inputs of the rows that can be used (None without any), their places, counted from the first row, and why the
        others cannot.
    """
    parts, good, errors, before = [], list[int](), dict[int, str](), 0
    for piece, begin, end in spans:
        inputs, places, bad = _taken(piece, begin, end)
        errors |= {place - begin + before: why for place, why in bad.items()}
        if len(places):
            parts.append((torch.arange(len(good), len(good) + len(places)), inputs))
            good += (places - begin + before).tolist()
        before += end - begin
    if len(parts) < 2:
        return (parts[0][1] if parts else None), good, errors
    return together(parts, len(good)), good, errors


def _taken(piece: EncodedPiece, begin: int, end: int) -> tuple[Any, Array, dict[int, str]]:
    """The inputs of the usable rows from one place to another, their places, and why the others cannot be used."""
    errors = {place: why for place in range(begin, end) if (why := piece.errors.get(place)) is not None}
    first, last = np.searchsorted(piece.places, [begin, end])
    rows = np.arange(first, last)
    rows = rows[~np.isin(piece.places[first:last], list(errors))] if errors else rows
    if piece.memory is None or not len(rows):
        return None, rows[:0], errors
    try:
        return piece.memory.take(torch.from_numpy(rows))[0], piece.places[rows], errors
    except DataError:  # an image that cannot be decoded: which one?
        lost = {int(row): why for row in rows if (why := _unreadable(piece.memory, int(row)))}
    errors |= {int(piece.places[row]): why for row, why in lost.items()}
    rows = rows[~np.isin(rows, list(lost))]
    return piece.memory.take(torch.from_numpy(rows))[0] if len(rows) else None, piece.places[rows], errors


def _unreadable(memory: Memory, row: int) -> str:
    """Why the images of a row cannot be decoded; empty if they can."""
    try:
        memory.take(torch.tensor([row]))
    except DataError as error:
        return str(error)
    return ""
