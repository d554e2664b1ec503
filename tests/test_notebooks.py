"""What a notebook shows of datasets, specs, runs, predictors and reports; and that a notebook of each kind runs."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import dlkit
from dlkit import Trainer
from dlkit.datasets import AudioFolder, CSVDataset, Glyphs, ImageFolder, TextDataset
from dlkit.recipes.standing import standing_of_classes
from dlkit.transforms import for_evaluation

EVIL = "<img src=x onerror=alert(1)>\x1b[31m"


def html(shown: Any) -> str:
    """What IPython would show, and that nothing in it acts."""
    page: str = shown._repr_html_()
    assert "<img src=x" not in page
    assert "\x1b" not in page
    return page


def test_a_table_shows_its_kinds_and_first_rows() -> None:
    frame = pd.DataFrame({"age": [n % 7 / 2 for n in range(30)], EVIL: ["a", EVIL] * 15, "y": ["no", "yes"] * 15})
    data = CSVDataset(frame, target="y")
    assert "CSVDataset: 30 rows" in html(data)
    assert html(data).count("<td>4</td>") == 1
    assert "<td>category</td>" in html(data.spec)
    assert repr(data.spec) == ("TableSpec(2 columns: 1 number, 1 category; target y: classification)")
    assert "nothing suspicious" in html(data.describe()) or "-" in html(data.describe())


def test_images_sounds_letters_and_texts_show_samples(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (300, 200), (number * 40, 0, 0)).save(tmp_path / "images" / name / f"{number}.jpg")
        with wave.open(str(tmp_path / "sounds" / name / "1.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(np.zeros(800, np.int16).tobytes())
    (tmp_path / "images" / "dog" / "9.jpg").write_bytes(b"not an image")
    page = html(ImageFolder(tmp_path / "images", size=32))
    assert page.count("data:image/png;base64,") == 5
    assert "<p>dog</p>" in page
    assert "9.jpg" in page
    assert html(AudioFolder(tmp_path / "sounds", sample_rate=8000)).count("data:audio/wav;base64,") == 2
    assert html(Glyphs(20)).count("data:image/png;base64,") == 6
    texts = TextDataset([EVIL, "a" * 900], target=["x", EVIL])
    assert "a" * 400 + "…" in html(texts)
    assert "Vocabulary" in html(texts.spec)


def test_predictors_predictions_and_reports(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    grey = for_evaluation(8, color="L", mean=0.0, std=1.0)
    predictor = dlkit.load(dlkit.save(model, tmp_path / "m", classes=["ant", EVIL], preprocessing=grey))
    assert "<td>image</td>" in html(predictor)
    image = np.zeros((8, 8), np.uint8)
    assert "ant" in html(predictor.predict_one(image, top_k=2))
    standing = standing_of_classes(torch.eye(2), torch.tensor([0, 1]), ["no", EVIL], usual=0)
    assert "accuracy 1 (95 %" in html(standing)
    trainer = Trainer(model, None, torch.optim.SGD(model.parameters(), 0.1), progress=False)
    assert "Linear" not in html(trainer)
    assert "<b>Trainer</b>" in html(trainer)


@pytest.mark.parametrize("size", [0, 3, 50])
def test_a_history_shows_its_first_and_last_rows(size: int) -> None:
    page = html(dlkit.training.History([{"epoch": n, "val_loss": 0.5} for n in range(size)]))
    assert page.count("<tr>") == {0: 0, 3: 4, 50: 22}[size]
