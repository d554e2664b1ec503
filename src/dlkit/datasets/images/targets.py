"""Targets that are images themselves: masks of class numbers, or pictures, moved as the image beside them is."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dlkit.datasets.files.decoder import Array, read_with_status
from dlkit.datasets.images.decoding import open_image
from dlkit.errors import ArgumentError, DataError
from dlkit.objective import IGNORED
from dlkit.transforms import Preprocessing
from dlkit.transforms.spec import ImagePlan

__all__ = ["TargetImages"]

_KINDS = ("classes", "pixels")
_MODES = ("1", "L", "P", "I", "I;16")  # of Pillow, in which a pixel is one whole number


@dataclass(frozen=True, kw_only=True)
class TargetImages:
    """The image that each sample is to become.

    Attributes:
        path_of: A row's target file.
        kind: "classes": a pixel is a class number, target int64 [H, W]. "pixels": float32 [C, H, W], normalised as
            inputs are.
        numbers: The class number of each pixel value; None where they are class numbers already.
        classes: How many there are; 0 if not given.

    Raises:
        ArgumentError: an invalid argument.
    """

    path_of: Callable[[int], Path]
    kind: Literal["classes", "pixels"] = "classes"
    numbers: Mapping[int, int] | None = None
    classes: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ArgumentError(f"target_as must be 'classes' or 'pixels', not {self.kind!r}")
        if self.numbers is not None and self.kind == "pixels":
            raise ArgumentError("mask_values= says which class a pixel is; with target_as='pixels' there are none")
        for value, number in (self.numbers or {}).items():
            whole = all(isinstance(each, int) and not isinstance(each, bool) for each in (value, number))
            if not whole or not (number == IGNORED or (number >= 0 and (not self.classes or number < self.classes))):
                raise ArgumentError(
                    f"mask_values: {value!r} means {number!r}, which is not a class number"
                    f"{f' from 0 to {self.classes - 1}' if self.classes else ''}; {IGNORED} leaves such pixels out"
                )

    def empty(self, count: int, transform: Preprocessing) -> Tensor:
        """Where the targets of a batch are put; what no target reaches does not count.

        Args:
            count: Of the samples.
            transform: Of the images.
        """
        if self.kind == "pixels":
            return torch.zeros((count, *transform.shape))
        return torch.full((count, *transform.size), IGNORED, dtype=torch.int64)

    def write(self, row: int, size: tuple[int, int], transform: Preprocessing, plan: ImagePlan, out: Any) -> None:
        """Put the target of a sample into its place.

        Args:
            row: Of the sample.
            size: Of its image, in full.
            transform: Of the image.
            plan: What was done to the image.
            out: Its place, an array.

        Raises:
            DataError: there is no such file, or it is not what it should be.
        """
        path = self.path_of(row)
        data = read_with_status(path)[0]
        if self.kind == "classes":
            transform.write_labels(self._labels(data, path, size), plan, out)
            return
        image = open_image(data, name=str(path))
        self._check_size(path, (image.height, image.width), size)
        transform.write_target(image.pixels(color=transform.color), plan, out)

    def _check_size(self, path: Path, found: tuple[int, int], wanted: tuple[int, int]) -> None:
        if found != wanted:
            raise DataError(
                f"{path}: the target has {found[0]} x {found[1]} pixels, and its image {wanted[0]} x {wanted[1]}"
            )

    def _labels(self, data: bytes, path: Path, size: tuple[int, int]) -> Array:
        """Class numbers int64 [H, W] of a mask."""
        try:
            with Image.open(io.BytesIO(data)) as opened:
                mode, found = opened.mode, (opened.height, opened.width)
                if opened.getexif().get(0x0112, 1) > 4:  # turned by a quarter
                    found = found[::-1]
                self._check_size(path, found, size)  # before it is decoded
                values = np.asarray(ImageOps.exif_transpose(opened)).astype(np.int64)
        except DataError:
            raise
        except Exception as error:  # a decoder raises whatever a broken file leads to
            raise DataError(f"{path}: cannot be decoded: {type(error).__name__}: {error}") from error
        if mode not in _MODES or values.ndim != 2:
            raise DataError(
                f"{path}: a mask has one whole number per pixel (grey, or with a palette), and this is {mode}; for a "
                "picture as target say target_as='pixels'"
            )
        return self._numbered(values, path)

    def _numbered(self, values: Array, path: Path) -> Array:
        there = np.unique(values)
        numbers = self.numbers if self.numbers is not None else {value: value for value in there.tolist()}
        odd = [value for value in there.tolist() if value not in numbers]
        odd += [value for value in there.tolist() if self.numbers is None and 0 < self.classes <= value]
        if odd:
            raise DataError(
                f"{path}: the pixel value {odd[0]} is not a class; say what each value means, for example "
                f"mask_values={{0: 0, {odd[0]}: 1}}, where {IGNORED} leaves pixels out"
            )
        found = np.array([numbers[value] for value in there.tolist()])
        return found[np.searchsorted(there, values)]
