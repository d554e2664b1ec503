"""The models for tables fit any spec, say what does not fit it, and learn."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import dlkit
from dlkit import DataLoader, Trainer
from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError, TrainingError
from dlkit.models import TabularEnsemble, TabularMLP
from dlkit.specs import TableSpec

ROWS = 400


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    c = rng.choice(["a", "b", "c"], ROWS)
    x = rng.normal(size=ROWS)
    amount = 3 * (c == "b") + x
    return pd.DataFrame(
        {"x": x, "c": c, "y": np.where(amount > 1, "high", "low"), "amount": amount, "twice": 2 * amount}
    )


CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "classes": ({"target": "y", "drop": ["amount", "twice"]}, (8, 2)),
    "binary": ({"target": "y", "drop": ["amount", "twice"], "task": "binary"}, (8,)),
    "amount": ({"target": "amount", "drop": ["y", "twice"]}, (8,)),
    "amounts": ({"target": ["amount", "twice"], "drop": "y"}, (8, 2)),
    "numbers only": ({"target": "y", "drop": ["amount", "twice", "c"]}, (8, 2)),
    "codes only": ({"target": "y", "drop": ["amount", "twice", "x"]}, (8, 2)),
}
LOSSES: dict[str, Any] = {
    "classification": torch.nn.CrossEntropyLoss(),
    "binary": torch.nn.BCEWithLogitsLoss(),
    "regression": torch.nn.MSELoss(),
}


MODELS: dict[str, Any] = {
    "TabularMLP": lambda ds: TabularMLP(ds.spec, hidden=(32,), dropout=0),
    "TabularEnsemble": lambda ds: TabularEnsemble(ds.spec, members=3, width=16),
}


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("case", CASES)
def test_it_fits_every_task_and_learns(case: str, make: str) -> None:
    options, shape = CASES[case]
    ds = CSVDataset(table(), **options)
    assert ds.spec.target is not None
    model = MODELS[make](ds)
    inputs, targets = next(iter(DataLoader(ds, 8)))
    outputs = model.eval()(**inputs) if isinstance(inputs, dict) else model.eval()(inputs)
    assert outputs.shape == shape
    loss = LOSSES[ds.spec.target.task]
    assert loss(outputs, targets).dim() == 0
    trainer = Trainer(model, loss, torch.optim.AdamW(model.parameters(), 1e-2), progress=False)
    losses = trainer.fit(DataLoader(ds, 32, shuffle=True), epochs=8)["train_loss"]
    assert losses[-1] < 0.9 * losses[0]


def test_a_value_that_training_never_saw_changes_nothing_at_first() -> None:
    ds = CSVDataset(table(), target="y", drop=["amount", "twice"])
    model = TabularMLP(ds.spec).eval()
    x = torch.zeros(3, 1)
    padding, missing, unseen = model(x, torch.tensor([[0], [1], [2]]))
    assert torch.equal(padding, missing)
    assert torch.equal(padding, unseen)
    assert not torch.equal(padding, model(x[:1], torch.tensor([[3]]))[0])


def test_a_schema_from_json_makes_the_same_model() -> None:
    spec = CSVDataset(table(), target="y", drop=["amount", "twice"]).spec
    first = TabularMLP(spec)
    second = TabularMLP(TableSpec.from_json(spec.to_json()))
    second.load_state_dict(first.state_dict())
    x, c = torch.randn(5, 1), torch.randint(3, 6, (5, 1))
    assert torch.equal(first.eval()(x, c), second.eval()(x, c))
    assert copy.deepcopy(first).spec == spec


def test_the_schema_travels_in_the_model_file(tmp_path: Path) -> None:
    data = table().drop(columns=["amount", "twice"])
    ds = CSVDataset(data, target="y")
    model = TabularMLP(ds.spec).eval()
    dlkit.save(model, tmp_path / "model.safetensors")
    predictor = dlkit.load(tmp_path / "model.safetensors")
    assert predictor.preprocessing == ds.spec
    new = pd.DataFrame({"more": [1, 2], "c": ["a", "new"], "x": [0.5, np.nan]})
    inputs = CSVDataset(new, spec=ds.spec).take(torch.arange(2))[0]
    with torch.no_grad():
        assert torch.equal(predictor.logits(new), model(**inputs))


def test_what_does_not_fit_is_named() -> None:
    spec = CSVDataset(table(), target="y", drop=["amount", "twice"]).spec
    model = TabularMLP(spec)
    with pytest.raises(TrainingError, match=r"1 columns of numeric inputs, so they must be \[B, 1\], not \[4, 2\]"):
        model(torch.zeros(4, 2), torch.zeros(4, 1, dtype=torch.int64))
    with pytest.raises(TrainingError, match=r"1 columns of categorical inputs, so they must be \[B, 1\], not none"):
        model(torch.zeros(4, 1))
    with pytest.raises(ArgumentError, match="the text column 'c', too; drop it"):
        TabularMLP(CSVDataset(table(), target="y", text="c", drop=["amount", "twice"]).spec)
    unlabelled = CSVDataset(table(), drop="y").spec
    with pytest.raises(ArgumentError, match="num_outputs="):
        TabularMLP(unlabelled)
    assert TabularMLP(unlabelled, num_outputs=7).num_outputs == 7
    with pytest.raises(ArgumentError, match="hidden must be"):
        TabularMLP(spec, hidden=())
    with pytest.raises(ArgumentError, match="dropout must be"):
        TabularMLP(spec, dropout=1.0)


# ------------------------------------------------------------------------------------------------- the ensemble's own


def small(case: str = "classes", **settings: Any) -> tuple[CSVDataset, TabularEnsemble]:
    ds = CSVDataset(table(), **CASES[case][0])
    return ds, TabularEnsemble.for_data(ds, members=3, width=8, **settings)


@pytest.mark.parametrize("case", ["classes", "binary", "amount", "amounts"])
def test_its_loss_is_the_mean_of_its_members_losses_and_its_prediction_their_mean(case: str) -> None:
    ds, model = small(case)
    inputs, targets = ds.take(torch.arange(50))
    loss = LOSSES[ds.spec.target.task]  # type: ignore[union-attr]
    each = model(**inputs).members
    assert len(each) == 3
    trainer = Trainer(model, loss, torch.optim.SGD(model.parameters(), 0.1), progress=False, device="cpu")
    wanted = torch.stack([loss(member, targets) for member in each]).mean()
    first = trainer.fit(DataLoader(torch.utils.data.Subset(ds, range(50)), 50), epochs=1)["train_loss"][0]
    assert first == pytest.approx(wanted.item(), rel=1e-5)
    each, mean = model.train()(**inputs).members, model.eval()(**inputs)
    task = ds.spec.target.task  # type: ignore[union-attr]
    if task == "regression":
        wide = ds.targets.reshape(len(ds), -1)  # type: ignore[union-attr]
        each = each.reshape(3, 50, -1).clamp(wide.amin(0), wide.amax(0)).mean(0)
        assert torch.allclose(mean.reshape(50, -1), each, atol=1e-6)
    else:
        to_shares = torch.sigmoid if task == "binary" else lambda logits: logits.softmax(-1)
        assert torch.allclose(to_shares(mean), to_shares(each).mean(0), atol=1e-6)


def test_it_begins_at_the_linear_model() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (300, 3))
    frame = pd.DataFrame(x, columns=list("abc")).assign(y=x @ [1.0, -2.0, 0.5])
    ds = CSVDataset(frame, target="y")
    model = TabularEnsemble.for_data(ds, members=2, width=8).eval()
    error = (model(ds.numeric) - ds.targets).square().mean()
    assert error.item() < 0.02  # of a variance of 1, and nothing is trained yet
    classes = CSVDataset(frame.assign(y=np.where(frame.y > 0, "yes", "no")), target="y")
    start = TabularEnsemble.for_data(classes, members=2, width=8).eval()
    assert (start(classes.numeric).argmax(1) == classes.targets).float().mean().item() > 0.95


def test_its_bins_are_quantiles_of_the_rows_it_was_given_alone() -> None:
    x = np.concatenate([np.arange(100.0), [1e9]])
    ds = CSVDataset(pd.DataFrame({"x": x, "y": x % 7}), target="y")
    model = TabularEnsemble.for_data(ds, bins=4)
    numbers, ends = model.numbers, ds.numeric
    assert numbers is not None
    assert ends is not None
    assert float(numbers.mid) == float(ends[50, 0])
    assert float(numbers.step.min()) > 0
    model.eval()(ends)  # an outlier of 1e9 gives a number
    assert bool(torch.isfinite(model(ends)).all())
    few = CSVDataset(pd.DataFrame({"x": [0, 0, 1] * 13, "y": np.arange(39.0)}), target="y")
    other = TabularEnsemble.for_data(few, bins=4).numbers
    assert other is not None
    assert other.most.tolist() == [[4, 0, 0, 0]]  # two values: one interval


def test_intervals_that_a_frequent_value_leaves_over_go_to_the_rare_ones() -> None:
    x = np.concatenate([np.zeros(950), np.arange(1, 51)])
    ds = CSVDataset(pd.DataFrame({"x": x, "y": x % 7}), target="y")
    numbers = TabularEnsemble.for_data(ds, bins=16).numbers
    assert numbers is not None
    assert int((numbers.most > 0).sum()) == 16
    assert float(numbers.step.max()) < float(numbers.step.sum()) / 2


def test_it_predicts_from_its_file_and_as_onnx_what_it_predicted(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    ds, model = small()
    inputs, _ = ds.take(torch.arange(5))
    with torch.no_grad():
        wanted = model.eval()(**inputs)
    assert torch.equal(dlkit.load(dlkit.save(model, tmp_path / "m", preprocessing=ds)).logits(table()[:5]), wanted)
    path = dlkit.save(model, tmp_path / "m.onnx", preprocessing=ds, format="onnx")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
    assert np.abs(found - wanted.numpy()).max() < 1e-4


def test_values_it_never_saw_change_nothing() -> None:
    frame = pd.DataFrame({"c": ["a", "b"] * 20, "d": [f"v{n % 20}" for n in range(40)], "y": np.arange(40) % 3})
    ds = CSVDataset(frame, target="y", categorical=["c", "d"], task="classification")
    model = TabularEnsemble.for_data(ds).eval()
    padding, missing, unseen, seen = model(categorical=torch.tensor([[0, 0], [1, 1], [2, 2], [3, 3]]))
    assert torch.equal(padding, missing)
    assert torch.equal(padding, unseen)
    assert not torch.equal(padding, seen)


def test_many_values_share_an_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlkit.models.ensemble._ONE_HOT", 2)
    ds, model = small()
    assert len(model.embeddings) == 1
    assert len(model.value) == 0
    inputs, _ = ds.take(torch.arange(4))
    assert model.eval()(**inputs).shape == (4, 2)


def test_what_the_ensemble_cannot_learn_is_named() -> None:
    with pytest.raises(ArgumentError, match="the spec has no target"):
        TabularEnsemble(CSVDataset(table(), drop="y").spec)
    with pytest.raises(ArgumentError, match="members must be"):
        TabularEnsemble(small()[0].spec, members=0)
    unlabelled = CSVDataset(table().drop(columns=["y", "amount", "twice"]), spec=small()[0].spec)
    with pytest.raises(ArgumentError, match="no rows with targets"):
        TabularEnsemble.for_data(unlabelled)
