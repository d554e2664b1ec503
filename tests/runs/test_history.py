"""The history as data: columns, gaps, frames, pictures."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlkit.runs.history import History

ROWS = [
    {"epoch": 1, "step": 5, "train_loss": 0.9},
    {"epoch": 1, "step": 8, "train_loss": 0.8, "val_loss": 0.7, "val_accuracy": 0.5},
    {"epoch": 2, "step": 16, "train_loss": 0.6, "val_loss": float("nan"), "note": 3.0},
]


def test_columns_in_the_order_of_their_first_appearance():
    history = History(ROWS)
    assert list(history) == ["epoch", "step", "train_loss", "val_loss", "val_accuracy", "note"]
    assert len(history) == 6
    assert history["train_loss"] == [0.9, 0.8, 0.6]
    assert history["val_accuracy"] == [0.5]
    assert "val_loss" in history
    assert "val_f1" not in history
    assert dict(history)["step"] == [5, 8, 16]
    assert history.get("val_f1") is None


def test_a_name_that_was_never_measured():
    with pytest.raises(KeyError, match="'val_f1' was never measured; there are 'epoch', 'step', 'train_loss'"):
        History(ROWS)["val_f1"]
    with pytest.raises(KeyError, match="'val_loss' was never measured; there are no rows yet"):
        History()["val_loss"]


def test_it_has_its_own_list_of_rows():
    rows = list(ROWS)
    history = History(rows)
    history.rows.append({"epoch": 3})
    assert len(rows) == 3


def test_shown():
    assert repr(History()) == "History(0 rows; last: empty)"
    assert repr(History(ROWS[:2])) == (
        "History(2 rows; last: epoch 1, step 8, train_loss 0.8, val_loss 0.7, val_accuracy 0.5)"
    )


def test_as_a_frame_with_gaps():
    frame = History(ROWS).to_frame()
    assert list(frame.columns) == list(History(ROWS))
    assert frame["step"].tolist() == [5, 8, 16]
    assert math.isnan(frame["val_accuracy"][0])
    assert frame["val_accuracy"][1] == 0.5
    assert len(History().to_frame()) == 0


def test_as_a_picture(tmp_path):
    figure = History(ROWS[:2]).plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert figure.axes


@given(st.lists(st.dictionaries(st.sampled_from("abcde"), st.integers(), max_size=5), max_size=8))
def test_every_value_is_in_exactly_one_column(rows):
    history = History(rows)
    assert sum(len(column) for column in history.values()) == sum(len(row) for row in rows)
    for name, column in history.items():
        assert column == [row[name] for row in rows if name in row]
