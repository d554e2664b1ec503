"""`AudioTable`: file names and targets in a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from dlkit.datasets.audio.dataset import AudioDataset
from dlkit.datasets.audio.settings import AudioOptions, AudioSettings
from dlkit.datasets.files.table import FilesInTable, of_table
from dlkit.datasets.targets import TaskChoice
from dlkit.reading.policy import TableArguments, check_known
from dlkit.specs.table import Target

__all__ = ["AudioTable"]


class AudioTableOptions(AudioOptions, TableArguments, total=False):
    """The options of every dataset of recordings, and how a table is read."""


class AudioTable(FilesInTable, AudioDataset):
    """Recordings named in a CSV file (or a DataFrame), with a class, a number or several labels each.

    Samples are `(waveform, target)`. The target is int64 for classification, float32 for regression (of one column a
    number, of a list of columns [K]), and float32 [K] of zeros and ones for several labels.

    Args:
        csv: A table of files, as `CSVDataset` reads it: a path, an address or a pandas DataFrame.
        audio: The column with the files' paths, seen from `root`.
        target: The column with the targets; a list of columns for several numbers, or for several labels when they hold
            only 0 and 1; None for unlabelled recordings.
        root: The folder that the paths lead from; by default that of the CSV file, else the current one.
        task: "auto" takes words, truth values and few different whole numbers for classes, other numbers for
            regression, as in tables; text with the `label_separator` for several labels.
        label_separator: Between the labels of one recording, such as "|" in "rain|wind".
        classes: Their names in the order of the numbers, or a mapping to these; by default the natural order of what is
            there.
        scale_target: Whether the numbers of a regression are scaled to mean 0 and deviation 1, as the rows of the first
            part of a `split` have them; metrics and predictions are in their own unit all the same. The `target` of
            other data, to scale them as there.
        suffix: Added to every name, such as ".wav", for tables that hold bare identifiers.
        **options: As of `AudioFolder`; and how to read the table: `encoding`, `separator`, `header`, `columns`,
            `skip_rows`, `comment`, `decimal`, `thousands` and `sheet` as for `CSVDataset`; `missing`: marks that mean
            "no target", which are errors; `[]` where one of them, such as "NA", is a class.

    Attributes:
        classes: The class or label names in the order of the targets; empty for regression.
        task: "classification", "regression", "multilabel", or "" without targets.
        input_columns: The column with the files' paths, for the model file.
        target_columns: Those with the targets.
        target: How the numbers of a regression are scaled; None for others, and with `scale_target=False`.

    Raises:
        DataNotFoundError: there is no such table.
        DataError: a column or a value is missing; the message names row and column.
        ArgumentError: an argument that cannot be meant.
        MissingExtraError: a package that reads these files is not installed.

    >>> import pathlib, tempfile, numpy as np, pandas as pd, soundfile; folder = pathlib.Path(tempfile.mkdtemp())
    >>> soundfile.write(folder / "a.wav", np.zeros(8_000), 8_000)
    >>> ds = AudioTable(pd.DataFrame({"file": ["a.wav"], "label": [0.5]}), scale_target=False, root=folder)
    >>> ds.task, ds[0][0].shape, ds[0][1]
    ('regression', torch.Size([1, 16000]), tensor(0.5000))
    """

    def __init__(
        self,
        csv: Any,
        audio: str = "file",
        target: str | Sequence[str] | None = "label",
        *,
        root: str | os.PathLike[str] | None = None,
        task: TaskChoice = "auto",
        label_separator: str | None = None,
        classes: Mapping[str, int] | Sequence[str] | None = None,
        scale_target: bool | Target = True,
        suffix: str = "",
        **options: Unpack[AudioTableOptions],
    ) -> None:
        check_known("AudioTable", options, AudioTableOptions)
        reading, others = of_table(options)
        self._open(
            csv,
            audio,
            target,
            AudioSettings(**others),
            scale_target=scale_target,
            root=root,
            suffix=suffix,
            task=task,
            classes=classes,
            label_separator=label_separator,
            reading=reading,
        )
