"""`tune`: settings searched within a time, gone on with after a kill, never worse than the usual ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlkit.cli import app
from dlkit.errors import ArgumentError, ResumeError
from dlkit.recipes import Tuned, read_data, tune
from dlkit.recipes.choosing import models_for

pytest.importorskip("optuna")
QUICK: dict[str, Any] = {"epochs": 2, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 150))
    return pd.DataFrame({"x": x, "z": z, "y": np.where(x * z > 0, "same", "other")})


@pytest.fixture(scope="module")
def tuned(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuned, Path]:
    folder = tmp_path_factory.mktemp("search")
    return tune(frame, target="y", arch="mlp", minutes=5, trials=4, out=folder, **QUICK), folder


def test_the_usual_settings_come_first_and_the_best_are_trained(tuned: tuple[Tuned, Path]) -> None:
    found, folder = tuned
    assert len(found.trials) == 4
    assert (found.trials[0]["lr"], found.trials[0]["batch_size"]) == (3e-3, 32)
    assert found.loss == min(trial["loss"] for trial in found.trials) <= found.usual == found.trials[0]["loss"]
    assert found.trained.path is not None
    assert found.trained.path.parent.parent == folder
    best = min(row["val_loss"] for row in found.trained.history.rows)
    assert best == pytest.approx(found.loss)  # the same settings come to the same


def test_the_same_call_goes_on_and_another_is_refused(frame: pd.DataFrame, tuned: tuple[Tuned, Path]) -> None:
    found, folder = tuned
    again = tune(frame, target="y", arch="mlp", minutes=5, trials=4, out=folder, **QUICK)
    assert (again.trials, again.settings) == (found.trials, found.settings)
    more = tune(frame, target="y", arch="mlp", minutes=5, trials=5, out=folder, **QUICK)
    assert more.trials[:4] == found.trials
    assert len(more.trials) == 5
    with pytest.raises(ResumeError, match=r"holds another search: target there 'y', now 'z'"):
        tune(frame, target="z", arch="mlp", out=folder, **QUICK)


def test_a_killed_trial_is_tried_again(frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlkit.recipes import searching

    def killed(*_: Any, **__: Any) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(searching, "validation_loss", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(frame, target="y", arch="mlp", trials=1, out=tmp_path, **QUICK)
    found = tune(frame, target="y", arch="mlp", trials=1, out=tmp_path, **QUICK)
    assert [trial["lr"] for trial in found.trials] == [3e-3]


def test_all_models_for_a_kind_are_tried_and_the_time_is_kept(frame: pd.DataFrame, tmp_path: Path) -> None:
    words = pd.DataFrame({"words": [f"{'good' if n % 2 else 'bad'} film {n}" for n in range(60)], "y": ["p", "n"] * 30})
    found = tune(words, text="words", target="y", minutes=1e-6, out=tmp_path / "a", **QUICK)
    assert [trial["arch"] for trial in found.trials] == ["linear"]
    assert found.settings == {"arch": "linear"}
    data = read_data(frame, target="y")
    several = tune(data, minutes=5, trials=6, out=tmp_path / "b", **QUICK)
    assert {trial["arch"] for trial in several.trials} <= set(models_for("table"))
    assert len({trial["arch"] for trial in several.trials}) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"minutes": 0}, "minutes must be a number above 0, not 0"),
        ({"trials": 0}, "trials must be a whole number of at least 1"),
        ({"arch": "mpl"}, "arch='mpl'"),
        ({"device": "cuda:99"}, "is not on this machine"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    frame: pd.DataFrame, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        tune(frame, target="y", out=tmp_path / "run", **{**QUICK, **arguments})


def test_the_command(frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame.to_csv(tmp_path / "t.csv", index=False)
    words = ["tune", tmp_path / "t.csv", "--target", "y", "--arch", "mlp", "--trials", 2, "--minutes", 1]
    how = ["--epochs", 1, "--device", "cpu", "--out", tmp_path / "run"]
    with pytest.raises(SystemExit) as left:
        app([str(word) for word in (*words, *how)], prog_name="dlkit")
    told = capsys.readouterr()
    assert not left.value.code, told.err
    assert "1. arch mlp, lr 0.003, batch_size 32" in told.err
    assert "--lr" in told.out
    with pytest.raises(SystemExit):
        app([str(word) for word in (*words, *how, "--json")], prog_name="dlkit")
    assert len(json.loads(capsys.readouterr().out)["trials"]) == 2
