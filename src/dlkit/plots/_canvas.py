"""What the pictures share: the figure, saving it whole, colours, and reading what was given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dlkit._optional import require
from dlkit.errors import ArgumentError
from dlkit.storage.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito (2008), "Color Universal Design": distinguished with every kind of colour blindness.
BLUE, ORANGE, GREEN, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
INK, FAINT = "#222222", "#8A8A8A"

_LONGEST_NAME = 18  # characters


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches; `Figure` itself, not `pyplot.figure`, so that nothing has to be closed."""
    require("matplotlib.figure", extra="plots")
    from dlkit.plots._figure import ShownFigure

    figure: Figure = ShownFigure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    return figure


def saved(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """The figure, which is also saved, whole or not at all, when there is a path."""
    if path is not None:
        path = Path(path)
        kinds = figure.canvas.get_supported_filetypes()
        if path.suffix.lstrip(".").lower() not in kinds:
            raise ArgumentError(f"cannot save a picture as {path.name!r}: the ending must be one of {', '.join(kinds)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            figure.savefig(file, format=path.suffix.lstrip(".").lower())
    return figure


def to_array(values: Any) -> np.ndarray[Any, Any]:
    """A tensor from any device, an array or a list, as an array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy()
    return np.asarray(values)


def to_indices(name: str, values: Any, length: int | None, num_classes: int | None = None) -> np.ndarray[Any, Any]:
    """Class indices that are checked: one per sample, whole numbers, as many as expected, none without a class."""
    if not isinstance(values, torch.Tensor | np.ndarray):
        values = [value.item() if isinstance(value, torch.Tensor) else value for value in values]
    array = to_array(values)
    if array.ndim == 2:
        raise ArgumentError(
            f"{name} is one class index per sample; got shape {list(array.shape)}: pass {name}.argmax(1)"
        )
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iub":
        raise ArgumentError(f"{name} is a list of class indices, at least one; got {array.dtype} {list(array.shape)}")
    if length is not None and len(array) != length:
        raise ArgumentError(f"{name} has {len(array)} entries for {length} samples")
    if num_classes is not None and (array.min() < 0 or array.max() >= num_classes):
        place = int(np.flatnonzero((array < 0) | (array >= num_classes))[0])
        raise ArgumentError(
            f"{name}[{place}] is {array[place]}, but there are {num_classes} classes (0–{num_classes - 1})"
        )
    return array


def class_name(index: int, classes: Sequence[str] | None) -> str:
    """What to write for a class: its name, or its index where there are no names."""
    if classes is None:
        return str(index)
    if not 0 <= index < len(classes):
        raise ArgumentError(f"class index {index} has no name: classes has {len(classes)} (0–{len(classes) - 1})")
    return shortened(str(classes[index]))


def shortened(name: str) -> str:
    """The name, cut where it would push the picture out of the page."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
