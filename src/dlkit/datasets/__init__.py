"""Datasets that work in any `DataLoader`; data in memory is given batch-wise. Names load when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
    from dlkit.datasets.audio.decoding import decode_audio as decode_audio
    from dlkit.datasets.audio.folders import AudioFiles as AudioFiles
    from dlkit.datasets.audio.folders import AudioFolder as AudioFolder
    from dlkit.datasets.audio.table import AudioTable as AudioTable
    from dlkit.datasets.base import InMemoryDataset as InMemoryDataset
    from dlkit.datasets.files.decoder import Decoder as Decoder
    from dlkit.datasets.files.folders import FileFolder as FileFolder
    from dlkit.datasets.images.decoding import decode_image as decode_image
    from dlkit.datasets.images.folders import ImageFiles as ImageFiles
    from dlkit.datasets.images.folders import ImageFolder as ImageFolder
    from dlkit.datasets.images.table import ImageTable as ImageTable
    from dlkit.datasets.inspecting import inspect as inspect
    from dlkit.datasets.letters.glyphs import Glyphs as Glyphs
    from dlkit.datasets.letters.notmnist import NotMNIST as NotMNIST
    from dlkit.datasets.series import WindowDataset as WindowDataset
    from dlkit.datasets.series import windows as windows
    from dlkit.datasets.tables.dataset import CSVDataset as CSVDataset
    from dlkit.datasets.texts.dataset import TextDataset as TextDataset
    from dlkit.datasets.texts.packed import PackedTextDataset as PackedTextDataset

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "AudioFiles": "dlkit.datasets.audio.folders",
        "AudioFolder": "dlkit.datasets.audio.folders",
        "AudioTable": "dlkit.datasets.audio.table",
        "CSVDataset": "dlkit.datasets.tables.dataset",
        "Decoder": "dlkit.datasets.files.decoder",
        "FileFolder": "dlkit.datasets.files.folders",
        "Glyphs": "dlkit.datasets.letters.glyphs",
        "ImageFiles": "dlkit.datasets.images.folders",
        "ImageFolder": "dlkit.datasets.images.folders",
        "ImageTable": "dlkit.datasets.images.table",
        "InMemoryDataset": "dlkit.datasets.base",
        "NotMNIST": "dlkit.datasets.letters.notmnist",
        "PackedTextDataset": "dlkit.datasets.texts.packed",
        "decode_audio": "dlkit.datasets.audio.decoding",
        "decode_image": "dlkit.datasets.images.decoding",
        "inspect": "dlkit.datasets.inspecting",
        "TextDataset": "dlkit.datasets.texts.dataset",
        "WindowDataset": "dlkit.datasets.series",
        "windows": "dlkit.datasets.series",
    },
)
