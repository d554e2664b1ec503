"""Which samples a run has trained on and which it held out, kept beside its model as keys of their content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlkit._cores import default_threads, for_each
from dlkit._opening import open_regular
from dlkit.datasets.files.dataset import FileDataset
from dlkit.datasets.letters.packed import PackedImages
from dlkit.datasets.texts.dataset import TextDataset
from dlkit.errors import DataError, DlkitError
from dlkit.recipes.reading import Data
from dlkit.splits import content_keys
from dlkit.storage.arrays import Kind, open_arrays, write_arrays

__all__ = ["SPLIT_FILE", "keep_keys", "kept_keys", "keys_of"]

#: What the file of keys is called in the folder of a run.
SPLIT_FILE = "split.safetensors"
_KIND = Kind("split of a run", 1)
_ENDS = 1 << 16  # bytes at the beginning and at the end of a file that tell it from others of its size


def keep_keys(folder: Path, data: Data) -> None:
    """Write the keys of the samples of each part of `data` to the `folder` of a run; where there are none, nothing."""
    parts = {name: part for name in ("train", "val", "test") if (part := getattr(data, name)) is not None}
    keys = {name: keys_of(part) for name, part in parts.items()}
    known = {name: torch.from_numpy(each.view(np.int64)) for name, each in keys.items() if each is not None}
    if len(known) == len(parts):
        write_arrays(folder / SPLIT_FILE, _KIND, known)


def kept_keys(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The keys of the samples by the name of their part; empty where the folder has none.

    Args:
        folder: Of a run.

    Raises:
        DataError: they are damaged.
    """
    if not (folder / SPLIT_FILE).is_file():
        return {}
    tensors = open_arrays(folder / SPLIT_FILE, _KIND).tensors
    return {name: tensor.numpy().view(np.uint64) for name, tensor in tensors.items()}


def keys_of(part: Any) -> np.ndarray[Any, Any] | None:
    """A number for the content of each sample, uint64 [N]; None where a dataset does not have it at hand.

    Equal samples of a table or of texts have equal numbers whatever file they come from. Of files it is their size and
    both ends.

    Args:
        part: A dataset.
    """
    if isinstance(part, FileDataset):
        return _keys_of_files([part.path(number) for number in range(len(part))])
    if isinstance(part, PackedImages):
        return content_keys(part.images)
    try:
        if isinstance(part, TextDataset):
            columns = {"text": part.texts, "pair": part.pairs}
            return content_keys({name: list(texts) for name, texts in columns.items() if texts is not None})
        return content_keys(part) if hasattr(part, "comparable") else None
    except DlkitError:  # rows that are never in memory as a whole
        return None


def _keys_of_files(paths: list[Path]) -> np.ndarray[Any, Any]:
    keys = np.zeros(len(paths), dtype=np.uint64)

    def work(place: int) -> None:
        try:
            with open_regular(paths[place]) as file:
                size = os.fstat(file.fileno()).st_size
                digest = hashlib.blake2b(f"{size} ".encode() + file.read(_ENDS), digest_size=8)
                file.seek(max(_ENDS, size - _ENDS))
                digest.update(file.read(_ENDS))
        except (OSError, DataError):  # fetching it says so, by the policy for files that cannot be read
            digest = hashlib.blake2b(os.fsencode(paths[place]), digest_size=8)
        keys[place] = int.from_bytes(digest.digest(), "little")

    for_each(work, len(paths), default_threads())
    return keys
