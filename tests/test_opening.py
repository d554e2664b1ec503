"""What is not a regular file is named at once in every place that opens a file from elsewhere; nothing ever waits."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

import dlkit
from dlkit import artifact
from dlkit._opening import name_of, open_regular, regular
from dlkit.datasets import (
    CSVDataset,
    Glyphs,
    ImageFiles,
    ImageFolder,
    ImageTable,
    NotMNIST,
    TextDataset,
    decode_image,
    inspect,
)
from dlkit.download import fetch
from dlkit.download.archives import extract
from dlkit.errors import DataError, DataNotFoundError, DlkitError, ModelFileError
from dlkit.recipes import read_data
from dlkit.runs.store import CheckpointStore
from dlkit.specs import TableSpec
from dlkit.training import CheckpointWarning, load_checkpoint
from dlkit.transfer import load_weights

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")


@contextlib.contextmanager
def _socket(path: Path) -> Iterator[Path]:
    """A socket at `path`, whose name may be no longer than 107 bytes, so it is bound from its own folder."""
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
            os.chdir(before)
            yield path
    finally:
        os.chdir(before)


@pytest.fixture(params=["fifo", "device", "socket", "folder", "loop"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A path that is not a file, and what errors call it."""
    path = tmp_path / "odd"
    if request.param == "fifo":
        os.mkfifo(path)
        yield path, r"is a named pipe \(FIFO\), not a file"
    elif request.param == "device":
        yield Path("/dev/zero"), "is a device, not a file"
    elif request.param == "socket":
        with _socket(path):
            yield path, "is a socket, not a file"
    elif request.param == "folder":
        path.mkdir()
        yield path, "is a folder, not a file"
    else:
        path.symlink_to(path.name)
        yield path, "is a symbolic link that leads to itself"


def test_each_kind_is_refused_by_name(odd: tuple[Path, str]) -> None:
    path, message = odd
    for opened in (regular, open_regular):
        with pytest.raises(DataError, match=message):
            opened(path)
        with pytest.raises(ModelFileError, match=message):
            opened(path, ModelFileError)


def test_a_regular_file_is_opened_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"content"
        assert regular(tmp_path / "link").st_size == 7


