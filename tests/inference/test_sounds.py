"""Sounds in, names out: files, bytes and arrays of any rate give what validation saw, and bad ones their error."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dlkit
from dlkit.datasets import AudioFiles, AudioFolder
from dlkit.errors import ArgumentError, DataError
from dlkit.models import AudioClassifier
from dlkit.transforms.audio import AudioAugment, AudioPreprocessing

soundfile = pytest.importorskip("soundfile")
RATE = 8_000
CLASSES = ["high", "low"]


def tone(pitch: float, seconds: float, rate: int = RATE) -> Any:
    return (0.5 * np.sin(2 * math.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of several lengths, rates and formats in class folders."""
    root = tmp_path_factory.mktemp("sounds")
    for name in CLASSES:
        (root / name).mkdir()
    soundfile.write(root / "low" / "a.wav", tone(300, 0.7), RATE)
    soundfile.write(root / "low" / "b.flac", np.stack([tone(320, 0.3, 44_100)] * 2, 1), 44_100)
    soundfile.write(root / "high" / "c.wav", tone(2_000, 1.1, 16_000), 16_000)
    soundfile.write(root / "high" / "d.wav", tone(2_100, 0.5), RATE)
    return root


@pytest.fixture(scope="module", params=[None, 0.5], ids=["own length", "half a second"])
def listener(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dlkit.Predictor:
    torch.manual_seed(0)
    spec = AudioPreprocessing(sample_rate=RATE, seconds=request.param, normalize="rms")
    file = tmp_path_factory.mktemp("model") / "a.safetensors"
    return dlkit.load(dlkit.save(AudioClassifier(2, RATE, width=4), file, classes=CLASSES, preprocessing=spec))


def test_a_folder_gives_what_validation_saw(listener: dlkit.Predictor, folder: Path) -> None:
    data = AudioFiles(folder, transform=listener.preprocessing)
    with torch.no_grad():
        wanted = torch.cat([listener.model(each[None]) for each in data])
    torch.testing.assert_close(listener.logits(folder), wanted, rtol=1e-4, atol=1e-5)
    table = listener.predict_file(str(folder), batch_size=3)
    assert [Path(name).name for name in table["file"]] == ["c.wav", "d.wav", "a.wav", "b.flac"]
    assert set(table["prediction"]) <= set(CLASSES)


def test_paths_bytes_open_files_and_arrays_are_the_same_sound(listener: dlkit.Predictor, folder: Path) -> None:
    path = folder / "high" / "c.wav"
    samples, rate = soundfile.read(path, dtype="float32")
    whole, _ = soundfile.read(path, dtype="int16")
    with open(path, "rb") as file:
        given = [
            path,
            path.read_bytes(),
            file,
            (samples, rate),
            (torch.from_numpy(whole), rate),
            io.BytesIO(path.read_bytes()),
        ]
        found = listener.logits(given)
    torch.testing.assert_close(found, found[:1].expand(6, 2), rtol=1e-3, atol=1e-4)
    alone = listener.predict_one((samples, rate))
    assert alone.label == listener.predict_one(path).label
    torch.testing.assert_close(listener.logits(samples, sample_rate=rate), found[3:4])


def test_bad_sounds_get_their_error_in_their_place(listener: dlkit.Predictor, folder: Path) -> None:
    given = [folder / "low" / "a.wav", b"", folder / "gone.wav", b"a text", (tone(300, 0.2), 50)]
    table = listener.predict(given, on_error="skip")
    assert [bool(error) for error in table["error"]] == [False, True, True, True, True]
    assert "sound 1: the file is empty" in table["error"][1]
    assert "gone.wav" in table["error"][2]
    assert "sound 3: is text, not a sound" in table["error"][3]
    assert "50 Hz" in table["error"][4]
    with pytest.raises(DataError, match="sound 1: the file is empty"):
        listener.predict(given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("a.wav", r"a string is not a sound, .*Path\('a.wav'\) or predict_file"),
        ([np.zeros(9, np.float32)], r"sound 0 is an array, whose rate is not known; give \(array, 44_100\)"),
        (3, "this model takes sounds: a Path, .*; got int"),
        ((np.zeros((900, 2), np.float32), RATE), "transpose it: array.T"),
        ((np.array([np.nan], np.float32), RATE), "NaN or infinity"),
    ],
)
def test_what_is_no_sound(listener: dlkit.Predictor, given: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        listener.predict(given)


def test_labelled_folders_are_prepared_the_models_way(listener: dlkit.Predictor, folder: Path) -> None:
    found = listener.evaluate(folder)
    opened = listener.evaluate(AudioFolder(folder, sample_rate=16_000, seconds=0.2))
    assert found == opened
    assert found["samples"] == 4
    with pytest.raises(ArgumentError, match=r"ListDataset does not prepare its sounds .* AudioFolder or AudioTable"):
        listener.evaluate(ListDataset([(torch.zeros(1, 9), 0)]))


class ListDataset(torch.utils.data.Dataset[Any]):
    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)


def test_a_table_names_files(listener: dlkit.Predictor, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "new.csv"
    table.write_text("recording,size\nlow/a.wav,1\nhigh/d.wav,2\n")
    found = listener.predict_file(table, audio="recording", root=folder)
    assert found["file"].tolist() == ["low/a.wav", "high/d.wav"]
    with pytest.raises(ArgumentError, match=r"trained on sounds without a table; .* audio='recording'"):
        listener.predict_file(table)
    with pytest.raises(ArgumentError, match="tables of sounds take no option 'image'; there are audio, root, suffix"):
        listener.predict_file(table, image="recording")


def test_a_dataset_says_what_its_waveforms_are(folder: Path) -> None:
    data = AudioFolder(folder, sample_rate=RATE, seconds=0.5, crop="random")
    assert data.spec == AudioPreprocessing(sample_rate=RATE, seconds=0.5)
    assert AudioFolder(folder, mono=False).spec is None
    assert AudioFolder(folder, transform=lambda waveform: waveform).spec is None
    training = AudioPreprocessing(sample_rate=16_000, seconds=0.25, augment=AudioAugment(gain=6))
    train, val = data.with_transform(training).split(0.5)
    assert (train.spec, val.spec) == (training, training.for_evaluation())
    assert train[0][0].shape == val[0][0].shape == (1, 4_000)
    assert train.draws_random
    assert not val.draws_random
    again = train.with_transform(AudioPreprocessing(sample_rate=RATE))
    assert again[0][0].shape[1] in (2_400, 4_000, 5_600, 8_800)
