"""`CSVDataset`: tables as tensors, typed, fitted on the training rows alone, at indexing speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.context import get_spawning_popen
from os import PathLike
from typing import Any, Literal, Self, Unpack

import torch
from torch import Tensor

from dlkit._html import lines, table
from dlkit._language import Message
from dlkit._showing import Lines
from dlkit.datasets.base import InMemoryDataset
from dlkit.datasets.tables._building import Built, ExactSplit, build_rows
from dlkit.datasets.tables._describing import Description, describe_facts, describe_rows, frame_of_rows
from dlkit.datasets.tables._index import HashSplit, stream_index
from dlkit.datasets.tables._memory import Memory
from dlkit.datasets.tables._settings import TableSettings, table_settings
from dlkit.datasets.tables._streaming import TableStream
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.cells import Table
from dlkit.reading.policy import ReadArguments, check_known
from dlkit.samplers import Planner
from dlkit.specs.table import TableSpec
from dlkit.splits import Fractions, shares_of

__all__ = ["CSVDataset", "TableOptions"]

_ROWS, _CELL = 5, 60  # that a notebook shows, and characters of a cell

Names = str | Sequence[str] | None


class TableOptions(ReadArguments, total=False):
    """The keyword arguments of `CSVDataset` that `CSVDataset.split` takes too."""

    target: Names
    numeric: Names
    categorical: Names
    dates: Names | Mapping[str, str]
    text: Names
    image: Names
    drop: str | Sequence[str]
    task: Literal["auto", "classification", "binary", "regression", "multilabel"]
    classes: Mapping[str, int] | Sequence[str] | None
    label_separator: str | None
    aliases: Mapping[str, str] | None
    scale: Literal["standard", "robust", "none"]
    scale_target: bool
    min_freq: int
    image_root: str | PathLike[str] | None
    image_size: int
    image_transform: Callable[[Any], Any] | None


class CSVDataset(InMemoryDataset):
    """A table (CSV, TSV, Excel, Parquet, Feather, DataFrame) as samples `(inputs, target)` for a stock `DataLoader`.

    Every column gets a kind: number, boolean, date, category; free text, identifiers and constants are left out.
    `print(ds.spec)` says what was found and why; each kind can be overridden by naming the column. Numbers are
    scaled, missing ones filled by the median with one more number that says so; categories become codes.

    `inputs` is a float32 tensor [n] when all columns are numbers; else a dict with `numeric` (float32 [n]) and
    `categorical` (int64 [k]), and `text` (a string) and `image` (float32 [3, H, W]) where such columns are named. The
    target is an int64 class number, a float32 number, or float32 [outputs]; data without a target yields inputs alone.

    To train, use `CSVDataset.split`, which fits on the training rows alone. Then `CSVDataset("new.csv",
    spec=train.spec)` reads any other file the same way: new categories, new gaps, more columns, or another order
    of them are not errors; a column that is missing or of another kind is one that names it.

    Args:
        source: A path, a URL, a list of those (one table in parts), or a DataFrame (of pandas or polars). Text may be
            packed by gzip, bzip2, xz or zip; Parquet, Arrow (Feather) and Excel (extra `excel`) are known by their
            content.
        target: The column to predict; several for regression or multi-label data.
        numeric: Columns to take as numbers whatever they look like.
        categorical: Columns to take as categories, for example numbers that are codes.
        dates: Columns to take as dates, or a mapping from them to the `strptime` formats in which they are written,
            as in `{"when": "%d/%m/%Y"}`.
        text: Columns of free text to hand through as strings.
        image: Columns of image files to decode.
        drop: Columns to leave out.
        spec: A fitted spec, instead of all that is said about columns, scales and target here; marks in `missing`
            count besides its own.
        task: "auto" takes text and few different integers as classes, other numbers as regression. "binary" is
            classification with float32 targets 0 and 1 for `BCEWithLogitsLoss`.
        classes: The class names in the order of their numbers; in natural order if not given.
        label_separator: For multi-label data in one column: what is between the labels.
        aliases: Other spellings of classes, such as `{"<=50K.": "<=50K"}`.
        scale: "standard" (mean and standard deviation), "robust" (median and quartiles) or "none".
        scale_target: Scale a regression's target too; `unscale_target` is the way back.
        min_freq: Rarer categories count as unseen.
        image_root: The folder that image paths are relative to; that of the table if not given.
        image_size: Side of the square that images become: short for
            `image_transform=transforms.for_evaluation(image_size)`.
        image_transform: As the `transform` of `ImageFolder`: `transforms.for_training(size)`, or any callable on a PIL
            image that returns a tensor.
        streaming: For files larger than memory: passed over block by block to fit the same spec as in memory (all
            exact but medians, which come from 200,000 of the rows), then decoded block by block. Shuffle with
            `dlkit.DataLoader`: blocks are shuffled, and rows within a few dozen of them. `skipped` lists the first
            1,000 rows.
        **reading: How to read: `encoding`, `separator`, `header`, `columns`, `skip_rows`, `comment`, `decimal`,
            `thousands`, `sheet`, `missing`, `on_error` and `max_errors`, as `ReadArguments` describes them. With
            `on_error="skip"` a row whose image cannot be decoded is left out when a batch asks for it, with a warning.

    Attributes:
        spec: What each column is and becomes.
        skipped: Each row left out: its `file`, `row` and `reason`.
        notes: What was found while reading: encoding and separator of each file.

    Raises:
        DataError: The data is wrong; the message names file and line, column or row.
        ArgumentError: An invalid argument, or names a column that is not there.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"age": [30, 40, None], "sex": ["m", "f", "m"], "y": ["no", "yes", "no"]})
    >>> ds = CSVDataset(frame, target="y")
    >>> inputs, target = ds[1]
    >>> inputs["numeric"], inputs["categorical"], target
    (tensor([1., 0.]), tensor([4]), tensor(1))
    >>> ds.classes
    ['no', 'yes']
    """

    def __init__(
        self,
        source: Any,
        *,
        target: Names = None,
        numeric: Names = None,
        categorical: Names = None,
        dates: Names | Mapping[str, str] = None,
        text: Names = None,
        image: Names = None,
        drop: str | Sequence[str] = (),
        spec: TableSpec | None = None,
        task: Literal["auto", "classification", "binary", "regression", "multilabel"] = "auto",
        classes: Mapping[str, int] | Sequence[str] | None = None,
        label_separator: str | None = None,
        aliases: Mapping[str, str] | None = None,
        scale: Literal["standard", "robust", "none"] = "standard",
        scale_target: bool = True,
        min_freq: int = 1,
        image_root: str | PathLike[str] | None = None,
        image_size: int = 224,
        image_transform: Callable[[Any], Any] | None = None,
        streaming: bool = False,
        **reading: Unpack[ReadArguments],
    ) -> None:
        options = {name: value for name, value in locals().items() if name in TableOptions.__annotations__}
        check_known("CSVDataset", reading, ReadArguments)
        options |= reading
        settings = table_settings(options)
        if streaming:
            self._hold(TableStream(stream_index(source, settings, spec, None), 0, settings))
        else:
            self._hold(build_rows(source, settings, spec)[0], None if spec is not None else (source, settings))

    @classmethod
    def split(
        cls,
        source: Any,
        fractions: Fractions = None,
        *,
        stratify: bool = True,
        group: str | None = None,
        dedupe: bool | None = None,
        time: str | None = None,
        seed: int = 0,
        streaming: bool = False,
        **options: Unpack[TableOptions],
    ) -> tuple[Self, ...]:
        """Cut a table into parts, the first of which alone is looked at to fit the spec of all.

        Args:
            source: As for the class; or a dataset of this class, whose rows are split again and read as they were.
            fractions: The share of the first part, the second one getting the rest; or all shares, which sum to 1;
                None for 0.8, 0.1 and 0.1; or a `dlkit.splits.Fold`.
            stratify: Keep the shares of the classes in every part (of tenths of a regression's target, of
                combinations of labels).
            group: A column whose equal values never fall into different parts (a patient, a household). It is left
                out of the inputs.
            dedupe: Rows that are equal in every column never fall into different parts. None is False for tables, where
                equal rows are usually different cases; texts and images are copies, and it is True.
            time: A column of dates or numbers: the first part has the earliest rows, the last one the latest, so that
                the past is trained on and the future is the test set; see `dlkit.splits.split_indices`. It stays an
                input unless `drop` names it.
            seed: Another seed gives another split.
            streaming: As for the class. Each row (or group) is then assigned by a hash of its place (or value), so the
                shares are met on average, and those of the classes as well, whatever `stratify` says.
            **options: The arguments of the class, without `spec`.

        Returns:
            One dataset per part.

        >>> import pandas as pd
        >>> frame = pd.DataFrame({"x": range(0, 40, 2), "y": ["a", "b"] * 10})
        >>> train, test = CSVDataset.split(frame, target="y", fractions=0.8, numeric="x")
        >>> len(train), len(test), train.spec == test.spec
        (16, 4, True)
        """
        check_known("CSVDataset.split", options, TableOptions)
        within = None
        if isinstance(source, CSVDataset):
            source, settings, within = source._to_be_cut(options)
            settings = replace(settings, roles=replace(settings.roles, group=group))
        else:
            settings = table_settings({**options, "group": group})
        if streaming:
            if time is not None:
                raise ArgumentError(
                    "time= needs all rows in memory, because a stream is split row by row; leave out streaming=, or "
                    "write past and future to two files"
                )
            split = HashSplit(shares_of(fractions), seed, group, dedupe=bool(dedupe))
            found = stream_index(source, settings, None, split)
            streams = [TableStream(found, part, settings) for part in range(len(split.fractions))]
            return tuple(cls.__new__(cls)._hold(stream) for stream in streams)
        strict = settings.read.on_error == "raise"
        form = settings.roles.date_form(time) or ""
        marks = settings.read.missing
        exact = ExactSplit(fractions, stratify, group, seed, bool(dedupe), strict, time, marks, form, within)
        parts = build_rows(source, settings, None, exact)
        return tuple(cls.__new__(cls)._hold(part, (source, settings)) for part in parts)

    def _to_be_cut(self, options: Mapping[str, Any]) -> tuple[Any, TableSettings, Any]:
        """The source of these rows, how it was read, and which of its rows they are."""
        if isinstance(self._memory, TableStream):
            raise ArgumentError(
                "a streamed table is split row by row, so its parts and folds cannot be split again: read it without "
                "streaming=, or split its file"
            )
        if options:
            raise ArgumentError(f"{', '.join(options)}: a dataset that is split again keeps its options; leave it out")
        self._table()
        if self._opened is None:
            raise ArgumentError("this dataset has the spec of other data, or came from another process: split its file")
        return *self._opened, self.rows.numpy()

    _memory: Memory | TableStream
    _opened: tuple[Any, TableSettings] | None  # to be cut again

    def _hold(self, rows: Built | TableStream, opened: tuple[Any, TableSettings] | None = None) -> Self:
        """Make this the dataset of some rows."""
        self._opened, self._source = opened, rows.table if isinstance(rows, Built) else None
        if isinstance(rows, Built):
            self.spec, self.skipped, self.notes = rows.spec, rows.skipped, rows.table.notes
            self._memory, self._origin = rows.memory, rows.table.origin
            return self
        found = rows.index
        self.spec, self.skipped, self.notes = found.spec, found.skipped, [file.note for file in found.files]
        self._memory, self._origin = rows, found.origin
        if not len(rows):
            raise DataError(f"part {rows.part} of {found.origin} has no rows; give it a larger share")
        return self

    def __len__(self) -> int:
        return len(self._memory)

    def take(self, indices: Tensor) -> tuple[Any, Any]:
        """The samples at `indices` (int64 [B], each in range) as `(inputs, targets)`, batch dimension first."""
        return self._memory.take(indices)

    @property
    def leaves_out(self) -> bool:
        """Whether a batch may have fewer rows than asked for, because images that cannot be decoded are left out."""
        return self._memory.options.lenient is not None

    @property
    def draws_random(self) -> bool:
        """True where images are augmented, or pass through a custom transform."""
        return bool(self._memory.images) and self._memory.options.draws_random

    @property
    def planner(self) -> Callable[..., Planner] | None:
        """The order that `dlkit.DataLoader` uses for a streamed table; None in memory, where any order is as fast."""
        return self._memory.planner if isinstance(self._memory, TableStream) else None

    @property
    def numeric(self) -> Tensor | None:
        """float32 [N, n], the scaled numbers; their names are `spec.numeric_features`."""
        return self._whole().numeric

    @property
    def categorical(self) -> Tensor | None:
        """int64 [N, k], the codes; their names are `spec.categorical_features`."""
        codes = self._whole().categorical
        return None if codes is None else codes.to(torch.int64)

    @property
    def targets(self) -> Tensor | None:
        """[N] or [N, outputs], or None for unlabelled data."""
        return self._whole().targets

    @property
    def rows(self) -> Tensor:
        """int64 [N], which row of the source (0 is the first) each sample is."""
        return self._whole().rows

    @property
    def classes(self) -> list[str]:
        """The class names in the order of their numbers; empty for regression and unlabelled data."""
        return [] if self.spec.target is None else list(self.spec.target.classes)

    def embedding_sizes(self) -> list[tuple[int, int]]:
        """(codes, dimensions) of each category, for `torch.nn.Embedding`; see `TableSpec.embedding_sizes`."""
        return self.spec.embedding_sizes()

    def unscale_target(self, values: Tensor) -> Tensor:
        """Targets or predictions of a regression in the units of the file.

        Args:
            values: [B], or [B, columns] for several target columns.
        """
        if self.spec.target is None:
            raise ArgumentError("this data has no target to scale back")
        return self.spec.target.unscale(values)

    def to_pandas(self) -> Any:
        """The rows of this dataset as a DataFrame of what was read: typed, not scaled, left-out columns included."""
        return frame_of_rows(self._table(), self.spec, self.rows.numpy())

    def describe(self, other: CSVDataset | None = None) -> Description:
        """What to look at before training: kinds, gaps, cardinality, columns that tell the target, repeated rows.

        Args:
            other: The test data: rows that are in both are reported. Not of a streamed table.

        >>> import pandas as pd
        >>> frame = pd.DataFrame({"paid": ["no", "yes"] * 100, "year": [2020] * 200, "sold": [0, 1] * 100})
        >>> for finding in CSVDataset(frame, target="sold").describe().findings: print(finding)
        'year' is constant
        'paid' alone predicts 100% of the target: is it known before the target is? If not, drop it
        198 of 200 rows repeat an earlier one in every column that is used
        """
        if isinstance(self._memory, TableStream):
            if other is not None:
                raise ArgumentError(
                    "the rows of a streamed table are not kept in memory, so they cannot be compared with other data"
                )
            return describe_facts(self.spec, self._memory.index.facts)
        others = None if other is None else other.comparable()
        return describe_rows(self._table(), self.spec, self.rows.numpy(), others)

    def comparable(self) -> Any:
        """The inputs of all samples as a DataFrame, for `dlkit.splits.check_leaks`."""
        return frame_of_rows(self._table(), self.spec, self.rows.numpy(), only_used=True)

    def _whole(self) -> Memory:
        if isinstance(self._memory, TableStream):
            raise ArgumentError("a streamed table is never in memory as a whole; iterate over it with dlkit.DataLoader")
        return self._memory

    def _table(self) -> Table:
        self._whole()
        if self._source is None:
            raise ArgumentError("a worker process gets the samples alone; ask the dataset in the main process")
        return self._source

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker fetches samples: what was read stays where it is.
        return self.__dict__ | {"_opened": None} | ({"_source": None} if get_spawning_popen() is not None else {})

    def _repr_html_(self) -> str:
        if isinstance(self._memory, TableStream) or self._source is None:
            return lines(repr(self))
        first = frame_of_rows(self._source, self.spec, self.rows[:_ROWS].numpy())
        rows = [[str(cell)[:_CELL] for cell in row] for row in first.itertuples(name=None)]
        return lines(repr(self)) + table(["row", *map(str, first.columns)], rows) + self.spec._repr_html_()

    def _told(self) -> list[str]:
        """What this is, in lines."""
        left_out = [f"{column.name} ({column.kind}: {column.why})" for column in self.spec.columns if not column.used]
        size = Message(
            "{rows} rows of {origin}, {numbers} numbers, {categories} categories",
            rows=len(self),
            origin=self._origin,
            numbers=len(self.spec.numeric_features),
            categories=len(self.spec.categorical_features),
        )
        return [
            size,
            *self.notes,
            Message("no target") if self.spec.target is None else self.spec.target._told(),
            *([Message("left out: {names}", names=", ".join(left_out))] if left_out else []),
            *([Message("skipped: {count} rows", count=len(self.skipped))] if self.skipped else []),
        ]

    def __repr__(self) -> str:
        first, *others = self._told()
        return Lines.of(f"CSVDataset: {first}", *(f"  {line}" for line in others)).plain()
