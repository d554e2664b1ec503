"""Images for an image model: files, folders, bytes, open files, pictures of PIL, arrays; and files named in a table."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from dlkit._frames import as_pandas
from dlkit.artifact.inputs import Meaning
from dlkit.datasets.files.decoder import MAX_BYTES
from dlkit.datasets.files.listing import scan
from dlkit.datasets.files.table import open_table
from dlkit.datasets.images.decoding import IMAGES, OpenImage, open_image
from dlkit.datasets.images.fetching import prepared
from dlkit.errors import ArgumentError, DataError
from dlkit.inference.batches import Batch, Inputs, check_options, in_batches, index_of, readable, total_of
from dlkit.reading.cells import text_of
from dlkit.transforms import Preprocessing

__all__ = ["images"]

_OF_TABLES = ("image", "root", "suffix")


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Images in order: what to call each in the result, and the image itself or an error in its place."""

    items: Iterable[tuple[str | None, Any]]
    total: int | None
    named: bool = False
    index: Any = None


def images(meaning: Meaning, given: Any, batch_size: int, options: Mapping[str, Any]) -> Inputs:
    """Images for an image model.

    Args:
        meaning: The model's.
        given: An image or an iterable of images: paths, bytes, open binary files, pictures of PIL, uint8 arrays
            [H, W, C] or [H, W], uint8 tensors [C, H, W]; a folder, with all that is below it; a CSV file or a
            DataFrame with a column of file names.
        batch_size: Images at a time.
        options: For a table: `image` names the column, `root` the folder that the names are seen from, `suffix` what
            is added to them.

    Raises:
        ArgumentError: something that is no image; a string, which opens nothing.
        DataNotFoundError: no such folder or table.
    """
    source = _source(meaning, given, options)
    return Inputs(
        batches=_batches(meaning.preprocessing, source, batch_size),
        headings=("file",) if source.named else (),
        total=source.total,
        index=source.index,
    )


def _source(meaning: Meaning, given: Any, options: Mapping[str, Any]) -> _Source:
    table = isinstance(given, os.PathLike) and Path(given).suffix.lower() == ".csv"
    if table or hasattr(given, "columns"):
        return _of_table(meaning, Path(given) if table else given, options)
    check_options(options, (), "images that stand in no table")
    if isinstance(given, os.PathLike) and Path(given).expanduser().is_dir():
        listing = scan(Path(given).expanduser(), IMAGES, labelled=False)
        paths = (listing.root / name for name in listing.names)
        return _Source(items=((str(path), path) for path in paths), total=len(listing), named=True)
    if _is_one(given):
        return _Source(items=[_named(given)], total=1, named=isinstance(given, os.PathLike))
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise _no_image(given)
    rest = iter(given)
    first = list(itertools.islice(rest, 1))
    return _Source(
        items=map(_named, itertools.chain(first, rest)),
        total=total_of(given),
        named=bool(first) and isinstance(first[0], os.PathLike),
        index=index_of(given),
    )


def _is_one(given: Any) -> bool:
    if isinstance(given, str):
        raise _no_image(given)
    if isinstance(given, np.ndarray | Tensor):
        return given.ndim < 4
    return isinstance(given, os.PathLike | bytes | bytearray | memoryview | Image.Image) or hasattr(given, "read")


def _named(item: Any) -> tuple[str | None, Any]:
    return (str(Path(item)) if isinstance(item, os.PathLike) else None), item


def _of_table(meaning: Meaning, given: Any, options: Mapping[str, Any]) -> _Source:
    """The files that a column of a table names; of a DataFrame only with the folder they lie in."""
    check_options(options, _OF_TABLES, "tables of images")
    cells, name, folder = _cells(given)
    asked = options.get("image")
    column = _column(meaning, list(cells), name) if asked is None else asked
    if column not in cells:
        raise DataError(f"{name} has no column {column!r}; its columns are {', '.join(map(repr, cells))}")
    root, suffix = options.get("root", folder), options.get("suffix", "")
    items = cells[column]
    return _Source(
        items=(_of_cell(cell, column, root, suffix) for cell in items),
        total=len(items),
        named=True,
        index=index_of(given),
    )


