"""Test-time augmentation: the mean of what a model says of an image and of its mirror image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import dlkit as library
from dlkit.cli import app
from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError
from dlkit.models import SmallConvNet, TabularMLP
from dlkit.transforms import for_evaluation


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    grey = for_evaluation(28, color="L", mean=0.0, std=1.0)
    return library.save(SmallConvNet(2), tmp_path / "m.safetensors", classes=["left", "right"], preprocessing=grey)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("left", "right")):
        (tmp_path / "images" / name).mkdir(parents=True)
        pixels = np.zeros((28, 28), np.uint8)
        pixels[:, :9] = 250
        Image.fromarray(pixels[:, :: 1 - 2 * number]).save(tmp_path / "images" / name / "1.png")
    return tmp_path / "images"


def test_an_image_and_its_mirror_image_get_one_answer(model: Path, folder: Path) -> None:
    predictor = library.load(model)
    plain = predictor.predict(folder, probabilities=True)
    both = predictor.predict(folder, probabilities=True, tta=True)
    assert abs(plain["p_left"][0] - plain["p_left"][1]) > 1e-4
    assert both["p_left"][0] == pytest.approx(both["p_left"][1])
    mean = predictor.logits(folder).mean(0).softmax(0)[0]
    assert both["p_left"][0] == pytest.approx(float(mean), rel=1e-5)
    assert predictor.evaluate(folder, tta=True)["accuracy"] == 0.5  # it can no longer tell left from right


def test_the_commands_take_it(model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: Any) -> str:
        with pytest.raises(SystemExit) as left:
            app([str(word) for word in words], prog_name="dlkit")
        assert not left.value.code
        return capsys.readouterr().out

    assert "accuracy 0.5" in said("evaluate", model, folder, "--tta")
    rows = said("predict", model, folder, "--tta").splitlines()
    assert rows[1].split(",")[1:] == rows[2].split(",")[1:]


def test_other_inputs_have_no_mirror_images(tmp_path: Path) -> None:
    data = CSVDataset(pd.DataFrame({"x": range(8), "y": ["a", "b"] * 4}), target="y")
    path = library.save(TabularMLP(data.spec, hidden=[4]), tmp_path / "m.safetensors", preprocessing=data)
    with pytest.raises(ArgumentError, match=r"tta=True: mirror images are for images"):
        library.load(path).predict({"x": 1}, tta=True)
