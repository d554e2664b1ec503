"""Folders with a folder for each class: how their files fall into parts, and what they usually are like."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlkit._language import Message
from dlkit.datasets.audio.decoding import open_audio
from dlkit.datasets.images.decoding import open_image
from dlkit.errors import DataError
from dlkit.splits import Fold

__all__ = ["laid_out", "root_of", "usual_image", "usual_sound"]

# Files whose header says what the others will be like: of images the size, of sounds a length that few exceed.
_IMAGES, _SOUNDS = 32, 256
_LONGEST = 5.0  # seconds of a recording that are looked at, unless the caller says more


def root_of(source: Any) -> Path:
    """The full path of the folder `source`."""
    return Path(os.path.abspath(Path(source).expanduser()))


def laid_out(found: Any, fractions: Sequence[float] | Fold, seed: int, **cuts: Any) -> tuple[dict[str, Any], str]:
    """The parts of a dataset of files, and in words how they came about.

    Args:
        found: The dataset; parts that its folder has are taken as they are.
        fractions: Two or three shares, for one that has none; or a fold of it.
        seed: Of the split.
        **cuts: `group` and `time`, see `FileDataset.split`.
    """
    if not found.parts or isinstance(fractions, Fold):  # which a layout answers with an error
        cut = zip(("train", "val", "test"), found.split(fractions, seed=seed, **cuts), strict=False)
        if cuts:
            return dict(cut), Message("split, equal files on one side")
        return dict(cut), Message("split at random, equal files on one side")
    parts = dict(zip(found.parts, found.split(), strict=True))
    told = Message("laid out in {parts}", parts=", ".join(found.parts))
    if "val" not in parts:
        share = fractions[0] / (fractions[0] + fractions[1])
        parts["train"], parts["val"] = parts["train"].split(share, seed=seed)
        told = Message("{told}; {share:.0%} of train are the validation part", told=told, share=1 - share)
    return parts, told


def usual_image(dataset: Any) -> tuple[int, bool]:
    """The usual shorter side of a `dataset` of images and whether all is grey, by some headers that can be read."""
    found = _headers(dataset, _IMAGES, open_image)
    modes = {image.mode for image in found}
    side = int(np.median([min(image.height, image.width) for image in found])) if found else 224
    return side, bool(modes) and modes <= {"L", "1", "I;16", "I", "F"}


def usual_sound(dataset: Any) -> tuple[int, float]:
    """The usual rate in Hz, and how many seconds hold the whole of 19 in 20 recordings, but no more than five.

    Args:
        dataset: Recordings in files.
    """

    def facts(path: Path) -> tuple[int, float]:
        with open_audio(path) as audio:
            return audio.sample_rate, audio.frames / audio.sample_rate

    found = _headers(dataset, _SOUNDS, facts)
    if not found:
        return 16_000, 1.0
    rates, seconds = zip(*found, strict=True)
    return int(np.median(rates)), min(_LONGEST, float(np.ceil(10 * np.percentile(seconds, 95)) / 10))


def _headers(dataset: Any, most: int, read: Callable[[Path], Any]) -> list[Any]:
    found = list[Any]()
    for index in np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int).tolist():
        try:
            found.append(read(dataset.path(index)))
        except DataError:
            continue
    return found