def _cells(given: Any) -> tuple[dict[str, list[Any]], str, Path | None]:
    """The columns of a file or a DataFrame, whose cells may be paths and pictures; its name, and its folder."""
    if not isinstance(given, Path):
        frame = as_pandas(given)
        return {str(name): cells.tolist() for name, cells in frame.items()}, "the DataFrame", None
    table = open_table(given)
    return {name: text_of(cells).tolist() for name, cells in table.columns.items()}, table.origin, table.folder


def _column(meaning: Meaning, there: Sequence[str], name: str) -> str:
    listed = ", ".join(map(repr, there))
    if not meaning.columns:
        raise ArgumentError(
            f"the model was trained on images without a table; {name} has the columns {listed}: say which names the "
            f"files, image={there[0]!r}"
        )
    if meaning.columns[0] not in there:
        raise DataError(
            f"{name} has no column {meaning.columns[0]!r}, in which the model's images stood; its columns are "
            f"{listed}; image=... names another"
        )
    return meaning.columns[0]


def _of_cell(cell: Any, column: str, root: Any, suffix: str) -> tuple[str | None, Any]:
    if cell is None or cell != cell or cell == "":
        return None, DataError(f"column {column!r} is empty")
    if not isinstance(cell, str):
        return _named(cell)
    if root is None:
        raise ArgumentError(
            f"the column {column!r} names image files: say in which folder they lie, root='photos' (or root='.'); a "
            "string alone opens nothing"
        )
    return cell, Path(root).expanduser() / f"{cell}{suffix}"


def _batches(spec: Preprocessing, source: _Source, size: int) -> Iterator[Batch]:
    for start, some in in_batches(source.items, size):
        things = [_ready(item, f"image {start + place}") for place, (_, item) in enumerate(some)]
        found, errors = prepared(spec, len(things), partial(_opened, things))
        good = [place for place in range(len(some)) if place not in errors]
        yield Batch(
            size=len(some),
            inputs=None if not good else found if not errors else found[good],
            good=good,
            errors=errors,
            named={"file": [readable(name) for name, _ in some]} if source.named else {},
            told=errors.__getitem__,
        )


def _ready(item: Any, name: str) -> Any:
    """What threads may work on: a path, an image whose content is in memory, or an error."""
    try:
        if isinstance(item, bytes | bytearray | memoryview):
            return open_image(bytes(item), name=name)
        if hasattr(item, "read"):
            return open_image(_content(item, name), name=name)
        if isinstance(item, Image.Image):
            item.load()
            return OpenImage.of_picture(item, name)
        if isinstance(item, np.ndarray | Tensor):
            return OpenImage.of_picture(_picture(item), name)
    except DataError as error:
        return error
    except (OSError, SyntaxError, ValueError) as error:  # what PIL says of a picture whose file is broken
        return error if isinstance(error, ArgumentError) else DataError(f"{name}: cannot be decoded: {error}")
    if isinstance(item, os.PathLike | DataError):
        return item
    raise _no_image(item)


def _content(file: Any, name: str) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if not isinstance(data, bytes):
        raise ArgumentError(f"{name} is a file that is open as text; open it with mode 'rb'")
    if len(data) > MAX_BYTES:
        raise DataError(f"{name}: is longer than the {MAX_BYTES:,} bytes an image may have")
    return data


def _picture(pixels: Any) -> Image.Image:
    """Pixels as the picture that a file with them holds."""
    array = pixels.detach().cpu().numpy() if isinstance(pixels, Tensor) else pixels
    if isinstance(pixels, Tensor) and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    array = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.dtype != np.uint8 or not array.size or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        raise ArgumentError(
            "an image in memory is one of PIL's, or uint8: an array [H, W, 3] or [H, W], a tensor [3, H, W]; "
            f"got {type(pixels).__name__} {array.dtype} {list(pixels.shape)}"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _opened(things: Sequence[Any], place: int) -> OpenImage:
    thing = things[place]
    if isinstance(thing, Exception):
        raise thing
    return thing if isinstance(thing, OpenImage) else open_image(thing)


def _no_image(given: Any) -> ArgumentError:
    if isinstance(given, str):
        return ArgumentError(
            f"a string is not an image, and predict opens nothing that a string names: for the file, "
            f"Path({given[:80]!r}) or predict_file({given[:80]!r})"
        )
    return ArgumentError(
        "this model takes images: a Path, bytes, an open file, a picture of PIL, a uint8 array [H, W, 3], or a list "
        f"of these; got {type(given).__name__}"
    )
