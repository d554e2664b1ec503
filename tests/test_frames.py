"""Frames of other libraries are read as pandas' are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

import dlkit
from dlkit._frames import as_pandas
from dlkit.datasets import CSVDataset, ImageTable, TextDataset
from dlkit.errors import ArgumentError
from dlkit.models import TabularMLP
from dlkit.splits import check_leaks

COLUMNS = {
    "size": [1.5, None, 3.0, 4.25] * 6,
    "count": [3, 1, None, 2] * 6,
    "kind": ["a", "b", None, "a"] * 6,
    "text": ["one two", "two", "three one", "two two"] * 6,
    "label": ["no", "yes"] * 12,
}


class Frame:
    """As the frames of polars, Arrow and Hugging Face: columns, and a way to pandas."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.content = columns

    def to_pandas(self) -> pd.DataFrame:
        return pd.DataFrame(self.content)


def polars(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("polars").DataFrame(columns)


@pytest.mark.parametrize("make", [Frame, polars])
def test_a_frame_means_what_pandas_means(make: Any, tmp_path: Path) -> None:
    frame, plain = make(COLUMNS), pd.DataFrame(COLUMNS)
    mine, wanted = (CSVDataset(each, target="label", drop=["text"]) for each in (frame, plain))
    assert mine.spec == wanted.spec
    assert all(torch.equal(mine.take(torch.arange(24))[0][k], v) for k, v in wanted.take(torch.arange(24))[0].items())
    texts, others = (TextDataset(each, text="text", target="label") for each in (frame, plain))
    assert texts.spec == others.spec
    assert texts.classes == ["no", "yes"]
    assert str(check_leaks(frame, plain)) == str(check_leaks(plain, plain))
    model = TabularMLP(mine.spec, hidden=[4])
    predictor = dlkit.load(dlkit.save(model, tmp_path / "model.safetensors", preprocessing=mine))
    pd.testing.assert_frame_equal(predictor.predict(frame), predictor.predict(plain))


@pytest.mark.parametrize("make", [Frame, polars])
def test_a_frame_names_images(make: Any, tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    data = ImageTable(make({"image": ["a.png", "a.png"], "label": ["x", "y"]}), "image", "label", root=tmp_path)
    assert data.classes == ["x", "y"]


def test_a_query_and_a_streamed_frame_are_refused() -> None:
    class LazyFrame:
        pass

    with pytest.raises(ArgumentError, match=r"has not been run; pass frame\.collect\(\)"):
        CSVDataset(LazyFrame(), target="y")
    with pytest.raises(ArgumentError, match="streaming=True is for files"):
        CSVDataset(Frame(COLUMNS), target="label", streaming=True)
    assert as_pandas("polars") == "polars"
