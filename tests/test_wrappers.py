"""What `Subset`, `random_split` and `ConcatDataset` hide of the data behind them."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Subset, random_split

import dlkit
from dlkit.datasets import CSVDataset
from dlkit.errors import DataError
from dlkit.models import TabularMLP
from dlkit.wrappers import unwrap


def table(labels: str = "ab", rows: int = 24) -> pd.DataFrame:
    return pd.DataFrame({"x": [float(i % 7) for i in range(rows)], "y": [labels[i % 2] for i in range(rows)]})


def test_a_wrapper_means_what_the_data_behind_it_means():
    data = CSVDataset(table(), target="y")
    part, _ = random_split(data, [0.5, 0.5], torch.Generator().manual_seed(0))
    assert unwrap(data) is unwrap(part) is unwrap(Subset(part, [0])) is unwrap(ConcatDataset([part, data])) is data
    assert unwrap(None) is None


def test_a_wrapper_with_classes_of_its_own_speaks_for_itself():
    part = Subset(CSVDataset(table(), target="y"), [0])
    part.classes = ["ham", "spam"]
    assert unwrap(Subset(part, [0])) is part


def test_joined_data_that_mean_different_things_are_refused():
    first, other = CSVDataset(table(), target="y"), CSVDataset(table("ac"), target="y")
    with pytest.raises(
        DataError, match=r"the first part and another part of the ConcatDataset .*: class 1 is 'b' .* 'c' .*schema="
    ):
        unwrap(ConcatDataset([first, Subset(other, [1])]))
    scaled = CSVDataset(table().assign(x=lambda frame: frame.x * 9), target="y")
    with pytest.raises(
        DataError,
        match=r"column 'x': parts 0 center is 2.75 in the first part and 24.75 in another part of the ConcatDataset",
    ):
        unwrap(ConcatDataset([first, scaled]))
    alike = CSVDataset(table().assign(x=lambda frame: frame.x * 9), target="y", schema=first.schema)
    assert unwrap(ConcatDataset([first, alike])) is first


def test_the_model_file_of_a_joined_training_knows_its_data(tmp_path):
    first = CSVDataset(table(), target="y")
    joined = ConcatDataset([first, CSVDataset(table(rows=8), target="y", schema=first.schema)])
    model = TabularMLP(first.schema, hidden=[4])
    trainer = dlkit.Trainer(
        model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1), progress=False, device="cpu"
    )
    trainer.fit(torch.utils.data.DataLoader(joined, 8))
    assert trainer.run.data is first
    assert dlkit.load(trainer.save(tmp_path / "model.safetensors")).classes == ["a", "b"]
