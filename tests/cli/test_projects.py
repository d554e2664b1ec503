"""`dlkit new`: each kind of project is written out, run as a person would run it, and passes its own tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from programs import finish, python, start

from dlkit.cli.projects import TASKS, create
from dlkit.errors import ArgumentError

FILES = {
    ".gitignore", "README.md", "config.toml", "data.py", "dataloader.py", "model.py", "predict.py", "pyproject.toml",
    "sample.py", "settings.py", "tests/test_project.py", "train.py", "trainer.py",
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "asked", "answer"),
    [
        ("audio", ["sample_data/rising/001.wav"], "0  sample_data/rising/001.wav"),
        ("image", ["sample_data/square/001.png"], "0  sample_data/square/001.png"),
        ("mixed", ["sample_data/offers.csv"], "[300 rows x 2 columns]"),
        ("tabular", ["sample_data.csv"], "[600 rows x 2 columns]"),
        ("text", ["--file", "sample_data.csv"], "[600 rows x 3 columns]"),
    ],
)
def test_a_new_project_trains_predicts_and_passes_its_tests(
    tmp_path: Path, task: str, asked: list[str], answer: str
) -> None:
    folder = tmp_path / f"my-{task}"
    files = create(folder, task)
    assert {file.relative_to(folder).as_posix() for file in files} == FILES
    train = ["train.py", "--batch_size", 256, "--gpu_id", -1, "--n_epochs"]
    if task == "tabular":
        assert python(folder, *train, 1).code == 0
    trained = python(folder, *train, 2 if task == "tabular" else 1)
    assert trained.code == 0, trained.err
    assert ("resumed from" in trained.err) == (task == "tabular")
    assert f"model: {folder / 'runs' / f'my-{task}' / 'model.safetensors'}" in trained.out
    assert "test accuracy" in trained.out
    run = folder / "runs" / f"my-{task}"
    assert {"history.csv", "curves.png", "report.html"} <= {file.name for file in run.iterdir()}
    predicted = python(folder, "predict.py", *asked)
    assert predicted.code == 0, predicted.err
    assert answer in predicted.out
    tested = python(folder, "-m", "pytest", "-q")
    assert tested.code == 0, tested.out
    assert "3 passed" in tested.out


@pytest.mark.parametrize("task", TASKS)
def test_what_is_written_is_clean_code(tmp_path: Path, task: str) -> None:
    folder = tmp_path / "clean"
    create(folder, task)
    rules = ["--isolated", "--line-length", "120", "--no-cache"]
    lint = [sys.executable, "-m", "ruff", "check", *rules, "--select", "E,F,I,B,UP,C4,SIM,RUF,PIE,RET,PT", "."]
    assert finish(start(lint, folder)).out == "All checks passed!\n"
    form = finish(start([sys.executable, "-m", "ruff", "format", "--check", *rules, "."], folder))
    assert form.code == 0, form.out


def test_it_carries_the_name_of_its_folder(tmp_path: Path) -> None:
    create(tmp_path / "My Flowers!", "image")
    texts = [path.read_text() for path in (tmp_path / "My Flowers!").rglob("*") if path.is_file()]
    assert not any("{{" in text for text in texts)
    assert 'out = "runs/My-Flowers"' in (tmp_path / "My Flowers!" / "config.toml").read_text()


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine, too")
    with pytest.raises(ArgumentError, match=r"is not empty: name a new folder, or say here=True"):
        create(tmp_path, "text")
    with pytest.raises(ArgumentError, match=r"nothing was written, because these files are there already: .*train\.py"):
        create(tmp_path, "text", here=True)
    assert {path.name for path in tmp_path.iterdir()} == {"train.py", "notes.txt"}
    assert (tmp_path / "train.py").read_text() == "mine"
    (tmp_path / "train.py").unlink()
    create(tmp_path, "text", here=True)
    assert (tmp_path / "notes.txt").read_text() == "mine, too"


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="is a file; name a folder"):
        create(tmp_path / "file", "text")
    with pytest.raises(ArgumentError, match="task must be one of audio, image, mixed, tabular, text, not 'video'"):
        create(tmp_path / "new", "video")
    assert not (tmp_path / "new").exists()


def test_the_command_writes_it_and_says_what_comes_next(dlkit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = dlkit("new", tmp_path / "shop", "--task", "tabular")
    assert done.code == 0, done.err
    assert "config.toml" in done.out
    assert f"next: cd {tmp_path / 'shop'}; python train.py; pytest" in done.out
    again = dlkit("new", tmp_path / "shop", "--task", "tabular", "--json")
    assert (again.code, again.out) == (1, "")
    assert "is not empty: name a new folder, or say --here" in again.err
    assert "nothing was written" in dlkit("new", tmp_path / "shop", "--task", "tabular", "--here").err
