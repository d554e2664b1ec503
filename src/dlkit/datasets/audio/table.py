"""`AudioTable`: file names and targets in a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from dlkit.datasets.audio.dataset import AudioDataset
from dlkit.datasets.audio.settings import AudioOptions
from dlkit.datasets.files.table import FilesInTable, FileTableOptions

__all__ = ["AudioTable"]


class AudioTableOptions(AudioOptions, FileTableOptions, total=False):
    """The options of every dataset of recordings, and of every table that names files."""


class AudioTable(FilesInTable, AudioDataset):
    """Recordings named in a CSV file (or a DataFrame), with a class, a number or several labels each.

    Samples are `(waveform, target)`. The target is int64 for classification, float32 for regression (of one column a
    number, of a list of columns [K]), and float32 [K] of zeros and ones for several labels.

    Args:
        csv: A table of files, as `CSVDataset` reads it: a path, an address or a pandas DataFrame.
        audio: The column with the files' paths, seen from `root`.
        target: The column with the targets; a list of columns for several numbers, or for several labels when they hold
            only 0 and 1; None for unlabelled recordings.
        **options: As of `AudioFolder`. What the table says: `root`, the folder that the paths lead from (by default
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
        **options: Unpack[AudioTableOptions],
    ) -> None:
        self._open(csv, audio, target, options, AudioTableOptions)
