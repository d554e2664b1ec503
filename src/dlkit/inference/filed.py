"""Inputs that are files: one, several, a folder with all that is below it, those that a table names; or in memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dlkit._frames import as_pandas
from dlkit._near import hint
from dlkit.artifact.inputs import Meaning
from dlkit.datasets.files.decoder import MAX_BYTES, Decoder
from dlkit.datasets.files.listing import scan
from dlkit.datasets.files.table import open_table
from dlkit.errors import ArgumentError, DataError
from dlkit.inference.batches import Batch, Inputs, check_options, in_batches, index_of, readable, total_of
from dlkit.reading.cells import text_of
from dlkit.reading.reader import kept_columns

__all__ = ["Medium", "filed"]


@dataclass(frozen=True, kw_only=True)
class Medium:
    """A kind of file that models take.

    Attributes:
        noun: What one is called.
        option: The option that names the column of a table.
        files: Those of a folder.
        in_memory: Whether an object is one input by itself; files, bytes and open files are.
        takes: What may be given, in words.
        opened: Makes what threads may work on of a file's content; errors call it `name`.
        held: The same of what is in memory, an error in its place, or None for what is not an input.
        prepared: Of such things, or paths and errors, the good ones as the model takes them, and by place what is wrong
            with the others.
    """

    noun: str
    option: str
    files: Decoder
    in_memory: Callable[[Any], bool]
    takes: str
    opened: Callable[..., Any]
    held: Callable[[Any, str], Any]
    prepared: Callable[[Any, Sequence[Any]], tuple[Any, Mapping[int, str]]]

    def refused(self, given: Any) -> ArgumentError:
        """What is wrong with something `given` that is not an input."""
        article = "an" if self.noun[0] in "aeiou" else "a"
        if isinstance(given, str):
            return ArgumentError(
                f"a string is not {article} {self.noun}, and predict opens nothing that a string names: for the file, "
                f"Path({given[:80]!r}) or predict_file({given[:80]!r})"
            )
        return ArgumentError(f"this model takes {self.noun}s: {self.takes}; got {type(given).__name__}")


def filed(medium: Medium, meaning: Meaning, given: Any, batch_size: int, options: Mapping[str, Any]) -> Inputs:
    """The inputs that a caller gave.

    Args:
        medium: What the model takes.
        meaning: The model's.
        given: An input or an iterable of inputs: paths, bytes, open binary files, what the medium has in memory; a
            folder, with all that is below it; a CSV file or a DataFrame with a column of file names.
        batch_size: Inputs per batch.
        options: For a table: the medium's option names the column, `root` the folder that the names are seen from,
            `suffix` what is added to them, `keep` the columns to keep.

    Raises:
        ArgumentError: something else; a string, which opens nothing.
        DataNotFoundError: no such folder or table.
    """
    ready = partial(_inputs, medium, meaning.preprocessing, batch_size)
    table = isinstance(given, os.PathLike) and Path(given).suffix.lower() == ".csv"
    if table or hasattr(given, "columns"):
        return _of_table(ready, medium, meaning, Path(given) if table else given, options)
    check_options(options, (), f"{medium.noun}s that stand in no table")
    if isinstance(given, os.PathLike) and Path(given).expanduser().is_dir():
        listing = scan(Path(given).expanduser(), medium.files, labelled=False)
        paths = (listing.root / name for name in listing.names)
        return ready(((str(path), path) for path in paths), len(listing), named=True)
    if _is_one(medium, given):
        return ready([_named(given)], 1, named=isinstance(given, os.PathLike))
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise medium.refused(given)
    rest = iter(given)
    first = list(itertools.islice(rest, 1))
    named = bool(first) and isinstance(first[0], os.PathLike)
    return ready(map(_named, itertools.chain(first, rest)), total_of(given), named=named, index=index_of(given))


def _inputs(
    medium: Medium,
    spec: Any,
    size: int,
    items: Iterable[tuple[str | None, Any]],
    total: int | None,
    *,
    named: bool,
    index: Any = None,
    kept: Mapping[str, Sequence[str | None]] = MappingProxyType({}),
) -> Inputs:
    """Inputs, each with its name or an error in its place, and the columns of cells that are beside them."""
    headings = tuple(dict.fromkeys((*("file",) * named, *kept)))
    batches = (
        _batch(
            medium, spec, start, some, {name: cells[start : start + len(some)] for name, cells in kept.items()}, named
        )
        for start, some in in_batches(items, size)
    )
    return Inputs(batches=batches, headings=headings, total=total, index=index)


def _batch(
    medium: Medium, spec: Any, start: int, some: Sequence[tuple[str | None, Any]], kept: Mapping[str, Any], named: bool
) -> Batch:
    things = [_ready(medium, item, f"{medium.noun} {start + place}") for place, (_, item) in enumerate(some)]
    inputs, errors = medium.prepared(spec, things)
    good = [place for place in range(len(some)) if place not in errors]
    return Batch(
        size=len(some),
        inputs=inputs if good else None,
        good=good,
        errors=errors,
        named={**({"file": [readable(name) for name, _ in some]} if named else {}), **kept},
        told=errors.__getitem__,
    )


def _ready(medium: Medium, item: Any, name: str) -> Any:
    """What threads may work on: a path, an input whose content is in memory, or an error."""
    try:
        if isinstance(item, bytes | bytearray | memoryview) or hasattr(item, "read"):
            return medium.opened(_content(item, name, medium.noun), name=name)
        if (held := medium.held(item, name)) is not None:
            return held
    except DataError as error:
        return error
    if isinstance(item, os.PathLike | DataError):
        return item
    raise medium.refused(item)


def _is_one(medium: Medium, given: Any) -> bool:
    if isinstance(given, str):
        raise medium.refused(given)
    filed = isinstance(given, os.PathLike | bytes | bytearray | memoryview) or hasattr(given, "read")
    return filed or medium.in_memory(given)


def _named(item: Any) -> tuple[str | None, Any]:
    return (str(Path(item)) if isinstance(item, os.PathLike) else None), item


def _of_table(
    ready: Callable[..., Inputs], medium: Medium, meaning: Meaning, given: Any, options: Mapping[str, Any]
) -> Inputs:
    """The files that a column of a table names; of a DataFrame only with the folder they are in."""
    check_options(options, (medium.option, "root", "suffix", "keep"), f"tables of {medium.noun}s")
    cells, name, folder = _cells(given)
    asked = options.get(medium.option)
    column = _column(medium, meaning, list(cells), name) if asked is None else asked
    if column not in cells:
        raise DataError(f"{name} has no column {column!r}; {hint(column, cells, has='its columns are')}")
    root, suffix = options.get("root", folder), options.get("suffix", "")
    kept = {each: cells[each] for each in kept_columns(options.get("keep"), list(cells), name, but=[column])}
    items = (_of_cell(medium, cell, column, root, suffix) for cell in cells[column])
    return ready(items, len(cells[column]), named=True, index=index_of(given), kept=kept)


def _cells(given: Any) -> tuple[dict[str, list[Any]], str, Path | None]:
    """The columns of a file or a DataFrame, whose cells may be paths and pictures; its name, and its folder."""
    if not isinstance(given, Path):
        frame = as_pandas(given)
        return {str(name): cells.tolist() for name, cells in frame.items()}, "the DataFrame", None
    table = open_table(given)
    return {name: text_of(cells).tolist() for name, cells in table.columns.items()}, table.origin, table.folder


def _column(medium: Medium, meaning: Meaning, there: Sequence[str], name: str) -> str:
    listed = ", ".join(map(repr, there))
    if not meaning.columns:
        raise ArgumentError(
            f"the model was trained on {medium.noun}s without a table; {name} has the columns {listed}: say which "
            f"names the files, {medium.option}={there[0]!r}"
        )
    if meaning.columns[0] not in there:
        raise DataError(
            f"{name} has no column {meaning.columns[0]!r}, in which the model's {medium.noun}s stood; its columns are "
            f"{listed}; {medium.option}=... names another"
        )
    return meaning.columns[0]


def _of_cell(medium: Medium, cell: Any, column: str, root: Any, suffix: str) -> tuple[str | None, Any]:
    if cell is None or cell != cell or cell == "":
        return None, DataError(f"column {column!r} is empty")
    if not isinstance(cell, str):
        return _named(cell)
    if root is None:
        raise ArgumentError(
            f"the column {column!r} names {medium.noun} files: pass the folder that holds them, root='files' (or "
            "root='.'); a string alone opens nothing"
        )
    return cell, Path(root).expanduser() / f"{cell}{suffix}"


def _content(file: Any, name: str, noun: str) -> bytes:
    """What an open file, or a piece of memory, holds."""
    if isinstance(file, bytes | bytearray | memoryview):
        return bytes(file)
    data = file.read(MAX_BYTES + 1)
    if not isinstance(data, bytes):
        raise ArgumentError(f"{name} is a file that is open as text; open it with mode 'rb'")
    if len(data) > MAX_BYTES:
        article = "an" if noun[0] in "aeiou" else "a"
        raise DataError(f"{name}: is longer than the {MAX_BYTES:,} bytes {article} {noun} may have")
    return data
