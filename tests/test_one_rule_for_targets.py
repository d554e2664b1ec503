"""One labelled table means the same to tables, image tables and texts: task, classes, their order, each row's class."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dlkit.datasets import CSVDataset, ImageTable, TextDataset
from dlkit.errors import ArgumentError, DataError

CASES = Path(__file__).resolve().parents[1].parent / "shared" / "cases"
AGREE = sorted(path.name for path in CASES.glob("agree_*.csv"))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "img").mkdir()
    for number in range(100):
        Image.new("L", (8, 8), number).save(folder / "img" / f"{number}.png")
    return folder


REFUSALS = {"no target": ("missing=[]", "no target", "is empty", "no value"), "too many": ("too many for classes",)}


def meanings(table: Path, root: Path, **options: Any) -> list[tuple[str, list[str], list[Any]] | str]:
    """What each dataset makes of a table: its task, classes and targets by name, or that it refuses."""
    found: list[tuple[str, list[str], list[Any]] | str] = []
    for opened in (
        lambda: CSVDataset(table, target="label", categorical="file", scale_target=False, **options),
        lambda: CSVDataset(table, target="label", categorical="file", scale_target=False, streaming=True, **options),
        lambda: ImageTable(table, root=root, size=8, color="L", **options),
        lambda: TextDataset(table, text="file", target="label", tokenizer="characters", **options),
    ):
        try:
            data: Any = opened()
        except (DataError, ArgumentError) as error:
            found.append(
                next((kind for kind, words in REFUSALS.items() if any(w in str(error) for w in words)), str(error))
            )
            continue
        samples = [sample[1] for sample in data]
        classes = list(data.classes)
        targets = [classes[int(t)] if classes else float(t) for t in samples]
        found.append(("classification" if classes else "regression", classes, targets))
    return found


@pytest.mark.skipif(not AGREE, reason=f"the small inputs that were read wrong are not at {CASES}")
@pytest.mark.parametrize("name", AGREE)
def test_the_tables_of_the_report(name, images):
    first, *others = meanings(CASES / name, images)
    assert others == [first] * 3
    if name == "agree_na.csv":
        assert first == "no target"
        kept, *others = meanings(CASES / name, images, missing=[])
        assert others == [kept] * 3
        assert "NA" in kept[1]
    if name == "agree_natural_order.csv":
        assert first[1] == ["b2", "b10"]
    if name.startswith("agree_hangul"):
        assert first[1] == ["개", "고양이"]
    if name in ("agree_numbers.csv", "agree_numbers_with_point.csv", "agree_leading_blank.csv"):
        assert first[:2] == ("classification", ["0", "1", "2"])


LABELS = st.one_of(
    st.sampled_from(
        ["0", "1", "2", "1.0", " 1", "-1", "b2", "b10", "B2", "yes", "no", "TRUE", "true", "NA", "None", "-"]
    ),
    st.sampled_from(
        ["0.5", "1,5", "1,234", "€5", "5 %", "é", unicodedata.normalize("NFD", "é"), "강아지", "01", "x y"]
    ),
    st.text("abé01 ", min_size=0, max_size=3),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(LABELS, min_size=1, max_size=6).flatmap(
        lambda few: st.lists(st.sampled_from(few), min_size=2, max_size=30)
    )
)
def test_any_labels_mean_the_same_to_all(labels, images, tmp_path):
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["file", "label"], *[(f"img/{number}.png", label) for number, label in enumerate(labels)]])
    first, *others = meanings(path, images)
    assert others == [first] * 3, labels


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([0, 1, 2] * 10, "classification", ["0", "1", "2"]),
        ([0.0, 1.0, 2.0] * 10, "classification", ["0", "1", "2"]),
        ([True, False] * 10, "classification", ["False", "True"]),
        ([0.5, 1.0] * 10, "regression", []),
        (list(range(100)), "regression", []),
        (["b", "a"] * 10, "classification", ["a", "b"]),
    ],
)
def test_typed_columns_of_a_frame_mean_the_same_to_all(values, task, classes, images):
    frame = pd.DataFrame({"file": [f"img/{number}.png" for number in range(len(values))], "label": values})
    table = CSVDataset(frame, target="label", categorical="file", scale_target=False)
    pictures = ImageTable(frame, root=images, size=8, color="L")
    texts = TextDataset(frame, text="file", target="label", tokenizer="characters")
    expected = (
        [float(v) for v in values]
        if not classes
        else [classes.index(str(int(v) if isinstance(v, float) else v)) for v in values]
    )
    for data in (table, pictures, texts):
        assert list(data.classes) == classes
        assert np.allclose([float(sample[1]) for sample in data], expected)
        assert data[0][1].dtype == (torch.int64 if classes else torch.float32)
    assert table.schema.target.task == pictures.task == task
