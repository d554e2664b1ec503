"""`FileFolder`: a folder per class, of files of any kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from dlkit.datasets.files.dataset import FileDataset
from dlkit.datasets.files.decoder import Decoder
from dlkit.datasets.files.listing import Listing, empty, scan, with_classes
from dlkit.datasets.files.settings import FileOptions
from dlkit.errors import DataError
from dlkit.storage.strings import PackedStrings

__all__ = ["FileFolder", "FileList"]


class FileFolder(FileDataset):
    """Files of any kind in a folder per class: `root/dog/1.npy`, `root/cat/2.npy`. What kind it is says a `Decoder`.

    Samples are `(inputs, class)`: what the transform makes of the file's array, or the array as a tensor, and int64. A
    stock `DataLoader(ds, 64, shuffle=True)` gets whole batches that all cores have decoded; with `num_workers=1` they
    do so in their own process. Batches are the same for any number of threads and workers. Where shapes differ,
    `collate_fn=dlkit.collate.PadCollate()` pads them, and `shapes()` gives what a sampler sorts by.

    A layout of `root/train`, `root/val`, `root/test`, each with the class folders, is recognised: `split()` without
    arguments then gives these parts. Hidden files, files of other kinds, and files outside of class folders are left
    out and told in `left_out`. Folders in class folders belong to the class. Symbolic links are followed.

    Args:
        root: The folder.
        decoder: What files to take, and how to make an array of one.
        labelled: False takes every such file below `root`, in natural order of their names, without classes.
        classes: Their names in the order of the numbers, such as `train.classes`, or a mapping to these; by default the
            natural order, "2" before "10".
        part: "train", "val" or "test" of such a layout, alone.
        progress: Show a bar when scanning takes longer than two seconds.
        options: `transform`, `on_error`, `max_errors`, `batch_transform`, `threads`, `cache` and `cache_bytes`; see
            `FileSettings`.

    Attributes:
        classes: The class names in the order of the targets.
        class_to_idx: The target of each class name.
        parts: Those of "train", "val", "test" that the folder is laid out in.
        left_out: What was not taken: a kind to how many and the first of them.

    Raises:
        DataNotFoundError: there is no such folder.
        DataError: it has no class folders with such files, or other classes than `classes`.
        ArgumentError: an invalid argument.

    >>> import io, tempfile, pathlib, numpy as np
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("10/a.npy", "2/b.npy"):
    ...     (folder / name).parent.mkdir(); np.save(folder / name, np.ones((2, 3), np.float32))
    >>> ds = FileFolder(folder, Decoder(suffixes=[".npy"], decode=lambda data: np.load(io.BytesIO(data))))
    >>> ds.classes, ds[0][0].shape
    (['2', '10'], torch.Size([2, 3]))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        decoder: Decoder,
        *,
        labelled: bool = True,
        classes: Mapping[str, int] | Sequence[str] | None = None,
        part: str | None = None,
        progress: bool = True,
        **options: Unpack[FileOptions],
    ) -> None:
        self._open(root, options, classes, part, labelled=labelled, progress=progress, decoder=decoder)

    def _open(
        self,
        root: str | os.PathLike[str],
        options: Mapping[str, Any],
        classes: Mapping[str, int] | Sequence[str] | None,
        part: str | None,
        *,
        labelled: bool = True,
        progress: bool,
        **own: Any,
    ) -> None:
        """Make this the dataset of what is in a folder."""
        settings = self.SETTINGS.of(type(self).__name__, options, **own)
        settings = settings.for_training() if part == "train" else settings
        listing = scan(root, settings.kind, labelled=labelled, progress=progress)
        targets: Tensor | None
        names, targets = listing.classes, listing.targets if labelled else None
        if classes is not None:
            names, targets = with_classes(listing, classes)
        elif empty(settings.kind) in listing.left_out:
            raise DataError(
                f"{listing.root}: {listing.told()}; remove such folders, or name the classes: classes=[...]"
            )
        super().__init__(listing.root, listing.names, targets, names, settings)
        self._listing: Listing = listing
        self.parts, self.left_out = list(listing.part_names), dict(listing.left_out)
        if part is not None:
            self._rows = listing.rows_of(part)
            self.parts = []


class FileList(FileDataset):
    """Files without labels; what `ImageFiles` and `AudioFiles` are made of."""

    def _open(
        self,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        options: Mapping[str, Any],
        *,
        progress: bool,
    ) -> None:
        """Make this the dataset of a folder with all that is below it, or of a list of files in the order given."""
        settings = self.SETTINGS.of(type(self).__name__, options)
        listing: Listing | None = None
        if isinstance(files, str | os.PathLike):
            listing = scan(files, settings.kind, labelled=False, progress=progress)
            root, names = listing.root, listing.names
        else:
            root, names = Path(os.path.abspath(".")), PackedStrings.of([os.path.abspath(file) for file in files])
            if not len(names):
                raise DataError(f"the list of {settings.kind.noun} files is empty")
        super().__init__(root, names, None, (), settings)
        self._listing = listing
        self.left_out = dict(listing.left_out) if listing is not None else {}
