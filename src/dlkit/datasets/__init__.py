"""Datasets that work in any `DataLoader`; data in memory is given batch-wise. Names load when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Where each public name lives; one line per name, sorted.
_ROOMS = {
    "CSVDataset": "tables.dataset",
    "Glyphs": "letters.glyphs",
    "ImageFiles": "images.folders",
    "ImageFolder": "images.folders",
    "ImageTable": "images.table",
    "InMemoryDataset": "base",
    "NotMNIST": "letters.notmnist",
    "PackedTextDataset": "texts.packed",
    "Schema": "tables.schema",
    "decode_image": "images.decoding",
    "inspect": "images.inspecting",
    "TextDataset": "texts.dataset",
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
    from dlkit.datasets.tables.schema import Schema as Schema
    from dlkit.datasets.texts.dataset import TextDataset as TextDataset
    from dlkit.datasets.texts.packed import PackedTextDataset as PackedTextDataset


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
