"""Images in files; what `ImageFolder`, `ImageFiles` and `ImageTable` are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from dlkit._html import picture
from dlkit.datasets.files.dataset import FileDataset
from dlkit.datasets.files.decoder import read_with_status
from dlkit.datasets.images.decoding import check_formats
from dlkit.datasets.images.fetching import ImageFetch
from dlkit.datasets.images.settings import ImageSettings, pixels_of
from dlkit.errors import DataError
from dlkit.storage.strings import PackedStrings

__all__ = ["ImageDataset"]

_SIDE = 128  # pixels of an image that is shown


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

    def sample_html(self, index: int) -> str:
        path = self.path(index)
        try:
            image = self.settings.open(read_with_status(path)[0], str(path))
            return picture(Image.fromarray(pixels_of(image, _SIDE, "RGB")), path.name, side=_SIDE)
        except DataError:
            return super().sample_html(index)
