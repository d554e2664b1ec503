"""Tables whose cells name sounds or images: train, inspect, compare, predict, evaluate; and which tables are such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import dlkit
import warm
from dlkit.cli.app import app
from dlkit.cli.projects import create
from dlkit.errors import ArgumentError, DataError
from dlkit.recipes import compare_backbones, evaluate_file, look_at, read_data, train
from dlkit.transfer import create_model

soundfile = pytest.importorskip("soundfile")
RATE = 8_000
SEEN = "48 of 60 samples equal one that the model was trained on"

# Some tests evaluate on what was trained on, which is told.
pytestmark = pytest.mark.filterwarnings("ignore:.* equal one that the model was trained on")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of a fifth of a second, and grey images as bright as the tones are high."""
    root, chance, rows = tmp_path_factory.mktemp("named"), np.random.default_rng(0), []
    (root / "wav").mkdir()
    for number in range(60):
        pitch, noisy = chance.uniform(200, 2_000), number % 3 == 0
        wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(RATE // 5) / RATE)
        noise = (0.2 if noisy else 0.001) * chance.standard_normal(len(wave))
        soundfile.write(root / f"wav/{number}.wav", wave + noise, RATE)
        Image.fromarray(np.full((12, 12), pitch / 10, np.uint8)).save(root / f"{number}.png")
        word = "high" if pitch > 1_000 else "low"
        labels = "|".join([word] + ["noisy"] * noisy)
        names = (f"wav/{number}.wav", f"{number}.png")
        rows.append((*names, word, pitch, 5e6 + 1_000 * pitch, word == "high", noisy, labels, number))
    columns = ["sound", "photo", "heard", "pitch", "far", "high", "noisy", "labels", "number"]
    frame = pd.DataFrame(rows, columns=columns).astype({"high": int, "noisy": int})
    frame.drop(columns="photo").to_csv(root / "tones.csv", index=False)
    frame.drop(columns="sound").to_csv(root / "photos.csv", index=False)
    frame.to_csv(root / "both.csv", index=False)
    return root / "tones.csv"


def trained(source: Any, out: Path, epochs: int = 12, **options: Any) -> Any:
    return train(source, epochs=epochs, out=out, device="cpu", progress=False, **options)


def evaluated(model: Path, table: Path, **options: Any) -> dict[str, float]:
    with pytest.warns(UserWarning, match=SEEN):
        return evaluate_file(model, table, **options)


def test_the_commands_take_a_table_of_sounds(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: object) -> str:
        with pytest.raises(SystemExit) as left:
            app([str(word) for word in words], prog_name="dlkit")
        captured = capsys.readouterr()
        assert not left.value.code, captured.err
        return captured.out

    to_train = (table, "--target", "heard", "--out", tmp_path / "run", "--epochs", 8, "--device", "cpu", "--json")
    first = json.loads(said("train", *to_train))
    assert first["metrics"]["accuracy"] >= 0.8
    assert (
        "60 sounds named in 'sound', classification of 'heard', 2 classes (high, low); no other col" in first["data"][0]
    )
    model = tmp_path / "run" / "model.safetensors"
    assert json.loads(said("train", *to_train))["history"] == first["history"]
    lines = [json.loads(line) for line in said("predict", model, table, "--json").splitlines()]
    heard = pd.read_csv(table)["heard"].tolist()
    right = [line["prediction"] == word for line, word in zip(lines, heard, strict=True)]
    with pytest.warns(UserWarning, match=SEEN):
        judged = json.loads(said("evaluate", model, table, "--target", "heard", "--json"))
    assert judged["accuracy"] == pytest.approx(np.mean(right))
    assert judged["samples"] == 60
    assert "rates in Hz: 8000 (60)" in said("inspect", table)
    assert json.loads(said("inspect", table, "--target", "heard", "--json"))["kind"] == "sounds"
    name = "torchvision/squeezenet1_1"
    rows = json.loads(said("compare", table, name, "--target", "heard", "--no-pretrained", "--device", "cpu", "--json"))
    assert [row["name"] for row in rows] == [name]


def test_quantities_are_learnt_in_their_units_and_the_file_has_plain_weights(table: Path, tmp_path: Path) -> None:
    found = trained(table, tmp_path, target=["pitch", "far"], batch_size=8)
    assert found.metrics["r2"] > 0.8
    assert found.metrics["rmse"] > 100  # of columns whose deviations are about 500 and 500,000
    with safe_open(found.path, "pt") as file:
        assert sorted(name for name in file.keys() if name.startswith("head")) == ["head.bias", "head.weight"]  # noqa: SIM118
    model = dlkit.load(found.path)
    assert (model.task, model.classes, model.meaning.columns) == ("regression", ["pitch", "far"], ("sound",))
    values = model.predict_file(table)[["pitch", "far"]].to_numpy()
    true = pd.read_csv(table)[["pitch", "far"]].to_numpy()
    assert (np.corrcoef(values.T)[0, 1], np.corrcoef(values[:, 1], true[:, 1])[0, 1]) > (0.9, 0.9)
    assert evaluated(found.path, table)["mae"] == pytest.approx(np.abs(values - true).mean(), rel=1e-4)


def test_a_frozen_backbone_answers_in_the_unit_from_stored_features(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "torchvision/squeezenet1_1"
    torch.save(create_model(name, classes=2, pretrained=False).state_dict(), tmp_path / "weights.pth")
    options: dict[str, Any] = {"arch": name, "weights": tmp_path / "weights.pth", "epochs": 2, "out": tmp_path / "run"}
    found = train(read_data(table, target=["far"]), device="cpu", **options)
    assert "the frozen backbone runs once over 48 training samples" in capsys.readouterr().err
    far = pd.read_csv(table)["far"]
    values = dlkit.load(found.path).predict_file(table)["far"]  # a head that knows next to nothing says the mean
    assert abs(values.mean() - far.mean()) < far.std()


def test_a_new_project_takes_a_table(table: Path, tmp_path: Path) -> None:
    create(tmp_path, "audio")
    config = {"folder": str(table), "audio": "sound", "target": "heard", "sample_rate": RATE, "seconds": 0.1}
    done = warm.run(["-c", f"import data; print(*map(len, data.datasets({config!r})))"], cwd=tmp_path)
    assert done.stdout.split() == ["42", "9", "9"], done.stderr


@pytest.mark.parametrize("options", [{"target": ["high", "noisy"]}, {"target": "labels", "label_separator": "|"}])
def test_several_labels(table: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    data = read_data(table, **options)
    assert data.task == "multilabel"
    found = trained(data, tmp_path)
    assert found.metrics["f1"] > 0
    assert evaluated(found.path, table, **options)["accuracy"] > 0.6


@pytest.mark.parametrize("target", ["heard", "pitch"])
def test_images_in_a_table(table: Path, tmp_path: Path, target: str) -> None:
    data = read_data(table.with_name("photos.csv"), target=target)
    assert (data.kind, data.grey, data.side) == ("images", True, 12)
    found = trained(data, tmp_path, epochs=6)
    assert found.standing.samples == 6
    assert evaluated(found.path, table.with_name("photos.csv"), target=target)["samples"] == 60


def test_which_tables_name_files(table: Path, tmp_path: Path) -> None:
    assert read_data(table, target="heard", drop=["sound"]).kind == "table"
    assert read_data(pd.read_csv(table), target="heard").kind == "table"  # whose folder is not known
    elsewhere = tmp_path / "tones.csv"
    elsewhere.write_text(table.read_text())
    assert read_data(elsewhere, target="heard").kind == "table"
    with pytest.raises(DataError, match="none of the first 60 files in column 'sound'"):
        read_data(elsewhere, target="heard", audio="sound")
    both = table.with_name("both.csv")
    with pytest.raises(ArgumentError, match=r"both.csv names files in several columns, 'sound', 'photo'; say which"):
        read_data(both, target="heard")
    assert [
        read_data(both, target="heard", **{kind: name}).kind for kind, name in (("audio", "sound"), ("image", "photo"))
    ] == ["sounds", "images"]
    with pytest.raises(ArgumentError, match="image= and audio= are both said"):
        read_data(both, target="heard", audio="sound", image="photo")
    with pytest.raises(ArgumentError, match=r"'sound' names sounds: say which column to predict.* heard, pitch"):
        read_data(table)
    with pytest.raises(ArgumentError, match="tokenizer='bpe': this data is sounds that a table names"):
        read_data(table, target="heard", tokenizer="bpe")
    assert look_at(table).kind == "sounds"
    with pytest.raises(ArgumentError, match="separate classes, and tones is regression"):
        compare_backbones(table, ["torchvision/resnet18"], target="pitch")
