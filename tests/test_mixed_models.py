"""One row with numbers, categories, texts and an image: the models, their files, and the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import dlkit
from dlkit import recipes
from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError, DataError, TrainingError
from dlkit.models import MixedClassifier, MixedRegressor
from dlkit.models.mixed import hashed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose class needs the number, the category, the text and the image, each of them a little."""
    root = tmp_path_factory.mktemp("mixed")
    drawn, rows = np.random.default_rng(0), list[dict[str, Any]]()
    for number in range(240):
        price, kind, good, bright = drawn.normal(), drawn.integers(2), drawn.integers(2), drawn.integers(2)
        pixels = drawn.integers(0, 60, (12, 12, 3)) + (150 if bright else 0)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number}.png")
        words = [f"word{n}" for n in drawn.integers(0, 30, 6)]
        words.insert(3, "splendid" if good else "broken")
        score = price / 2 + kind + good + bright
        rows.append(
            {
                "photo": f"{number}.png",
                "price": price,
                "kind": "xy"[kind],
                "note": " ".join(words),
                "score": 100 * score,
            }
            | {"sold": "yes" if score > 1.5 else "no"}
        )
    pd.DataFrame(rows).to_csv(root / "rows.csv", index=False)
    return root


def opened(folder: Path, target: str, drop: str) -> tuple[CSVDataset, ...]:
    options: dict[str, Any] = {"text": ["note"], "image": ["photo"], "image_size": 12, "drop": [drop]}
    return tuple(CSVDataset.split(folder / "rows.csv", target=target, fractions=(0.8, 0.2), **options))


@pytest.mark.parametrize(("target", "drop"), [("sold", "score"), ("score", "sold")])
def test_all_kinds_of_columns_are_learnt_and_predicted(folder: Path, tmp_path: Path, target: str, drop: str) -> None:
    torch.manual_seed(0)
    train, val = opened(folder, target, drop)
    make, loss = (MixedClassifier, nn.CrossEntropyLoss()) if target == "sold" else (MixedRegressor, nn.MSELoss())
    model = make(train.spec, hidden=32, width=16)
    metric = "accuracy" if target == "sold" else "r2"
    optim = torch.optim.AdamW(model.parameters(), 5e-3)
    trainer = dlkit.Trainer(model, loss, optim, metrics=[metric], device="cpu", progress=False)
    history = trainer.fit(dlkit.DataLoader(train, 32, shuffle=True), dlkit.DataLoader(val, 48), epochs=8)
    assert max(history[f"val_{metric}"]) > 0.75
    predictor = dlkit.load(trainer.save(tmp_path / "m"))
    table = pd.read_csv(folder / "rows.csv").iloc[val.rows.numpy()]
    found = predictor.predict(table, image_root=folder)  # prepared as in training, 12 pixels
    wanted = trainer.predict(dlkit.DataLoader(val, 48))
    if target == "sold":
        assert found["prediction"].tolist() == [train.classes[n] for n in wanted.argmax(1).tolist()]
    else:
        np.testing.assert_allclose(found["score"], wanted, rtol=1e-4)
    one = {"photo": "3.png", "price": 0.5, "kind": "x", "note": ""}
    assert predictor.predict_one(one, image_root=folder) is not None
    measured = predictor.evaluate(folder / "rows.csv")
    assert measured["samples"] == 240


def test_a_new_file_is_prepared_as_the_spec_says(folder: Path) -> None:
    train, _ = opened(folder, "sold", "score")
    again = CSVDataset(folder / "rows.csv", spec=train.spec)
    assert again[0][0]["image"].shape == (3, 12, 12)
    assert type(train.spec).from_json(train.spec.to_json()) == train.spec
    assert CSVDataset(folder / "rows.csv", target="sold", drop=["photo"]).spec.images == ""
    own = CSVDataset(
        folder / "rows.csv", target="sold", image=["photo"], image_transform=lambda image: torch.zeros(3, 9, 9)
    )
    with pytest.raises(ArgumentError, match="a custom transform prepares"):
        own.spec.example()


def test_texts_become_the_same_numbers_everywhere() -> None:
    assert hashed(["Good, bad", "", "bad"]).shape[0] == 3
    assert hashed(["good bad"])[0].tolist() == hashed(["GOOD bad", "x"])[0].tolist()
    assert hashed([]).shape == (0, 0)


def test_what_cannot_be_meant(folder: Path) -> None:
    train, _ = opened(folder, "sold", "score")
    with pytest.raises(
        ArgumentError, match="MixedRegressor needs a target of numbers; for classes there is MixedClassifier"
    ):
        MixedRegressor(train.spec)
    with pytest.raises(TrainingError, match="the batch lacks: 'image'"):
        MixedClassifier(train.spec)(numeric=torch.zeros(2, 1), categorical=torch.zeros(2, 1).long(), text=["a", "b"])
    with pytest.raises(ArgumentError, match="hidden and width must be at least 1"):
        MixedClassifier(train.spec, hidden=0)


def test_the_recipe_takes_a_table_with_texts_and_images_as_it_is(folder: Path, tmp_path: Path) -> None:
    quiet: dict[str, Any] = {"device": "cpu", "progress": False, "epochs": 2}
    trained = recipes.train(
        folder / "rows.csv", target="sold", text="note", image="photo", drop=["score"], out=tmp_path / "said", **quiet
    )
    assert isinstance(trained.model, MixedClassifier)
    assert trained.data.train.spec.parts == ["numeric", "categorical", "text", "image"]
    assert trained.path is not None
    assert len(dlkit.load(trained.path).predict(pd.read_csv(folder / "rows.csv")[:5], image_root=folder)) == 5
    found = recipes.read_data(folder / "rows.csv", target="sold", drop=["score"], mixed=True)
    assert [column.name for column in found.train.spec.of_kind("text", "image")] == ["photo", "note"]
    with pytest.raises((ArgumentError, DataError), match="looks at numbers and categories, and the spec has the"):
        recipes.train(folder / "rows.csv", target="sold", mixed=True, arch="mlp", out=tmp_path / "no", **quiet)
