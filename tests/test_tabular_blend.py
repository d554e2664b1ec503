"""Networks and trees in one model: what their mean is, which share is taken, and for what it is the default."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import dlkit
from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError, ModelFileError
from dlkit.models import TabularBlend, TabularEnsemble, TabularTrees
from dlkit.recipes import train

FEW = {"max_iter": 5, "min_samples_leaf": 5}
TASKS: dict[str, dict[str, Any]] = {
    "classes": {"target": "three"},
    "binary": {"target": "two", "task": "binary"},
    "amount": {"target": "amount"},
    "amounts": {"target": ["amount", "x2"]},
}


def table(rows: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=rows), rng.choice(list("abc"), rows)
    frame = pd.DataFrame({"x": x, "c": c, "two": np.where(x + (c == "b") > 0.5, "hi", "lo")})
    frame["three"] = np.where(np.floor(3 * x) % 2 == 0, "p", c)
    frame["amount"], frame["x2"] = 10 * np.floor(x) + 0.1 * rng.normal(size=rows), x**2
    return frame


def parts(task: str) -> tuple[CSVDataset, TabularEnsemble, TabularTrees]:
    options = TASKS[task]
    targets = options["target"] if isinstance(options["target"], list) else [options["target"]]
    others = {"two", "three", "amount", "x2"} - set(targets)
    ds = CSVDataset(table().drop(columns=sorted(others)), **options)
    return ds, TabularEnsemble.for_data(ds, members=2, width=8), TabularTrees.for_data(ds, **FEW)


@pytest.mark.parametrize("task", TASKS)
def test_it_is_the_mean_of_what_both_say_also_from_its_file(task: str, tmp_path: Path) -> None:
    ds, ensemble, trees = parts(task)
    blend = TabularBlend.joined(ensemble, trees, 0.25)
    inputs, _ = ds.take(torch.arange(9))
    with torch.no_grad():
        one, two, both = ensemble.eval()(**inputs), trees(**inputs), blend(**inputs)
    meant = {"classes": lambda v: v.softmax(1), "binary": torch.sigmoid}.get(task, lambda v: v)
    assert torch.allclose(meant(both), 0.75 * meant(one) + 0.25 * meant(two), atol=1e-5)
    opened = dlkit.load(dlkit.save(blend, tmp_path / "m", preprocessing=ds))
    assert torch.equal(opened.logits(table()[:9]), both)
    assert blend.train()(**inputs).members.shape[0] == 2  # trees have nothing to train


def test_the_share_is_that_with_the_smallest_loss() -> None:
    ds, ensemble, trees = parts("classes")
    assert TabularBlend.of(ensemble, trees, ds, lambda said, true: -(said.argmax(1) == true).float().mean()).share > 0
    nothing = TabularTrees(ds.spec)
    assert TabularBlend.of(ensemble, nothing, ds, nn.CrossEntropyLoss()).share == 0
    with pytest.raises(ArgumentError, match="share must be from 0 to 1"):
        TabularBlend(ds.spec, share=2)


def test_trees_in_it_are_checked_as_by_themselves() -> None:
    blend = TabularBlend.joined(*parts("classes")[1:], 0.5)
    state = blend.state_dict()
    state["trees.root"] = state["trees.root"] + 10**6
    with pytest.raises(ModelFileError, match="the trees' root must lie"):
        blend.load_state_dict(state)


def test_it_is_the_default_for_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is written is a function of the best weights and the data, so that a second call gives it again."""
    frame = table(1300)
    options: dict[str, Any] = {"target": "three", "drop": ["two", "amount", "x2"], "epochs": 1, "progress": False}
    trained = train(frame, out=tmp_path / "a", device="cpu", **options)
    assert isinstance(trained.model, TabularBlend)
    assert trained.model.share > 0.5  # steps, which trees see at once, and networks not in one epoch
    assert trained.path is not None
    predictor = dlkit.load(trained.path)
    assert predictor.evaluate(trained.data.test)["accuracy"] == pytest.approx(trained.metrics["accuracy"])
    again = train(frame, out=tmp_path / "a", device="cpu", **options)
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    whole = TabularTrees.for_data(trained.data.train, trained.data.val)
    assert torch.equal(trained.model.trees.value, whole.value)  # the test part judges, so the others both teach
    monkeypatch.setitem(sys.modules, "sklearn", None)
    without = train(frame, out=tmp_path / "b", device="cpu", **options)
    assert isinstance(without.model, TabularEnsemble)
    assert without.report is not None
    assert "without trees, which often help" in without.report.read_text()
