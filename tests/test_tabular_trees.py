"""Boosted trees as arrays: what scikit-learn predicts, from any file, and nothing from a hostile one."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

import dlkit
from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError, ModelFileError
from dlkit.models import TabularTrees
from dlkit.recipes import compare_models, train

ROWS = 200
CASES: dict[str, dict[str, Any]] = {
    "two classes": {"target": "two"},
    "binary": {"target": "two", "task": "binary"},
    "three classes": {"target": "three"},
    "amount": {"target": "amount"},
    "amounts": {"target": ["amount", "other"]},
}
TARGETS = ["two", "three", "amount", "other"]
FEW = {"max_iter": 5, "min_samples_leaf": 5}


@functools.cache
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=ROWS), rng.choice(list("abcdef"), ROWS)
    x[::9], c[::17] = np.nan, ""
    frame = pd.DataFrame({"x": x, "z": rng.exponential(size=ROWS), "c": c})
    frame["two"] = np.where(np.nan_to_num(x) + 2 * (c == "b") + 0.3 * rng.normal(size=ROWS) > 0.5, "hi", "lo")
    frame["three"] = np.where(frame.z > 1, "p", rng.choice(["p", "q", "r"], ROWS))
    frame["amount"], frame["other"] = np.nan_to_num(x) * 3 + frame.z, 2 * frame.z
    return frame


def data(case: str) -> CSVDataset:
    target = CASES[case]["target"]
    named = [target] if isinstance(target, str) else target
    return CSVDataset(table().drop(columns=[each for each in TARGETS if each not in named]), **CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_it_gives_what_scikit_learn_gives_also_from_its_file(case: str, tmp_path: Path) -> None:
    ds = data(case)
    model = TabularTrees.for_data(ds, **FEW)
    inputs, targets = ds.take(torch.arange(ROWS))
    given, outputs = model.features(**inputs).double().numpy(), model(**inputs)
    assert np.isnan(given[:, 1]).any()  # what was missing is missing again
    settings: dict[str, Any] = {**FEW, "categorical_features": [0], "random_state": 0}
    if ds.spec.target.task == "regression":  # type: ignore[union-attr]
        columns = targets.numpy().reshape(ROWS, -1).T
        wanted = [HistGradientBoostingRegressor(**settings).fit(given, each).predict(given) for each in columns]
        found = outputs.reshape(ROWS, -1).numpy()
        assert np.abs(found - np.stack(wanted, 1)).max() < 1e-5
    else:
        wanted = HistGradientBoostingClassifier(**settings).fit(given, targets.numpy()).predict_proba(given)
        shares = outputs.softmax(1) if outputs.dim() == 2 else torch.stack([-outputs, outputs], 1).sigmoid()
        assert np.abs(shares.numpy() - wanted).max() < 1e-5
    again = dlkit.load(dlkit.save(model, tmp_path / "trees.safetensors", preprocessing=ds))
    assert torch.equal(again.logits(table(), batch_size=ROWS), outputs)


def test_categories_of_many_values_are_ordered() -> None:
    frame = pd.DataFrame({"c": [f"v{n % 260}" for n in range(520)], "y": np.arange(520.0) % 260})
    model = TabularTrees.for_data(CSVDataset(frame, target="y", categorical=["c"]), max_iter=2)
    assert (model.few, model.many) == ([], [0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("left", 10**6, r"the trees' left must lie from 0 to \d+, and one is 1000000"),
        ("feature", -1, r"the trees' feature must lie from 0"),
        ("root", 10**6, r"the trees' root must lie"),
        ("group", 10**6, r"the trees' group must lie"),
        ("output", 5, r"the trees' output must lie from 0 to 1, and one is 5"),
        ("right", 0, r"a node whose branches do not lead down"),
        ("value", float("nan"), r"not finite numbers"),
    ],
)
def test_arrays_that_are_no_trees_are_refused(name: str, value: float, message: str) -> None:
    state = trees().state_dict()
    state[name] = state[name].clone()
    state[name][0] = value
    with pytest.raises(ModelFileError, match=message):
        copy.deepcopy(trees()).load_state_dict(state)


@functools.cache
def trees() -> TabularTrees:
    return TabularTrees.for_data(data("two classes"), **FEW)


def test_sizes_that_a_file_states_are_bounded() -> None:
    spec = data("two classes").spec
    with pytest.raises(ArgumentError, match="depth must be a whole number from 0 to 512"):
        TabularTrees(spec, depth=10**6)
    with pytest.raises(ArgumentError, match="nodes must be a whole number"):
        TabularTrees(spec, nodes=-1)


def test_what_trees_cannot_learn_is_named() -> None:
    with pytest.raises(ArgumentError, match="the spec has no target"):
        TabularTrees(CSVDataset(table(), drop=TARGETS).spec)
    with pytest.raises(ArgumentError, match="no rows with targets"):
        TabularTrees.for_data(CSVDataset(table().drop(columns=TARGETS), spec=data("two classes").spec))


def test_the_recipe_fits_judges_and_writes_it_once(tmp_path: Path) -> None:
    options: dict[str, Any] = {"target": "two", "drop": TARGETS[1:], "out": tmp_path, "progress": False}
    trained = train(table(), arch="boosting", **options)
    assert trained.metrics["accuracy"] >= 0.8
    assert trained.path is not None
    predictor = dlkit.load(trained.path)
    assert predictor.evaluate(trained.data.test)["accuracy"] == pytest.approx(trained.metrics["accuracy"])
    assert json.loads((tmp_path / "recipe.json").read_text())["arch"] == "boosting"
    written = trained.path.stat().st_mtime_ns
    assert train(table(), arch="boosting", **options).metrics == trained.metrics
    with pytest.raises(ArgumentError, match="epochs=3: boosting is fitted at once"):
        train(table(), arch="boosting", epochs=3, **options)
    train(table(), arch="boosting", resume=False, **options)
    assert (tmp_path / "earlier-1" / "model.safetensors").stat().st_mtime_ns >= written


def test_compare_ranks_models_on_the_same_rows() -> None:
    frame = table().drop(columns=TARGETS[1:])
    rows = compare_models(frame, ["mlp", "boosting"], target="two", progress=False)
    assert sorted(row.name for row in rows) == ["boosting", "mlp"]
    assert rows[0].metrics["accuracy"] >= rows[1].metrics["accuracy"]
    assert {row.judged_on for row in rows} == {"test"}
    with pytest.raises(ArgumentError, match="'forest' is not a model for a table; there are 'ensemble'"):
        compare_models(frame, ["forest"], target="two")
