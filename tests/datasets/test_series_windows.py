"""Windows of a time series: what they hold, that nothing leaks between parts, and that answers are in its own units."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from torch import nn

import dlkit
from dlkit import serving
from dlkit.datasets import windows
from dlkit.errors import ArgumentError, DataError
from dlkit.specs import WindowSpec


def test_windows_hold_the_rows_and_those_that_follow() -> None:
    frame = pd.DataFrame({"t": pd.date_range("2024", periods=9)[::-1], "a": np.arange(9.0), "b": np.arange(9) * 10})
    data = windows(frame, 3, 2, target="b", time="t", step=2, scale=False)
    assert data.starts.tolist() == [0, 2, 4]
    inputs, target = data[1]
    assert inputs.tolist() == [[6, 60], [5, 50], [4, 40]]  # sorted by time, the latest row last
    assert target.tolist() == [30, 20]
    assert data.target_columns == ("b +1", "b +2")
    batch = next(iter(torch.utils.data.DataLoader(windows(frame.drop(columns="t"), 3, 2), 4)))
    assert [part.shape for part in batch] == [(4, 3, 2), (4, 2, 2)]


@given(
    rows=st.integers(20, 80), length=st.integers(1, 6), horizon=st.integers(1, 4), gap=st.integers(0, 3),
    step=st.integers(1, 3),
)  # fmt: skip
def test_no_row_lies_in_two_parts(rows: int, length: int, horizon: int, gap: int, step: int) -> None:
    data = windows(np.arange(rows), length, horizon, scale=False, step=step)
    if rows * 0.2 < length + horizon + gap + 1:
        return  # a part may have no room for a window
    parts = data.split([0.5, 0.3, 0.2], gap=gap)
    seen = [{int(v) for each in part for v in (*each[0].flatten(), *each[1].flatten())} for part in parts]
    for earlier, later in itertools.pairwise(seen):
        assert max(earlier) + gap < min(later)
    assert all(len(part) for part in parts)


def test_scales_are_those_of_the_first_part() -> None:
    series = np.concatenate([np.random.default_rng(0).normal(5, 2, 80), np.full(20, 1000.0)])
    train, val = windows(series, 4, 1).split(0.8)
    assert train.spec == val.spec
    assert train.spec.center == pytest.approx((series[:80].mean(),))
    assert train.spec.target.unscale(val.targets).flatten().tolist() == pytest.approx([1000.0] * len(val))
    assert WindowSpec.from_json(train.spec.to_json()) == train.spec


def test_a_forecast_is_in_the_units_of_the_series(tmp_path: Path) -> None:
    torch.manual_seed(0)
    series = pd.DataFrame(
        {"load": 500 + 100 * np.sin(np.arange(400) / 5), "noise": np.random.default_rng(1).normal(size=400)}
    )
    train, val = windows(series, 20, 3, target="load").split(0.8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(40, 3))
    optim = torch.optim.Adam(model.parameters(), 0.01)
    trainer = dlkit.Trainer(model, nn.MSELoss(), optim, metrics=["mae"], device="cpu", progress=False)
    history = trainer.fit(dlkit.DataLoader(train, 32, shuffle=True), dlkit.DataLoader(val, 64), epochs=20)
    assert history["val_mae"][-1] < 10
    predictor = dlkit.load(trainer.save(tmp_path / "m"))
    answer = predictor.predict(predictor.preprocessing.latest(series.to_numpy()))
    assert list(answer.columns) == ["load +1", "load +2", "load +3"]
    assert answer.iloc[0].tolist() == pytest.approx((500 + 100 * np.sin(np.arange(400, 403) / 5)).tolist(), abs=40)
    assert predictor.evaluate(val)["mae"] == pytest.approx(history["val_mae"][-1], rel=1e-3)
    both, later = windows(series, 20, 3).split(0.8)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(40, 6), nn.Unflatten(1, (3, 2)))
    optim = torch.optim.Adam(wide.parameters(), 0.01)
    several = dlkit.Trainer(wide, nn.MSELoss(), optim, metrics=["mae"], device="cpu", progress=False)
    assert several.fit(dlkit.DataLoader(both, 32), dlkit.DataLoader(later, 64), epochs=1)["val_mae"][0] > 5
    assert several.predict(dlkit.DataLoader(later, 64)).mean() > 100


@pytest.mark.parametrize(
    ("series", "options", "error", "message"),
    [
        ([1.0, float("nan"), 3, 4], {}, DataError, r"row 1 of the series has no number in column 'value' \(1 such"),
        ({"a": ["x", "y", "z", "w"]}, {}, DataError, "column 'a' of the series holds"),
        (range(3), {}, DataError, r"the series has 3 rows, and one window takes 3 \+ 1"),
        (range(9), {"target": "valu"}, ArgumentError, "no column 'valu'; do you mean 'value'"),
        ({"a": range(9)}, {"time": "t"}, ArgumentError, "time: the series has no column 't'"),
        (range(9), {"horizon": 0}, ArgumentError, "horizon must be a whole number of at least 1"),
        (np.zeros((2, 2, 2)), {}, ArgumentError, r"series must be \[T\] or \[T, columns\]"),
    ],
    ids=["nan", "words", "short", "target", "time", "horizon", "dimensions"],
)
def test_what_cannot_be_meant(series: Any, options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        windows(series, 3, **options)
    with pytest.raises(ArgumentError, match="latest takes at least 3 rows"):
        windows(range(9), 3).spec.latest([1, 2])


def test_a_server_takes_windows_as_numbers(tmp_path: Path) -> None:
    data = windows(np.arange(30.0), 3)
    file = dlkit.save(nn.Sequential(nn.Flatten(), nn.Linear(3, 1)), tmp_path / "m.safetensors", preprocessing=data)
    with TestClient(serving.app(file)) as client:
        path = next(path for path in client.get("/openapi.json").json()["paths"] if path.endswith("/predict"))
        answer = client.post(path, json={"inputs": [[[0.1], [0.2], [0.3]]]})
    assert answer.status_code == 200, answer.text
    assert "value +1" in answer.text
