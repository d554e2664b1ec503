"""`cache=` means the same wherever something is kept: "auto", a folder, "memory" or None; sizes are named alike."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dlkit.datasets import ImageFiles, TextDataset
from dlkit.datasets.images.settings import ImageSettings
from dlkit.errors import ArgumentError
from dlkit.storage.files import folder_for
from dlkit.training.reuse_settings import ReuseFeatures

ALL = [TextDataset, ImageSettings, ReuseFeatures]
OTHERS = {"cache_folder", "cache_dir", "memory_budget", "max_memory", "max_bytes", "keep", "folder"}


@pytest.mark.parametrize("kind", ALL)
def test_one_word_for_one_thing(kind: Any) -> None:
    names = set(inspect.signature(kind).parameters)
    assert "cache" in names
    assert not names & OTHERS
    assert names & {"cache_bytes", "memory_bytes"}


def test_what_the_word_means(tmp_path: Path, own_cache: Path) -> None:
    assert folder_for("auto", "text") == own_cache / "text"
    assert folder_for(None, "text") is folder_for("memory", "text") is None
    assert folder_for(tmp_path / "here", "text") == folder_for(str(tmp_path / "here"), "text") == tmp_path / "here"


def test_anything_else_is_refused_alike(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for make in (lambda: TextDataset(["a b"], cache=True), lambda: ImageFiles([tmp_path / "a.png"], cache=True)):  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="cache must be 'auto', 'memory', a folder, or None for none, not True"):
            make()
