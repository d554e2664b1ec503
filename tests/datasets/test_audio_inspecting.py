"""inspect: what is in a folder of recordings."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from dlkit.datasets import AudioFolder, inspect
from dlkit.datasets.inspecting import kind_of_files
from dlkit.errors import DataError
from dlkit.recipes.using import look_at

RATE = 8_000
TIME = np.arange(RATE) / RATE


def noise(number: int) -> Any:
    return np.random.default_rng(number).uniform(-0.5, 0.5, RATE // 2)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inspect")
    sounds = {
        "train/a/1.wav": noise(1),
        "train/a/2.flac": noise(2),
        "train/a/silent.wav": np.zeros(RATE),
        "train/b/clipped.wav": np.clip(3 * np.sin(2 * np.pi * 220 * TIME), -1, 1),
        "train/b/loud.wav": np.sin(2 * np.pi * 50 * TIME),
        "train/b/quiet.wav": np.sin(2 * np.pi * 50 * TIME) * 0.9,
        "test/a/2again.wav": noise(2),
        "test/b/stereo.wav": np.stack([noise(3), noise(4)], 1),
    }
    for name, samples in sounds.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, (samples * 32_767).astype(np.int16), RATE if samples.ndim == 1 else 2 * RATE)
    (root / "train/b/bad.wav").write_bytes(b"RIFF\x04\0\0\0WAVE")
    (root / "train/b/notes.txt").touch()
    (root / "train/b/cover.jpg").touch()
    return root


def test_everything_is_found(layout: Path) -> None:
    report = inspect(layout)
    assert report.kind == "sounds"
    assert report.classes == {"train": {"a": 3, "b": 4}, "test": {"a": 1, "b": 1}}
    assert (report.rates, report.channels) == ({RATE: 7, 2 * RATE: 1}, {1: 7, 2: 1})
    assert report.formats == {"WAV PCM_16": 7, "FLAC PCM_16": 1}
    assert sorted(report.seconds.round(3).tolist()) == [0.25, 0.5, 0.5, 0.5, 1, 1, 1, 1]
    assert [path.name for path in report.clipped] == ["clipped.wav"]
    assert [path.name for path in report.silent] == ["silent.wav"]
    assert [path.name for path, _ in report.unreadable] == ["bad.wav"]
    assert [sorted(path.name for path in group) for group in report.duplicates] == [["2.flac", "2again.wav"]]
    assert report.across == report.duplicates
    assert report.left_out == {"not a recording": (2, ("train/b/cover.jpg", "train/b/notes.txt"))}
    assert report.levels.max() == pytest.approx(-1, abs=0.6)


def test_the_table_and_plain_data_say_it_all(layout: Path) -> None:
    report = inspect(AudioFolder(layout))
    for part in (
        "8 readable recordings, 1 unreadable",
        "train (2): a 3, b 4",
        "rates in Hz: 8000 (7), 16000 (1)",
        "length: 0.25 to 1.00 s",
        "clipped: 1\n  train/b/clipped.wav",
        "silent: 1\n  train/a/silent.wav",
        "equal recordings: 1",
        "bad.wav: cannot be decoded",
    ):
        assert part in str(report)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["rates"] == {"8000": 7, "16000": 1}
    assert plain["clipped"] == ["train/b/clipped.wav"]
    assert plain["seconds"]["max"] == 1


def test_covers_beside_songs_are_no_images_to_learn_from(layout: Path, tmp_path: Path) -> None:
    assert kind_of_files(layout) == "sounds"
    assert kind_of_files(tmp_path) is None
    (tmp_path / "photo.png").touch()
    assert kind_of_files(tmp_path) == "images"


def test_the_command_looks_at_sounds(layout: Path) -> None:
    assert str(look_at(layout)) == str(inspect(layout))
    assert look_at(layout / "train").to_dict()["rates"] == {"8000": 6}


def test_files_without_classes_and_folders_without_files(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1), RATE)
    assert inspect(tmp_path).classes == {"": {}}
    (tmp_path / "a.wav").write_bytes(b"")
    nothing = inspect(tmp_path)
    assert (nothing.readable, len(nothing.unreadable)) == (0, 1)
    assert "0 readable recordings" in str(nothing)
    assert nothing.to_dict()["seconds"] is None
    (tmp_path / "a.wav").unlink()
    with pytest.raises(DataError, match="holds no images"):
        inspect(tmp_path)


def test_an_hour_is_read_piece_by_piece(tmp_path: Path) -> None:
    size = 3600 * 2_000 * 2
    head = struct.pack("<HHIIHH", 1, 1, 2_000, 4_000, 2, 16)
    (tmp_path / "long.wav").write_bytes(
        b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt \x10\0\0\0" + head + b"data" + struct.pack("<I", size)
    )
    os.truncate(tmp_path / "long.wav", 44 + size)
    report = inspect(tmp_path)
    assert (report.seconds.tolist(), len(report.silent)) == ([3600], 1)
