"""How rows are read, as options of the command line; and that `inspect` and `train` see the same columns."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from dlkit import recipes
from dlkit.cli._talking import _in_shell_words
from dlkit.errors import DlkitError

Run = Any
CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"
TABLES = sorted(CASES.glob("*.csv"))
ROWS = "made by a scale\n" + "%\n".join("".join(f"{i % 7},5;{i % 9};{'ab'[i % 2]}\n" for i in range(30)) for _ in "xy")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(ROWS, "cp949")
    return path


WAYS = ["--skip-rows", 1, "--comment", "%", "--separator", ";", "--decimal", ",", "--encoding", "cp949"]


@pytest.mark.filterwarnings("ignore:.* equal one that the model was trained on")
def test_every_option_reaches_the_reader(dlkit: Run, table: Path, tmp_path: Path) -> None:
    named = ["--names", "weight,size,kind", "--columns", "weight,kind", "--missing", "", *WAYS]
    done = dlkit("inspect", table, *named, "--target", "kind", "--json")
    assert done.code == 0, done.err
    assert [column["column"] for column in done.document["columns"]] == ["weight", "kind"]
    run = dlkit("train", table, *named, "--target", "kind", "--epochs", 1, "--out", tmp_path / "run", "--device", "cpu")
    assert run.code == 0, run.err
    model = tmp_path / "run" / "model.safetensors"
    new = tmp_path / "new.csv"
    new.write_text("1,5;2;a\n%\n2,5;3;b\n")
    told = dlkit("predict", model, new, "--comment", "%", "--out", tmp_path / "p.csv")
    assert told.code == 0, told.err
    assert "2 predictions" in told.err
    many = dlkit("evaluate", model, table, *WAYS, "--json")
    assert many.document["samples"] == 60
    wrong = dlkit("inspect", table, "--names", "a", "--header")
    assert (wrong.code, "--names says that no row has them" in wrong.err) == (2, True)


def test_messages_name_the_options(dlkit: Run, table: Path) -> None:
    with pytest.warns(UserWarning, match="seems to have no header row") as told:
        assert dlkit("inspect", table, *WAYS).code == 0
    words = _in_shell_words(str(told[0].message))
    assert "say --no-header, --names ... to name them, or --header if these are their names" in words
    said = dlkit("inspect", table, *WAYS, "--no-header")
    assert (said.code, said.err) == (0, "")
    assert (
        "--columns" in dlkit("inspect", table, "--skip-rows", 1, "--comment", "%", "--no-header", "--decimal", ".").err
    )


def test_a_sheet_is_chosen(dlkit: Run, tmp_path: Path) -> None:
    book = Workbook()
    book.active.append(["x", "y"])
    other = book.create_sheet("second")
    for row in [["z", "y"], *([i / 4, "ab"[i % 2]] for i in range(20))]:
        other.append(row)
    book.save(tmp_path / "t.xlsx")
    found = dlkit("inspect", tmp_path / "t.xlsx", "--sheet", "second", "--json")
    assert [column["column"] for column in found.document["columns"]] == ["z", "y"]


def test_options_that_the_data_has_no_use_for_are_refused(dlkit: Run) -> None:
    refused = dlkit("train", "glyphs", "--decimal", ",")
    assert refused.code == 1
    assert "--decimal ,: this data is letters in images, to which it does not apply" in refused.err


def seen(look: Any) -> Any:
    """What a reader says of a file: its columns and their kinds, or the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return look()
        except DlkitError as error:
            return str(error)


@pytest.mark.skipif(not TABLES, reason=f"the small inputs that were read wrong are not at {CASES}")
@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_inspect_and_train_agree_on_every_column(path: Path) -> None:
    alone = seen(lambda: recipes.look_at(path).columns["kind"].to_dict())
    names = alone if isinstance(alone, str) else list(alone)
    target = names[-1] if isinstance(names, list) else "label"
    inspected = seen(lambda: recipes.look_at(path, target=target).columns)
    trained = seen(lambda: recipes.read_data(path, target=target))
    if isinstance(inspected, str) or isinstance(trained, str):
        assert trained == inspected
        return
    spec = trained.train.spec
    kinds = {column.name: column.kind for column in spec.columns} | {target: "target"}
    assert inspected["kind"].to_dict() == kinds
    assert set(kinds) == set(names)
    assert {name: kind for name, kind in alone.items() if name != target} == {
        name: kind for name, kind in kinds.items() if name != target
    }
    told = "\n".join(trained.how)
    for column in spec.columns:
        if not column.used:
            assert column.name in told
            assert column.why in told
