"""`Augment`: what is random in training. An image's row of uniform numbers decides all of it, so any thread may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from dlkit._documents import Document
from dlkit.errors import ArgumentError
from dlkit.transforms.geometry import TRIES, Box, random_box

__all__ = ["Augment"]

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float64]

# Which columns of the table of random numbers serve what.
_CROP = slice(0, 2 * TRIES + 2)
_FLIP, _FLIP_VERTICAL, _COLOR, _ERASE = 22, 23, slice(24, 27), slice(27, 32)
_COLUMNS = 32


@dataclass(frozen=True, kw_only=True)
class Augment(Document):
    """What is random in training; part of a `Preprocessing`. Every value is checked when it is made.

    Attributes:
        scale: The share of the image's area that is cut out, from and to. None: no random crop.
        ratio: Width per height of the crop, from and to.
        flip: The chance of a mirror image.
        flip_vertical: The chance of an upside-down image.
        brightness: 0.2 multiplies by 0.8 to 1.2.
        contrast: 0.2 scales the distances to the mean grey by 0.8 to 1.2.
        saturation: 0.2 scales the distances to each pixel's own grey by 0.8 to 1.2.
        erase: The chance that a rectangle of 2 to 33 % of the area becomes the mean (Zhong et al. 2017).

    >>> Augment(flip=0.5, scale=None)
    Augment(scale=None, ratio=(0.75, 1.3333333333333333), flip=0.5, flip_vertical=0.0, brightness=0.0, contrast=0.0, \
saturation=0.0, erase=0.0)
    """

    _head: ClassVar[Mapping[str, Any]] = {"kind": "Augment"}

    scale: tuple[float, float] | None = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    flip_vertical: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        if self.scale is not None:
            object.__setattr__(self, "scale", _span("scale", self.scale, most=1.0))
        object.__setattr__(self, "ratio", _span("ratio", self.ratio))
        for name in ("flip", "flip_vertical", "brightness", "contrast", "saturation", "erase"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= 1:
                raise ArgumentError(f"{name} must be a number from 0 to 1, not {value!r}")

    @property
    def changes_color(self) -> bool:
        """Whether brightness, contrast or saturation are random."""
        return bool(self.brightness or self.contrast or self.saturation)

    def draw(self, count: int) -> Numbers:
        """The random numbers for `count` images, [count, 32], from torch's global stream."""
        return torch.rand(count, _COLUMNS, dtype=torch.float64).numpy()

    def box(self, height: int, width: int, numbers: Numbers) -> Box:
        """What is cut out of an image, in its pixels.

        Args:
            height: Of the image.
            width: Of the image.
            numbers: The image's row of `draw`.
        """
        assert self.scale is not None
        return random_box(height, width, numbers[_CROP], self.scale, self.ratio)

    def mirrored(self, planes: Any, numbers: Numbers) -> Any:
        """The array `planes` [C, H, W], mirrored where the image's `numbers`, a row of `draw`, say so."""
        mirror = -1 if numbers[_FLIP] < self.flip else 1
        upset = -1 if numbers[_FLIP_VERTICAL] < self.flip_vertical else 1
        return planes[:, ::upset, ::mirror]

    def recolored(self, planes: Pixels, numbers: Numbers) -> npt.NDArray[np.float32]:
        """Brightness, contrast, saturation in this order, each kept in 0 to 255; factors as torchvision defines them.

        Args:
            planes: uint8 [C, H, W].
            numbers: The image's row of `draw`.
        """
        values = planes.astype(np.float32)
        spans = (self.brightness, self.contrast, self.saturation)
        light, contrast, saturation = (
            np.float32(1 + span * (2 * number - 1))
            for span, number in zip(spans, numbers[_COLOR].tolist(), strict=True)
        )
        if self.brightness:
            np.clip(values * light, 0, 255, out=values)
        if self.contrast:
            middle = _grey(values).mean(dtype=np.float64).astype(np.float32)
            np.clip((values - middle) * contrast + middle, 0, 255, out=values)
        if self.saturation and len(values) == 3:
            grey = _grey(values)
            np.clip((values - grey) * saturation + grey, 0, 255, out=values)
        return values

    def erase_in(self, out: npt.NDArray[np.float32], numbers: Numbers) -> None:
        """Make a rectangle of a normalised image `out` its mean, where that is drawn in `numbers`."""
        if not self.erase:
            return
        chance, *rest = numbers[_ERASE].tolist()
        if chance < self.erase:
            tries = np.array([*(rest[:2] * TRIES), *rest[2:]])
            top, left, height, width = random_box(out.shape[1], out.shape[2], tries, (0.02, 0.33), (0.3, 3.3))
            out[:, top : top + height, left : left + width] = 0

    def moves(self) -> Self:
        """The same without what changes pixels: cut and mirrored, and not recoloured."""
        return replace(self, brightness=0.0, contrast=0.0, saturation=0.0, erase=0.0)


def _grey(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if len(values) == 1:
        return np.asarray(values[0])
    grey: npt.NDArray[np.float32] = (
        values[0] * np.float32(0.2989) + values[1] * np.float32(0.587) + values[2] * np.float32(0.114)
    )
    return grey


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _span(name: str, value: Any, *, most: float = float("inf")) -> tuple[float, float]:
    pair = tuple(value) if isinstance(value, tuple | list) else ()
    if len(pair) != 2 or not all(_is_number(edge) for edge in pair) or not 0 < pair[0] <= pair[1] <= most:
        limit = f" and at most {most:g}" if most < float("inf") else ""
        raise ArgumentError(f"{name} must be two numbers (from, to) above 0{limit}, not {value!r}")
    return float(pair[0]), float(pair[1])
