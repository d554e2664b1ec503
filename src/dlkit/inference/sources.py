"""What a caller may ask a prediction for, as a dataset that prepares it just as validation did."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlkit.artifact.inputs import Meaning
from dlkit.errors import ArgumentError, DataNotFoundError
from dlkit.transforms import Preprocessing

__all__ = ["Asked", "ask"]

OnError = Literal["raise", "skip"]
_TABLES = (".csv", ".tsv", ".parquet", ".txt", ".jsonl", ".json", ".gz", ".zip", ".bz2", ".xz")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A source of inputs.

    Attributes:
        data: A map-style dataset of inputs without targets, or a list of tensors.
        names: What to call each input in the result: its file, its text, its row.
        column: The heading over `names`.
        single: Whether the caller gave one input, and expects one answer.
        rows: Which of `names` each sample of `data` is, where some could not be read.
        errors: Why the others could not, by their place among `names`.
    """

    data: Any
    names: Sequence[Any]
    column: str
    single: bool = False
    rows: Sequence[int] | None = None
    errors: Mapping[int, str] = dataclasses.field(default_factory=dict)


def ask(meaning: Meaning, source: Any, on_error: OnError, options: Mapping[str, Any]) -> Asked:
    """Understand what was given for a prediction.

    Args:
        meaning: What the model takes.
        source: A file, a folder, a list, a table, texts or tensors, as the kind of the model asks.
        on_error: "raise" or "skip".
        options: More for the dataset that reads a file, such as `separator=`.

    Raises:
        ArgumentError: the model takes something else.
        DataError: the data cannot be read.
    """
    if on_error not in ("raise", "skip"):
        raise ArgumentError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
    if isinstance(source, Tensor) or (isinstance(source, tuple | dict) and _all_tensors(source)):
        return _tensors(source)
    if meaning.kind == "image":
        return _images(meaning.preprocessing, source, on_error)
    if meaning.kind == "table":
        return _table(meaning.preprocessing, source, on_error, options)
    if meaning.kind == "text":
        return _texts(meaning.preprocessing, source, on_error, options)
    raise ArgumentError(f"this model takes prepared tensors [B, ...], not {type(source).__name__}")


def _all_tensors(source: Any) -> bool:
    values = list(source.values()) if isinstance(source, dict) else list(source)
    return bool(values) and all(isinstance(value, Tensor) for value in values)


class _Batch(torch.utils.data.Dataset[Any]):
    """Inputs that are prepared already, along their first dimension."""

    def __init__(self, inputs: Any) -> None:
        self.inputs = inputs
        first = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
        self.size = len(first[0] if isinstance(first, tuple) else first)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.inputs, dict):
            return {name: value[index] for name, value in self.inputs.items()}
        return tuple(v[index] for v in self.inputs) if isinstance(self.inputs, tuple) else self.inputs[index]


def _tensors(source: Any) -> Asked:
    data = _Batch(source)
    return Asked(data=data, names=range(len(data)), column="row")


def _images(preprocessing: Preprocessing, source: Any, on_error: OnError) -> Asked:
    from dlkit.datasets.images.folders import ImageFiles

    single = not isinstance(source, list | tuple) and not (isinstance(source, str | os.PathLike) and _folder(source))
    items = [source] if single else source
    if not isinstance(items, str | os.PathLike) and not all(isinstance(item, str | os.PathLike) for item in items):
        return Asked(data=[_prepared(preprocessing, item) for item in items], names=range(len(items)), column="image",
                     single=single)  # fmt: skip
    if single and not Path(source).exists():
        raise DataNotFoundError(f"there is no image {source} (in {Path.cwd()})")
    files = ImageFiles(items, transform=preprocessing, on_error=on_error, max_errors=1.0)
    names = [str(files.path(place)) for place in range(len(files))]
    if on_error == "raise":
        return Asked(data=files, names=names, column="file", single=single)
    reasons = {str(error.path): error.reason for error in files.verify()}
    bad = {place: reasons[name] for place, name in enumerate(names) if name in reasons}
    good = files.without_errors()
    return Asked(data=good, names=names, column="file", single=single, rows=good.indices.tolist(), errors=bad)


def _folder(source: str | os.PathLike[str]) -> bool:
    return Path(source).is_dir()


def _prepared(preprocessing: Preprocessing, item: Any) -> Tensor:
    """A picture in memory: PIL's, or an array or tensor of bytes [H, W, C] or [H, W]."""
    pixels = np.asarray(item.convert(preprocessing.color) if hasattr(item, "convert") else item)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ArgumentError(
            "an image in memory is one of PIL's, or uint8 [H, W, 3] or [H, W]; "
            f"got {type(item).__name__} {pixels.dtype} {list(pixels.shape)}"
        )
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] != preprocessing.channels:
        raise ArgumentError(f"the model takes {preprocessing.channels} channels, and the image has {pixels.shape[2]}")
    return preprocessing(np.ascontiguousarray(pixels))


def _table(schema: Any, source: Any, on_error: OnError, options: Mapping[str, Any]) -> Asked:
    import pandas as pd

    from dlkit.datasets.tables.dataset import CSVDataset

    single = isinstance(source, Mapping)
    if single:
        source = pd.DataFrame([dict(source)])
    elif isinstance(source, list) and source and all(isinstance(row, Mapping) for row in source):
        source = pd.DataFrame(source)
    unlabelled = dataclasses.replace(schema, target=None)
    data = CSVDataset(source, schema=unlabelled, on_error=on_error, **options)
    return Asked(data=data, names=data.rows.tolist(), column="row", single=single)


def _texts(spec: Any, source: Any, on_error: OnError, options: Mapping[str, Any]) -> Asked:
    from dlkit.datasets.texts.dataset import TextDataset

    single = isinstance(source, str) and not _is_file(source)
    data = TextDataset(
        [source] if single else source,
        spec=dataclasses.replace(spec, classes=None),
        on_error=on_error,
        **({"target": None} | dict(options)),
    )
    return Asked(data=data, names=data.texts, column="text", single=single)


def _is_file(source: str) -> bool:
    """A text that is the name of an existing file of texts is taken as that file."""
    return len(source) < 4096 and "\n" not in source and source.lower().endswith(_TABLES) and Path(source).is_file()
