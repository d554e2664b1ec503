"""`python -m dlkit` in a process of its own: it answers at once, and can be stopped at any moment."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from programs import finish, python, start, warm

import dlkit

HELP = """
import sys, time
began = time.process_time()
import dlkit.cli
try:
    dlkit.cli.app(sys.argv[1:], prog_name="dlkit")
except SystemExit:
    pass
heavy = {"torch", "numpy", "pandas", "PIL", "torchvision", "timm"} & set(sys.modules)
print(time.process_time() - began, *heavy)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]], ids=" ".join)
def test_help_comes_at_once(tmp_path: Path, arguments: list[str]) -> None:
    """Under half a second of processor time, the import of torch taking several; at one of three times."""
    for _ in range(3):
        done = finish(start([sys.executable, "-c", HELP, *arguments], tmp_path))
        assert done.code == 0, done.err
        seconds, *heavy = done.out.splitlines()[-1].split()
        assert heavy == []
        if float(seconds) < 0.5:
            return
    pytest.fail(f"{seconds} seconds")


def test_help_has_examples_for_every_command(tmp_path: Path) -> None:
    from dlkit.cli.app import app

    texts = {command.callback.__name__: command.callback.__doc__ for command in app.registered_commands}  # type: ignore[union-attr]
    commands = "cache checkpoint compare demo download evaluate export info inspect new predict serve train tune"
    assert " ".join(sorted(texts)) == commands
    for name, text in texts.items():
        assert f"dlkit {name} " in str(text)
    done = python(tmp_path, "-m", "dlkit", "predict", "--help")
    assert "\n    dlkit predict model.safetensors photos --out predictions.csv\n" in done.out
    assert python(tmp_path, "-m", "dlkit", "--version").out == f"dlkit {dlkit.__version__}\n"


def test_completion_for_the_shell(tmp_path: Path) -> None:
    environment = {"_DLKIT_COMPLETE": "complete_bash", "COMP_WORDS": "dlkit tr", "COMP_CWORD": "1"}
    done = finish(start([sys.executable, "-m", "dlkit"], tmp_path, **environment))
    assert done.out.strip() == "train"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(4_000, 4))
    path = tmp_path_factory.mktemp("data") / "noise.csv"
    frame = pd.DataFrame(numbers, columns=list("abcd"))
    frame.assign(y=np.where(numbers.sum(1) > 0, "plus", "minus")).to_csv(path, index=False)
    return path


def wait_for(path: Path, process: object, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        assert process.poll() is None, process.communicate()[1]  # type: ignore[attr-defined]
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_training_goes_on_with_the_same_command(
    tmp_path: Path, table: Path, number: signal.Signals, code: int
) -> None:
    command = ["-m", "dlkit", "train", table, "--target", "y", "--device", "cpu", "--patience", 99]
    process = warm(tmp_path, *command, "--epochs", 4_000)
    wait_for(tmp_path / "runs/noise/index.json", process)
    os.kill(process.pid, number)
    done = finish(process)
    assert done.code == code, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert not (tmp_path / "runs/noise/model.safetensors").exists()
    epochs = len(pd.read_csv(tmp_path / "runs/noise/history.csv"))
    if number == signal.SIGINT:
        assert "interrupted; run the same command to resume (runs/noise)" in done.err
        more = python(tmp_path, *command, "--epochs", epochs + 1)
        assert more.code == 0, more.err
        assert "resumed from runs/noise" in more.err
        assert len(pd.read_csv(tmp_path / "runs/noise/history.csv")) == epochs + 1
        assert (tmp_path / "runs/noise/model.safetensors").is_file()


@pytest.fixture(scope="module")
def noise_model(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = dlkit.datasets.CSVDataset(table, target="y")
    path = tmp_path_factory.mktemp("models") / "noise.safetensors"
    return dlkit.save(dlkit.models.TabularMLP(data.spec), path, preprocessing=data)


def lasting(table: Path, folder: Path, times: int = 60) -> Path:
    """So many rows that a prediction is still on when a signal comes, or that they fill a pipe."""
    head, rows = table.read_text().split("\n", 1)
    path = folder / "long.csv"
    path.write_text(f"{head}\n" + rows * times)
    return path


def test_ctrl_c_leaves_the_lines_that_are_computed(noise_model: Path, table: Path, tmp_path: Path) -> None:
    process = warm(tmp_path, "-m", "dlkit", "predict", noise_model, lasting(table, tmp_path), "--out", "out.csv")
    wait_for(tmp_path / "out.csv", process)
    while not (tmp_path / "out.csv").stat().st_size:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130, done.err
    written = (tmp_path / "out.csv").read_text()
    assert written.endswith("\n")
    rows = written.splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(len(rows)))
    told = re.fullmatch(r"(\d+) predictions: out\.csv\ninterrupted\n", done.err)
    assert told is not None, done.err
    assert 0 <= len(rows) - int(told[1]) <= 64  # the signal may come between writing a batch and counting it
    assert len(rows) < 240_000


def test_a_broken_pipe_ends_quietly(noise_model: Path, table: Path, tmp_path: Path) -> None:
    process = warm(tmp_path, "-m", "dlkit", "predict", noise_model, lasting(table, tmp_path, 10))
    try:
        assert process.stdout.readline() == "row,prediction,probability\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(200) != 0
    finally:
        process.kill()
        process.stderr.close()
