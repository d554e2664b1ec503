"""Where to cut and how large to make it: pure functions of sizes and of numbers that were drawn before.

Cropping and resizing are those of torchvision's v2 transforms with `antialias=True` on uint8 tensors, to the last bit;
the tests compare them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

__all__ = [
    "Box",
    "centered",
    "middle_of_strip",
    "random_box",
    "reduction",
    "resized",
    "resized_part",
    "short_side_to",
    "snapped",
]

Pixels = npt.NDArray[np.uint8]

#: Tries of the random crop before it falls back to the middle; two random numbers each.
TRIES = 10
#: A crop is decoded at reduced size only if it then still has this many times the pixels per side that are wanted.
#: Below it the decoder's own averaging would show; at 1.5 it changes a photograph by less than one grey level mostly.
MARGIN = 1.5


class Box(NamedTuple):
    """A rectangle of pixels.

    Attributes:
        top: The first row.
        left: The first column.
        height: How many rows.
        width: How many columns.
    """

    top: int
    left: int
    height: int
    width: int


def random_box(
    height: int, width: int, numbers: npt.NDArray[Any], scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """The crop of Inception training (Szegedy et al. 2015), as torchvision's `RandomResizedCrop` cuts it.

    Args:
        height: Of the image.
        width: Of the image.
        numbers: 22 uniform numbers in [0, 1): ten tries of area and ratio, then the position.
        scale: The smallest and largest share of the image's area.
        ratio: The smallest and largest width per height, uniform in its logarithm.

    >>> random_box(100, 200, np.full(22, 0.5), (0.25, 0.25), (1.0, 1.0))
    Box(top=15, left=65, height=71, width=71)
    """
    area, low, high = height * width, math.log(ratio[0]), math.log(ratio[1])
    drawn = numbers.tolist()
    for attempt in range(TRIES):
        wanted = area * (scale[0] + (scale[1] - scale[0]) * drawn[2 * attempt])
        shape = math.exp(low + (high - low) * drawn[2 * attempt + 1])
        w, h = round(math.sqrt(wanted * shape)), round(math.sqrt(wanted / shape))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(drawn[-2] * (height - h + 1)), int(drawn[-1] * (width - w + 1)), h, w)
    if width / height < ratio[0]:
        w, h = width, min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        h, w = height, min(width, round(height * ratio[1]))
    else:
        h, w = height, width
    return Box((height - h) // 2, (width - w) // 2, h, w)


def reduction(height: int, width: int, wanted_height: int, wanted_width: int) -> int:
    """By how much a part of an image may be decoded smaller: 8, 4, 2 or 1.

    Args:
        height: Of the part that is used.
        width: Of the part that is used.
        wanted_height: What it is resized to.
        wanted_width: What it is resized to.

    >>> reduction(3000, 4000, 224, 224), reduction(375, 500, 224, 224)
    (8, 1)
    """
    for factor in (8, 4, 2):
        if height >= MARGIN * factor * wanted_height and width >= MARGIN * factor * wanted_width:
            return factor
    return 1


def snapped(box: Box, grid: int) -> Box:
    """The box moved onto a grid of `grid` pixels, so that it cuts an image of reduced size between its pixels.

    Args:
        box: In pixels of the full image.
        grid: 1, 2, 4 or 8.

    >>> snapped(Box(9, 3, 100, 60), 8)
    Box(top=8, left=0, height=96, width=56)
    """
    if grid == 1:
        return box
    top, left = (edge // grid * grid for edge in box[:2])
    return Box(top, left, max(grid, box.height // grid * grid), max(grid, box.width // grid * grid))


def short_side_to(height: int, width: int, short: int) -> tuple[int, int]:
    """The size of an image whose shorter side becomes `short`, rounded down as torchvision does.

    Args:
        height: Of the image.
        width: Of the image.
        short: The shorter side afterwards.

    >>> short_side_to(375, 500, 256)
    (256, 341)
    """
    if height <= width:
        return short, max(1, int(short * width / height))
    return max(1, int(short * height / width)), short


def centered(height: int, width: int, wanted_height: int, wanted_width: int) -> Box:
    """The middle of an image, rounded as torchvision's `CenterCrop` does.

    Args:
        height: Of the image.
        width: Of the image.
        wanted_height: Of the middle.
        wanted_width: Of the middle.

    >>> centered(256, 341, 224, 224)
    Box(top=16, left=58, height=224, width=224)
    """
    top, left = round((height - wanted_height) / 2.0), round((width - wanted_width) / 2.0)
    return Box(top, left, wanted_height, wanted_width)


def middle_of_strip(height: int, width: int) -> Box:
    """The middle of an image, at most four times as long as it is broad: more than a square in it is made of.

    Args:
        height: Of the image.
        width: Of the image.

    >>> middle_of_strip(1, 65535), middle_of_strip(3, 7)
    (Box(top=0, left=32765, height=1, width=5), Box(top=0, left=0, height=3, width=7))
    """
    most = 4 * min(height, width)
    # Of the same parity as the image, so that the middle of it is the middle of the image.
    h, w = (side if side <= most else most + (side - most) % 2 for side in (height, width))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def resized(pixels: Pixels, height: int, width: int, interpolation: str) -> Pixels:
    """uint8 [H, W, C] pixels resized with antialiasing to uint8 [C, height, width].

    Args:
        pixels: Any strides.
        height: What to make of it.
        width: What to make of it.
        interpolation: "bilinear", "bicubic" or "nearest".
    """
    if pixels.shape[:2] == (height, width):
        return pixels.transpose(2, 0, 1)
    if interpolation == "nearest":
        rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), pixels.shape, strict=False))
        nearest: Pixels = pixels[rows[:, None], columns].transpose(2, 0, 1)
        return nearest
    # Contiguous by numpy: torch would copy a cut-out with its OpenMP threads, which on busy cores wait for each other
    # (32 ms instead of 0.24 ms were measured). In these strides torch sees "channels last" and takes half as long,
    # in this thread. The views are numpy's: each call of torch hands the interpreter to another thread.
    image = np.ascontiguousarray(pixels).reshape(1, *pixels.shape).transpose(0, 3, 1, 2)
    result = F.interpolate(
        torch.from_numpy(image), (height, width), mode=interpolation, antialias=True, align_corners=False
    )
    planes: Pixels = result.numpy()[0]
    return planes


def resized_part(
    pixels: Pixels, part_height: float, part_width: float, height: int, width: int, interpolation: str
) -> Pixels:
    """As `resized`, of a part that ends between two pixels: an image of 341 columns has 85.25 at a quarter of its size.

    Args:
        pixels: uint8 [H, W, C].
        part_height: How many rows are meant, from the top.
        part_width: How many columns are meant, from the left.
        height: What to make of it.
        width: What to make of it.
        interpolation: "bilinear", "bicubic" or "nearest".
    """
    from PIL import Image

    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}.get(interpolation)
    if method is None or (part_height, part_width) == pixels.shape[:2]:
        return resized(pixels, height, width, interpolation)
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    array = np.array(picture.resize((width, height), method, box=(0, 0, part_width, part_height)))  # writable
    return array.transpose(2, 0, 1) if array.ndim == 3 else array[None]
