"""`ImageTable`: file names and targets in a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlkit._opening import open_regular
from dlkit.datasets.images.classes import numbered, stated_order
from dlkit.datasets.images.dataset import ImageDataset
from dlkit.datasets.images.decoding import Color
from dlkit.datasets.images.listing import natural
from dlkit.datasets.images.settings import BatchTransform, ImageSettings, Transform
from dlkit.datasets.letters.packfile import Names
from dlkit.errors import ArgumentError, DataError, DataNotFoundError
from dlkit.transforms import Augment, Preprocessing

__all__ = ["ImageTable"]

Task = Literal["auto", "classification", "regression", "multilabel"]


class ImageTable(ImageDataset):
    """Images named in a CSV file (or a DataFrame), with a class, a number or several labels each.

    Samples are `(image, target)`. The target is int64 for classification, float32 for regression (of one column a
    number, of several [K]), and float32 [K] of zeros and ones for several labels. Other arguments are those of
    `ImageFolder`.

    Args:
        csv: The file, with a header row; or a pandas DataFrame.
        image: The column with the files' paths, seen from `root`.
        target: The column with the targets; a list of columns for several numbers, or for several labels when they hold
            only 0 and 1; None for unlabelled images.
        root: The folder that the paths lead from; by default that of the CSV file, else the current one.
        task: "auto" takes text, whole numbers and truth values for classes, fractions for regression, text with the
            `separator` for several labels.
        separator: Between the labels of one image, such as "|" in "cat|dog".
        class_to_idx: The classes' numbers, or their names in order; by default the natural order of what is there.
        suffix: Added to every name, such as ".jpg", for tables that hold bare identifiers.
        size: See `ImageFolder`; and so are those that follow.
        transform: From the decoded image to the sample.
        augment: What is random in training; see `ImageFolder`.
        color: "RGB" or "L".
        on_error: "raise" or "skip" for files that cannot be read.
        max_errors: The largest share of unreadable files that "skip" accepts.
        cache: None, "auto", "memory" or a folder.
        cache_side: The shorter side of kept images.
        cache_bytes: How large the cache may become.
        batch_transform: Called with finished batches.
        threads: How many threads decode.

    Attributes:
        classes: The class or label names in the order of the targets; empty for regression.
        task: "classification", "regression", "multilabel", or "" without targets.
        input_columns: The column with the files' paths, for the model file.
        target_columns: Those with the targets.

    Raises:
        DataNotFoundError: there is no such table.
        DataError: a column or a value is missing; the message names row and column.
        ArgumentError: an argument that cannot be meant.

    >>> import tempfile, pandas as pd; from PIL import Image; folder = Path(tempfile.mkdtemp())
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
        task: Task = "auto",
        separator: str | None = None,
        class_to_idx: Mapping[str, int] | Sequence[str] | None = None,
        suffix: str = "",
        size: int | tuple[int, int] | None = None,
        transform: Transform | None = None,
        augment: Augment | Preprocessing | bool | None = None,
        color: Color = "RGB",
        on_error: Literal["raise", "skip"] = "raise",
        max_errors: float = 0.01,
        cache: str | os.PathLike[str] | None = None,
        cache_side: int | None = None,
        cache_bytes: int | None = None,
        batch_transform: BatchTransform | None = None,
        threads: int | None = None,
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
        if task not in ("auto", "classification", "regression", "multilabel"):
            raise ArgumentError(f"task must be auto, classification, regression or multilabel, not {task!r}")
        table, name, folder = opened_table(csv)
        columns = [target] if isinstance(target, str) else list(target or ())
        _check_columns(table, [image, *columns], name)
        names = [f"{value}{suffix}" for value in table[image].astype(str)]
        reader = _Targets(table, name, class_to_idx, separator)
        self.task, classes, targets = reader.read(target, task)
        where = Path(os.path.abspath(root)) if root is not None else folder
        if not where.is_dir():
            raise DataNotFoundError(f"root={where} is not a folder; it is what the names in {image!r} are seen from")
        _check_first(where, names, name, image)
        super().__init__(where, Names.of(names), targets, classes, settings)
        self.input_columns, self.target_columns = (image,), tuple(columns)


def opened_table(csv: Any) -> tuple[Any, str, Path]:
    """The table, what errors call it, and the folder that names are seen from.

    Args:
        csv: See `ImageTable`.
    """
    import pandas as pd

    if isinstance(csv, pd.DataFrame):
        return csv, "the table", Path.cwd()
    path = Path(os.path.abspath(csv))
    try:
        # Names as they are written: "007" stays "007", and a file called "NA" or "null" is no missing value.
        with open_regular(path) as file:
            return pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig"), str(path), path.parent
    except DataError:
        raise
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}") from error


