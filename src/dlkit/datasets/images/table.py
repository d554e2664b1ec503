"""`ImageTable`: file names and targets in a table."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

from dlkit.datasets.files.fetching import Fetch
from dlkit.datasets.files.table import FilesInTable, FileTableOptions
from dlkit.datasets.images.dataset import ImageDataset
from dlkit.datasets.images.fetching import ImageFetch
from dlkit.datasets.images.settings import ImageOptions, ImageSettings
from dlkit.datasets.images.targets import TargetImages
from dlkit.errors import ArgumentError
from dlkit.reading.targets import stated_order
from dlkit.storage.identity import of_files, of_parts
from dlkit.storage.strings import PackedStrings
from dlkit.transforms import Preprocessing

__all__ = ["ImageTable"]


class ImageTableOptions(ImageOptions, FileTableOptions, total=False):
    """The options of every image dataset, and of every table that names files."""


class ImageTable(FilesInTable, ImageDataset):
    """Images named in a CSV file (or a DataFrame), with a class, a number or several labels each.

    Samples are `(image, target)`. The target is int64 for classification, float32 for regression (of one column a
    number, of a list of columns [K]), and float32 [K] of zeros and ones for several labels.

    Args:
        csv: A table of files, as `CSVDataset` reads it: a path, an address or a pandas DataFrame; or plain lists: pairs
            of an image and its target, or a list for each column by its name.
        image: The column with the files' paths, seen from `root`.
        target: The column with the targets; a list of columns for several numbers, or for several labels when they hold
            only 0 and 1; None for unlabelled images.
        target_image: A column with files that are the targets, cut, resized and mirrored as their images are.
        target_as: "classes": masks, grey or with a palette, whose pixels are class numbers: int64 [H, W], with -100
            where padding has no image. "pixels": pictures, float32 [C, H, W], normalised as the images are.
        mask_values: The class number of each value in the masks, such as `{0: 0, 255: 1}`; -100 for pixels that do not
            count. None: the values are class numbers.
        **options: As of `ImageFolder`. What the table says: `root`, the folder that the paths lead from (by default
            that of the table, else the current one), and `suffix`, added to every name; `task`, `classes`,
            `label_separator` and `scale_target`, see `dlkit.datasets.files.table.FileTableOptions`. How to read it:
            `encoding`, `separator`, `header`, `columns`, `skip_rows`, `comment`, `decimal`, `thousands` and `sheet` as
            for `CSVDataset`; `missing`: marks that mean "no target", which are errors; `[]` where one of them, such as
            "NA", is a class.

    Attributes:
        classes: The class or label names in the order of the targets; empty for regression.
        task: "classification", "regression", "multilabel", or "" without targets.
        input_columns: The column with the files' paths, for the model file.
        target_columns: Those with the targets.
        target: How the numbers of a regression are scaled; None for others, and with `scale_target=False`.

    Raises:
        DataNotFoundError: there is no such table.
        DataError: a column or a value is missing; the message names row and column.
        ArgumentError: an invalid argument.

    >>> import tempfile, pandas as pd; from pathlib import Path; from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (40, 30)).save(folder / "a.png")
    >>> ds = ImageTable(pd.DataFrame({"file": ["a.png"], "label": [0.5]}), scale_target=False, root=folder, size=16)
    >>> ds.task, ds[0][1]
    ('regression', tensor(0.5000))
    """

    def __init__(
        self,
        csv: Any,
        image: str = "file",
        target: str | Sequence[str] | None = "label",
        *,
        target_image: str | None = None,
        target_as: Literal["classes", "pixels"] = "classes",
        mask_values: Mapping[int, int] | None = None,
        **options: Unpack[ImageTableOptions],
    ) -> None:
        if target_image is None and (mask_values is not None or target_as != "classes"):
            raise ArgumentError("target_as= and mask_values= are for target_image=, the column with the masks")
        source, goal = _in_columns(csv, image, target_image or target), target if target_image is None else None
        self._beside = self._open(source, image, goal, options, ImageTableOptions, beside=target_image)
        if target_image is not None:
            _check_moved(self.settings)
            said = options.get("classes")
            self.classes = [] if said is None else list(stated_order(said))
            self._goal = TargetImages(
                path_of=self._target_path, kind=target_as, numbers=mask_values, classes=len(self.classes)
            )

    _beside: PackedStrings | None = None
    _goal: TargetImages | None = None

    def _target_path(self, row: int) -> Path:
        assert self._beside is not None
        path: Path = self.root / self._beside[row]
        return path

    def _fetching(self) -> Fetch:
        fetch = super()._fetching()
        if self._goal is None or not isinstance(fetch, ImageFetch):
            return fetch
        _check_moved(self.settings)
        return dataclasses.replace(fetch, targets=dataclasses.replace(self._goal, path_of=self._target_path))

    @property
    def identity(self) -> str | None:
        """As of every dataset of files; the files with the targets count as well."""
        own = super().identity
        if own is None or self._beside is None or self._goal is None:
            return own
        files = of_files(map(self._target_path, self.indices.tolist()))
        return None if files is None else of_parts(own, files, self._goal.kind, repr(self._goal.numbers))


def _check_moved(settings: ImageSettings) -> None:
    """Refuse what cannot do to a target what it does to the image."""
    if not isinstance(settings.transform, Preprocessing):
        raise ArgumentError(
            "with target_image= image and target are moved in the same way, which takes size=, or a transform of "
            "dlkit.transforms"
        )
    if settings.cache is not None:
        raise ArgumentError("cache= keeps images smaller than they are, which their targets are not; leave it out")


def _in_columns(csv: Any, image: str, target: Any) -> Any:
    """Plain lists as a table: a list of (image, target), or a list for each column."""
    if isinstance(csv, Mapping):
        import pandas as pd

        return pd.DataFrame({name: list(map(_path, values)) for name, values in csv.items()})
    if isinstance(csv, list) and csv and all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in csv):
        import pandas as pd

        if not isinstance(target, str):
            raise ArgumentError(f"a list of pairs has one target each; target must be its name, not {target!r}")
        return pd.DataFrame([tuple(map(_path, pair)) for pair in csv], columns=[image, target])
    return csv


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
