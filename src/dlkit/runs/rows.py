"""A checkpoint of a run on shares: what each process holds is in its own file beside the checkpoint.

These are safetensors files with a checksum. The checkpoint itself has a mark instead of each tensor and names the
files; it is written last and is in the index, so nothing counts before all of it is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlkit.errors import DamagedCheckpointError, DataError
from dlkit.storage.arrays import Arrays, Kind, open_arrays, write_arrays

__all__ = ["FIELD", "mark", "name_of", "whole", "write_rows"]

#: Of a checkpoint's state: the files, and what tells them from those of another save.
FIELD = "rows"
_KIND = Kind("rows of a checkpoint", 1)
_MARK = "rows of tensor"


def mark(name: str) -> dict[str, str]:
    """What stands instead of a tensor.

    Args:
        name: Its name in the files.
    """
    return {_MARK: name}


def name_of(stem: str, rank: int, size: int) -> str:
    """The file of a process.

    Args:
        stem: The checkpoint's name without its ending.
        rank: The number of the process.
        size: How many there are.

    >>> name_of("checkpoint-000001-step-00000004", 0, 4)
    'checkpoint-000001-step-00000004.rows-1-of-4.safetensors'
    """
    return f"{stem}.rows-{rank + 1}-of-{size}.safetensors"


def write_rows(path: Path, rows: Mapping[str, Tensor], save: str) -> None:
    """Write what a process holds.

    Args:
        path: The file.
        rows: Tensors by name, on the CPU.
        save: What all files of a save have in common.

    Raises:
        OSError: the disk is full, say.
    """
    write_arrays(path, _KIND, rows, {"save": save})


def whole(state: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A checkpoint's state with whole tensors in the places of the marks, however many processes have saved it.

    Args:
        state: What the file holds.
        path: The file.

    Raises:
        DamagedCheckpointError: a file of rows is missing, damaged, or of another save.
    """
    try:
        said = state[FIELD]
        names = [str(name) for name in said["files"]]
        if not names or not all(
            re.fullmatch(rf"{re.escape(path.stem)}\.rows-\d+-of-\d+\.safetensors", n) for n in names
        ):
            raise ValueError(f"{', '.join(names) or 'nothing'} cannot be its files of rows")
        parts = [open_arrays(path.parent / name, _KIND) for name in names]
        if other := [name for name, part in zip(names, parts, strict=True) if part.about["save"] != said["save"]]:
            raise ValueError(f"{', '.join(other)} is of another save")
        rest = {key: value for key, value in state.items() if key != FIELD}
        return {key: _put_together(value, parts) for key, value in rest.items()}
    except (DataError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DamagedCheckpointError(f"{path} cannot be put together: {error}") from error


def _put_together(value: Any, parts: list[Arrays]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_MARK}:
            return torch.cat([part[value[_MARK]] for part in parts])
        return {key: _put_together(item, parts) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_put_together(item, parts) for item in value)
    return value
