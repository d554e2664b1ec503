"""What a caller may ask a prediction for. What a string means is said by the caller, never by the disk.

A string is a text. A file is a `Path`, or has been named to `predict_file`. Nothing that a string in a list or in a row
of a table names is ever opened, so what comes from a stranger may be handed to `predict` as it is.
"""

from __future__ import annotations

import functools
import math
import operator
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dlkit._frames import as_pandas
from dlkit._nested import leaves, map_leaves
from dlkit.artifact.inputs import Meaning
from dlkit.errors import ArgumentError
from dlkit.inference.batches import Batch, Inputs, check_options
from dlkit.specs.table import TableSpec

__all__ = ["FileName", "Preparing", "files_named"]


_INPUTS, _ROWS = 64, 1024  # per forward pass; a row is little work
_VALUES = 1_250_000  # of images, that a CPU computes at once: what eight of 224 pixels become leaves its caches


class FileName(os.PathLike[str]):
    """The name of a file, a folder or an address, exactly as the caller wrote it (a `Path` would spoil "https://").

    >>> os.fspath(FileName("https://example.org/a.csv"))
    'https://example.org/a.csv'
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __fspath__(self) -> str:
        return self._name


def files_named(path: Any) -> Any:
    """What a caller named as files, as `predict` takes files.

    Args:
        path: A string or `Path`, or several.

    Raises:
        ArgumentError: something that names no file.
    """
    if isinstance(path, list | tuple):
        return [files_named(each) for each in path]
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError(f"predict_file takes the name of a file, not {type(path).__name__}; predict takes inputs")
    return FileName(path) if isinstance(path, str) else path


class Preparing:
    """Prepares inputs for one model, exactly as validation did; what its spec says is looked up once.

    Args:
        meaning: What the model takes.
        device: Where the model computes.

    Attributes:
        batch_size: Inputs per forward pass if not given.
    """

    def __init__(self, meaning: Meaning, device: torch.device) -> None:
        self._meaning, spec = meaning, meaning.preprocessing
        self.batch_size = _INPUTS
        if isinstance(spec, TableSpec) and not spec.of_kind("text", "image"):
            self.batch_size = _ROWS
        elif meaning.kind == "image" and device.type == "cpu":
            self.batch_size = max(1, min(_INPUTS, _VALUES // math.prod(spec.shape)))

    def __call__(self, given: Any, batch_size: int | None, options: Mapping[str, Any]) -> Inputs:
        """Inputs, batch by batch.

        Args:
            given: See `Predictor.predict`.
            batch_size: Inputs at a time; None for the usual number.
            options: More about a file or a table, such as `text="comment"` or `separator=";"`.

        Raises:
            ArgumentError: the model takes something else.
            DataError: a file that cannot be read, or lacks the model's columns.
        """
        meaning = self._meaning
        batch_size = self.batch_size if batch_size is None else batch_size
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ArgumentError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        if _is_prepared(given, meaning.kind):
            return _tensors(given, batch_size, options)
        given = as_pandas(given)
        if meaning.kind == "image":
            from dlkit.inference.images import images

            return images(meaning, given, batch_size, options)
        if meaning.kind == "audio":
            from dlkit.inference.sounds import sounds

            return sounds(meaning, given, batch_size, options)
        if meaning.kind == "table":
            from dlkit.inference.tables import rows

            return rows(self._rows, given, batch_size, options)
        if meaning.kind == "text":
            from dlkit.inference.texts import texts

            return texts(meaning, given, batch_size, options)
        raise ArgumentError(f"this model takes prepared tensors [B, ...], not {type(given).__name__}")

    @functools.cached_property
    def _rows(self) -> Any:
        from dlkit.datasets.tables.unlabelled import RowReader

        return RowReader(self._meaning.preprocessing)


def _is_prepared(given: Any, kind: str) -> bool:
    """Tensors are inputs as the model takes them; only pixels are not."""
    values = list(leaves(given)) if isinstance(given, dict | tuple) else [given]
    pixels = kind == "image"
    return bool(values) and all(
        isinstance(value, Tensor) and not (pixels and value.dtype == torch.uint8) for value in values
    )


def _tensors(given: Any, size: int, options: Mapping[str, Any]) -> Inputs:
    check_options(options, (), "tensors")
    parts = list(leaves(given))
    if any(not part.dim() for part in parts) or len({len(part) for part in parts}) > 1:
        shapes = ", ".join(str(list(part.shape)) for part in parts)
        raise ArgumentError(f"tensors must have one row for each input in their first dimension; got {shapes}")
    return Inputs(batches=_slices(given, len(parts[0]), size), total=len(parts[0]))


def _slices(given: Any, total: int, size: int) -> Iterator[Batch]:
    for start in range(0, total, size):
        end = min(start + size, total)
        inputs = map_leaves(given, operator.itemgetter(slice(start, end)))
        yield Batch(size=end - start, inputs=inputs, good=range(end - start), errors={}, named={}, told=str)
