"""`ImageFolder`: a folder per class. `ImageFiles`: images without labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from dlkit.datasets.files.listing import EMPTY, Listing, scan, with_classes
from dlkit.datasets.images.dataset import ImageDataset
from dlkit.datasets.images.decoding import Color
from dlkit.datasets.images.settings import BatchTransform, ImageSettings, Transform
from dlkit.errors import ArgumentError, DataError
from dlkit.storage.strings import PackedStrings
from dlkit.transforms import Augment, Preprocessing

__all__ = ["ImageFiles", "ImageFolder"]


class ImageFolder(ImageDataset):
    """Images in a folder per class: `root/ants/1.jpg`, `root/bees/2.jpg`, decoded as fast as the machine allows.

    Samples are `(image, class)`: float32 [C, H, W] with `size` or a transform of `dlkit.transforms`, and int64. A stock
    `DataLoader(ds, 64, shuffle=True)` gets whole batches that all cores have decoded; with `num_workers=1` they do so
    in a process of their own, while the model trains. More workers bring nothing more.

    Images are upright, RGB, 8 bits, transparent parts over white; see `dlkit.datasets.decode_image`. Where an image is
    much larger than needed, its JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which keeps at least 1.5 times the
    pixels per side that the transform asks for. On photographs the result then differs from that of the full image by
    less than 3 of 255 grey levels in the mean (0.2 to 1 is usual), and 99 % of the values by less than 12.

    A layout of `root/train`, `root/val`, `root/test`, each with the class folders, is recognised: `split()` without
    arguments then gives these parts. Hidden files, files that are no images, and files outside of class folders are
    left out and told in `left_out`. Folders in class folders belong to the class. Symbolic links are followed.

    Args:
        root: The folder.
        size: Side of the square output in pixels, or (height, width): short for
            `transform=transforms.for_evaluation(size)`.
        transform: `transforms.for_training(size)`, `for_evaluation(size)`, `from_model(model)`; or any callable on a
            PIL image that returns a tensor, such as torchvision's v2 transforms (run one by one, in this thread,
            because they draw random numbers). None, without `size`: uint8 [C, H, W] in each image's own size.
        augment: What is random in training, with `size` or a transform of `dlkit.transforms`: an `Augment`, True for
            `Augment()`, or what `transforms.for_training(size)` returns. `split` keeps it for the first part alone.
        color: "RGB", or "L" for grey images with one channel.
        class_to_idx: The classes' numbers, or their names in order, such as `model.classes`; by default their natural
            order, "2" before "10".
        part: "train", "val" or "test" of such a layout, alone.
        on_error: "raise" stops at a file that cannot be read, and names it. "skip" leaves it out for good, with a
            warning, and lists it in `errors`; a batch is then smaller by it, and no other sample takes its place.
        max_errors: The largest share of unreadable files that "skip" accepts.
        cache: Keep decoded pixels, so that later epochs and runs decode nothing: "auto" in the cache folder, "memory"
            until the process ends, or a folder. Keeps the shorter side at `cache_side`; files that change are decoded
            again. Results with and without a cache differ slightly, with a full and an empty one not at all.
        cache_side: The shorter side of kept images in pixels; by default 1.5 times the size.
        cache_bytes: How large the cache may become; by default half of what is free.
        batch_transform: Called with finished batches `(images, targets)`, such as `transforms.MixUp(num_classes=10)`.
        threads: How many threads decode; by default all cores, divided among the workers.
        progress: Show a bar when scanning takes longer than two seconds.

    Attributes:
        classes: The class names in the order of the targets.
        class_to_idx: The target of each class name.
        parts: Those of "train", "val", "test" that the folder is laid out in.
        left_out: What was not taken: a kind to how many and the first of them.

    Raises:
        DataNotFoundError: there is no such folder.
        DataError: it has no class folders with images, or classes that `class_to_idx` has not.
        ArgumentError: an argument that cannot be meant.

    >>> import tempfile; from PIL import Image; folder = Path(tempfile.mkdtemp())
    >>> for name in ("10/a.png", "2/b.png"):
    ...     (folder / name).parent.mkdir(); Image.new("RGB", (40, 30)).save(folder / name)
    >>> ds = ImageFolder(folder, size=16); ds.classes, ds[0][0].shape
    (['2', '10'], torch.Size([3, 16, 16]))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        size: int | tuple[int, int] | None = None,
        transform: Transform | None = None,
        augment: Augment | Preprocessing | bool | None = None,
        color: Color = "RGB",
        class_to_idx: Mapping[str, int] | Sequence[str] | None = None,
        part: str | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        max_errors: float = 0.01,
        cache: str | os.PathLike[str] | None = None,
        cache_side: int | None = None,
        cache_bytes: int | None = None,
        batch_transform: BatchTransform | None = None,
        threads: int | None = None,
        progress: bool = True,
    ) -> None:
        settings = ImageSettings(
            size=size,
            transform=transform,
            augment=augment,
            color=color,
            on_error=on_error,
            max_errors=max_errors,
            cache=cache,
            cache_side=cache_side,
            cache_bytes=cache_bytes,
            batch_transform=batch_transform,
            threads=threads,
        )
        listing = scan(root, progress=progress)
        classes, targets = listing.classes, listing.targets
        if class_to_idx is not None:
            classes, targets = with_classes(listing, class_to_idx)
        elif EMPTY in listing.left_out:
            raise DataError(
                f"{listing.root}: {listing.told()}; remove such folders, or name the classes: class_to_idx=[...]"
            )
        super().__init__(listing.root, listing.names, targets, classes, settings)
        self._listing = listing
        self.parts, self.left_out = list(listing.part_names), dict(listing.left_out)
        if part is not None:
            self._rows = self._rows_of(part)
            self.parts = []

    def split(
        self,
        fraction: float | Sequence[float] | None = None,
        *,
        stratify: bool = True,
        groups: Any = None,
        dedupe: bool = True,
        seed: int = 0,
        transform: Sequence[Transform | None] | None = None,
    ) -> tuple[Self, ...]:
        """Cut the dataset into parts, of which the first keeps the augmentation; see `ImageDataset.split`.

        Args:
            fraction: The share of the first part, or all shares; None for the parts of a train/val/test layout.
            stratify: Every part has each class in the same share.
            groups: One key per sample, or a function of its path; equal keys never fall into different parts.
            dedupe: Files of equal content never fall into different parts.
            seed: Another seed gives another split of the same sizes.
            transform: One transform (or None) for each part.

        Raises:
            ArgumentError: no fraction without such a layout, or a fraction with one.
        """
        if fraction is not None and self.parts:
            raise ArgumentError(
                f"{self.root} is laid out in {', '.join(self.parts)}: split() gives these parts, and each can be split "
                "further; a fraction would mix them"
            )
        if fraction is not None:
            return super().split(
                fraction, stratify=stratify, groups=groups, dedupe=dedupe, seed=seed, transform=transform
            )
        if not self.parts:
            raise ArgumentError(f"{self.root} has no train, val and test folders; say how to split it: split(0.8)")
        parts = self._parts([self._rows_of(part) for part in self.parts], transform)
        for part in parts:
            part.parts = []
        return parts

    def _rows_of(self, part: str) -> Tensor:
        assert self._listing is not None
        names = self._listing.part_names
        if part not in names:
            have = f"has {', '.join(names)}" if names else "has no train, val and test folders"
            raise ArgumentError(f"part={part!r}: {self.root} {have}")
        return torch.nonzero(self._listing.parts == names.index(part)).flatten()


