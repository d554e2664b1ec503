"""`group=` and `time=` of the recipes: what stays together, what comes first, and that a run is cut again as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dlkit.cli import app
from dlkit.errors import ArgumentError, DataError, DlkitError
from dlkit.recipes import Data, evaluate_file, look_at, read_data, train


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of users on days, in no order, each beside a text and an image."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("visits") / "visits.csv"
    user, day, spent = rng.integers(0, 24, 120), rng.permutation(120), rng.normal(size=120)
    frame = pd.DataFrame({"user": [f"u{n}" for n in user], "day": day, "spent": spent.round(3)})
    frame["kept"] = np.where(frame["spent"] > 0, "yes", "no")
    frame["said"] = [f"word{n} {kept}" for n, kept in enumerate(frame["kept"])]
    frame["photo"] = [f"{n}.png" for n in range(120)]
    for n, name in enumerate(frame["photo"]):
        Image.fromarray(np.full((9, 9), n, np.uint8)).save(path.parent / name)
    frame.to_csv(path, index=False)
    return path


TABLE: dict[str, Any] = {"drop": ["said", "photo"]}
TEXTS: dict[str, Any] = {"text": "said"}
IMAGES: dict[str, Any] = {"image": "photo"}


def rows(data: Data, frame: pd.DataFrame) -> list[pd.DataFrame]:
    """What is in the table of the samples of each part."""
    by_text, found = frame.set_index("said"), []
    for part in (data.train, data.val, data.test):
        if data.kind == "table":
            found.append(frame.iloc[part.rows.numpy()])
        elif data.kind == "text":
            found.append(by_text.loc[list(part.texts)])
        else:
            found.append(frame.iloc[part.indices.numpy()])
    return found


@pytest.mark.parametrize("how", [TABLE, TEXTS, IMAGES], ids=["table", "texts", "images"])
def test_groups_stay_together_and_the_latest_judges(visits: Path, how: dict[str, Any]) -> None:
    frame = pd.read_csv(visits)
    grouped = read_data(visits, target="kept", group="user", **how)
    users = [set(part["user"]) for part in rows(grouped, frame)]
    assert sum(map(len, users)) == len(set.union(*users)) == frame["user"].nunique()
    assert "rows of equal 'user' are in one part" in str(grouped)
    timed = read_data(visits, target="kept", time="day", **how)
    train_part, val, test = rows(timed, frame)
    assert train_part["day"].max() < val["day"].min() <= val["day"].max() < test["day"].min()
    assert [len(train_part), len(val), len(test)] == [96, 12, 12]
    assert "cut in the order of 'day', the latest last" in str(timed)


def test_a_group_is_not_an_input_and_an_order_that_is_kept_is_no_suspicion(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=60)
    frame = pd.DataFrame({"day": days, "user": [f"u{n // 3}" for n in range(60)], "y": [0, 1] * 30})
    assert "the rows are in the order of 'day'" in str(read_data(frame, target="y"))
    data = read_data(frame, target="y", group="user", time="day")
    assert "the rows are in the order of" not in str(data)
    column = next(column for column in data.train.spec.columns if column.name == "user")
    assert (column.used, column.why) == (False, "the group of the split")


@pytest.mark.parametrize("how", [TABLE, TEXTS, IMAGES], ids=["table", "texts", "images"])
@pytest.mark.parametrize("name", ["group", "time"])
def test_a_column_that_there_is_not_is_told_with_what_comes_near(visits: Path, how: dict[str, Any], name: str) -> None:
    near = {"group": ("usr", "user"), "time": ("dya", "day")}[name]
    with pytest.raises(DlkitError, match=rf"(?s)no column '{near[0]}'.*{near[1]}"):
        read_data(visits, target="kept", **{name: near[0]}, **how)


def test_what_has_no_order_and_no_columns_is_refused(visits: Path, tmp_path: Path) -> None:
    for how in (TABLE, TEXTS, IMAGES):
        with pytest.raises(DataError, match=r"neither dates nor numbers"):
            read_data(visits, target="kept", time="user", **how)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "x.png")
    with pytest.raises(ArgumentError, match=r"group='user': this data is a folder of images, .* it does not apply"):
        read_data(tmp_path, group="user")
    assert "rows of equal 'font'" in str(read_data("glyphs", group="font"))


def test_a_run_says_how_it_was_cut_and_is_cut_so_again(visits: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {**TABLE, "group": "user", "time": "day"}
    done = train(visits, target="kept", arch="mlp", epochs=1, device="cpu", progress=False, out=tmp_path, **how)
    kept = json.loads((tmp_path / "recipe.json").read_text())
    assert (kept["group"], kept["time"]) == ("user", "day")
    assert "cut in the order of &#x27;day&#x27;" in (done.report or Path()).read_text()
    found = evaluate_file(tmp_path, part="test")
    assert (found["accuracy"], found["samples"]) == (done.metrics["accuracy"], len(done.data.test))
    with pytest.raises(ArgumentError, match=r"group='spent': the part of a run is read as the run did"):
        evaluate_file(tmp_path, part="test", group="spent")


def test_the_command_line_says_it_too(visits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(visits), "--target", "kept", "--drop", "said", "--drop", "photo", "--arch", "mlp"]
    command += ["--epochs", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert app([*command, "--group", "usr"], standalone_mode=False) == 1
    assert "do you mean 'user'?" in capsys.readouterr().err
    assert app([*command, "--group", "user", "--time", "day"], standalone_mode=False) in (0, None)
    assert "rows of equal 'user' are in one part" in capsys.readouterr().err
    assert "user   dropped" in str(look_at(visits, target="kept", group="user", **TABLE))
