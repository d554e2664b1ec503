"""`ImageFolder`: a folder per class. `ImageFiles`: images without labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Unpack

from dlkit.datasets.files.folders import FileFolder, FileList
from dlkit.datasets.images.dataset import ImageDataset
from dlkit.datasets.images.settings import ImageOptions

__all__ = ["ImageFiles", "ImageFolder"]


class ImageFolder(FileFolder, ImageDataset):
    """Images in a folder per class: `root/ants/1.jpg`, `root/bees/2.jpg`, decoded as fast as the machine allows.

    Samples are `(image, class)`: float32 [C, H, W] with `size` or a transform of `dlkit.transforms`, and int64. A stock
    `DataLoader(ds, 64, shuffle=True)` gets whole batches that all cores have decoded; with `num_workers=1` they do so
    in their own process, while the model trains. More workers bring nothing more.

    Images are upright, RGB, 8 bits, transparent parts over white; see `dlkit.datasets.decode_image`. Where an image is
    much larger than needed, its JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which keeps at least 1.5 times the
    pixels per side that the transform asks for. On photographs the result then differs from that of the full image by
    less than 3 of 255 grey levels in the mean (0.2 to 1 is usual), and 99 % of the values by less than 12.

    A layout of `root/train`, `root/val`, `root/test`, each with the class folders, is recognised: `split()` without
    arguments then gives these parts. Hidden files, files that are not images, and files outside of class folders are
    left out and told in `left_out`. Folders in class folders belong to the class. Symbolic links are followed.

    Args:
        root: The folder.
        classes: Their names in the order of the numbers, such as `train.classes`, or a mapping to these; by default the
            natural order, "2" before "10".
        part: "train", "val" or "test" of such a layout, alone.
        progress: Show a bar when scanning takes longer than two seconds.
        options: `size`, `transform`, `augment`, `color`, `decoder`, `on_error`, `max_errors`, `cache`, `cache_side`,
            `cache_bytes`, `batch_transform` and `threads`; see `ImageSettings`.

    Attributes:
        classes: The class names in the order of the targets.
        class_to_idx: The target of each class name.
        parts: Those of "train", "val", "test" that the folder is laid out in.
        left_out: What was not taken: a kind to how many and the first of them.

    Raises:
        DataNotFoundError: there is no such folder.
        DataError: it has no class folders with images, or other classes than `classes`.
        ArgumentError: an invalid argument.

    >>> import tempfile, pathlib; from PIL import Image; folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("10/a.png", "2/b.png"):
    ...     (folder / name).parent.mkdir(); Image.new("RGB", (40, 30)).save(folder / name)
    >>> ds = ImageFolder(folder, size=16); ds.classes, ds[0][0].shape
    (['2', '10'], torch.Size([3, 16, 16]))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        classes: Mapping[str, int] | Sequence[str] | None = None,
        part: str | None = None,
        progress: bool = True,
        **options: Unpack[ImageOptions],
    ) -> None:
        self._open(root, options, classes, part, progress=progress)


class ImageFiles(FileList, ImageDataset):
    """Images without labels, for prediction: a folder with all that is below it, or a list of files.

    Samples are the images alone.

    Args:
        files: A folder, whose images are taken in natural order of their names; or paths, in the order given.
        progress: Show a bar when scanning takes longer than two seconds.
        options: As of `ImageFolder`; for prediction the `transform` that the model was trained with.

    Raises:
        DataNotFoundError: there is no such folder.
        DataError: it holds no images.

    >>> import tempfile, pathlib; from PIL import Image; folder = pathlib.Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (40, 30)).save(folder / "a.png")
    >>> ImageFiles(folder, size=16)[0].shape
    torch.Size([3, 16, 16])
    """

    def __init__(
        self,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        progress: bool = True,
        **options: Unpack[ImageOptions],
    ) -> None:
        self._open(files, options, progress=progress)
