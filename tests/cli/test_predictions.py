"""`dlkit predict`: what a line says of its input, what a terminal shows, what is refused before anything is done."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dlkit as library
from dlkit.datasets import CSVDataset, TextDataset
from dlkit.models import SmallConvNet, TabularMLP, TextClassifier
from dlkit.transforms import for_evaluation

Run = Any


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "members.csv"
    rows = [f"{n:04d},{n % 7},{'ann' if n % 2 else 'Bob, of 서울'},{'yes' if n % 7 > 3 else 'no'}" for n in range(30)]
    rows = [row.replace("Bob, of 서울", '"Bob, of 서울"') for row in rows]
    path.write_text("\n".join(["id,visits,name,left", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data = CSVDataset(table, target="left", drop=("id", "name"))
    library.save(TabularMLP(data.spec, hidden=(8,)), folder / "model.safetensors", preprocessing=data)
    return folder


def test_the_folder_of_a_run_stands_for_its_model(dlkit: Run, run: Path, table: Path, tmp_path: Path) -> None:
    assert dlkit("predict", run, table).out == dlkit("predict", run / "model.safetensors", table).out
    assert dlkit("evaluate", run, table, "--json").document["samples"] == 30
    assert "TabularMLP" in dlkit("info", run).out
    done = dlkit("export", run, "--to", "state_dict", "--out", tmp_path / "w.pth")
    assert done.code == 0
    none = dlkit("predict", tmp_path, table)
    assert none.code == 1
    assert f"the folder {tmp_path} has no model.safetensors" in none.err


def test_a_line_names_its_row_or_what_was_asked_for(dlkit: Run, run: Path, table: Path, tmp_path: Path) -> None:
    def written(*more: object) -> pd.DataFrame:
        done = dlkit("predict", run, table, "--out", tmp_path / "out.csv", *more)
        assert done.code == 0, done.err
        return pd.read_csv(tmp_path / "out.csv", dtype=str)

    assert list(written().columns) == ["row", "prediction", "probability"]
    by_id = written("--id", "id")
    assert list(by_id.columns) == ["id", "prediction", "probability"]
    assert by_id["id"][7] == "0007"
    kept = written("--keep", "--probabilities")
    assert list(kept.columns)[:5] == ["row", "id", "visits", "name", "left"]
    assert kept.iloc[:, 1:5].equals(pd.read_csv(table, dtype=str))
    assert list(kept.columns)[-2:] == ["p_no", "p_yes"]
    shares = kept[["p_no", "p_yes"]].astype(float)
    assert shares.sum(axis=1).sub(1).abs().max() < 1e-6
    assert shares.max(axis=1).sub(kept["probability"].astype(float)).abs().max() < 1e-6
    twice = pd.read_csv(io.StringIO(dlkit("predict", run, table, table, "--id", "name").out))
    assert list(twice.columns) == ["file", "name", "prediction", "probability"]
    assert twice["file"].tolist() == [str(table)] * 60


def test_broken_rows_keep_their_place_beside_the_cells_of_others(dlkit: Run, run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("id,visits\na,1\nb,many\nc\nd,4\n")
    done = dlkit("predict", run, tmp_path / "new.csv", "--id", "id", "--on-error", "skip")
    found = pd.read_csv(io.StringIO(done.out), keep_default_na=False)
    assert found["id"].tolist() == ["a", "b", "", "d"]
    assert [bool(error) for error in found["error"]] == [False, True, True, False]


def test_texts_keep_their_columns_and_files_their_names(dlkit: Run, tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["x1", "x2"], "words": ["good film", "bad film"], "mood": ["pos", "neg"]})
    data = TextDataset(frame, text="words", target="mood", min_freq=1)
    library.save(TextClassifier(len(data.vocabulary), 2), tmp_path / "m.safetensors", preprocessing=data)
    frame.to_csv(tmp_path / "new.csv", index=False)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("good film")

    def found(*arguments: object) -> pd.DataFrame:
        done = dlkit("predict", tmp_path / "m.safetensors", *arguments)
        assert done.code == 0, done.err
        return pd.read_csv(io.StringIO(done.out))

    assert list(found("--file", tmp_path / "new.csv").columns)[:2] == ["row", "text"]
    by_id = found("--file", tmp_path / "new.csv", "--id", "id")
    assert (list(by_id.columns)[:2], by_id["id"].tolist()) == (["text", "id"], ["x1", "x2"])
    assert found("--file", tmp_path / "new.csv", "--keep")["mood"].tolist() == ["pos", "neg"]
    assert found("--file", tmp_path / "texts")["file"].tolist() == [str(tmp_path / "texts" / "one.txt")]
    assert next(iter(found("good film").columns)) == "text"


def test_images_named_in_a_table_keep_its_columns(dlkit: Run, tmp_path: Path) -> None:
    from PIL import Image

    grey = for_evaluation(28, color="L", mean=0.0, std=1.0)
    library.save(SmallConvNet(2), tmp_path / "m.safetensors", classes=["A", "B"], preprocessing=grey)
    Image.new("L", (28, 28), 9).save(tmp_path / "a.png")
    (tmp_path / "files.csv").write_text("who,path\nann,a.png\n")
    done = dlkit("predict", tmp_path / "m.safetensors", tmp_path / "files.csv", "--image", "path", "--id", "who")
    assert done.out.splitlines()[0].split(",")[:2] == ["file", "who"]
    refused = dlkit("predict", tmp_path / "m.safetensors", tmp_path / "a.png", "--id", "who")
    assert "images that stand in no table take no option 'keep'" in refused.err


def test_a_terminal_shows_ten_rows_that_fit(
    dlkit: Run, run: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", screen := Screen())
    monkeypatch.setattr(sys, "stderr", said := io.StringIO())
    dlkit("predict", run, table, "--keep")
    shown = screen.getvalue().splitlines()
    assert len(shown) == 11
    assert all(len(line) + line.count("서") + line.count("울") <= 40 for line in shown)
    assert "pred…" in shown[0]
    assert "the first 10; --out predictions.csv writes all" in said.getvalue()
    screen.truncate(screen.seek(0))
    dlkit("predict", run, table, "--out", tmp_path / "all.csv")
    assert len(screen.getvalue().splitlines()) == 11
    assert len(pd.read_csv(tmp_path / "all.csv")) == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{folder}"], "--out {folder}: this is a folder; name a file in it"),
        (["--out", "{folder}/no/x.csv"], "--out {folder}/no/x.csv: there is no folder {folder}/no"),
        (["--out", "/proc/x.csv"], "--out /proc/x.csv: cannot be written"),
        (["--id", "nmae"], "members.csv has no column 'nmae' to keep; its columns are 'id', 'visits'"),
    ],
)
def test_what_cannot_be_written_is_refused_first(
    dlkit: Run, run: Path, table: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = dlkit("predict", run, table, *(argument.format(folder=tmp_path) for argument in arguments))
    assert (done.code, done.out) == (1, "")
    assert message.format(folder=tmp_path) in " ".join(done.err.split())