def test_what_is_read_is_what_was_opened_whatever_takes_its_place(tmp_path: Path) -> None:
    """Libraries that open files themselves are given a name of the open one."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with open_regular(path) as file:
        path.unlink()
        os.mkfifo(path)
        if Path("/proc/self/fd").exists():
            assert Path(name_of(file, path)).read_bytes() == b"content"
            assert torch.from_file(name_of(file, path), size=7, dtype=torch.uint8).numpy().tobytes() == b"content"


@pytest.mark.parametrize("name", ["gone", "gone/deeper", "nul\0character"])
def test_what_is_not_there_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataNotFoundError, match="there is no file"):
        open_regular(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o000)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        open_regular(tmp_path / "file")


# Every public way to name a file, each given a path that is a FIFO. (Some go by the ending of the name.)
OPENERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "csv": ("x.csv", lambda path: CSVDataset(path)),
    "csv in a list": ("x.csv", lambda path: CSVDataset([path, path])),
    "csv that streams": ("x.csv", lambda path: CSVDataset(path, streaming=True)),
    "csv split": ("x.csv", lambda path: CSVDataset.split(path)),
    "spec": ("x.json", TableSpec.load),
    "texts": ("x.csv", lambda path: TextDataset(path, text=0)),
    "text lines": ("x.txt", lambda path: TextDataset(path)),
    "texts without an ending": ("x", lambda path: TextDataset(path)),
    "texts in parquet": ("x.parquet", lambda path: TextDataset(path, text=0)),
    "text folder": ("x.txt", lambda path: TextDataset(path.parent)),
    "image": ("x.png", decode_image),
    "images in a list": ("x.png", lambda path: ImageFiles([path], size=8)[0]),
    "image table": ("x.csv", ImageTable),
    "font": ("x.ttf", lambda path: Glyphs(fonts=[path])),
    "archive": ("x.zip", lambda path: extract(path, path.with_name("out"))),
    "file url": ("x.zip", lambda path: fetch(path.as_uri(), path.with_name("y.zip"), progress=False)),
    "weights": ("x.pth", lambda path: load_weights(torch.nn.Linear(2, 1), path)),
    "checkpoint": ("x.pt", load_checkpoint),
    "model": ("x.safetensors", dlkit.load),
    "model header": ("x.safetensors", artifact.read_header),
    "recipe": ("x.csv", lambda path: read_data(path, target="y")),
    "letters": ("notMNIST_small.tar.gz", lambda path: NotMNIST(path.parent)),
    "letters, packed": ("notMNIST_small.safetensors", lambda path: NotMNIST(path.parent)),
}


@pytest.mark.parametrize("case", OPENERS)
def test_a_fifo_is_an_error_at_once(case: str, tmp_path: Path) -> None:
    name, opener = OPENERS[case]
    os.mkfifo(tmp_path / name)
    with pytest.raises(DlkitError, match=r"is a named pipe \(FIFO\)|holds no"):
        opener(tmp_path / name)


def test_a_fifo_in_a_table_of_images_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    os.mkfifo(tmp_path / "fifo.png")
    frame = pd.DataFrame({"file": ["good.png", "fifo.png"], "label": ["a", "b"]})
    with pytest.raises(DataError, match=r"fifo\.png is a named pipe"):
        ImageTable(frame, root=tmp_path, size=8).__getitems__([0, 1])


def test_a_fifo_in_the_image_column_of_a_table_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    os.mkfifo(tmp_path / "fifo.png")
    frame = pd.DataFrame({"photo": ["good.png", "fifo.png"] * 9, "x": range(18), "label": [0.5, 1.5] * 9})
    with pytest.raises(DataError, match=r"names no image file in column 'photo': .*fifo\.png"):
        CSVDataset(frame, target="label", image="photo", image_root=tmp_path, image_size=8)


def test_odd_files_in_a_class_folder_are_left_out_and_told(tmp_path: Path) -> None:
    for name in ("ants", "bees"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "1.png")
    (tmp_path / "ants" / "loop.png").symlink_to("loop.png")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "bees" / "up").symlink_to("..")
    os.mkfifo(tmp_path / "bees" / "fifo.png")
    with _socket(tmp_path / "bees" / "socket.png"):
        dataset = ImageFolder(tmp_path, size=8)
    assert dataset.classes == ["ants", "bees"]
    assert len(dataset) == 2
    assert dataset.left_out["broken link or special file"][0] == 4
    assert len(ImageFiles(tmp_path, size=8)) == 2
    assert inspect(tmp_path, progress=False).unreadable == []


def test_a_fifo_among_copies_does_not_stop_a_split(tmp_path: Path) -> None:
    for place in range(8):
        Image.new("RGB", (9, 9), (place, 0, 0)).save(tmp_path / f"{place}.png")
    dataset = ImageFiles(sorted(tmp_path.glob("*.png")), size=8)
    for place in (0, 1):
        (tmp_path / f"{place}.png").unlink()
        os.mkfifo(tmp_path / f"{place}.png")
    parts = dataset.split(0.5)
    assert sum(map(len, parts)) == 8


def test_a_fifo_in_a_folder_of_texts_is_skipped_by_name(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(6):
            (tmp_path / name / f"{number}.txt").write_text(f"text {name} {number}")
    os.mkfifo(tmp_path / "a" / "fifo.txt")
    (tmp_path / "b" / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(DataError, match=r"a/fifo\.txt.* is a named pipe"):
        TextDataset(tmp_path)
    dataset = TextDataset(tmp_path, on_error="skip", max_errors=0.2)
    assert len(dataset) == 12
    assert [skipped.file for skipped in dataset.skipped] == [str(tmp_path / "a/fifo.txt"), str(tmp_path / "b/loop.txt")]


def test_a_fifo_in_a_checkpoints_place_is_passed_over(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    good = store.save({"model": {"w": torch.ones(1)}}, step=1, epoch=0)
    bad = store.save({"model": {"w": torch.zeros(1)}}, step=2, epoch=0)
    bad.unlink()
    os.mkfifo(bad)
    with pytest.warns(CheckpointWarning, match="is a named pipe"):
        entry, _ = next(iter(store.loadable()))
    assert entry.file == good.name
    (tmp_path / "index.json").unlink()
    os.mkfifo(tmp_path / "index.json")
    with pytest.warns(CheckpointWarning, match=r"index\.json cannot be read .*named pipe"):
        CheckpointStore(tmp_path, keep_last=3)


def test_a_fifo_in_the_place_of_notes_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "source.zip").write_bytes(b"content")
    (tmp_path / "copy.zip.part").write_bytes(b"con")
    os.mkfifo(tmp_path / "copy.zip.part.json")
    got = fetch((tmp_path / "source.zip").as_uri(), tmp_path / "copy.zip", progress=False)
    assert got.read_bytes() == b"content"
