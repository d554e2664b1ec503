"""Parts of an image dataset: what keeps files together, and which transform each part has."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dlkit._opening import open_regular
from dlkit.datasets.files.parallel import for_each
from dlkit.datasets.images.settings import ImageSettings, Transform
from dlkit.errors import ArgumentError, DataError
from dlkit.transforms import Preprocessing

__all__ = ["content_keys", "settings_of_parts"]


def content_keys(paths: Sequence[Path], threads: int) -> npt.NDArray[np.int64]:
    """Equal numbers for files of equal content; a file whose size no other has need not be read.

    Args:
        paths: The files. One that cannot be read equals no other.
        threads: How many read.
    """
    sizes = np.array([_size_of(path) for path in paths], dtype=np.int64)
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    keys: list[Any] = list(range(len(paths)))

    def work(place: int) -> None:
        if counts[inverse[place]] == 1 or sizes[place] < 0:
            return
        try:
            with open_regular(paths[place]) as file:
                keys[place] = hashlib.file_digest(cast(Any, file), "sha256").digest()
        except (OSError, DataError):
            return  # fetching it names it, by the policy for unreadable files

    for_each(work, len(paths), threads)
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def settings_of_parts(
    settings: ImageSettings, count: int, transform: Sequence[Transform | None] | None
) -> list[ImageSettings]:
    """The settings of each part: only the first one, meant for training, keeps what is random.

    Args:
        settings: Those of the whole.
        count: How many parts.
        transform: One transform or None for each part; None as a whole keeps the dataset's.

    Raises:
        ArgumentError: not one for each part.
    """
    if transform is None:
        if count > 1 and not isinstance(settings.transform, Preprocessing) and "Random" in repr(settings.transform):
            warnings.warn(
                "the transform seems to be random, and every part of the split gets it; "
                "split(..., transform=[for_training, for_evaluation]) gives each part its own",
                UserWarning,
                stacklevel=4,
            )
        return [settings, *[settings.for_evaluation()] * (count - 1)]
    if not isinstance(transform, Sequence) or len(transform) != count:
        raise ArgumentError(f"transform= of a split takes one transform or None for each of its {count} parts")
    parts = [dataclasses.replace(settings, transform=own) for own in transform]
    return [parts[0], *(dataclasses.replace(own, batch_transform=None) for own in parts[1:])]


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
