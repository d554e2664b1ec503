"""Thresholds other than one half: what they decide, that the model file keeps them, and how a recipe chooses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import dlkit
from dlkit.artifact.inputs import Meaning
from dlkit.errors import ArgumentError, ModelFileError
from dlkit.recipes import train
from dlkit.recipes.thresholds import _best


def test_the_best_threshold_has_the_best_f1() -> None:
    from sklearn.metrics import f1_score

    drawn = torch.Generator().manual_seed(0)
    for _ in range(20):
        p = (torch.rand(60, generator=drawn) * 20).round() / 20  # many equal ones
        there = torch.rand(60, generator=drawn) < p * 0.6
        limit = _best(p, there)
        truth, chance = there.numpy(), p.numpy()
        reached = f1_score(truth, chance > limit, zero_division=0)
        best = max(f1_score(truth, chance > t, zero_division=0) for t in np.arange(-0.01, 1, 0.01))
        assert reached == pytest.approx(best)
    assert _best(torch.rand(5), torch.zeros(5, dtype=torch.bool)) == 0.5


def model(outputs: int) -> nn.Module:
    made = nn.Sequential(nn.Linear(outputs, outputs, bias=False))
    nn.init.eye_(made[0].weight)
    return made


CASES: dict[str, tuple[int, dict[str, Any], Any, list[str]]] = {
    "two classes": (2, {"classes": ["no", "yes"], "thresholds": [0.2]}, [[1.0, 0.0], [3.0, 0.0]], ["yes", "no"]),
    "binary": (1, {"classes": ["no", "yes"], "task": "binary", "thresholds": [0.2]}, [[-1.0], [-3.0]], ["yes", "no"]),
    "labels": (
        2,
        {"classes": ["a", "b"], "task": "multilabel", "thresholds": [0.2, 0.9]},
        [[-1.0, 1.0], [-3.0, 3.0]],
        ["a", "b"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_they_decide_and_probabilities_stay(case: str, tmp_path: Path) -> None:
    outputs, settings, inputs, wanted = CASES[case]
    example = torch.tensor(inputs)
    path = dlkit.save(model(outputs), tmp_path / "m", example=example, **settings)
    plain = dlkit.load(dlkit.save(model(outputs), tmp_path / "p", example=example, **{**settings, "thresholds": None}))
    predictor = dlkit.load(path)
    said = predictor.predict(example, progress=False)
    assert said["prediction"].tolist() == wanted
    assert plain.predict(example, progress=False)["prediction"].tolist() != wanted
    assert torch.equal(predictor.probabilities(example), plain.probabilities(example))
    if case != "labels":
        assert said["probability"][0] == pytest.approx(0.2689, abs=1e-3)  # of the answer, though below one half


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    example = torch.zeros(2, 3)
    with pytest.raises(ArgumentError, match="thresholds are one for two classes, or one for each of several labels"):
        dlkit.save(model(3), tmp_path / "m", example=example, classes=["a", "b", "c"], thresholds=[0.5])
    with pytest.raises(ArgumentError, match="thresholds must be probabilities between 0 and 1"):
        dlkit.save(
            model(3),
            tmp_path / "m",
            example=example,
            classes=["a", "b", "c"],
            task="multilabel",
            thresholds=[0.5, 1.0, 2],
        )
    known = Meaning(
        kind="tensor", preprocessing=None, task="binary", classes=("a", "b"), thresholds=(0.125,)
    ).document()
    assert Meaning.from_document(known).thresholds == (0.125,)
    for wrong in (7, [1.125], ["x"], [0.5, 0.5], [float("nan")]):
        with pytest.raises(ModelFileError, match=r"meaning\.thresholds"):
            Meaning.from_document({**known, "thresholds": wrong})


def fraud(rows: int = 900) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    return pd.DataFrame({"x": x, "z": rng.normal(size=rows), "y": np.where(x + 0.8 * rng.normal(size=rows) > 2, 1, 0)})


def test_the_recipe_chooses_them_on_the_validation_part(tmp_path: Path) -> None:
    frame = fraud().assign(y=lambda rows: rows["y"].map({0: "no", 1: "yes"}))
    options: dict[str, Any] = {"target": "y", "arch": "mlp", "epochs": 5, "device": "cpu", "progress": False}
    plain = train(frame, out=tmp_path / "plain", **options)
    chosen = train(frame, out=tmp_path / "chosen", thresholds="f1", **options)
    assert plain.standing is not None
    assert chosen.standing is not None
    assert chosen.standing.classes[1].predicted > plain.standing.classes[1].predicted
    assert chosen.path is not None
    predictor = dlkit.load(chosen.path)
    assert predictor.evaluate(chosen.data.test)["accuracy"] == pytest.approx(chosen.metrics["accuracy"])
    assert chosen.metrics["accuracy"] == pytest.approx(chosen.standing.score)
    assert chosen.metrics["loss"] == pytest.approx(plain.metrics["loss"])
    assert json.loads((tmp_path / "chosen" / "recipe.json").read_text())["thresholds"] == "f1"
    assert chosen.report is not None
    assert "thresholds with the best F1 on the validation part" in chosen.report.read_text()
    with pytest.raises(ArgumentError, match="are for two classes or several labels"):
        train(frame.assign(y=frame["z"]), out=tmp_path / "wrong", thresholds="f1", **options)
    with pytest.raises(ArgumentError, match="thresholds must be 'f1'"):
        train(frame, out=tmp_path / "wrong", thresholds="best", **options)
