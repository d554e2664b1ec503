"""One word for one thing in every dataset: caches, classes, separators, and what training hands to new data."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dlkit.datasets import CSVDataset, Glyphs, ImageFiles, ImageFolder, ImageTable, NotMNIST, TextDataset
from dlkit.errors import ArgumentError
from dlkit.specs.table import Target
from dlkit.storage.files import folder_for
from dlkit.training.reuse_settings import ReuseFeatures

DATASETS = [CSVDataset, Glyphs, ImageFiles, ImageFolder, ImageTable, NotMNIST, TextDataset]
#: What the same things were called here and there.
OTHERS = {"cache_folder", "cache_dir", "memory_budget", "max_memory", "max_bytes", "keep", "folder"}
OTHERS |= {"class_to_idx", "class_names", "fraction", "groups", "sep", "delimiter", "errors", "policy", "meta"}


def words(kind: Any) -> set[str]:
    """Every argument of a dataset and of its `split`, those that are passed on by name included."""
    return {name for function in (kind.__init__, getattr(kind, "split", None)) if function for name in _words(function)}


def _words(function: Any) -> Iterator[str]:
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        passed_on = typing.get_args(hints.get(name)) if parameter.kind is inspect.Parameter.VAR_KEYWORD else ()
        yield from typing.get_type_hints(passed_on[0]) if passed_on else [name]  # of Unpack[...]


@pytest.mark.parametrize("kind", [*DATASETS, ReuseFeatures])
def test_one_word_for_one_thing(kind: Any) -> None:
    assert not words(kind) & OTHERS


@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        ("cache", [ImageFiles, ImageFolder, ImageTable, TextDataset, ReuseFeatures]),
        ("classes", [CSVDataset, ImageFolder, ImageTable, TextDataset]),
        ("label_separator", [CSVDataset, ImageTable]),
        ("separator", [CSVDataset, ImageTable, TextDataset]),
        ("missing", [CSVDataset, ImageTable, TextDataset]),
        ("task", [CSVDataset, ImageTable, TextDataset]),
        ("on_error", DATASETS[:1] + DATASETS[2:]),
        ("max_errors", DATASETS[:1] + DATASETS[2:]),
        ("group", DATASETS),
    ],
)
def test_who_has_the_thing_calls_it_so(word: str, kinds: list[Any]) -> None:
    assert [kind.__name__ for kind in kinds if word not in words(kind)] == []


def test_a_table_of_labels_says_label_separator_in_its_schema_too() -> None:
    assert {field.name for field in dataclasses.fields(Target)} & {"separator", "label_separator"} == {
        "label_separator"
    }


def test_what_the_word_means(tmp_path: Path, own_cache: Path) -> None:
    assert folder_for("auto", "text") == own_cache / "text"
    assert folder_for(None, "text") is folder_for("memory", "text") is None
    assert folder_for(tmp_path / "here", "text") == folder_for(str(tmp_path / "here"), "text") == tmp_path / "here"


def test_anything_else_is_refused_alike(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for make in (lambda: TextDataset(["a b"], cache=True), lambda: ImageFiles([tmp_path / "a.png"], cache=True)):  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="cache must be 'auto', 'memory', a folder, or None for none, not True"):
            make()