class ImageFiles(ImageDataset):
    """Images without labels, for prediction: a folder with all that is below it, or a list of files.

    Samples are the images alone. Arguments are those of `ImageFolder`.

    Args:
        files: A folder, whose images are taken in natural order of their names; or paths, in the order given.
        size: Short for `transform=transforms.for_evaluation(size)`.
        transform: See `ImageFolder`; for prediction the one that the model was trained with.
        color: "RGB" or "L".
        on_error: "raise" or "skip".
        max_errors: The largest share of unreadable files that "skip" accepts.
        cache: None, "auto", "memory" or a folder.
        cache_side: The shorter side of kept images.
        cache_bytes: How large the cache may become.
        threads: How many threads decode.
        progress: Show a bar when scanning takes longer than two seconds.

    Raises:
        DataNotFoundError: there is no such folder.
        DataError: it holds no images.

    >>> import tempfile; from PIL import Image; folder = Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (40, 30)).save(folder / "a.png")
    >>> ImageFiles(folder, size=16)[0].shape
    torch.Size([3, 16, 16])
    """

    def __init__(
        self,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        size: int | tuple[int, int] | None = None,
        transform: Transform | None = None,
        color: Color = "RGB",
        on_error: Literal["raise", "skip"] = "raise",
        max_errors: float = 0.01,
        cache: str | os.PathLike[str] | None = None,
        cache_side: int | None = None,
        cache_bytes: int | None = None,
        threads: int | None = None,
        progress: bool = True,
    ) -> None:
        settings = ImageSettings(
            size=size,
            transform=transform,
            color=color,
            on_error=on_error,
            max_errors=max_errors,
            cache=cache,
            cache_side=cache_side,
            cache_bytes=cache_bytes,
            threads=threads,
        )
        listing: Listing | None = None
        if isinstance(files, str | os.PathLike):
            listing = scan(files, labelled=False, progress=progress)
            root, names = listing.root, listing.names
        else:
            root, names = Path(os.path.abspath(".")), PackedStrings.of([os.path.abspath(file) for file in files])
            if not len(names):
                raise DataError("the list of image files is empty")
        super().__init__(root, names, None, (), settings)
        self._listing = listing
        self.left_out = dict(listing.left_out) if listing is not None else {}