def _check_columns(table: Any, columns: Sequence[str], name: str) -> None:
    for column in columns:
        if column not in table.columns:
            raise DataError(f"{name} has no column {column!r}; it has {', '.join(map(str, table.columns))}")
        missing = np.flatnonzero(table[column].isna() | (table[column].astype(str).str.strip() == ""))
        if len(missing):
            raise DataError(f"{name}, row {missing[0] + 2}: column {column!r} is empty ({len(missing)} rows in all)")
    if not len(table):
        raise DataError(f"{name} has no rows")


def _check_first(root: Path, names: Sequence[str], name: str, column: str) -> None:
    """A wrong root makes all files missing: said at once, not at the first batch."""
    if not any((root / file).is_file() for file in names[:100]):
        raise DataNotFoundError(
            f"none of the first {min(100, len(names))} files in column {column!r} of {name} is below {root} "
            f"(such as {root / names[0]}); give root=, or suffix='.jpg' if the names have no ending"
        )


class _Targets:
    """Columns of a table as a tensor; what errors need to name row and column."""

    def __init__(self, table: Any, name: str, given: Any, separator: str | None) -> None:
        self.table, self.name, self.given, self.separator = table, name, given, separator

    def read(self, target: str | Sequence[str] | None, task: Task) -> tuple[str, list[str], Tensor | None]:
        """Task, classes and targets."""
        if target is None:
            return "", [], None
        if not isinstance(target, str):
            return self._several(list(target), task)
        if task == "multilabel" or (task == "auto" and self.separator is not None):
            return self._separated(target)
        if task == "regression" or (task == "auto" and self._is_fraction(target)):
            return "regression", [], self._numbers([target])[:, 0].contiguous()
        return self._classes(target)

    def _is_fraction(self, column: str) -> bool:
        values = self._as_numbers(column)
        return values is not None and bool((values != np.floor(values)).any())

    def _as_numbers(self, column: str) -> Any:
        try:
            return self.table[column].astype(float).to_numpy()
        except (ValueError, TypeError):
            return None

    def _numbers(self, columns: Sequence[str]) -> Tensor:
        found = []
        for column in columns:
            values = self._as_numbers(column)
            if values is None or not np.isfinite(values).all():
                row, value = self._first_bad(column)
                raise DataError(f"{self.name}, row {row + 2}: column {column!r} holds {value!r}, which is not a number")
            found.append(values.astype(np.float32))
        return torch.from_numpy(np.stack(found, 1))

    def _first_bad(self, column: str) -> tuple[int, Any]:
        for row, value in enumerate(self.table[column]):
            try:
                if np.isfinite(float(value)):
                    continue
            except (ValueError, TypeError):
                pass
            return row, value
        raise AssertionError("only called where there is one")

    def _several(self, columns: list[str], task: Task) -> tuple[str, list[str], Tensor]:
        if task == "classification":
            raise ArgumentError("classification takes one target column; several are labels (multilabel) or numbers")
        values = self._numbers(columns)
        binary = bool(((values == 0) | (values == 1)).all())
        if task == "multilabel" and not binary:
            row = int(((values != 0) & (values != 1)).any(1).nonzero()[0])
            raise DataError(f"{self.name}, row {row + 2}: the columns of several labels may hold only 0 and 1")
        if task == "multilabel" or (task == "auto" and binary):
            return "multilabel", columns, values
        return "regression", [], values

    def _separated(self, column: str) -> tuple[str, list[str], Tensor]:
        separator = self.separator or "|"
        rows = [
            [label for part in str(value).split(separator) if (label := part.strip())] for value in self.table[column]
        ]
        names, places = self._places({label for row in rows for label in row}, column)
        targets = torch.zeros(len(rows), len(names))
        for row, labels in enumerate(rows):
            for label in labels:
                targets[row, places[label]] = 1
        return "multilabel", names, targets

    def _classes(self, column: str) -> tuple[str, list[str], Tensor]:
        labels = self.table[column].astype(str)
        names, places = self._places(set(labels), column)
        return "classification", names, torch.from_numpy(labels.map(places).to_numpy(dtype=np.int64).copy())

    def _places(self, found: set[str], column: str) -> tuple[list[str], dict[str, int]]:
        """The classes in order, and the number of each label that was found."""
        ordered = sorted(found, key=natural)
        given = ordered if self.given is None else self.given
        return stated_order(given), numbered(ordered, given, f"{self.name}, column {column!r}")
