"""Images for an image model: files, folders, bytes, open files, pictures of PIL, arrays; and files named in a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from dlkit.artifact.inputs import Meaning
from dlkit.datasets.images.decoding import IMAGES, OpenImage, open_image
from dlkit.datasets.images.fetching import prepared
from dlkit.errors import ArgumentError, DataError
from dlkit.inference.batches import Batch, Inputs, in_batches
from dlkit.inference.filed import Medium, NamedInputs, batch_of, content, source_of
from dlkit.transforms import Preprocessing

__all__ = ["images"]


def _in_memory(given: Any) -> bool:
    return given.ndim < 4 if isinstance(given, np.ndarray | Tensor) else isinstance(given, Image.Image)


_MEDIUM = Medium(
    noun="image",
    option="image",
    files=IMAGES,
    in_memory=_in_memory,
    takes="a Path, bytes, an open file, a PIL image, a uint8 array [H, W, 3], or a list of these",
)


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
    source = source_of(_MEDIUM, meaning, given, options)
    return Inputs(
        batches=_batches(meaning.preprocessing, source, batch_size),
        headings=source.headings,
        total=source.total,
        index=source.index,
    )


def _batches(spec: Preprocessing, source: NamedInputs, size: int) -> Iterator[Batch]:
    for start, some in in_batches(source.items, size):
        things = [_ready(item, f"image {start + place}") for place, (_, item) in enumerate(some)]
        found, errors = prepared(spec, len(things), partial(_opened, things))
        good = [place for place in range(len(some)) if place not in errors]
        yield batch_of(source, start, some, found[good] if errors else found, errors)


def _ready(item: Any, name: str) -> Any:
    """What threads may work on: a path, an image whose content is in memory, or an error."""
    try:
        if isinstance(item, bytes | bytearray | memoryview) or hasattr(item, "read"):
            return open_image(content(item, name, "image"), name=name)
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
    raise _MEDIUM.refused(item)


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
