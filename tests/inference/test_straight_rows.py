"""Rows given one by one go straight to numbers: the same bits and the same errors as by way of a table."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import dlkit
from dlkit.datasets import CSVDataset
from dlkit.datasets.tables._straight import StraightRows
from dlkit.models import TabularMLP

GOOD = {"plain": 1.5, "gaps": None, "comma": "2,5", "euro": "€ 1,200", "truth": "yes", "kind": "b", "code": "3"}
ODD = st.sampled_from(["", " b ", "NA", "inf", "1e999", "0x1F", "007", "1.234", "2,5", "9" * 400, "9" * 5000, "\ud800"])
EDGES = st.sampled_from([1 << 53, (1 << 53) + 1, -(1 << 70), 1 << 1001, -0.0, 1e308, -1e308, np.float32(0.1), [1]])
VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5) | ODD | EDGES
VALUES |= st.sampled_from([value for value in GOOD.values() if value])


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> dlkit.Predictor:
    """A model of a table whose columns are written in every way that goes straight."""
    drawn = np.random.default_rng(0)
    numbers = drawn.normal(100, 900, 60).round(2)
    table = pd.DataFrame(
        {
            "plain": numbers,
            "gaps": [None if place % 5 == 0 else str(value) for place, value in enumerate(numbers)],
            "comma": [f"{value:.2f}".replace(".", ",") for value in numbers],
            "euro": [f"€ {abs(value) * 9:,.2f}" for value in numbers],
            "truth": drawn.choice(["yes", "no"], 60),
            "kind": drawn.choice(["a", "b", "c", "5"], 60),
            "code": drawn.integers(0, 4, 60).astype(str),
            "target": drawn.choice(["left", "right"], 60),
        }
    )
    data = CSVDataset(table, target="target", categorical=["code", "kind"])
    kinds = {column.name: (column.kind, getattr(column, "form", "")) for column in data.spec.columns}
    assert kinds["comma"] == ("number", "decimal ,")
    assert kinds["euro"] == ("number", "thousands , €")
    assert kinds["truth"][0] == "boolean"
    file = dlkit.save(TabularMLP(data.spec), tmp_path_factory.mktemp("rows") / "model", preprocessing=data)
    return dlkit.load(file)


def answers(predictor: dlkit.Predictor, row: Any, *, straight: bool) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        if not straight:
            patch.setattr(StraightRows, "encoded", lambda self, row: None)
        found = predictor.predict_each([row], top_k=2, on_error="skip")
        return [repr((each.top, each.error)) for each in found]  # NaN is NaN, and floats have every digit


@given(row=st.fixed_dictionaries(dict.fromkeys(GOOD, VALUES)))
@example(row=GOOD)
@example(row=GOOD | {"truth": 2})
@example(row=GOOD | {"truth": True, "kind": 5.0, "code": 3})
@example(row=GOOD | {"plain": 1e308, "comma": -1e308})
@example(row={})
def test_one_row_has_the_same_bits_and_errors_as_by_way_of_a_table(
    predictor: dlkit.Predictor, row: dict[str, Any]
) -> None:
    assert answers(predictor, row, straight=True) == answers(predictor, row, straight=False)


def test_rows_keep_their_places_and_do_not_depend_on_each_other(predictor: dlkit.Predictor) -> None:
    odd = [GOOD | {"plain": "a lot"}, GOOD | {"comma": 1.234}, {}, 3, GOOD | {"plain": np.float32(3)}]
    rows = [GOOD, odd[0], GOOD | {"kind": "c"}, *odd[1:], GOOD | {"truth": "no"}]
    together = list(predictor.predict_each(rows, on_error="skip", batch_size=4))
    alone = [next(predictor.predict_each([row], on_error="skip")) for row in rows]
    assert [each.error for each in together] == [each.error for each in alone]
    assert [bool(each.error) for each in alone] == [False, True, False, False, True, True, False, False]
    for one, other in zip(together, alone, strict=True):
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, nan_ok=True, abs=1e-6)


def test_ordinary_rows_do_go_straight(predictor: dlkit.Predictor) -> None:
    straight = StraightRows(predictor.preprocessing)
    assert straight.encoded(GOOD) is not None
    assert straight.encoded(json.loads(json.dumps(GOOD | {"plain": 3, "kind": 5, "truth": False}))) is not None
    assert straight.encoded(GOOD | {"plain": "a lot"}) is None
    inputs = straight.memory([straight.encoded(GOOD)] * 3).take(torch.arange(3))[0]  # type: ignore[list-item]
    assert (inputs["numeric"].dtype, inputs["categorical"].dtype) == (torch.float32, torch.int64)


def test_a_whole_number_of_many_digits_is_no_surprise(predictor: dlkit.Predictor) -> None:
    for digits in (308, 309, 400, 4300, 5000):
        assert predictor.predict_one(GOOD | {"plain": "9" * digits}).label in predictor.classes
