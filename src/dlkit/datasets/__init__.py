"""Datasets that work in any `DataLoader`; data in memory is given batch-wise. Names load when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Where each public name lives; one line per name, sorted.
_ROOMS = {
    "CSVDataset": "dlkit.datasets.tables.dataset",
    "Glyphs": "dlkit.datasets.letters.glyphs",
    "ImageFiles": "dlkit.datasets.images.folders",
    "ImageFolder": "dlkit.datasets.images.folders",
    "ImageTable": "dlkit.datasets.images.table",
    "InMemoryDataset": "dlkit.datasets.base",
    "NotMNIST": "dlkit.datasets.letters.notmnist",
    "PackedTextDataset": "dlkit.datasets.texts.packed",
    "Schema": "dlkit.specs.table",
    "decode_image": "dlkit.datasets.images.decoding",
    "inspect": "dlkit.datasets.images.inspecting",
    "TextDataset": "dlkit.datasets.texts.dataset",
}

__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from dlkit.datasets.base import InMemoryDataset as InMemoryDataset
    from dlkit.datasets.images.decoding import decode_image as decode_image
    from dlkit.datasets.images.folders import ImageFiles as ImageFiles
    from dlkit.datasets.images.folders import ImageFolder as ImageFolder
    from dlkit.datasets.images.inspecting import inspect as inspect
    from dlkit.datasets.images.table import ImageTable as ImageTable
    from dlkit.datasets.letters.glyphs import Glyphs as Glyphs
    from dlkit.datasets.letters.notmnist import NotMNIST as NotMNIST
    from dlkit.datasets.tables.dataset import CSVDataset as CSVDataset
    from dlkit.datasets.texts.dataset import TextDataset as TextDataset
    from dlkit.datasets.texts.packed import PackedTextDataset as PackedTextDataset
    from dlkit.specs.table import Schema as Schema


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = getattr(importlib.import_module(_ROOMS[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
