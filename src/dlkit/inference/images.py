"""Images for an image model: files, folders, bytes, open files, pictures of PIL, arrays; and files named in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from dlkit.artifact.inputs import Meaning
from dlkit.datasets.images.decoding import IMAGES, OpenImage, open_image
from dlkit.datasets.images.fetching import prepared
from dlkit.errors import ArgumentError, DataError
from dlkit.inference.batches import Inputs
from dlkit.inference.filed import Medium, filed
from dlkit.transforms import Preprocessing

__all__ = ["images"]


def _in_memory(given: Any) -> bool:
    return given.ndim < 4 if isinstance(given, np.ndarray | Tensor) else isinstance(given, Image.Image)


def images(meaning: Meaning, given: Any, batch_size: int, options: Mapping[str, Any]) -> Inputs:
    """Images for an image model.

    Args:
        meaning: The model's.
        given: An image or an iterable of images: paths, bytes, open binary files, pictures of PIL, uint8 arrays
            [H, W, C] or [H, W], uint8 tensors [C, H, W]; a folder, with all that is below it; a CSV file or a
            DataFrame with a column of file names.
        batch_size: Images per batch.
        options: For a table: `image` names the column, `root` the folder that the names are seen from, `suffix` what
            is added to them.

    Raises:
        ArgumentError: something that is not an image; a string, which opens nothing.
        DataNotFoundError: no such folder or table.
    """
    return filed(_MEDIUM, meaning, given, batch_size, options)


def _held(item: Any, name: str) -> Any:
    try:
        if isinstance(item, Image.Image):
            item.load()
            return OpenImage.of_picture(item, name)
        if isinstance(item, np.ndarray | Tensor):
            return OpenImage.of_picture(_picture(item), name)
    except (OSError, SyntaxError, ValueError) as error:  # what PIL says of a picture whose file is broken
        if isinstance(error, DataError | ArgumentError):
            return error
        raise DataError(f"{name}: cannot be decoded: {error}") from error
    return None


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


def _prepared(spec: Preprocessing, things: Sequence[Any]) -> tuple[Any, Mapping[int, str]]:
    def opened(place: int) -> OpenImage:
        thing = things[place]
        if isinstance(thing, Exception):
            raise thing
        return thing if isinstance(thing, OpenImage) else open_image(thing)

    found, errors = prepared(spec, len(things), opened)
    return found[[place for place in range(len(things)) if place not in errors]] if errors else found, errors


_MEDIUM = Medium(
    noun="image",
    option="image",
    files=IMAGES,
    in_memory=_in_memory,
    takes="a Path, bytes, an open file, a PIL image, a uint8 array [H, W, 3], or a list of these",
    opened=open_image,
    held=_held,
    prepared=_prepared,
)
