"""`train(..., folds=5)`: a run for each fold, their figures, one choice for all, and a model of everything."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import dlkit
from dlkit.cli import app
from dlkit.errors import ArgumentError, ResumeError
from dlkit.recipes import Trained, evaluate_file, for_tables, read_data, train, training
from dlkit.recipes.fold_scores import FoldScores
from dlkit.splits import Fold

QUIET: dict[str, Any] = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("folded") / "visits.csv"
    spent, user = rng.normal(size=150), rng.integers(0, 30, 150)
    frame = pd.DataFrame({"spent": spent.round(3), "other": rng.normal(size=150).round(3), "user": user})
    frame["day"] = rng.permutation(150)
    frame["kept"] = np.where(frame["spent"] + 0.3 * frame["other"] > 0, "yes", "no")
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def folded(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    out = tmp_path_factory.mktemp("runs") / "visits"
    return train(table, target="kept", group="user", drop=["day"], epochs=3, folds=3, out=out, **QUIET)


def test_each_fold_is_a_run_and_the_figures_are_their_means(folded: Trained, table: Path) -> None:
    assert folded.judged_on == "folds"
    frame, file = pd.read_csv(folded.folder / "folds.csv"), pd.read_csv(table)
    assert frame["fold"].tolist() == [1, 2, 3]
    assert frame["test"].sum() == 150
    assert (frame[["train", "val", "test"]].sum(axis=1) == 150).all()
    scores = folded.data.folds
    assert isinstance(scores, FoldScores)
    assert folded.metrics["accuracy"] == pytest.approx(frame["accuracy"].mean())
    assert scores.std["loss"] == pytest.approx(frame["loss"].std())
    seen = []
    for number in (1, 2, 3):
        run = folded.folder / f"fold-{number}"
        kept = json.loads((run / "recipe.json").read_text())
        assert kept["fractions"] == {"number": number, "of": 3, "val": 0.1}
        assert evaluate_file(run, part="test")["accuracy"] == pytest.approx(frame["accuracy"][number - 1])
        parts = read_data(table, target="kept", group="user", drop=["day"], fractions=Fold(number, of=3, val=0.1))
        users = [set(file["user"].iloc[part.rows.numpy()]) for part in (parts.train, parts.val, parts.test)]
        assert sum(map(len, users)) == len(set.union(*users))
        seen += parts.test.rows.tolist()
    assert sorted(seen) == list(range(150))


def test_the_model_is_trained_on_everything_and_says_what_the_folds_came_to(folded: Trained) -> None:
    model = dlkit.load(folded.folder)
    assert model.info["metrics"]["folds_accuracy"] == folded.metrics["accuracy"]
    assert len(folded.data.train) + len(folded.data.val) == 150
    assert json.loads((folded.folder / "recipe.json").read_text())["folds"] == 3
    assert "judged by folds; 3 folds: accuracy" in str(folded.data)
    assert "no test part" not in str(folded.data)
    report = (folded.report or Path()).read_text()
    assert "<h2>Folds</h2>" in report
    assert "The mean of 3 folds" in report
    start = report.index("The mean of 3 folds")
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", report[start : report.index("</table>", start)])
    head, *rows = (cells[place : place + 6] for place in range(0, len(cells), 6))
    for name in ("accuracy", "loss"):
        shown = {row[0]: float(row[head.index(name)]) for row in rows}
        assert shown["mean"] == pytest.approx(folded.metrics[name], rel=1e-3)
        assert shown["3"] == pytest.approx(folded.data.folds.rows[2][name], rel=1e-3)
    with pytest.raises(ArgumentError, match=r"it has train and val, and .*fold-1 and the others have a test part"):
        evaluate_file(folded.folder, part="test")


def test_a_second_call_trains_nothing_and_another_is_refused(folded: Trained, table: Path) -> None:
    how: dict[str, Any] = {"target": "kept", "group": "user", "drop": ["day"], "epochs": 3, "out": folded.folder}
    before = {path: path.stat().st_mtime_ns for path in folded.folder.rglob("checkpoint-*")}
    again = train(table, folds=3, **how, **QUIET)
    assert again.metrics == folded.metrics
    assert before == {path: path.stat().st_mtime_ns for path in folded.folder.rglob("checkpoint-*")}
    with pytest.raises(ResumeError, match=r"holds another run: folds: there 3, now 4"):
        train(table, folds=4, **how, **QUIET)
    with pytest.raises(ResumeError, match=r"folds: there 3, now None"):
        train(table, fractions=(0.9, 0.1), **how, **QUIET)


def test_what_is_chosen_is_chosen_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(for_tables, "_BLENDED", 60)  # of which the first fold in time has too few, the last enough
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"day": range(120), "x": rng.normal(size=120)})
    frame["y"] = frame["x"] + rng.normal(size=120)
    how: dict[str, Any] = {"target": "y", "time": "day", "epochs": 1, "device": "cpu"}
    done = train(frame, folds=2, out=tmp_path, **how)
    archs = {json.loads((tmp_path / name / "recipe.json").read_text())["arch"] for name in ("fold-1", "fold-2", ".")}
    assert archs == {"blend"}
    assert "the other folds and the model on all data take what this one chose: blend" in capsys.readouterr().err
    days = [read_data(frame, target="y", time="day", fractions=Fold(n, of=2, val=0.1)) for n in (1, 2)]
    for parts in days:
        tops = [part.to_pandas()["day"] for part in (parts.train, parts.val, parts.test)]
        assert tops[0].max() < tops[1].min() <= tops[1].max() < tops[2].min()
    assert done.metrics["r2"] == pytest.approx(pd.read_csv(tmp_path / "folds.csv")["r2"].mean())


def test_a_fold_that_was_stopped_goes_on(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {"target": "kept", "drop": ["day", "user"], "arch": "mlp", "folds": 2, "epochs": 2}
    whole = train(table, out=tmp_path / "whole", **how, **QUIET)
    calls = []

    class Stop(dlkit.callbacks.Callback):
        def on_epoch_end(self, run: Any) -> None:
            calls.append(1)
            if len(calls) == 3:
                run.request_stop("interrupted")

    usual = training.trainer_of
    monkeypatch.setattr(
        training, "trainer_of", lambda *a, callbacks=(), **kw: usual(*a, callbacks=[*callbacks, Stop()], **kw)
    )
    first = train(table, out=tmp_path / "stopped", **how, **QUIET)
    assert first.interrupted
    assert first.folder == tmp_path / "stopped"
    monkeypatch.undo()
    second = train(table, out=tmp_path / "stopped", **how, **QUIET)
    assert second.metrics == whole.metrics
    for one, other in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_texts_and_images_in_folds(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"said": [f"{'good' if n % 2 else 'bad'} film {n}" for n in range(40)], "mood": ["n", "p"] * 20}
    )
    found = train(frame, text="said", target="mood", folds=2, out=tmp_path / "texts", **QUIET)
    assert found.metrics["accuracy"] > 0.8
    for n in range(24):
        (tmp_path / "photos" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.full((12 + n // 12, 12 + n // 12, 3), 10 * n, np.uint8)  # the usual side differs between folds
        Image.fromarray(pixels).save(tmp_path / "photos" / "ab"[n % 2] / f"{n}.png")
    done = train(tmp_path / "photos", folds=2, epochs=1, arch="small", out=tmp_path / "images", **QUIET)
    sizes = {tuple(json.loads(path.read_text())["image_size"]) for path in (tmp_path / "images").rglob("recipe.json")}
    assert len(sizes) == 1
    assert done.path == tmp_path / "images" / "model.safetensors"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds must be a whole number of at least 2"),
        ({"folds": 3, "fractions": (0.8, 0.2)}, r"fractions=\(0.8, 0.2\): folds=3 says how the data is cut"),
        ({"folds": 99}, "class 'no' has 67 samples, which cannot lie in each of 99 folds"),
        ({"folds": 40, "group": "user"}, "30 groups are too few for 40 folds"),
    ],
)
def test_folds_that_there_cannot_be(table: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        train(table, target="kept", out=tmp_path, **options, **QUIET)


def test_data_that_is_cut_already_has_no_folds(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"folds=3: this data is cut into parts already"):
        train(read_data(table, target="kept"), folds=3, out=tmp_path, **QUIET)
    for part in ("train", "test"):
        (tmp_path / "laid" / part / "a").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "laid" / part / "a" / "x.png")
    with pytest.raises(ArgumentError, match=r"is laid out in train, test, which folds would mix: cut the folder"):
        train(tmp_path / "laid", folds=3, out=tmp_path / "run", **QUIET)
    with pytest.raises(ArgumentError, match=r"has no validation part, which chooses the epoch"):
        read_data(table, target="kept", fractions=Fold(1, of=3))


def test_the_interval_is_that_of_nadeau_and_bengio() -> None:
    stats = pytest.importorskip("scipy.stats")
    for count in (2, 3, 4, 5, 10, 30):
        values = np.random.default_rng(count).normal(0.8, 0.05, count)
        rows = [{"fold": n, "train": 70, "val": 10, "test": 20, "loss": 1.0, "r2": x} for n, x in enumerate(values)]
        scores = FoldScores(rows=tuple(rows))
        low, high = scores.interval("r2")
        half = stats.t.ppf(0.975, count - 1) * values.std(ddof=1) * math.sqrt(1 / count + 20 / 80)
        assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), rel=5e-3)
        assert scores.names == ["r2", "loss"]


def test_the_command(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "train",
        str(table),
        "--target",
        "kept",
        "--drop",
        "day",
        "--arch",
        "mlp",
        "--epochs",
        "1",
        "--folds",
        "2",
    ]
    assert app([*command, "--device", "cpu", "--out", str(tmp_path)], standalone_mode=False) in (0, None)
    told = capsys.readouterr()
    assert told.out.startswith("2 folds: accuracy ")
    assert "(95 %: " in told.out
    assert "fold 2 of 2: " in told.err
    assert app([*command, "--device", "cpu", "--out", str(tmp_path), "--json"], standalone_mode=False) in (0, None)
    document = json.loads(capsys.readouterr().out)
    assert [row["fold"] for row in document["folds"]] == [1, 2]
    assert document["judged_on"] == "folds"
