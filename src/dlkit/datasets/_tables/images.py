"""Image files that the rows of a table point to, decoded when a batch asks for them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlkit.datasets._tables.cells import Strings
from dlkit.datasets._tables.encoding import Problem
from dlkit.errors import ArgumentError, DataError

__all__ = ["ImageOptions", "load_rgb", "missing_files"]


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Where image files lie and what becomes of them; the arguments of `CSVDataset` with the prefix `image_`.

    Attributes:
        root: The folder that paths are relative to.
        size: Pixels along each side of the square that an image becomes.
        transform: Called with the upright RGB image (PIL) instead of resizing; returns a tensor.
    """

    root: str | os.PathLike[str] | None = None
    size: int = 224
    transform: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise ArgumentError(f"image_size must be a number of pixels from 1 on, not {self.size!r}")

    def path(self, cell: str) -> Path:
        """The file that a cell names."""
        return Path(self.root or ".").expanduser() / cell.strip()

    def load(self, cells: Sequence[str]) -> Tensor:
        """The images of some cells: float32 [B, 3, size, size] in [0, 1], or the transform's tensors stacked."""
        return torch.stack([self._load_one(self.path(cell)) for cell in cells])

    def _load_one(self, path: Path) -> Tensor:
        image = load_rgb(path)
        if self.transform is None:
            return _square(image, self.size)
        made = self.transform(image)
        if not isinstance(made, Tensor):
            raise ArgumentError(f"image_transform must return a tensor, not {type(made).__name__}; add ToTensor()")
        return made


def missing_files(column: str, cells: Strings, options: ImageOptions) -> Problem | None:
    """Rows whose image file is not there."""
    names = cells.pool.tolist()
    used = cells.counts() > 0
    lost = [
        not (name.strip() and options.path(name).is_file()) if use else False
        for name, use in zip(names, used, strict=True)
    ]
    rows = np.flatnonzero(cells.mapped(lost, True, bool))
    if not len(rows):
        return None
    code = int(cells.codes[rows[0]])
    example = f": {options.path(names[code])}" if code >= 0 and names[code].strip() else ": the cell is empty"
    remedy = "image_root= is the folder that paths are relative to; on_error='skip' leaves such rows out"
    return Problem(rows, f"names no image file in column {column!r}", remedy, example)


def load_rgb(path: Path) -> Any:
    """An image file as PIL would show it: first frame, upright, RGB, over white where it is transparent.

    Raises:
        DataError: with the path, where it cannot be decoded or would fill the memory.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return _rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise DataError(f"the image {path} is gone since the table was read") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, Warning) as error:
        raise DataError(f"the image {path} cannot be decoded: {error}") from error


def _rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and floats: scaled, where Pillow would clamp
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if image.mode.startswith("I") and values.max() > 255 else max(float(values.max()), 1.0)
        image = Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("P", "PA", "LA", "La", "RGBa", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _square(image: Any, size: int) -> Tensor:
    from PIL import Image, ImageOps

    fitted = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(fitted, dtype=np.uint8).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(torch.float32).div_(255)
