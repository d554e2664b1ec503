"""A folder of sounds on the command line: train, predict, evaluate, info, compare, export."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from programs import Done

from dlkit.recipes import read_data, train
from dlkit.specs.builtin import AudioPreprocessing

soundfile = pytest.importorskip("soundfile")
PITCHES = {"high": 1_800, "low": 300, "middle": 800}
RATE = 8_000
Program = Callable[..., Done]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three kinds of tones of about a third of a second, in a folder of train and test folders."""
    root, chance = tmp_path_factory.mktemp("sounds") / "tones", np.random.default_rng(0)
    for count in range(60):
        name = list(PITCHES)[count % 3]
        times = np.arange(round(RATE * chance.uniform(0.2, 0.35))) / RATE
        wave = np.sin(2 * math.pi * PITCHES[name] * chance.uniform(0.9, 1.1) * times)
        path = root / ("test" if count % 5 == 4 else "train") / name / f"{count}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, chance.uniform(0.1, 0.5) * wave + 0.01 * chance.standard_normal(len(wave)), RATE)
    return root


@pytest.fixture(scope="module")
def model(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = train(tones, epochs=8, out=tmp_path_factory.mktemp("runs") / "tones", device="cpu", progress=False)
    assert trained.judged_on == "test"
    assert trained.metrics["accuracy"] >= 0.9
    assert trained.path is not None
    return trained.path


def test_what_a_folder_of_sounds_is(tones: Path) -> None:
    data = read_data(tones)
    assert (data.kind, data.rate, data.classes) == ("sounds", RATE, list(PITCHES))
    assert data.seconds in (0.3, 0.4)
    assert "60 sounds in 3 class folders (high, low, middle)" in str(data)
    assert "laid out in train, test; 11% of train are the validation part" in str(data)
    assert "sounds at 8,000 Hz, 19 in 20 no longer than 0.4 seconds" in str(data)


def test_the_model_file_predicts_is_judged_and_says_what_it_takes(dlkit: Program, model: Path, tones: Path) -> None:
    done = dlkit("predict", model, tones / "test" / "low", "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["prediction"] for row in rows].count("low") >= 3
    assert all(row["file"].endswith(".wav") for row in rows)
    assert json.loads(dlkit("evaluate", model, tones, "--part", "test", "--json").out)["accuracy"] >= 0.9
    told = dlkit("info", model).out
    assert "takes      sounds at 8,000 Hz, 0.4 seconds" in told
    broken = dlkit("predict", model, tones / "test", Path(__file__), "--on-error", "skip")
    assert broken.code in (0, 1)
    assert "not a sound" in broken.out


def test_the_command_goes_on_with_its_run_alone(dlkit: Program, model: Path, tones: Path) -> None:
    again = dlkit("train", tones, "--out", model.parent, "--epochs", 8, "--device", "cpu")
    assert "resumed" in again.err
    assert f"use it: dlkit predict {model} sound.wav" in again.out
    other = dlkit("train", tones, "--out", model.parent, "--seconds", 0.2)
    assert other.code == 1
    assert "seconds: there 0.4, now 0.2" in other.err
    told = dlkit("train", tones, "--image-size", 64).err
    assert "--image-size 64: this is for images, and the data is sounds" in told
    assert "is one sound; give the folder" in dlkit("train", tones / "test" / "low" / "4.wav").err


def test_backbones_listen(dlkit: Program, tones: Path, tmp_path: Path) -> None:
    name = "torchvision/squeezenet1_1"
    rows = json.loads(dlkit("compare", tones, name, "--no-pretrained", "--device", "cpu", "--json").out)
    assert [row["name"] for row in rows] == [name]
    trained = train(
        tones, arch=name, pretrained=False, epochs=1, out=tmp_path / "run", device="cpu", progress=False, seconds=0.2
    )
    assert trained.path is not None
    info = json.loads(dlkit("info", trained.path, "--json").out)
    assert info["architecture"]["log_mel"]["sample_rate"] == RATE
    assert AudioPreprocessing.from_document(info["meaning"]["spec"]).seconds == 0.2
