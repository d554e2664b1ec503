"""The options that all image datasets share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dlkit.datasets.files.decoder import Array, Decoder
from dlkit.datasets.files.settings import FileOptions, FileSettings
from dlkit.datasets.images.decoding import IMAGES, Color, OpenImage, check_formats, open_image, picture
from dlkit.errors import ArgumentError
from dlkit.storage.strings import PackedStrings
from dlkit.transforms import Augment, Preprocessing, for_evaluation
from dlkit.transforms.geometry import reduction, resized_part, short_side_to

__all__ = ["ImageOptions", "ImageSettings", "pixels_of"]

Transform = Preprocessing | Callable[[Any], Any]

#: Raised by one whenever the pixels that are kept for a file would change.
_RULE = "2"


class ImageOptions(FileOptions, total=False):
    """The options of every image dataset, as its constructor takes them by name; see `ImageSettings`."""

    size: int | tuple[int, int] | None
    augment: Augment | Preprocessing | bool | None
    color: Color
    cache_side: int | None
    decoder: Decoder | None


@dataclass(frozen=True, kw_only=True)
class ImageSettings(FileSettings):
    """The options that all image datasets share, checked where they are made; the others are those of `FileSettings`.

    Attributes:
        size: Side of the square output in pixels, or (height, width): short for
            `transform=transforms.for_evaluation(size)`.
        transform: `transforms.for_training(size)`, `for_evaluation(size)`, `from_model(model)`, which are carried out
            in threads at the speed the machine allows; or any callable on a PIL image that returns a tensor, such as
            torchvision's v2 transforms (run one by one, in the thread that fetches, because they draw random numbers).
            None, without `size`: uint8 [C, H, W] in each image's own size.
        augment: What is random in training, with `size` or a transform of `dlkit.transforms`: an `Augment`, True for
            `Augment()`, or what `transforms.for_training(size)` returns. `split` keeps it for the first part alone.
        color: "RGB", or "L" for grey images with one channel; a `Preprocessing` has its own.
        batch_transform: Called with finished batches `(images, targets)`, such as `transforms.MixUp(num_classes=10)`.
        cache_side: The shorter side of images kept in the `cache`, in pixels; by default 1.5 times the size. Results
            with and without a cache differ slightly, with a full and an empty one not at all.
        decoder: Reads files of another kind as well: `Decoder(suffixes=[".dcm"], decode=read)`, where `read` makes
            uint8 [H, W] or [H, W, C], or another array or picture that Pillow can hold, of a file's content.

    Raises:
        ArgumentError: an invalid argument.
    """

    OPTIONS, READS = ImageOptions, IMAGES

    size: int | tuple[int, int] | None = None
    transform: Transform | None = None
    augment: Augment | Preprocessing | bool | None = None
    color: Color = "RGB"
    cache_side: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.transform is not None:
            raise ArgumentError("size= is short for transform=transforms.for_evaluation(size): give one of them")
        if self.color not in ("RGB", "L"):
            raise ArgumentError(f"color must be 'RGB' or 'L', not {self.color!r}")
        if self.size is not None:
            object.__setattr__(self, "transform", for_evaluation(self.size, color=self.color))
        if self.augment is not None and self.augment is not False:
            object.__setattr__(self, "transform", _augmented(self.transform, self.augment))
        object.__setattr__(self, "size", None)
        object.__setattr__(self, "augment", None)
        super().__post_init__()

    @property
    def _made_as(self) -> str:
        return f"{_RULE} {self._kept_side} {self.decoded_color}"

    def check_names(self, names: PackedStrings) -> None:
        if self.decoder is None:
            check_formats(names)

    @property
    def decoded_color(self) -> Color:
        """What images are decoded to: "RGB" or "L"."""
        return self.transform.color if isinstance(self.transform, Preprocessing) else self.color

    def open(self, data: bytes, name: str) -> OpenImage:
        """The image in a file, its header read.

        Args:
            data: The file's content.
            name: What errors call the file; its ending says who decodes it.

        Raises:
            DataError: the file is not an image, or a broken one.
        """
        if self.decoder is None or not self.decoder.fits(name):
            return open_image(data, name=name)
        return OpenImage.of_picture(picture(self.decoder.decoded(data, name), name), name)

    def array(self, data: bytes, name: str) -> Array:
        """An image's pixels uint8 [H, W, C], with a cache made as small as it keeps them."""
        return pixels_of(self.open(data, name), self._kept_side, self.decoded_color)

    def shape(self, data: bytes, name: str) -> tuple[int, ...]:
        image = self.open(data, name)
        return image.height, image.width, 3 if self.decoded_color == "RGB" else 1

    @property
    def _kept_side(self) -> int | None:
        """What the shorter side of an image kept in the cache becomes; None keeps all."""
        if self.cache is None:
            return None
        if self.cache_side is not None or not isinstance(self.transform, Preprocessing):
            return self.cache_side
        # A random crop takes half the area on average, so 1.5 times the size still has its pixels.
        return max(self.transform.resize or 0, round(1.5 * max(self.transform.size)))

    @property
    def evened(self) -> str:
        return f"give size=224, or {super().evened.removeprefix('give ')}"

    def sample(self, array: Array, path: Path) -> Tensor:
        """One image through a transform of the user's own, which is given a PIL image."""
        if self.transform is None:
            return torch.from_numpy(array).permute(2, 0, 1).clone(memory_format=torch.contiguous_format)
        picture = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
        told = "a PIL image (v2.ToImage() makes a tensor)"
        advice = "end it with v2.ToImage() and v2.ToDtype(torch.float32, scale=True)"
        return self._transformed(picture, path, told, advice)


def pixels_of(image: OpenImage, side: int | None, color: Color) -> Array:
    """The pixels of an image, its shorter side made `side` if it is more than a quarter longer.

    Args:
        image: Not decoded yet.
        side: The shorter side in pixels; None keeps the image as it is.
        color: "RGB" or "L".
    """
    if side is None or min(image.height, image.width) <= 1.25 * side:
        return image.pixels(color=color)
    height, width = short_side_to(image.height, image.width, side)
    reduce = reduction(image.height, image.width, height, width) if image.reducible else 1
    part = image.height / reduce, image.width / reduce
    planes = resized_part(image.pixels(reduce, color=color), *part, height, width, "bilinear")
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _augmented(transform: Transform | None, augment: Any) -> Preprocessing:
    """A transform with what `augment=` asks for."""
    if isinstance(augment, Preprocessing) and transform is None:
        transform = augment
    if not isinstance(transform, Preprocessing):
        raise ArgumentError("augment= needs size= or a transform made by dlkit.transforms")
    if augment is True:
        augment = Augment()
    own = augment.augment if isinstance(augment, Preprocessing) else augment
    if not isinstance(own, Augment):
        raise ArgumentError(
            "augment= takes transforms.Augment(...), True for its defaults, or what transforms.for_training(size) "
            f"returns, not {type(augment).__name__}; a pipeline of torchvision goes into transform= as a whole"
        )
    return dataclasses.replace(transform, augment=own)
