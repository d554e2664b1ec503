"""The demo as a user sees it: letters come over HTTP or from fonts, it survives kills, and it learns."""

from __future__ import annotations

import functools
import inspect
import os
import re
import signal
import tarfile
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer, demo
from dlkit.callbacks import Checkpoint
from dlkit.storage.files import sha256_of
from servers import Server
from warm import Program

PICTURES = {"confusion.png", "curves.png", "samples.png"}


def accuracy(output: str) -> float:
    found = re.search(r"^test accuracy ([01]\.\d+)", output, re.MULTILINE)
    assert found is not None, output
    return float(found[1])


def start(folder: Path, *arguments: str, **environment: str) -> Program:
    """The demo as a process of its own."""
    return Program(["-m", "dlkit.demo", "--out", folder, *arguments], env=os.environ | environment)


def wait_for(folder: Path, pattern: str, process: Program) -> None:
    deadline = time.monotonic() + 200
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def first_letters(archive: Path, path: Path, per_class: int) -> Path:
    """An archive of the first letters of each class."""
    seen: Counter[str] = Counter()
    with tarfile.open(archive) as whole, tarfile.open(path, "w:gz", compresslevel=1) as part:
        for member in filter(tarfile.TarInfo.isfile, whole):
            letter = member.name.split("/")[-2]
            seen[letter] += 1
            if seen[letter] <= per_class:
                part.addfile(member, whole.extractfile(member))
    return path


# All of the letters and epochs take a minute; of 300 letters a class 0.88 are right after three epochs.
SIZES = [
    pytest.param(300, 3, 0.86),
    pytest.param(1_000_000, demo.EPOCHS, 0.93, marks=[pytest.mark.proof, pytest.mark.timeout(900)]),
]


@pytest.mark.parametrize(("per_class", "epochs", "reached"), SIZES)
def test_killed_and_started_again_it_reaches_its_accuracy(
    shared_data: Path, tmp_path: Path, per_class: int, epochs: int, reached: float
) -> None:
    whole = shared_data / "notmnist" / "notMNIST_small_lookalike.tar.gz"
    archive = first_letters(whole, tmp_path / "served.tar.gz", per_class)
    with Server() as server:
        server.files["/notMNIST_small.tar.gz"] = archive
        source = {"DLKIT_NOTMNIST_URL": f"{server.url('/notMNIST_small.tar.gz')}#sha256={sha256_of(archive)}"}
        arguments = [] if epochs == demo.EPOCHS else ["--epochs", str(epochs)]
        first = start(tmp_path, *arguments, **source)
        wait_for(tmp_path, "notmnist/checkpoint-000001-*.pt", first)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        assert first.returncode == -signal.SIGKILL
        second = start(tmp_path, *arguments, **source)
        output, errors = second.communicate()
        assert second.returncode == 0, errors
        assert len(server.requests) == 1
    assert "resumed" in errors
    assert "epoch 1/" not in errors.split("resumed")[1]
    assert f"epoch {epochs}/{epochs}" in errors
    assert accuracy(output) >= reached
    assert {path.name for path in (tmp_path / "notmnist").glob("*.png")} == PICTURES


@pytest.mark.parametrize(
    ("letters", "reached"), [(500, 0.0), pytest.param(10_000, 0.95, marks=pytest.mark.proof)], ids=str
)
def test_without_a_way_to_notmnist_it_says_so_in_a_line_and_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    letters: int,
    reached: float,
) -> None:
    assert inspect.signature(demo.Glyphs).parameters["num_samples"].default == 10_000
    monkeypatch.setattr(demo, "Glyphs", functools.partial(demo.Glyphs, letters))
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    assert demo.main(["--out", str(tmp_path), "--epochs", "1"]) == 0
    output = capsys.readouterr().out
    assert (
        len(re.findall("^notMNIST .*DLKIT_OFFLINE.*continuing with letters from this machine's fonts$", output, re.M))
        == 1
    )
    assert f"Glyphs({letters:,}" in output
    assert accuracy(output) >= reached
    assert {path.name for path in (tmp_path / "glyphs").glob("*.png")} == PICTURES


def test_the_fast_one_tells_everything_and_a_second_run_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path), "--epochs", "1", "--fast"]
    assert demo.main(arguments) == 0
    first = capsys.readouterr()
    assert "epoch 1/1" in first.err
    by_class = re.findall(r"\b([A-J]) ([01]\.\d{3})\b", first.out)
    assert [name for name, _ in by_class] == list("ABCDEFGHIJ")
    assert sum(float(value) for _, value in by_class) / 10 == pytest.approx(accuracy(first.out), abs=0.02)
    for name in PICTURES:
        with Image.open(tmp_path / "glyphs-fast" / name) as picture:
            assert min(picture.size) > 300
        assert str(tmp_path / "glyphs-fast" / name) in first.out
    assert demo.main(arguments) == 0
    second = capsys.readouterr()
    assert "epoch 1/1" not in second.err
    assert accuracy(second.out) == accuracy(first.out)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path, "--fast", "--epochs", "40")
    wait_for(tmp_path, "glyphs-fast/checkpoint-*.pt", process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert output.splitlines()[-1] == "interrupted; run the same command to resume"
    assert "Traceback" not in errors
    assert not list((tmp_path / "glyphs-fast").glob("*.png"))


def test_a_folder_with_another_run_is_told_without_a_traceback(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 2)
    optim = torch.optim.SGD(model.parameters(), 0.1)
    checkpoint = Checkpoint(tmp_path / "glyphs-fast")
    trainer = Trainer(model, torch.nn.CrossEntropyLoss(), optim, callbacks=[checkpoint], progress=False)
    trainer.fit(DataLoader(TensorDataset(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)), 2))
    process = start(tmp_path, "--fast")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "ResumeError: the run in the folder does not fit this script" in errors
    assert "Traceback" not in errors


def test_wrong_arguments_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in [(["--epochs", "0"], "at least 1"), (["--epochs", "many"], "invalid"), (["--x"], "--x")]:
        with pytest.raises(SystemExit, match="2"):
            demo.main(arguments)
        assert message in capsys.readouterr().err
