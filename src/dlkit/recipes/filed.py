"""Tables that name image or sound files: which column does, and the dataset of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dlkit._frames import as_pandas
from dlkit.datasets.audio.decoding import SOUNDS
from dlkit.datasets.audio.table import AudioTable
from dlkit.datasets.files.decoder import Decoder
from dlkit.datasets.files.table import open_table
from dlkit.datasets.images.decoding import IMAGES
from dlkit.datasets.images.table import ImageTable
from dlkit.errors import ArgumentError
from dlkit.reading.cells import text_of
from dlkit.reading.policy import ReadArguments, ReadOptions

__all__ = ["FileColumn", "column_of_files", "filed_table"]

_KINDS: tuple[tuple[Literal["images", "sounds"], str, Decoder], ...] = (
    ("images", "image", IMAGES),
    ("sounds", "audio", SOUNDS),
)
_SEEN = 1 << 16  # bytes of a file in which the ending of a file's name stands, if a column holds any
_CELLS = 100


class FileColumn(NamedTuple):
    """A column that names files.

    Attributes:
        kind: Of what is in them.
        name: Of the column.
    """

    kind: Literal["images", "sounds"]
    name: str


def column_of_files(source: Any, options: Mapping[str, Any]) -> FileColumn | None:
    """The column of a table that names images or sounds: the one that was said; else one whose files are there.

    Args:
        source: A table that is not an address.
        options: Of `read_data`: `image` or `audio` say which it is; what is the target or left out is none.

    Raises:
        ArgumentError: both are said, or several columns name files.
    """
    said = [FileColumn(kind, str(options[name])) for kind, name, _ in _KINDS if options.get(name) is not None]
    if len(said) > 1:
        raise ArgumentError("image= and audio= are both said; one of them names the files")
    if said or not _may_name_files(source):
        return said[0] if said else None
    table = open_table(source, ReadOptions.of(options))
    target = options.get("target")
    others = {str(name) for name in ([target] if isinstance(target, str | int) else target or ())}
    others |= {str(name) for name in options.get("drop") or ()}
    folder = table.folder or Path.cwd()
    found = [
        FileColumn(kind, name)
        for name, cells in table.columns.items()
        if name not in others
        for kind, _, files in _KINDS
        if _names_files(text_of(cells).tolist()[:_CELLS], files, folder)
    ]
    if len(found) > 1:
        there = ", ".join(repr(column.name) for column in found)
        raise ArgumentError(f"{table.origin} names files in several columns, {there}; say which: image= or audio=")
    return found[0] if found else None


def _may_name_files(source: Any) -> bool:
    """Whether it is worth reading a table for it, which takes a while: by the first of its bytes or cells."""
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if "://" in str(source) or not path.is_file():
            return False
        with path.open("rb") as file:
            beginning = file.read(_SEEN).lower()
        return any(suffix.encode() in beginning for _, _, files in _KINDS for suffix in files.suffixes)
    frame = as_pandas(source)
    if not hasattr(frame, "iloc"):
        return False
    cells = (cell for name in frame.columns for cell in islice(frame[name], _CELLS))
    return any(isinstance(cell, str) and any(files.fits(cell) for _, _, files in _KINDS) for cell in cells)


def _names_files(cells: Sequence[str | None], files: Decoder, folder: Path) -> bool:
    names = [cell for cell in cells if cell]
    return bool(names) and all(map(files.fits, names)) and any((folder / name).is_file() for name in names)


def filed_table(
    column: FileColumn, source: Any, options: Mapping[str, Any], *, labelled: bool = True
) -> ImageTable | AudioTable:
    """The dataset of the files that a table names.

    Args:
        column: Which names them.
        source: The table.
        options: Of `read_data`.
        labelled: Whether it must be said what to predict.

    Raises:
        ArgumentError: it is not said what to predict.
        DataError: a column or a value is missing.
    """
    target = options.get("target")
    if target is None and labelled:
        names = ", ".join(name for name in open_table(source, ReadOptions.of(options)).columns if name != column.name)
        raise ArgumentError(
            f"the column {column.name!r} names {column.kind}: say which column to predict, target=...; "
            f"there are {names}"
        )
    reading = {name: value for name, value in options.items() if name in ReadArguments.__annotations__}
    make: Callable[..., Any] = AudioTable if column.kind == "sounds" else ImageTable
    columns = None if target is None else [target] if isinstance(target, str | int) else target
    said = options.get("label_separator")
    targets = None if columns is None else [str(name) for name in columns]
    task = options.get("task", "auto")
    found: ImageTable | AudioTable = make(source, column.name, targets, label_separator=said, task=task, **reading)
    return found
