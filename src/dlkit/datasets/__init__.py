"""Datasets that work in any `DataLoader`; data in memory is given batch-wise. Names load when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Where each public name lives; one line per name, sorted.
_ROOMS = {
    "CSVDataset": "tabular",
    "Glyphs": "glyphs",
    "ImageFiles": "folders",
    "ImageFolder": "folders",
    "ImageTable": "imagetable",
    "InMemoryDataset": "base",
    "NotMNIST": "notmnist",
    "PackedTextDataset": "packed_text",
    "Schema": "schema",
    "decode_image": "decoding",
    "inspect": "inspecting",
    "TextDataset": "text",
}

__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from dlkit.datasets.base import InMemoryDataset as InMemoryDataset
    from dlkit.datasets.decoding import decode_image as decode_image
    from dlkit.datasets.folders import ImageFiles as ImageFiles
    from dlkit.datasets.folders import ImageFolder as ImageFolder
    from dlkit.datasets.glyphs import Glyphs as Glyphs
    from dlkit.datasets.imagetable import ImageTable as ImageTable
    from dlkit.datasets.inspecting import inspect as inspect
    from dlkit.datasets.notmnist import NotMNIST as NotMNIST
    from dlkit.datasets.packed_text import PackedTextDataset as PackedTextDataset
    from dlkit.datasets.schema import Schema as Schema
    from dlkit.datasets.tabular import CSVDataset as CSVDataset
    from dlkit.datasets.text import TextDataset as TextDataset


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
