"""The options of the commands: what Python can do they can, wrong ones are refused before work, by their own names."""

from __future__ import annotations

import inspect
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dlkit as library
from dlkit import recipes
from dlkit.cli._options import DATA, TRAINING
from dlkit.cli._talking import _in_shell_words
from dlkit.recipes.kinds import DataOptions

Run = Any


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    size = rng.integers(0, 30, 120)
    stars = np.where(size < 14, 1, 2) + rng.integers(0, 2, 120)
    marks = np.where(size < 14, "small|cheap", "large")
    path = tmp_path_factory.mktemp("with blanks") / "things.csv"
    pd.DataFrame({"size": size, "stars": stars, "marks": marks}).to_csv(path, index=False)
    return path


def test_what_python_can_do_the_command_line_can() -> None:
    parameters = set(inspect.signature(recipes.train).parameters) - {"data", "progress", "reading"}
    assert set(TRAINING) == parameters
    assert set(DATA) - {"names"} == set(DataOptions.__annotations__) - {"max_errors"}


def test_a_target_means_what_is_said(dlkit: Run, table: Path, tmp_path: Path) -> None:
    for number, (options, task) in enumerate(
        (
            (["--target", "stars"], "classification"),
            (["--target", "stars", "--task", "regression"], "regression"),
            (["--target", "marks", "--label-separator", "|"], "multilabel"),
        )
    ):
        command = ["train", table, *options, "--arch", "mlp", "--epochs", 1, "--gpu", -1]
        done = dlkit(*command, "--out", tmp_path / str(number), "--json")
        assert done.code == 0, done.err
        assert library.load(tmp_path / str(number)).task == task


def test_precision_log_and_a_rate_that_is_found(dlkit: Run, table: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    how = ["--arch", "mlp", "--epochs", 1, "--lr", "find", "--precision", "bf16", "--log", "tensorboard"]
    command = ["train", table, "--target", "stars", *how, "--device", "cpu", "--out", tmp_path / "run dir"]
    done = dlkit(*command)
    assert done.code == 0, done.err
    assert "at which the loss falls most steeply" in done.err
    assert f"use it: dlkit predict {shlex.quote(str(tmp_path / 'run dir' / 'model.safetensors'))} new.csv" in done.out
    assert list((tmp_path / "run dir" / "tensorboard").iterdir())
    again = dlkit(*command)
    assert "nothing to train: this run is finished" in again.err
    other = dlkit(*command[:-4], "--device", "cpu", "--precision", "fp32", "--out", tmp_path / "run dir")
    assert "precision: there 'bf16', now None" in other.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--device", "cuda:99"], 1, "'cuda:99' is not on this machine"),
        (["--gpu", "99"], 1, "'cuda:99' is not on this machine"),
        (["--out", "{table}"], 1, "things.csv is a file; name a folder"),
        (["--out", "/proc/run"], 1, "--out /proc/run: cannot be written"),
        (["--weights", "no such.pth"], 1, "--weights 'no such.pth': there is no such file"),
        (["--log", "paper"], 1, "--log ['paper']: a list of some of tensorboard, mlflow, wandb is expected"),
        (["--lr", "fast"], 2, "--lr: 'fast' is not a learning rate such as 0.001, nor find"),
        (["--task", "guess"], 2, "'--task'"),
        (["--class-weights", "no=a"], 2, "--class-weights: 'no=a' are no weights"),
        (["--precision", "fp8"], 2, "'--precision'"),
    ],
)
def test_wrong_options_are_told_before_the_data_is_read(
    dlkit: Run, table: Path, arguments: list[str], code: int, message: str
) -> None:
    done = dlkit("train", "nowhere", *(argument.format(table=table) for argument in arguments))
    assert (done.code, done.out) == (code, "")
    assert message in " ".join(done.err.split())


def test_other_commands_look_at_device_and_file_first(dlkit: Run, tmp_path: Path) -> None:
    for command in (["predict", "nowhere", "x"], ["evaluate", "nowhere"]):
        assert "'cuda:99' is not on this machine" in dlkit(*command, "--gpu", 99).err
    export = dlkit("export", "nowhere", "--to", "onnx", "--out", tmp_path / "no" / "x.onnx")
    assert f"--out {tmp_path / 'no' / 'x.onnx'}: there is no folder" in export.err
    assert "there is no folder" in dlkit("checkpoint", "nowhere", "--out", tmp_path / "no" / "x.pt").err


def test_messages_quote_what_has_blanks() -> None:
    for message, told in (
        ("root='my photos', text=['a', 'b']", "root='my photos', --text ['a', 'b']"),
        ("weights='my file.pth': no", "--weights 'my file.pth': no"),
        ("class_weights='balanced'; precision=", "--class-weights balanced; --precision"),
        ("strip_html=True and lower=False", "--strip-html and --lower False"),
    ):
        assert _in_shell_words(message) == told
