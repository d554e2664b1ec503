"""`ImageTable`: file names and targets in a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from dlkit.datasets.files.table import FilesInTable, of_table
from dlkit.datasets.images.dataset import ImageDataset
from dlkit.datasets.images.settings import ImageOptions, ImageSettings
from dlkit.datasets.targets import TaskChoice
from dlkit.reading.policy import TableArguments, check_known

__all__ = ["ImageTable"]


class ImageTableOptions(ImageOptions, TableArguments, total=False):
    """The options of every image dataset, and how a table is read."""


class ImageTable(FilesInTable, ImageDataset):
    """Images named in a CSV file (or a DataFrame), with a class, a number or several labels each.

    Samples are `(image, target)`. The target is int64 for classification, float32 for regression (of one column a
    number, of a list of columns [K]), and float32 [K] of zeros and ones for several labels.

    Args:
        csv: A table of files, as `CSVDataset` reads it: a path, an address or a pandas DataFrame.
        image: The column with the files' paths, seen from `root`.
        target: The column with the targets; a list of columns for several numbers, or for several labels when they hold
            only 0 and 1; None for unlabelled images.
        root: The folder that the paths lead from; by default that of the CSV file, else the current one.
        task: "auto" takes words, truth values and few different whole numbers for classes, other numbers for
            regression, as in tables; text with the `label_separator` for several labels.
        label_separator: Between the labels of one image, such as "|" in "cat|dog".
        classes: Their names in the order of the numbers, or a mapping to these; by default the natural order of what is
            there.
        suffix: Added to every name, such as ".jpg", for tables that hold bare identifiers.
        **options: As of `ImageFolder`; and how to read the table: `encoding`, `separator`, `header`, `columns`,
            `skip_rows`, `comment`, `decimal`, `thousands` and `sheet` as for `CSVDataset`; `missing`: marks that mean
            "no target", which are errors; `[]` where one of them, such as "NA", is a class.

    Attributes:
        classes: The class or label names in the order of the targets; empty for regression.
        task: "classification", "regression", "multilabel", or "" without targets.
        input_columns: The column with the files' paths, for the model file.
        target_columns: Those with the targets.

    Raises:
        DataNotFoundError: there is no such table.
        DataError: a column or a value is missing; the message names row and column.
        ArgumentError: an argument that cannot be meant.

    >>> import tempfile, pandas as pd; from pathlib import Path; from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (40, 30)).save(folder / "a.png")
    >>> ds = ImageTable(pd.DataFrame({"file": ["a.png"], "label": [0.5]}), root=folder, size=16)
    >>> ds.task, ds[0][1]
    ('regression', tensor(0.5000))
    """

    def __init__(
        self,
        csv: Any,
        image: str = "file",
        target: str | Sequence[str] | None = "label",
        *,
        root: str | os.PathLike[str] | None = None,
        task: TaskChoice = "auto",
        label_separator: str | None = None,
        classes: Mapping[str, int] | Sequence[str] | None = None,
        suffix: str = "",
        **options: Unpack[ImageTableOptions],
    ) -> None:
        check_known("ImageTable", options, ImageTableOptions)
        reading, others = of_table(options)
        self._open(
            csv,
            image,
            target,
            ImageSettings(**others),
            root=root,
            suffix=suffix,
            task=task,
            classes=classes,
            label_separator=label_separator,
            reading=reading,
        )
