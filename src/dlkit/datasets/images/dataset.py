"""Images in files; what `ImageFolder`, `ImageFiles` and `ImageTable` are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from dlkit.datasets.files.dataset import FileDataset
from dlkit.datasets.images.decoding import check_formats
from dlkit.datasets.images.fetching import ImageFetch
from dlkit.datasets.images.settings import ImageSettings
from dlkit.storage.strings import PackedStrings

__all__ = ["ImageDataset"]


class ImageDataset(FileDataset):
    """Images in files, with or without targets; made by `ImageFolder`, `ImageTable` and `ImageFiles`.

    Args:
        root: The folder that the names lead from.
        names: The files' paths below it.
        targets: int64 [N], float32 [N] or [N, K]; None for unlabelled images.
        classes: The class names in the order of the targets; empty for regression and unlabelled images.
        settings: What to do with the files.

    Raises:
        MissingExtraError: there are images that need a package which is not installed.
    """

    fetch = ImageFetch
    settings: ImageSettings

    def __init__(
        self, root: Path, names: PackedStrings, targets: Tensor | None, classes: Sequence[str], settings: ImageSettings
    ) -> None:
        if settings.decoder is None:
            check_formats(names)
        super().__init__(root, names, targets, classes, settings)
