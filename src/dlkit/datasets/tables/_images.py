"""Image files that the rows of a table point to, decoded when a batch asks for them, as `ImageFolder` decodes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlkit.datasets.images.decoding import open_image
from dlkit.datasets.images.fetching import prepared, transformed
from dlkit.datasets.tables._encoding import Problem
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.cells import Strings
from dlkit.transforms import Preprocessing, evaluate

__all__ = ["ImageOptions", "missing_files"]


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Where image files lie and what becomes of them; the arguments of `CSVDataset` with the prefix `image_`.

    Attributes:
        root: The folder that paths are relative to.
        size: Short for `transform=transforms.evaluate(size)`.
        transform: A `Preprocessing`, or any callable on a PIL image that returns a tensor.
    """

    root: str | os.PathLike[str] | None = None
    size: int = 224
    transform: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise ArgumentError(f"image_size must be a number of pixels from 1 on, not {self.size!r}")

    @property
    def draws_random(self) -> bool:
        """Whether loading may draw random numbers."""
        return getattr(self.transform, "draws_random", self.transform is not None)

    def path(self, cell: str) -> Path:
        """The file that a cell names."""
        return Path(self.root or ".").expanduser() / cell.strip()

    def load(self, cells: Sequence[str]) -> Tensor:
        """The images of some cells, [B, C, H, W]."""
        transform = evaluate(self.size) if self.transform is None else self.transform
        paths = [self.path(cell) for cell in cells]
        return _prepared(paths, transform) if isinstance(transform, Preprocessing) else _one_by_one(paths, transform)


def _prepared(paths: Sequence[Path], transform: Preprocessing) -> Tensor:
    images, bad = prepared(transform, len(paths), lambda place: open_image(paths[place]))
    if bad:
        raise DataError(bad[min(bad)])
    assert isinstance(images, Tensor)
    return images


def _one_by_one(paths: Sequence[Path], transform: Callable[[Any], Any]) -> Tensor:
    images = [transformed(transform, open_image(path).pixels(), path) for path in paths]
    if len({image.shape for image in images}) > 1:
        raise DataError(
            f"image_transform gives different shapes, {list(images[0].shape)} for {paths[0]} among them; "
            "end it with a resize"
        )
    return torch.stack(images)


def missing_files(column: str, cells: Strings, options: ImageOptions) -> Problem | None:
    """Rows whose image file is not there."""
    names = cells.pool.tolist()
    used = cells.counts() > 0
    lost = [
        not (name.strip() and os.path.isfile(options.path(name))) if use else False
        for name, use in zip(names, used, strict=True)
    ]
    rows = np.flatnonzero(cells.mapped(lost, True, bool))
    if not len(rows):
        return None

    def has(row: int) -> str:
        code = int(cells.codes[row])
        return f": {options.path(names[code])}" if code >= 0 and names[code].strip() else ": the cell is empty"

    remedy = "image_root= is the folder that paths are relative to; on_error='skip' leaves such rows out"
    return Problem(rows, f"names no image file in column {column!r}", remedy, has)
