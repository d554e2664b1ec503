"""Images in files; what `ImageFolder`, `ImageFiles` and `ImageTable` are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dlkit.datasets.files.dataset import FileDataset
from dlkit.datasets.images.decoding import check_formats
from dlkit.datasets.images.fetching import ImageFetch
from dlkit.datasets.images.profiling import profile_of
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

    def profile(self, samples: int = 64) -> str:
        """Where the time goes: reading, decoding, resizing, handing over, sample after sample; and what helps.

        Args:
            samples: How many are measured, spread over the dataset; each once, so the files should be as cold or warm
                as they are in training.
        """
        count = min(samples, len(self))
        rows = self.indices[torch.linspace(0, len(self) - 1, count).long()].tolist()
        return profile_of([self._path(row) for row in rows], self.settings, self._threads())
