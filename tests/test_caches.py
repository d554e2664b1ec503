"""What dlkit keeps can be listed, measured and cleared, in Python and on the command line; what is in use stays."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import warm
from dlkit.cli import app
from dlkit.datasets import ImageFolder
from dlkit.errors import ArgumentError
from dlkit.storage import caches, clear, entries, files, home
from dlkit.storage.arrays import ArrayWriter, SharedArray
from dlkit.storage.files import FileLock, home_of

DAY = 24 * 3600


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Features of 3 kB (10 days old), a text of 200 bytes in two files (2 days), weights of 50 bytes (new)."""
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "home"))
    for name, size, days in (
        ("features/abc/features.bin", 2900, 10),
        ("features/abc/targets", 100, 10),
        ("text/key.ids", 150, 2),
        ("text/key.lengths", 50, 2),
        ("text/.key.ids.x1.tmp", 0, 2),
        ("weights/0f/resnet.pth", 50, 0),
    ):
        path = home() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        os.utime(path, (time.time() - days * DAY, time.time() - days * DAY))
    return home()


def left(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}


def test_where_everything_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLKIT_HOME", "here")
    assert home() == tmp_path / "here"
    assert home_of("scans") == tmp_path / "here" / "scans"
    assert (entries(), clear().removed) == ([], ())
    assert not home().exists()
    monkeypatch.setenv("DLKIT_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert home() == tmp_path / "dlkit"


def test_entries_have_kind_name_size_age_and_purpose(kept: Path) -> None:
    found = [(entry.kind, entry.name, entry.size, entry.age.days) for entry in entries()]
    assert found == [("features", "abc", 3000, 10), ("text", "key", 200, 2), ("weights", "0f", 50, 0)]
    assert [entry.purpose for entry in entries(["weights"])] == ["downloaded weights of models"]
    with pytest.raises(ArgumentError, match="keeps nothing called 'wieghts'; the kinds are decoded, features"):
        entries(["wieghts"])


def test_clearing_all_one_kind_old_ones_or_down_to_a_size(kept: Path) -> None:
    everything = left(kept)
    done = clear(dry_run=True)
    assert (len(done.removed), done.size, done.in_use, left(kept)) == (3, 3250, (), everything)
    assert clear(older_than=timedelta(days=11)).removed == ()
    assert clear(keep_bytes=4000).removed == ()
    assert [entry.kind for entry in clear(older_than=timedelta(days=5), dry_run=True).removed] == ["features"]
    assert [entry.kind for entry in clear(keep_bytes=240, dry_run=True).removed] == ["features", "text"]
    assert clear("text").size == 200
    assert left(kept) == {name for name in everything if not name.startswith("text")}
    (kept / "not ours").mkdir()
    (kept / "not ours" / "thesis.txt").write_text("precious")
    assert clear().size == 3050
    assert left(kept) == {"not ours/thesis.txt"}
    assert (kept / "features").is_dir()
    with pytest.raises(ArgumentError, match="must not be negative"):
        clear(keep_bytes=-1)


HOLD = """
import sys, time
from dlkit.storage.files import FileLock, mapped
held = mapped(sys.argv[2], "u1") if sys.argv[1] == "map" else FileLock(sys.argv[2])
if sys.argv[1] == "lock": held.acquire()
print("held", flush=True)
time.sleep(200)
"""


@pytest.mark.parametrize("how", ["lock", "map"])
def test_what_another_process_uses_stays(kept: Path, how: str) -> None:
    file = kept / "features/abc" / (".lock" if how == "lock" else "features.bin")
    program = warm.Program(["-c", HOLD, how, file])
    assert program.stdout.readline() == "held\n"
    done = clear()
    assert [entry.kind for entry in done.in_use] == ["features"]
    assert {"features/abc/features.bin", "features/abc/targets"} <= left(kept)
    assert len(done.removed) == 2
    program.kill()
    program.communicate()
    program.communicate(timeout=60)
    assert len(clear().removed) == 1
    assert left(kept) == set()


def test_a_dataset_keeps_its_arrays_while_it_lives(kept: Path, tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 30), (number, 0, 0)).save(path)
    ds = ImageFolder(tmp_path / "data", size=16, cache="auto")
    first = [ds[i][0] for i in range(4)]
    ds[0]
    assert [entry.kind for entry in clear(["decoded"]).in_use] == ["decoded"]
    assert all(torch.equal(ds[i][0], x) for i, x in enumerate(first))
    del ds
    gc.collect()
    assert len(clear(["decoded"]).removed) == 1
    assert torch.equal(ImageFolder(tmp_path / "data", size=16, cache="auto")[0][0], first[0])


