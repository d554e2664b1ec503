"""A table that names files and says what each of them is; what `ImageTable` and `AudioTable` are made of."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import torch
from torch import Tensor

from dlkit._near import hint
from dlkit.datasets.files.dataset import FileDataset
from dlkit.datasets.targets import TargetColumn, TargetOptions, TaskChoice, find_target, target_tensor
from dlkit.errors import ArgumentError, DataError, DataNotFoundError
from dlkit.reading.cells import Strings, Table, text_of
from dlkit.reading.dates import moments
from dlkit.reading.policy import ReadOptions, TableArguments, check_known
from dlkit.reading.reader import read_table
from dlkit.specs.table import Target
from dlkit.storage.strings import PackedStrings

__all__ = ["FileTableOptions", "FilesInTable", "open_table"]


class FileTableOptions(TableArguments, total=False):
    """What can be said of a table that names files, and how it is read; see `TableArguments`.

    Attributes:
        root: The folder that the paths lead from; None for that of the table, for a DataFrame the current one.
        suffix: Added to every name, such as ".jpg", for tables that hold bare identifiers.
        task: "auto" takes words, truth values and few different whole numbers for classes, other numbers for
            regression, as in tables; text with the `label_separator` for several labels.
        classes: Their names in the order of the numbers, or a mapping to these; None for the natural order of what is
            there.
        label_separator: Between the labels of one file, such as "|" in "cat|dog".
        scale_target: Whether the numbers of a regression are scaled to mean 0 and deviation 1, as the rows of the first
            part of a `split` have them (the default); metrics and predictions are in their own unit all the same. The
            `target` of other data, to scale them as there.
    """

    root: str | os.PathLike[str] | None
    suffix: str
    task: TaskChoice
    classes: Mapping[str, int] | Sequence[str] | None
    label_separator: str | None
    scale_target: bool | Target


def open_table(source: Any, options: ReadOptions | None = None) -> Table:
    """A table whose cells, in a file, are the text that stands there.

    Args:
        source: A path, an address or a DataFrame.
        options: How to read.

    Raises:
        DataError: it cannot be read, or has no rows.
    """
    table = read_table(source, replace(options or ReadOptions(), missing=()), as_text=None)
    if not len(table):
        raise DataError(f"{table.origin} has no rows")
    return table


def _cells(table: Table, column: str) -> Strings:
    if column not in table.columns:
        near = hint(column, table.columns, has="its columns are")
        raise DataError(f"{table.origin} has no column {column!r}; {near}")
    return text_of(table.columns[column])


def _paths(table: Table, column: str) -> list[str]:
    paths = _cells(table, column).tolist()
    empty = {row: f"names no file in column {column!r}" for row, path in enumerate(paths) if not (path or "").strip()}
    _refuse(table, empty)
    return [path or "" for path in paths]


def _refuse(table: Table, problems: Mapping[int, str]) -> None:
    if problems:
        row = min(problems)
        more = f" ({len(problems)} such rows in all)" if len(problems) > 1 else ""
        raise DataError(f"{table.places(row)} {problems[row]}{more}")


def _check_first(root: Path, names: Sequence[str], origin: str, column: str) -> None:
    """A wrong root makes all files missing: said at once, not at the first batch."""
    first = names[:100]
    if not any(os.path.isfile(root / file) for file in first):
        raise DataNotFoundError(
            f"none of the first {len(first)} files in column {column!r} of {origin} is below {root} "
            f"(such as {root / first[0]}); give root=, or suffix= if the names have no ending"
        )


def _targets(
    table: Table, target: str | Sequence[str] | None, options: Mapping[str, Any], missing: Collection[str]
) -> tuple[str, tuple[str, ...], Tensor | None]:
    """The task, the classes and the targets of all rows; nothing of these without columns of targets."""
    if options.get("task", "auto") not in get_args(TaskChoice):
        raise ArgumentError(f"task must be one of {', '.join(get_args(TaskChoice))}, not {options['task']!r}")
    wanted = TargetOptions(
        **{name: options[name] for name in ("task", "classes", "label_separator") if name in options}
    )
    if target is None or not len(target):
        return "", (), None
    columns, cells = (target,) if isinstance(target, str) else tuple(target), dict[str, Strings]()
    for column in columns:
        cells[column], problems = wanted.spelled(_cells(table, column), missing)
        where = f" in column {column!r}" if len(columns) > 1 else ""
        _refuse(table, {row: f"{why}{where}" for row, why in problems.items()})
    goal = find_target([TargetColumn.of(name, each, table.decimal.sign) for name, each in cells.items()], wanted)
    targets, problems = target_tensor(goal, cells)
    _refuse(table, problems)
    wide = goal.task == "regression" and not isinstance(target, str)
    return goal.task, goal.classes, targets.reshape(len(targets), -1) if wide else targets


class FilesInTable(FileDataset):
    """Files named in a table; what `ImageTable` and `AudioTable` are made of.

    Attributes:
        task: "classification", "regression", "multilabel", or "" without targets.
        input_columns: The column with the files' paths, for the model file.
        target_columns: Those with the targets.
        target: Of a regression, how its numbers are scaled: samples hold `(value - center) / scale`; None where they
            are unchanged in the table.
    """

    target: Target | None = None
    #: Where a split finds columns that it asks for: a file, or, of a table in memory, the other columns.
    _source: tuple[Any, ReadOptions, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the source where a worker is spawned: it never reads it again."""
        return super().__getstate__() | ({"_source": None} if get_spawning_popen() is not None else {})

    def _open(
        self,
        source: Any,
        file: str,
        target: str | Sequence[str] | None,
        options: Mapping[str, Any],
        known: type,
        *,
        beside: str | None = None,
    ) -> PackedStrings | None:
        """Make this the dataset of the files that a table names.

        Args:
            source: A table as `CSVDataset` reads it: a path, an address or a DataFrame.
            file: The column with the files' paths.
            target: The column or columns with the targets; None for none. The numbers of a list of columns, also of
                one, are [N, K].
            options: Those of `FileTableOptions` and of the settings.
            known: The `TypedDict` of those that there are.
            beside: A column with files that are targets, which come back.
        """
        check_known(type(self).__name__, options, known)
        settings = self.SETTINGS(
            **{name: options[name] for name in options.keys() & self.SETTINGS.OPTIONS.__annotations__}
        )
        reading = ReadOptions.of({name: options[name] for name in options.keys() & TableArguments.__annotations__})
        table = open_table(source, reading)
        names = PackedStrings.of([f"{name}{options.get('suffix', '')}" for name in _paths(table, file)])
        self.task, classes, targets = _targets(table, target, options, reading.missing)
        root = options.get("root")
        folder = Path(os.path.abspath(root)) if root is not None else table.folder or Path.cwd()
        if not folder.is_dir():
            raise DataNotFoundError(f"root={folder} is not a folder; it is what the names in {file!r} are seen from")
        _check_first(folder, names, table.origin, file)
        files = None
        if beside is not None:
            files, target = PackedStrings.of(_paths(table, beside)), beside
            _check_first(folder, files, table.origin, beside)
        super().__init__(folder, names, targets, classes, settings)
        self.input_columns, scale = (file,), options.get("scale_target", True)
        self.target_columns = (target,) if isinstance(target, str) else tuple(target or ())
        known_already = {file, *self.target_columns}
        others = {name: cells for name, cells in table.columns.items() if name not in known_already}
        self._source = source if isinstance(source, str | os.PathLike) else others, reading, table.origin
        if self.task == "regression" and scale is not False:
            self._unscaled = self._targets
            self._scale(scale if isinstance(scale, Target) else self._fitted(self.indices))
        return files

    def _one_each(self, name: str, given: Any) -> Any:
        """A column of the table by its name; anything else as of all files."""
        if not isinstance(given, str) or self._source is None:
            return super()._one_each(name, given)
        source, options, origin = self._source
        columns = source if isinstance(source, dict) else open_table(source, options).columns
        if given not in columns:
            near = hint(given, columns, has="its columns are")
            raise ArgumentError(f"{name}: {origin} has no column {given!r}; {near}")
        cells, rows = columns[given], self.indices.numpy()
        try:
            values = moments(cells, options.missing) if name == "time" else np.asarray(text_of(cells).tolist(), object)
        except DataError as error:
            raise DataError(f"{name}: in column {given!r} of {origin} {error}") from error
        return values[rows]

    _unscaled: Tensor | None = None

    def with_target(self, target: Target) -> Self:
        """The same samples with targets that are scaled as those of other data, such as `train.target`.

        Args:
            target: Of columns of the same names.

        Raises:
            ArgumentError: this is not a regression of these columns.
        """
        if self._unscaled is None or target.columns != self.target_columns:
            raise ArgumentError(
                f"the targets are scaled for {', '.join(target.columns)[:200]}, and this data has "
                f"{', '.join(self.target_columns)[:200] or 'none'}{'' if self._unscaled is not None else ', unscaled'}"
            )
        changed = self._with()
        changed._scale(target)
        return changed

    def _fitted(self, rows: Tensor) -> Target:
        assert self._unscaled is not None
        values = self._unscaled.index_select(0, rows).double().reshape(len(rows), -1)
        spread = values.std(0, correction=0)
        return Target(
            columns=self.target_columns,
            task="regression",
            why=f"numbers of {len(rows):,} rows",
            center=tuple(values.mean(0).tolist()),
            scale=tuple(torch.where(spread > 0, spread, 1.0).tolist()),
        )

    def _scale(self, target: Target) -> None:
        assert self._unscaled is not None
        center, scale = (torch.tensor(each, dtype=torch.float64) for each in (target.center, target.scale))
        wide = self._unscaled.double().reshape(len(self._unscaled), -1)
        self.target, self._targets = target, ((wide - center) / scale).float().reshape(self._unscaled.shape)

    def _parts(self, chosen: Sequence[Tensor], transform: Any) -> tuple[Self, ...]:
        """What is fitted is fitted on the first part alone."""
        parts = super()._parts(chosen, transform)
        if self._unscaled is None:
            return parts
        target = self._fitted(chosen[0])
        return tuple(part.with_target(target) for part in parts)
