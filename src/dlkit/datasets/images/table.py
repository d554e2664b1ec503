"""`ImageTable`: file names and targets in a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor

from dlkit._frames import as_pandas
from dlkit.datasets.images.dataset import ImageDataset
from dlkit.datasets.images.settings import ImageOptions, ImageSettings
from dlkit.errors import ArgumentError, DataError, DataNotFoundError
from dlkit.reading.cells import Array, text_of
from dlkit.reading.classes import numbered, stated_order
from dlkit.reading.parsing import mostly_numbers, number_format, parse_number
from dlkit.reading.policy import ReadOptions, TableArguments, check_known
from dlkit.reading.reader import read_table
from dlkit.reading.targets import check_count, class_name, class_names, class_order, target_text, task_of
from dlkit.storage.strings import PackedStrings

__all__ = ["ImageTable"]

TaskChoice = Literal["auto", "classification", "regression", "multilabel"]


class ImageTableOptions(ImageOptions, TableArguments, total=False):
    """The options of every image dataset, and how a table is read."""


class ImageTable(ImageDataset):
    """Images named in a CSV file (or a DataFrame), with a class, a number or several labels each.

    Samples are `(image, target)`. The target is int64 for classification, float32 for regression (of one column a
    number, of several [K]), and float32 [K] of zeros and ones for several labels.

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
        task: TaskChoice = "auto",
        label_separator: str | None = None,
        classes: Mapping[str, int] | Sequence[str] | None = None,
        suffix: str = "",
        **options: Unpack[ImageTableOptions],
    ) -> None:
        check_known("ImageTable", options, ImageTableOptions)
        reading: dict[str, Any] = {name: options[name] for name in TableArguments.__annotations__ if name in options}  # type: ignore[literal-required]
        settings = ImageSettings(**{name: value for name, value in options.items() if name not in reading})  # type: ignore[arg-type]
        if task not in ("auto", "classification", "regression", "multilabel"):
            raise ArgumentError(f"task must be auto, classification, regression or multilabel, not {task!r}")
        columns = [target] if isinstance(target, str) else list(target or ())
        table = opened_table(csv, reading)
        table.check([image, *columns])
        _check_filled(table, [image, *columns])
        names = [f"{value}{suffix}" for value in table.columns[image].astype(str)]
        reader = _Targets(table, classes, label_separator, ReadOptions.of(reading).missing)
        self.task, classes, targets = reader.read(target, task)
        where = Path(os.path.abspath(root)) if root is not None else table.folder
        if not where.is_dir():
            raise DataNotFoundError(f"root={where} is not a folder; it is what the names in {image!r} are seen from")
        _check_first(where, names, table.name, image)
        super().__init__(where, PackedStrings.of(names), targets, classes, settings)
        self.input_columns, self.target_columns = (image,), tuple(columns)


@dataclass(frozen=True)
class OpenedTable:
    """A table's columns as they are written, and what errors call it and its rows.

    Attributes:
        columns: A DataFrame; of a file, with each cell as the text that stands there.
        name: What errors call it.
        folder: That names of files are seen from.
        place: Maps a row's number to the words with which errors name it.
        decimal: "decimal ," where the file has commas as decimal marks; else "".
    """

    columns: Any
    name: str
    folder: Path
    place: Callable[[int], object]
    decimal: str = ""

    def check(self, columns: Sequence[str]) -> None:
        """Refuse a table that lacks one of the columns.

        Raises:
            DataError: names the column, and those that there are.
        """
        for column in columns:
            if column not in self.columns:
                there = ", ".join(map(repr, self.columns))
                raise DataError(f"{self.name} has no column {column!r}; its columns are {there}")


def opened_table(csv: Any, reading: Mapping[str, Any] = MappingProxyType({})) -> OpenedTable:
    """A table of files, read as every other table, with each cell as the text that stands there.

    Args:
        csv: See `ImageTable`.
        reading: See `ReadArguments`.
    """
    import pandas as pd

    csv = as_pandas(csv)
    if isinstance(csv, pd.DataFrame):
        return OpenedTable(csv, "the table", Path.cwd(), lambda row: f"the table, row {csv.index[row]!r}")
    table = read_table(csv, replace(ReadOptions.of(reading), missing=()), as_text=None)
    cells = {name: pd.Series(text_of(column).tolist(), dtype=object) for name, column in table.columns.items()}
    folder, form = table.folder or Path.cwd(), "decimal ," if table.decimal == "," else ""
    return OpenedTable(pd.DataFrame(cells), table.origin, folder, table.places, form)


def _check_filled(table: OpenedTable, columns: Sequence[str]) -> None:
    for column in columns:
        cells = table.columns[column]
        missing = np.flatnonzero(cells.isna() | (cells.astype(str).str.strip() == ""))
        if len(missing):
            raise DataError(f"{table.place(int(missing[0]))}: column {column!r} is empty ({len(missing)} rows in all)")
    if not len(table.columns):
        raise DataError(f"{table.name} has no rows")


