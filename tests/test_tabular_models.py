"""The baseline for tables fits any schema, says what does not fit it, and learns."""

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
from dlkit.models import TabularMLP
from dlkit.specs import Schema

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


@pytest.mark.parametrize("case", CASES)
def test_it_fits_every_task_and_learns(case: str) -> None:
    options, shape = CASES[case]
    ds = CSVDataset(table(), **options)
    assert ds.schema.target is not None
    model = TabularMLP(ds.schema, hidden=(32,), dropout=0)
    inputs, targets = next(iter(DataLoader(ds, 8)))
    outputs = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    assert outputs.shape == shape
    loss = LOSSES[ds.schema.target.task]
    assert loss(outputs, targets).dim() == 0
    trainer = Trainer(model, loss, torch.optim.AdamW(model.parameters(), 1e-2), progress=False)
    losses = trainer.fit(DataLoader(ds, 32, shuffle=True), epochs=8)["train_loss"]
    assert losses[-1] < 0.9 * losses[0]


def test_a_value_that_training_never_saw_changes_nothing_at_first() -> None:
    ds = CSVDataset(table(), target="y", drop=["amount", "twice"])
    model = TabularMLP(ds.schema).eval()
    x = torch.zeros(3, 1)
    padding, missing, unseen = model(x, torch.tensor([[0], [1], [2]]))
    assert torch.equal(padding, missing)
    assert torch.equal(padding, unseen)
    assert not torch.equal(padding, model(x[:1], torch.tensor([[3]]))[0])


def test_a_schema_from_json_makes_the_same_model() -> None:
    schema = CSVDataset(table(), target="y", drop=["amount", "twice"]).schema
    first = TabularMLP(schema)
    second = TabularMLP(Schema.from_json(schema.to_json()))
    second.load_state_dict(first.state_dict())
    x, c = torch.randn(5, 1), torch.randint(3, 6, (5, 1))
    assert torch.equal(first.eval()(x, c), second.eval()(x, c))
    assert copy.deepcopy(first).schema == schema


def test_the_schema_travels_in_the_model_file(tmp_path: Path) -> None:
    data = table().drop(columns=["amount", "twice"])
    ds = CSVDataset(data, target="y")
    model = TabularMLP(ds.schema).eval()
    dlkit.save(model, tmp_path / "model.safetensors")
    predictor = dlkit.load(tmp_path / "model.safetensors")
    assert predictor.preprocessing == ds.schema
    new = pd.DataFrame({"more": [1, 2], "c": ["a", "new"], "x": [0.5, np.nan]})
    inputs = CSVDataset(new, schema=ds.schema).take(torch.arange(2))[0]
    with torch.no_grad():
        assert torch.equal(predictor.logits(new), model(**inputs))


def test_what_does_not_fit_is_named() -> None:
    schema = CSVDataset(table(), target="y", drop=["amount", "twice"]).schema
    model = TabularMLP(schema)
    with pytest.raises(TrainingError, match=r"1 columns of numeric inputs, so they must be \[B, 1\], not \[4, 2\]"):
        model(torch.zeros(4, 2), torch.zeros(4, 1, dtype=torch.int64))
    with pytest.raises(TrainingError, match=r"1 columns of categorical inputs, so they must be \[B, 1\], not none"):
        model(torch.zeros(4, 1))
    with pytest.raises(ArgumentError, match="the text column 'c', too; drop it"):
        TabularMLP(CSVDataset(table(), target="y", text="c", drop=["amount", "twice"]).schema)
    unlabelled = CSVDataset(table(), drop="y").schema
    with pytest.raises(ArgumentError, match="num_outputs="):
        TabularMLP(unlabelled)
    assert TabularMLP(unlabelled, num_outputs=7).num_outputs == 7
    with pytest.raises(ArgumentError, match="hidden must be"):
        TabularMLP(schema, hidden=())
    with pytest.raises(ArgumentError, match="dropout must be"):
        TabularMLP(schema, dropout=1.0)
