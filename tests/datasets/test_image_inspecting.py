"""inspect: what is in a folder, bad files, duplicates and their leaks, a table and a picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlkit.datasets import ImageFolder, decode_image, inspect
from dlkit.errors import DataNotFoundError


def scene(path: Path, number: int) -> Path:
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((160, 120), Image.Resampling.BICUBIC).save(path, quality=95)
    return path


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    for number in range(12):
        scene(tmp_path / ("train" if number < 8 else "test") / "ab"[number % 2] / f"{number}.jpg", number)
    shutil.copy(tmp_path / "train" / "a" / "0.jpg", tmp_path / "test" / "a" / "again.jpg")
    Image.open(tmp_path / "train" / "b" / "1.jpg").resize((100, 75)).save(tmp_path / "train" / "b" / "smaller.png")
    (tmp_path / "train" / "b" / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "train" / "b" / "notes.txt").touch()
    return tmp_path


def test_everything_is_found(layout: Path) -> None:
    report = inspect(layout)
    assert report.classes == {"train": {"a": 4, "b": 6}, "test": {"a": 3, "b": 2}}
    assert [path.name for path, _ in report.unreadable] == ["bad.jpg"]
    assert report.left_out == {"not an image": (1, ("train/b/notes.txt",))}
    assert report.modes == {"RGB JPEG": 13, "RGB PNG": 1}
    assert [sorted(path.name for path in group) for group in report.duplicates] == [["0.jpg", "again.jpg"]]
    assert [sorted(path.name for path in pair) for pair in report.near_duplicates] == [["1.jpg", "smaller.png"]]
    assert [sorted(path.name for path in group) for group in report.across] == [["0.jpg", "again.jpg"]]
    assert report.sizes.shape == (14, 2)
    pixels = [decode_image(path) / 255.0 for path in sorted(layout.rglob("*.[jp][pn]g")) if path.name != "bad.jpg"]
    mean = np.mean([p.mean((0, 1)) for p in pixels], 0)
    std = np.sqrt(np.mean([(p**2).mean((0, 1)) for p in pixels], 0) - mean**2)
    assert np.allclose(report.mean, mean, atol=0.01)
    assert np.allclose(report.std, std, atol=0.01)


def test_the_table_says_it_all(layout: Path) -> None:
    text = str(inspect(layout))
    for part in (
        "14 readable images, 1 unreadable",
        "train (2): a 4, b 6",
        "height: 75 to 120 px",
        "RGB JPEG 13",
        "left out: 1 not an image (train/b/notes.txt)",
        "bad.jpg: cannot be decoded" if "bad.jpg: cannot" in text else "bad.jpg: is not an image",
        "equal files: 1",
        "of these in different parts or classes: 1",
    ):
        assert part in text


def test_plain_data_says_it_all(layout: Path) -> None:
    report = json.loads(json.dumps(inspect(layout).to_dict()))
    assert report["readable"] == 14
    assert report["classes"]["train"] == {"a": 4, "b": 6}
    assert report["height"] == {"min": 75, "median": 120, "max": 120}
    assert [entry["file"] for entry in report["unreadable"]] == ["train/b/bad.jpg"]
    assert [sorted(group) for group in report["duplicates"]] == [["test/a/again.jpg", "train/a/0.jpg"]]
    assert len(report["near_duplicates"]) == len(report["across"]) == 1
    assert report["left_out"] == {"not an image": {"count": 1, "first": ["train/b/notes.txt"]}}
    assert len(report["mean"]) == len(report["std"]) == 3


def test_a_folder_without_one_readable_image(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    report = inspect(tmp_path)
    assert report.to_dict()["height"] is None
    assert "0 readable images, 1 unreadable" in str(report)


def test_a_flat_folder_and_a_dataset(layout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    flat = tmp_path_factory.mktemp("flat")
    scene(flat / "1.jpg", 1)
    report = inspect(flat)
    assert report.classes == {"": {}}
    assert len(report.sizes) == 1
    part = inspect(ImageFolder(layout, part="test"))
    assert len(part.sizes) == 5
    with pytest.raises(DataNotFoundError):
        inspect(flat / "nothing")


def test_flat_images_are_no_near_duplicates(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("RGB", (30, 30), (number, 0, 0)).save(tmp_path / "a" / f"{number}.png")
    assert inspect(tmp_path).near_duplicates == []


def test_real_photographs_have_no_false_near_duplicates(shared_data: Path) -> None:
    report = inspect(shared_data / "images" / "hymenoptera")
    assert report.classes["train"] == {"ants": 124, "bees": 121}
    assert report.unreadable == []
    assert len(report.near_duplicates) <= 2


def test_the_picture(layout: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    inspect(layout).picture(tmp_path / "out.png")
    assert decode_image(tmp_path / "out.png").size > 1000