def _check_first(root: Path, names: Sequence[str], name: str, column: str) -> None:
    """A wrong root makes all files missing: said at once, not at the first batch."""
    if not any(os.path.isfile(root / file) for file in names[:100]):
        raise DataNotFoundError(
            f"none of the first {min(100, len(names))} files in column {column!r} of {name} is below {root} "
            f"(such as {root / names[0]}); give root=, or suffix='.jpg' if the names have no ending"
        )


class _Targets:
    """Columns of a table as a tensor; what errors need to name row and column."""

    def __init__(self, table: OpenedTable, given: Any, separator: str | None, missing: Sequence[str]) -> None:
        self.table, self.given, self.separator, self.missing = table, given, separator, missing

    def read(self, target: str | Sequence[str] | None, task: TaskChoice) -> tuple[str, list[str], Tensor | None]:
        """TaskChoice, classes and targets."""
        if target is None:
            return "", [], None
        if not isinstance(target, str):
            return self._several(list(target), task)
        texts, codes = self._texts(target)
        if task == "multilabel" or (task == "auto" and self.separator is not None):
            return self._separated(target, texts, codes)
        if task == "auto":
            counts = np.bincount(codes, minlength=len(texts)).tolist()
            task = "classification" if self.given is not None else task_of(texts, counts)[0]
        if task == "regression":
            return "regression", [], self._numbers(target)
        return self._classes(target, texts, codes)

    def _texts(self, column: str) -> tuple[list[str], Array]:
        """The different texts of a column, and for each row the place of its own."""
        cells = self.table.columns[column]
        rows, distinct = cells.factorize(use_na_sentinel=False)
        texts = [target_text(value, self.missing) for value in distinct]
        if len(lost := np.flatnonzero(np.array([text is None for text in texts], dtype=bool)[rows])):
            raise DataError(
                f"{self.table.place(int(lost[0]))}: column {column!r} holds {cells.iloc[int(lost[0])]!r}, which means "
                f"that there is no target ({len(lost)} rows in all); if it is a class, missing=[] keeps it"
            )
        known: dict[str, int] = {}
        places = [known.setdefault(text, len(known)) for text in texts if text is not None]
        return list(known), np.array(places, dtype=np.int64)[rows]

    def _numbers(self, column: str) -> Tensor:
        texts, codes = self._texts(column)
        counts = dict(zip(texts, np.bincount(codes, minlength=len(texts)).tolist(), strict=True))
        form = self.table.decimal or number_format(texts) or mostly_numbers(counts) or "plain"
        values = [parse_number(text, form) for text in texts]
        usable = np.array([value is not None and np.isfinite(value) for value in values], dtype=bool)
        if len(bad := np.flatnonzero(~usable[codes])):
            value = texts[codes[bad[0]]]
            place = self.table.place(int(bad[0]))
            raise DataError(f"{place}: column {column!r} holds {value!r}, which is not a number")
        return torch.from_numpy(np.array(values, dtype=np.float64)[codes].astype(np.float32))

    def _several(self, columns: list[str], task: TaskChoice) -> tuple[str, list[str], Tensor]:
        if task == "classification":
            raise ArgumentError("classification takes one target column; several are labels (multilabel) or numbers")
        values = torch.stack([self._numbers(column) for column in columns], 1)
        binary = bool(((values == 0) | (values == 1)).all())
        if task == "multilabel" and not binary:
            row = int(((values != 0) & (values != 1)).any(1).nonzero()[0])
            raise DataError(f"{self.table.place(row)}: the columns of several labels may hold only 0 and 1")
        if task == "multilabel" or (task == "auto" and binary):
            return "multilabel", columns, values
        return "regression", [], values

    def _separated(self, column: str, texts: list[str], codes: Array) -> tuple[str, list[str], Tensor]:
        separator = self.separator or "|"
        labels = [[label for part in text.split(separator) if (label := part.strip())] for text in texts]
        names, places = self._places(class_order({label for row in labels for label in row}), column)
        targets = torch.zeros(len(texts), len(names))
        for row, found in enumerate(labels):
            for label in found:
                targets[row, places[label]] = 1
        return "multilabel", names, targets[torch.from_numpy(codes)]

    def _classes(self, column: str, texts: list[str], codes: Array) -> tuple[str, list[str], Tensor]:
        ordered = class_names(texts)
        if self.given is None:
            check_count(column, len(ordered), len(codes))
        names, places = self._places(ordered, column)
        numbers = np.array([places[class_name(text)] for text in texts], dtype=np.int64)
        return "classification", names, torch.from_numpy(numbers[codes])

    def _places(self, ordered: Sequence[str], column: str) -> tuple[list[str], dict[str, int]]:
        """The classes in order, and the number of each label that was found."""
        given = ordered if self.given is None else self.given
        return stated_order(given), numbered(ordered, given, f"{self.table.name}, column {column!r}")
