"""A line a minute in a log from phases that may take long: evaluating, comparing; here without waiting a minute."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dlkit
from dlkit import _progress
from dlkit.datasets import CSVDataset
from dlkit.models import TabularMLP
from dlkit.recipes import compare


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "_LOGGED_EVERY", 0.0)


def test_evaluating_says_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = CSVDataset(pd.DataFrame({"x": range(8), "y": ["a", "b"] * 4}), target="y")
    path = dlkit.save(TabularMLP(data.spec, hidden=[4]), tmp_path / "m.safetensors", preprocessing=data)
    dlkit.load(path).evaluate(data, batch_size=4)
    assert "evaluating: 4 of 8 samples" in capsys.readouterr().err
    dlkit.load(path).evaluate(data, progress=False)
    assert capsys.readouterr().err == ""


def test_comparing_says_how_far_each_backbone_is(capsys: pytest.CaptureFixture[str]) -> None:
    data = DataLoader(TensorDataset(torch.randn(12, 4), torch.arange(12) % 2), 4)
    compare({"mine": nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))}, data, data)
    assert "mine: 4 of 6 batches" in capsys.readouterr().err