def test_an_array_that_is_removed_under_a_reader_is_absent(kept: Path) -> None:
    writer = ArrayWriter(np.int32, budget=1, folder=home_of("text"))
    writer.append(np.arange(5))
    block = writer.finish(".ids", "mine")
    assert block.path is not None
    assert [entry.name for entry in clear(["text"]).in_use] == ["mine"]
    path, block = block.path, None
    clear(["text"])
    with pytest.raises(FileNotFoundError):
        SharedArray.map(path, np.int32)


def test_a_file_system_without_locks_can_still_be_read(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: Any, shared: bool) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_lock", no_locks)
    assert len(files.mapped(kept / "text" / "key.ids", "u1")) == 150
    assert len(clear(["text"]).in_use) == 1


def test_entries_may_disappear_in_the_middle(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = entries()
    shutil.rmtree(kept / "text")
    for entry in found:
        assert caches._remove(entry)
    assert (entries(), left(kept)) == ([], set())


def test_a_lock_whose_file_was_removed_is_not_held_twice(tmp_path: Path) -> None:
    """Between opening and locking the file may go; two processes must not both believe that they have the lock."""
    first = FileLock(tmp_path / "lock")
    with open(tmp_path / "lock", "ab"):
        (tmp_path / "lock").unlink()
        assert first.acquire(timeout=0)
        assert not FileLock(tmp_path / "lock").acquire(timeout=0)
        first.release()


def test_room_is_made_from_what_can_be_made_again(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: usage)
    os.utime(kept / "weights/0f/resnet.pth", (0, 0))
    caches.make_room(5000, kept.parent)  # not dlkit's
    caches.make_room(1000, kept / "decoded")  # there is room
    assert len(entries()) == 3
    caches.make_room(9000, kept / "decoded")
    assert [entry.kind for entry in entries()] == ["text", "weights"]  # too new; downloads are never taken


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, str, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as done:
        app(["cache", *map(str, arguments)], prog_name="dlkit")
    return (done.value.code, *capfd.readouterr())


def test_the_command(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd)
    assert code == 0
    assert f"{kept}: 3.25 kB" in out
    assert "features        3 kB  what the frozen part of a model gave" in out
    assert "10 days  abc" in out
    assert "abc" not in run(capfd, "size")[1]
    assert "would free 3 kB (1 entries)" in run(capfd, "clear", "features", "--dry-run")[1]
    assert "would free 3 kB (1 entries)" in run(capfd, "clear", "--older-than", "5d", "--dry-run")[1]
    assert "would free 3.2 kB (2 entries)" in run(capfd, "clear", "--keep", "0.24kb", "--dry-run")[1]
    with FileLock(kept / "text" / "key.lock"):
        code, out, err = run(capfd, "clear")
    assert code == 1
    assert "freed 3.05 kB" in out
    assert "in use, so it stays: text key (200 B)" in err
    assert '"size": 200' in run(capfd, "size", "--json")[1]
    code, _, err = run(capfd, "clear", "--older-than", "soon")
    assert code == 2
    assert "not an age such as 12h, 30d" in err
    assert "not a size such as 500MB" in run(capfd, "clear", "--keep", "much")[2]
    assert "keeps nothing called 'pictures'" in run(capfd, "list", "pictures")[2]
