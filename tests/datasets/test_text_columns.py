"""Several columns as one text or as a pair, with or without a header; and the same again when a model predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from dlkit import load, save
from dlkit.datasets import TextDataset
from dlkit.errors import ArgumentError, DataError
from dlkit.models import TextClassifier
from dlkit.specs.text import TextSpec

# As AG News comes: class number, title, description; no header.
NEWS = [
    (3, "Wall St. Bears Claw Back", "Short-sellers, Wall Street's dwindling band, are seeing green."),
    (1, "Venezuelans Vote Early", "Voters turned out early, and in large numbers."),
    (4, "Rivals Try to Turn Tables", 'Windows\' rivals, a "software" fair.'),
    (3, "Oil Prices Soar", ""),
] * 5


@pytest.fixture
def news(tmp_path: Path) -> Path:
    pd.DataFrame(NEWS).to_csv(tmp_path / "news.csv", index=False, header=False)
    return tmp_path / "news.csv"


def test_news_without_a_header_are_read_by_number_and_the_note_says_so(news: Path) -> None:
    ds = TextDataset(news, text=[1, 2], target=0)
    assert ds.classes == ["1", "3", "4"]
    assert [ds.texts[row] for row in (0, 3)] == ["\n".join(NEWS[0][1:]), "Oil Prices Soar"]
    assert "no header row" in ds.notes[0]
    assert len(ds) == 20
    named = TextDataset(news, text=["title", "body"], target="class", header=["class", "title", "body"])
    assert list(named.texts) == list(ds.texts)
    assert (named.spec.text, named.input_columns, named.target_columns) == (
        ("title", "body"),
        ("title", "body"),
        ("class",),
    )
    with pytest.raises(
        DataError, match=r"no column 'title'; its columns are '3', .* header=\[...\] does, or .* by number"
    ):
        TextDataset(news, text="title", target="class")


def test_a_word_above_numbers_is_a_header_also_for_columns_by_number(tmp_path: Path) -> None:
    pd.DataFrame(NEWS, columns=["Class Index", "Title", "Description"]).to_csv(tmp_path / "t.csv", index=False)
    ds = TextDataset(tmp_path / "t.csv", text=[1, 2], target=0)
    assert (len(ds), ds.classes, ds.spec.text) == (20, ["1", "3", "4"], ("Title", "Description"))
    assert "no header row" not in ds.notes[0]
    assert (
        len(
            TextDataset(tmp_path / "t.csv", text=[1, 2], target=0, header=False, classes=["1", "3", "4", "Class Index"])
        )
        == 21
    )


@pytest.mark.parametrize("kind", ["csv", "jsonl", "frame", "dicts"])
def test_joined_columns_pass_over_what_is_empty(tmp_path: Path, kind: str) -> None:
    rows = [{"t": "a", "b": "x", "y": "p"}, {"t": None, "b": "z", "y": "q"}, {"t": "c", "b": "", "y": "q"}]
    frame, path = pd.DataFrame(rows), tmp_path / f"t.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    source: Any = {"frame": frame, "dicts": rows}.get(kind, path)
    ds = TextDataset(source, text=["t", "b"], target="y")
    assert list(ds.texts) == ["a\nx", "z", "c"]


def test_rows_in_which_all_columns_are_absent_have_no_text() -> None:
    rows = [{"t": "a", "b": "x"}, {"t": None, "b": None}]
    with pytest.raises(DataError, match="item 1 of the list has no text"):
        TextDataset(rows, text=["t", "b"])
    assert len(TextDataset(rows, text=["t", "b"], on_error="skip")) == 1


def test_what_a_model_was_trained_on_is_what_it_reads_again(tmp_path: Path) -> None:
    frame = pd.DataFrame({"q": ["who", "why"] * 5, "t": ["a b", "c"] * 5, "b": ["x y", "z"] * 5, "y": ["p", "q"] * 5})
    frame.to_csv(tmp_path / "t.csv", index=False)
    ds = TextDataset(tmp_path / "t.csv", text=["t", "b"], pair="q", target="y", min_freq=1)
    assert TextSpec.from_json(ds.spec.to_json()) == ds.spec
    assert (ds.spec.text, ds.spec.pair, list(ds.texts[:1]), ds.pairs and ds.pairs[0]) == (
        ("t", "b"),
        ("q",),
        ["a b\nx y"],
        "who",
    )
    torch.manual_seed(0)
    model = TextClassifier(len(ds.vocabulary), 2, width=8, num_types=2)
    save(model, tmp_path / "m.safetensors", preprocessing=ds)
    predictor = load(tmp_path / "m.safetensors")
    files = predictor.predict_file(tmp_path / "t.csv")
    pairs = predictor.predict([("a b\nx y", "who"), ("c\nz", "why")] * 5)
    rows = predictor.predict(frame.to_dict("records"))
    assert files["probability"].tolist() == pairs["probability"].tolist() == rows["probability"].tolist()
    assert files["text"].tolist()[:2] == ["a b\nx y", "c\nz"]
    chosen = predictor.predict_file(tmp_path / "t.csv", text=["t", "b"], pair="q")
    assert chosen["probability"].tolist() == files["probability"].tolist()
    assert predictor.evaluate(tmp_path / "t.csv", target="y")["samples"] == 10


def test_targets_are_read_with_the_decimal_mark_that_the_caller_says(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text;y\na;1.234\nb;2.345\nc;3.456\n", encoding="utf-8")
    for decimal, first in ((",", 1234.0), (".", 1.234)):
        ds = TextDataset(tmp_path / "t.csv", text="text", target="y", task="regression", min_freq=1, decimal=decimal)
        assert float(ds[0][1]) == pytest.approx(first)
    with pytest.raises(ArgumentError, match=r"columns=.* has no effect on texts in memory"):
        TextDataset(["a"], columns=["text"])
    with pytest.raises(ArgumentError, match="TextDataset has no argument 'sep'"):
        TextDataset(["a"], sep=";")  # type: ignore[call-arg]
