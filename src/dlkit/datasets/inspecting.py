"""`inspect`: what is in a folder of images or recordings."""

from __future__ import annotations

import os
from typing import Literal

from dlkit.datasets.audio.dataset import AudioDataset
from dlkit.datasets.audio.decoding import SOUNDS
from dlkit.datasets.audio.folders import AudioFiles, AudioFolder
from dlkit.datasets.audio.inspecting import AudioInspection, inspect_sounds
from dlkit.datasets.images.dataset import ImageDataset
from dlkit.datasets.images.decoding import IMAGES
from dlkit.datasets.images.folders import ImageFiles, ImageFolder
from dlkit.datasets.images.inspecting import ImageInspection, inspect_images
from dlkit.errors import DataError, DataNotFoundError

__all__ = ["inspect", "kind_of_files"]


def inspect(
    data: str | os.PathLike[str] | ImageDataset | AudioDataset, *, threads: int | None = None, progress: bool = True
) -> ImageInspection | AudioInspection:
    """Read every file of a folder of images or recordings once and report what is in it.

    Of both: classes, bad files, duplicates, and those of them that are in different parts or classes. Of images: sizes,
    kinds, near duplicates, mean and deviation. Of recordings: sample rates, channels, formats, lengths, levels, what is
    clipped or silent; `duplicates` are those that sound the same, in whatever format.

    Args:
        data: A folder with classes, with train/val/test, or with files only; or a dataset of images or recordings. See
            `kind_of_files` for one that holds both.
        threads: How many threads decode; None for all cores.
        progress: Show a bar when it takes longer than two seconds.

    Raises:
        DataNotFoundError: there is no such folder.
        DataError: it holds no such files.
        MissingExtraError: a package that reads recordings is not installed.

    >>> import pathlib, tempfile; from PIL import Image; folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("a/1.png", "a/2.png", "b/3.png"):
    ...     (folder / name).parent.mkdir(exist_ok=True); Image.effect_noise((40, 30), 50).save(folder / name)
    >>> report = inspect(folder); report.classes, len(report.duplicates)
    ({'': {'a': 2, 'b': 1}}, 0)
    """
    dataset = data if isinstance(data, ImageDataset | AudioDataset) else _opened(data, progress)
    if isinstance(dataset, AudioDataset):
        return inspect_sounds(dataset, threads=threads, progress=progress)
    return inspect_images(dataset, threads=threads, progress=progress)


def _opened(root: str | os.PathLike[str], progress: bool) -> ImageDataset | AudioDataset:
    """The folder as whatever it is: with classes, else as plain files."""
    with_classes, without = (AudioFolder, AudioFiles) if kind_of_files(root) == "sounds" else (ImageFolder, ImageFiles)
    try:
        return with_classes(root, progress=progress)
    except DataNotFoundError:
        raise
    except DataError:
        return without(root, progress=progress)


def kind_of_files(root: str | os.PathLike[str]) -> Literal["images", "sounds"] | None:
    """What a folder holds, by the endings in the first folder in it or below that has such files; None for neither.

    Args:
        root: The folder. Where both lie side by side, as covers beside songs, what there is more of counts.
    """
    for _, _, files in os.walk(root):
        names = [name for name in files if not name.startswith(".")]
        images, sounds = (sum(kind.fits(name) for name in names) for kind in (IMAGES, SOUNDS))
        if images or sounds:
            return "sounds" if sounds > images else "images"
    return None
