"""Images in files; what `ImageFolder`, `ImageFiles` and `ImageTable` are made of."""

from __future__ import annotations

from PIL import Image

from dlkit._html import picture
from dlkit.datasets.files.dataset import FileDataset
from dlkit.datasets.files.decoder import read_with_status
from dlkit.datasets.images.fetching import ImageFetch
from dlkit.datasets.images.settings import ImageSettings, pixels_of
from dlkit.errors import DataError

__all__ = ["ImageDataset"]

_SIDE = 128  # pixels of an image that is shown


class ImageDataset(FileDataset):
    """Images in files, with or without targets; made by `ImageFolder`, `ImageTable` and `ImageFiles`."""

    fetch, SETTINGS = ImageFetch, ImageSettings
    settings: ImageSettings

    def sample_html(self, index: int) -> str:
        path = self.path(index)
        try:
            image = self.settings.open(read_with_status(path)[0], str(path))
            return picture(Image.fromarray(pixels_of(image, _SIDE, "RGB")), path.name, side=_SIDE)
        except DataError:
            return super().sample_html(index)
