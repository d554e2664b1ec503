"""Samples in rows, each under its prediction."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlkit._optional import require
from dlkit.errors import ArgumentError
from dlkit.plots._canvas import INK, ORANGE, class_name, new_figure, saved, to_array, to_indices

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["sample_grid"]

_GAP = 0.08  # between the tiles, where a tile with its gap is 1 wide


def sample_grid(
    images: Any,
    labels: Any = None,
    predictions: Any = None,
    *,
    classes: Sequence[str] | None = None,
    columns: int = 8,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw images in rows, each under its prediction; wrong ones are framed and name the true class too.

    Args:
        images: `[N, H, W]`, `[N, 1, H, W]` or `[N, 3, H, W]`, a tensor, an array or a list of single images. Bytes
            0–255 or floats 0–1; other floats (normalised images) are stretched so that the lowest is black and the
            highest white. A hundred or two are readable.
        labels: N true classes, as indices.
        predictions: N predicted classes, as indices.
        classes: The classes' names, in the order of the indices; without them the indices are shown.
        columns: Images per row.
        path: Where to save the picture, for example `samples.png`.

    Raises:
        ArgumentError: Shapes, lengths or indices that do not fit each other, or an unknown file ending.

    >>> import torch
    >>> figure = sample_grid(torch.rand(3, 28, 28), labels=[0, 1, 1], predictions=[0, 1, 0], classes=["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['cat', 'dog', 'cat (is dog)']
    """
    pictures = _pictures(images)
    if columns < 1:
        raise ArgumentError(f"columns is a whole number of at least 1; got {columns!r}")
    truth = None if labels is None else to_indices("labels", labels, len(pictures))
    guesses = None if predictions is None else to_indices("predictions", predictions, len(pictures))
    captions = [_caption(place, truth, guesses, classes) for place in range(len(pictures))]
    wrong = np.zeros(len(pictures), bool) if truth is None or guesses is None else truth != guesses
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    lines = [line for caption in captions for line in caption.split("\n")]
    above = 0.3 if len(lines) > len(captions) else 0.2
    pitch = max(down for _, down in map(_tile_size, pictures)) + _GAP + above
    figure = new_figure(max(columns * 0.95, 3.6), rows * pitch * 0.95 + 0.4)
    axes = figure.add_subplot()
    size = float(np.clip(100 / max(1, *map(len, lines)), 4, 9))
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        _draw_tile(axes, (place % columns, place // columns * pitch), picture, caption, bool(wrong[place]), size)
    axes.set(xlim=(-_GAP / 2, columns - _GAP / 2), ylim=(rows * pitch - above, -above - 0.05), aspect="equal")
    axes.set_axis_off()
    figure.suptitle(_grid_title(len(pictures), wrong, truth, guesses), color=INK, fontsize=10)
    return saved(figure, path)


def _pictures(images: Any) -> list[np.ndarray[Any, Any]]:
    """Each image as `[H, W]` or `[H, W, 3]`, floats 0–1."""
    arrays = [to_array(image) for image in images]
    if not arrays:
        raise ArgumentError("images is empty: there is nothing to draw")
    arrays = [_channels_last(array) for array in arrays]
    if all(array.dtype == np.uint8 for array in arrays):
        return [array / 255 for array in arrays]
    lowest, highest = min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ArgumentError("images has values that are NaN or infinite")
    if lowest >= 0 and highest <= 1:
        return [array.astype(float) for array in arrays]
    return [(array.astype(float) - lowest) / ((highest - lowest) or 1) for array in arrays]


def _channels_last(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if image.ndim == 2:
        return image
    if image.ndim == 3 and image.shape[0] == 1:
        return np.asarray(image[0])
    if image.ndim == 3 and image.shape[0] == 3:
        return np.asarray(image.transpose(1, 2, 0))
    raise ArgumentError(
        f"images is [N, H, W], [N, 1, H, W] or [N, 3, H, W]; a single image here has shape {list(image.shape)}"
    )


def _caption(place: int, truth: Any, guesses: Any, classes: Sequence[str] | None) -> str:
    if guesses is None:
        return "" if truth is None else class_name(int(truth[place]), classes)
    guess = class_name(int(guesses[place]), classes)
    if truth is None or truth[place] == guesses[place]:
        return guess
    actually = f"(is {class_name(int(truth[place]), classes)})"
    return f"{guess}{' ' if len(guess) + len(actually) < 14 else chr(10)}{actually}"


def _tile_size(picture: np.ndarray[Any, Any]) -> tuple[float, float]:
    height, width = picture.shape[:2]
    return (1 - _GAP) * width / max(height, width), (1 - _GAP) * height / max(height, width)


def _draw_tile(axes: Axes, corner: tuple[float, float], picture: Any, caption: str, wrong: bool, size: float) -> None:
    (left, top), (across, down) = corner, _tile_size(picture)
    color, weight = (ORANGE, "bold") if wrong else (INK, "normal")
    place = (left, left + across, top + down, top)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=place, interpolation="nearest")
    frame = require("matplotlib.patches", extra="plots").Rectangle((left, top), across, down, fill=False)
    frame.set(edgecolor=ORANGE if wrong else "#BBBBBB", linewidth=2.2 if wrong else 0.5)
    axes.add_patch(frame)
    axes.text(
        left + across / 2,
        top - 0.04,
        caption,
        ha="center",
        va="bottom",
        fontsize=size,
        color=color,
        fontweight=weight,
        parse_math=False,
    )


def _grid_title(count: int, wrong: Any, truth: Any, guesses: Any) -> str:
    samples, their = ("1 sample", "its") if count == 1 else (f"{count} samples", "their")
    what = "prediction" if guesses is not None else "class"
    if truth is None and guesses is None:
        return samples
    under = f"{samples} under {their} {what if count == 1 else {'class': 'classes'}.get(what, what + 's')}"
    return under if truth is None or guesses is None else f"{under}; {int(wrong.sum())} wrong"
