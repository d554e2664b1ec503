"""Samples, splits, new files under an old spec, targets, images, and any DataLoader."""

from __future__ import annotations

import pickle
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader as Stock
from torch.utils.data import Subset, TensorDataset

import dlkit
from dlkit import transforms
from dlkit.datasets import CSVDataset, ImageTable
from dlkit.errors import ArgumentError, DataError, TooManyErrorsError
from dlkit.reading.cells import Skipped
from dlkit.splits import check_leaks

NUMBERS = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.5] * 10, "b": [2, 4, 8, 3] * 10, "y": [0.5, 1.5, 2.5, 4.0] * 10})
MIXED = pd.DataFrame(
    {
        "age": [20.0, 30.0, np.nan, 50.0, 60.0, 70.0] * 10,
        "color": ["red", "blue", None, "red", "green", "red"] * 10,
        "note": [f"some words about person number {i}" for i in range(60)],
        "y": ["no", "yes", "no", "no", "yes", "no"] * 10,
    }
)


# --- samples ----------------------------------------------------------------------------------------------------------


def test_all_numbers_are_one_tensor() -> None:
    ds = CSVDataset(NUMBERS, target="y")
    x, y = ds[3]
    assert (x.dtype, x.shape, y.dtype, y.shape) == (torch.float32, (2,), torch.float32, ())
    assert type(x) is torch.Tensor
    unlabelled = CSVDataset(NUMBERS)
    assert isinstance(unlabelled[0], torch.Tensor)
    assert unlabelled.targets is None


def test_mixed_columns_are_a_dict() -> None:
    ds = CSVDataset(MIXED, target="y", text="note")
    x, y = ds[2]
    assert list(x) == ["numeric", "categorical", "text"]
    assert (x["numeric"].dtype, x["categorical"].dtype, y.dtype) == (torch.float32, torch.int64, torch.int64)
    assert (x["numeric"].shape, x["categorical"].tolist()) == ((2,), [1])
    assert x["text"] == "some words about person number 2"
    assert ds.spec.parts == ["numeric", "categorical", "text"]
    assert set(CSVDataset(MIXED, text=["note", "color"])[0]) == {"numeric", "text_color", "text_note"} | (
        {"categorical"} if "y" in CSVDataset(MIXED).spec.categorical_features else set()
    )


def test_a_stock_loader_gets_whole_batches_and_a_collate_fn_ordinary_samples() -> None:
    ds = CSVDataset(MIXED, target="y", text="note")
    for batch, first in zip(Stock(ds, 7), range(0, 60, 7), strict=True):
        inputs, targets = batch
        singles = [ds[i] for i in range(first, min(first + 7, 60))]
        for name in ("numeric", "categorical"):
            assert torch.equal(inputs[name], torch.stack([x[name] for x, _ in singles]))
        assert inputs["text"] == [x["text"] for x, _ in singles]
        assert targets.tolist() == [int(y) for _, y in singles]
    seen: list[Any] = []
    list(Stock(ds, 4, collate_fn=lambda samples: seen.extend(samples)))
    assert len(seen) == 60
    assert seen[5][0]["text"] == ds[5][0]["text"]
    assert torch.equal(seen[5][0]["numeric"], ds[5][0]["numeric"])
    assert [len(batch[1]) for batch in Stock(Subset(ds, [3, 1, 2]), 2)] == [2, 1]


@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_workers_give_the_same_batches(context: str) -> None:
    ds = CSVDataset(MIXED, target="y", text="note")
    settings: dict[str, Any] = {"shuffle": True, "seed": 3}
    alone = list(dlkit.DataLoader(ds, 16, **settings))
    worked = list(dlkit.DataLoader(ds, 16, num_workers=2, multiprocessing_context=context, **settings))
    assert len(alone) == len(worked) == 4
    for (x, y), (u, v) in zip(alone, worked, strict=True):
        assert x["text"] == u["text"]
        assert all(torch.equal(x[name], u[name]) for name in ("numeric", "categorical"))
        assert torch.equal(y, v)


def test_no_workers_unless_told() -> None:
    ds = CSVDataset(NUMBERS, target="y")
    assert dlkit.DataLoader(ds, 16).num_workers == 0
    assert dlkit.DataLoader(ds, 16, num_workers=1).num_workers == 1


def test_it_is_the_same_as_a_tensor_dataset() -> None:
    ds = CSVDataset(NUMBERS, target="y")
    assert ds.numeric is not None
    assert ds.targets is not None
    plain = TensorDataset(ds.numeric, ds.targets)
    for left, right in zip(
        dlkit.DataLoader(ds, 8, shuffle=True, seed=1), dlkit.DataLoader(plain, 8, shuffle=True, seed=1), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_fetching_draws_nothing_at_random() -> None:
    ds = CSVDataset(MIXED, target="y", text="note")
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    assert not ds.draws_random
    list(dlkit.DataLoader(ds, 4, shuffle=True))
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_pickles_whole_but_goes_to_workers_light() -> None:
    ds = CSVDataset(MIXED, target="y")
    again = pickle.loads(pickle.dumps(ds))
    assert again.to_pandas().equals(ds.to_pandas())
    assert torch.equal(again.numeric, ds.numeric)


# --- new files under an old spec ------------------------------------------------------------------------------------


def test_new_files_may_differ_in_all_that_does_not_matter(tmp_path: Path) -> None:
    MIXED.to_csv(tmp_path / "train.csv", index=False)
    train = CSVDataset(tmp_path / "train.csv", target="y")
    (tmp_path / "new.csv").write_text("extra;color;y;age\n1;violet;yes;NA\n2;;no;33\n3;red;yes;?\n")
    new = CSVDataset(tmp_path / "new.csv", spec=train.spec)
    assert [int(new[i][1]) for i in range(3)] == [1, 0, 1]
    assert new[0][0]["categorical"].tolist() == [2]
    assert new.numeric is not None
    assert new.numeric[:, 1].tolist() == [1, 0, 1]
    (tmp_path / "unlabelled.csv").write_text("age,color\n33,red\n")
    only = CSVDataset(tmp_path / "unlabelled.csv", spec=train.spec)
    assert only.targets is None
    assert set(only[0]) == {"numeric", "categorical"}


def test_a_missing_column_and_one_of_another_kind_are_errors_that_name_it(tmp_path: Path) -> None:
    train = CSVDataset(MIXED, target="y")
    with pytest.raises(
        DataError, match="the DataFrame lacks the column 'color' of the spec; it has 'age', 'note', 'y'"
    ):
        CSVDataset(MIXED.drop(columns="color"), spec=train.spec)
    with pytest.raises(DataError, match="column 'age' of the DataFrame is of another kind: the spec has a number"):
        CSVDataset(MIXED.assign(age="old"), spec=train.spec)
    with pytest.raises(
        DataError, match=r"column 'color' .* is of another kind: the spec has a category .*, for example '3\.25'"
    ):
        CSVDataset(MIXED.assign(color=3.25), spec=train.spec)
    with pytest.raises(DataError, match=r"column 'age' .* another kind: .* and the file has dates"):
        CSVDataset(MIXED.assign(age=pd.Timestamp("2020-01-01")), spec=train.spec)
    dated = CSVDataset(MIXED.assign(age=pd.date_range("2020-01-01", periods=60)), target="y")
    with pytest.raises(DataError, match=r"column 'age' .* the spec has a date there, and the file has numbers"):
        CSVDataset(MIXED, spec=dated.spec)
    flags = CSVDataset(pd.DataFrame({"f": [True, False, True], "x": [1.5, 2, 3]}))
    with pytest.raises(DataError, match="the spec has a boolean"):
        CSVDataset(pd.DataFrame({"f": [1, 2, 3], "x": [1.5, 2, 3]}), spec=flags.spec)
    assert CSVDataset(pd.DataFrame({"f": [1, 0, 0], "x": [1.5, 2, 3]}), spec=flags.spec)[0].tolist()[0] == 1


def test_single_bad_cells_are_named_or_skipped(tmp_path: Path) -> None:
    train = CSVDataset(NUMBERS, target="y")
    (tmp_path / "new.csv").write_text("a,b,y\n1,2,3\n4,oops,6\n7,8,9\n")
    with pytest.raises(
        DataError, match=r"line 3 of new\.csv has no number in column 'b' but 'oops': add it to missing="
    ):
        CSVDataset(tmp_path / "new.csv", spec=train.spec)
    new = CSVDataset(tmp_path / "new.csv", spec=train.spec, on_error="skip")
    assert new.rows.tolist() == [0, 2]
    assert new.skipped == [Skipped("new.csv", 1, "has no number in column 'b'")]


def test_numbers_keep_their_way_of_writing(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('x,y\n"1,234",1\n"2,500",0\n999,1\n"10,000",0\n')
    (tmp_path / "new.csv").write_text('x,y\n1234,1\n"2,500",0\n')
    train = CSVDataset(tmp_path / "train.csv", target="y")
    new = CSVDataset(tmp_path / "new.csv", spec=train.spec)
    assert train.numeric is not None
    assert new.numeric is not None
    assert torch.equal(new.numeric, train.numeric[:2])


def test_the_same_category_in_other_spellings() -> None:
    train = CSVDataset(pd.DataFrame({"c": [1, 2, 3, 1], "x": [0.5, 1, 2, 3]}), categorical="c")
    new = CSVDataset(pd.DataFrame({"c": [1.0, np.nan, 3.0], "x": [0.5, 1, 2]}), spec=train.spec)
    assert new.categorical is not None
    assert new.categorical[:, 0].tolist() == [3, 1, 5]
    text = CSVDataset(pd.DataFrame({"c": ["1.0", "3", "9"], "x": [0.5, 1, 2]}), spec=train.spec)
    assert text.categorical is not None
    assert text.categorical[:, 0].tolist() == [3, 5, 2]


def test_a_schema_excludes_what_it_already_says() -> None:
    spec = CSVDataset(MIXED, target="y").spec
    with pytest.raises(ArgumentError, match="spec= says what the columns are"):
        CSVDataset(MIXED, spec=spec, numeric="age")
    with pytest.raises(ArgumentError, match="the spec's target"):
        CSVDataset(MIXED, spec=spec, target="age")
    assert len(CSVDataset(MIXED, spec=spec, target="y")) == 60


def test_what_the_schema_fixes_cannot_be_said_again() -> None:
    spec = CSVDataset(MIXED, target="y").spec
    options: dict[str, Any]
    for options in ({"scale": "robust"}, {"min_freq": 2}, {"classes": ["yes", "no"]}, {"task": "binary"}):
        with pytest.raises(ArgumentError, match=f"what becomes of columns and target; leave out {next(iter(options))}"):
            CSVDataset(MIXED, spec=spec, **options)
    with pytest.raises(ArgumentError, match=r"spec must be a fitted one, train\.spec .* not str"):
        CSVDataset(MIXED, spec="spec.json")  # type: ignore[arg-type]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_new_file_may_have_marks_of_its_own(tmp_path: Path, streaming: bool) -> None:
    spec = CSVDataset(MIXED, target="y").spec
    (tmp_path / "new.csv").write_text("age,color,y\n33,red,no\nnot told,not told,yes\n?,red,no\n")
    with pytest.raises(DataError, match=r"line 3 of new\.csv has no number in column 'age' but 'not told': add it to"):
        CSVDataset(tmp_path / "new.csv", spec=spec, streaming=streaming)
    new = CSVDataset(tmp_path / "new.csv", spec=spec, missing=["not told"], streaming=streaming)
    assert [new[row][0]["numeric"][1].item() for row in range(3)] == [0, 1, 1]
    assert new[1][0]["categorical"].tolist() == [1]


def test_a_bad_truth_value_is_called_so() -> None:
    train = CSVDataset(pd.DataFrame({"f": ["yes", "no", "yes"], "x": [1.5, 2, 3]}))
    with pytest.raises(DataError, match="row 1 of the DataFrame has no truth value in column 'f' but 'maybe'"):
        CSVDataset(pd.DataFrame({"f": ["yes", "maybe"], "x": [1.5, 2]}), spec=train.spec)


def test_a_schema_with_the_largest_of_numbers_comes_back_from_json() -> None:
    train = CSVDataset(pd.DataFrame({"x": [0.0, sys.float_info.max, sys.float_info.max]}), numeric=["x"])
    assert type(train.spec).from_json(train.spec.to_json()) == train.spec


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=6), st.data())
def test_no_finite_number_becomes_an_infinite_input(values: list[float], data: st.DataObject) -> None:
    scale: Any = data.draw(st.sampled_from(["standard", "robust", "none"]))
    train = CSVDataset(pd.DataFrame({"x": values, "filler": range(len(values))}), scale=scale, numeric=["filler"])
    new = CSVDataset(pd.DataFrame({"x": [1e308, -1e308, *values], "filler": 0}), spec=train.spec)
    for ds in (train, new):
        assert ds.numeric is not None
        assert ds.numeric.isfinite().all()
    assert type(train.spec).from_json(train.spec.to_json()) == train.spec


cell = st.one_of(st.none(), st.sampled_from(["a", "b", "new", "?", "1", ""]))
number = st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(float("nan")), st.just(float("inf")))


@given(st.lists(st.tuples(cell, number), min_size=1, max_size=4))
def test_no_new_value_ever_fails(rows: list[tuple[str | None, float | None]]) -> None:
    train = CSVDataset(pd.DataFrame({"c": ["a", "b", "a"], "x": [1.0, 2.0, 4.0]}))
    new = CSVDataset(pd.DataFrame(rows, columns=["c", "x"]).astype({"x": float}), spec=train.spec)
    assert len(new) == len(rows)
    assert new.numeric is not None
    assert new.categorical is not None
    assert torch.isfinite(new.numeric).all()
    assert ((new.categorical >= 1) & (new.categorical < 5)).all()


# --- splits -----------------------------------------------------------------------------------------------------------


def test_a_split_is_fitted_on_the_training_rows_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"x": rng.normal(size=300), "c": rng.choice(list("abc"), 300), "y": rng.integers(0, 2, 300)})
    data.to_csv(tmp_path / "all.csv", index=False)
    train, val, test = CSVDataset.split(tmp_path / "all.csv", target="y", fractions=(0.8, 0.1, 0.1), seed=0)
    assert (len(train), len(val), len(test)) == (240, 30, 30)
    assert sorted([*train.rows.tolist(), *val.rows.tolist(), *test.rows.tolist()]) == list(range(300))
    part = data.x[train.rows.numpy()]
    assert train.spec.numbers[0].parts[0].center == pytest.approx(part.mean(), rel=1e-12)
    assert train.spec.numbers[0].parts[0].scale == pytest.approx(part.std(ddof=0), rel=1e-12)
    spoiled = data.copy()
    for other in (val, test):  # whatever stands in the other rows, the spec and the training samples are the same
        spoiled.loc[other.rows.numpy(), "x"] = 1e6
        spoiled.loc[other.rows.numpy()[:5], "c"] = "zzz"
    again, *_ = CSVDataset.split(spoiled, target="y", seed=0)
    assert again.spec == train.spec
    assert torch.equal(again.numeric, train.numeric)  # type: ignore[arg-type]


def test_shares_of_classes_and_groups_are_kept() -> None:
    data = pd.DataFrame({"x": np.arange(400) % 13 + 0.5, "g": np.repeat(np.arange(100), 4), "y": [0, 0, 0, 1] * 100})
    parts = CSVDataset.split(data, target="y", fractions=(0.5, 0.25, 0.25))
    assert [float(part.targets.float().mean()) for part in parts] == [0.25] * 3  # type: ignore[union-attr]
    grouped = CSVDataset.split(data, target="y", fractions=0.75, group="g")
    sides = [set(data.g[part.rows.numpy()]) for part in grouped]
    assert not sides[0] & sides[1]
    assert grouped[0].spec["g"].kind == "dropped"
    first, second = (CSVDataset.split(data, target="y", fractions=0.5, seed=seed)[0].rows.tolist() for seed in (1, 2))
    assert first != second
    assert first == CSVDataset.split(data, target="y", fractions=0.5, seed=1)[0].rows.tolist()


def test_a_split_names_what_it_does_not_know() -> None:
    with pytest.raises(ArgumentError, match=r"CSVDataset\.split has no argument 'traget'; do you mean 'target'"):
        CSVDataset.split(NUMBERS, traget="y")  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match=r"has no argument 'spec'"):
        CSVDataset.split(NUMBERS, target="y", spec=None)  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="group: the DataFrame has no column 'person'; it has 'a', 'b', 'y'"):
        CSVDataset.split(NUMBERS, target="y", group="person")


def test_regressions_are_stratified_by_tenths_and_labels_by_combination() -> None:
    data = pd.DataFrame({"x": np.arange(1000) % 7 + 0.5, "y": np.random.default_rng(0).exponential(size=1000)})
    train, test = CSVDataset.split(data, target="y", fractions=0.9, scale_target=False)
    tenths = np.quantile(data.y, np.linspace(0, 1, 11))
    counts = np.histogram(test.targets, tenths)[0]  # type: ignore[arg-type]
    assert counts.min() >= 9
    assert counts.max() <= 11
    assert len(train) == 900
    labels = pd.DataFrame({"x": np.arange(60) % 7 + 0.5, "y": ["a|b", "b", "a"] * 19 + ["c", "", "a|c"]})
    left, right = CSVDataset.split(labels, target="y", label_separator="|", fractions=0.5)
    assert abs(len(left) - len(right)) <= 2


# --- targets ----------------------------------------------------------------------------------------------------------


def with_target(values: Any, **options: Any) -> CSVDataset:
    return CSVDataset(pd.DataFrame({"x": np.arange(len(values)) % 7 + 0.5, "y": values}), target="y", **options)


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["b", "a", "b", "c"] * 3, "classification", ["a", "b", "c"]),
        ([10, 9, 10, 9] * 3, "classification", ["9", "10"]),
        ([1.0, 0.0, 1.0, 0.0], "classification", ["0", "1"]),
        ([True, False, True], "classification", ["False", "True"]),
        (["yes", "no", "yes"], "classification", ["no", "yes"]),
        ([0.5, 1.5, 2.5], "regression", []),
        (list(range(100, 140)), "regression", []),
        (["1,200", "3,400", "900"], "regression", []),
    ],
)
def test_tasks_are_inferred(values: Any, task: str, classes: list[str]) -> None:
    ds = with_target(values)
    assert ds.spec.target is not None
    assert (ds.spec.target.task, ds.classes) == (task, classes)
    assert ds.targets is not None
    assert ds.targets.dtype == (torch.int64 if task == "classification" else torch.float32)


def test_classes_in_a_stated_order() -> None:
    ds = with_target(["low", "high", "mid"] * 4, classes=["low", "mid", "high"])
    assert ds.classes == ["low", "mid", "high"]
    assert ds.targets is not None
    assert ds.targets[:3].tolist() == [0, 2, 1]
    with pytest.raises(DataError, match="row 1 of the DataFrame has an unknown target 'y', 'high', as have 3 more"):
        with_target(["low", "high", "mid"] * 4, classes=["low", "mid"])
    with pytest.raises(ArgumentError, match="names a class twice"):
        with_target(["a", "b"], classes=["a", "a"])


def test_binary() -> None:
    ds = with_target(["no", "yes", "no"], task="binary")
    assert ds.targets is not None
    assert (ds.targets.dtype, ds.targets.tolist()) == (torch.float32, [0, 1, 0])
    assert ds.spec.target is not None
    assert ds.spec.target.num_outputs == 1
    with pytest.raises(ArgumentError, match="needs 2 classes in column 'y', not 3"):
        with_target(["a", "b", "c"], task="binary")


def test_regression_and_the_way_back() -> None:
    values = [10.0, 20.0, 60.0]
    ds = with_target(values)
    assert ds.targets is not None
    assert float(ds.targets.mean()) == pytest.approx(0, abs=1e-6)
    assert ds.unscale_target(ds.targets).tolist() == pytest.approx(values)
    plain = with_target(values, scale_target=False)
    assert plain.targets is not None
    assert plain.targets.tolist() == values
    several = CSVDataset(NUMBERS, target=["a", "y"])
    assert several.targets is not None
    assert several.targets.shape == (40, 2)
    np.testing.assert_allclose(several.unscale_target(several.targets), NUMBERS[["a", "y"]], rtol=1e-6)
    with pytest.raises(DataError, match=r"row 0 of the DataFrame has an unknown target 'y', 'a'.*it must be a number"):
        with_target(["a", "b"], task="regression")
    with pytest.raises(ArgumentError, match="no target to scale back"):
        CSVDataset(NUMBERS).unscale_target(torch.zeros(2))


def test_several_columns_are_each_read_in_their_own_way(tmp_path: Path) -> None:
    data = pd.DataFrame({"x": [0.5, 1.5, 2.5] * 4, "w": ["1,000", "2,500", "30"] * 4, "h": ["0,5", "1,25", "2"] * 4})
    ds = CSVDataset(data, target=["w", "h"])
    assert ds.targets is not None
    back = ds.unscale_target(ds.targets.double())[:3]
    np.testing.assert_allclose(back, [[1000, 0.5], [2500, 1.25], [30, 2]], rtol=1e-5)
    data.drop(columns="h").to_csv(tmp_path / "t.csv", index=False)  # a file has one decimal mark
    stream = CSVDataset(tmp_path / "t.csv", target="w", task="regression", streaming=True)
    assert torch.allclose(torch.stack([stream[row][1] for row in range(3)]), ds.targets[:3, 0])
    plain = CSVDataset(data.assign(w=[1000.0, 2500, 30] * 4), spec=ds.spec)
    assert plain.targets is not None
    assert torch.equal(plain.targets, ds.targets)
    words = pd.DataFrame({"x": [1.5, 2, 3], "funny": ["yes", "no", "yes"], "sad": [1, 0, 0]})
    labels = CSVDataset(words, target=["funny", "sad"])
    assert labels.targets is not None
    assert labels.targets.tolist() == [[1, 1], [0, 0], [1, 0]]


def test_labels_in_one_column() -> None:
    ds = with_target(["cat; dog", "dog", "", None, "bird;cat"], label_separator=";")
    assert ds.classes == ["bird", "cat", "dog"]
    assert ds.targets is not None
    assert ds.targets.tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0], [1, 1, 0]]
    new = pd.DataFrame({"x": [0.5, 1.5], "y": ["dog", "dog;fish"]})
    with pytest.raises(DataError, match="has an unknown target 'y', 'dog;fish': the classes are 'bird', 'cat', 'dog'"):
        CSVDataset(new, spec=ds.spec)
    with pytest.raises(ArgumentError, match="needs label_separator="):
        with_target(["a", "b"], task="multilabel")


def test_labels_in_several_columns() -> None:
    data = pd.DataFrame({"x": [1.5, 2, 3], "funny": [0, 1, 1], "sad": [True, False, True]})
    ds = CSVDataset(data, target=["funny", "sad"])
    assert ds.classes == ["funny", "sad"]
    assert ds.targets is not None
    assert ds.targets.tolist() == [[0, 1], [1, 0], [1, 1]]
    with pytest.raises(ArgumentError, match="must be numbers, or 0 and 1 for labels; 'z' is neither"):
        CSVDataset(data.assign(z=["a", "b", "c"]), target=["funny", "z"])
    with pytest.raises(DataError, match=r"row 2 of the DataFrame has an unknown target .*labels are 0 and 1"):
        CSVDataset(data.assign(sad=[0, 1, 2]), spec=ds.spec)
    with pytest.raises(DataError, match=r"row 2 of the DataFrame has an unknown target .*labels are 0 and 1"):
        CSVDataset(data.assign(sad=[0, 1, 2]), target=["funny", "sad"], task="multilabel")


def test_missing_targets_are_an_error_with_the_rows_or_skipped() -> None:
    values = ["a", None, "b", "?", "a", "b"]
    with pytest.raises(
        DataError,
        match=r"row 1 of the DataFrame has no target 'y', as have 1 more \(rows 3, counted from 0\): on_error",
    ):
        with_target(values)
    ds = with_target(values, on_error="skip")
    assert ds.rows.tolist() == [0, 2, 4, 5]
    assert [row.place for row in ds.skipped] == ["row 1 of the DataFrame", "row 3 of the DataFrame"]
    train, test = CSVDataset.split(
        pd.DataFrame({"x": np.arange(60) / 7, "y": values * 10}), target="y", fractions=0.5, on_error="skip"
    )
    assert len(train) + len(test) == 40
    with pytest.raises(DataError, match="target 'y' has no value in any row"):
        with_target([None, None, ""], on_error="skip")


def test_targets_that_cannot_be_meant() -> None:
    with pytest.raises(DataError, match="60 different values in 60 rows, too many for classes"):
        CSVDataset(MIXED, target="note")
    with pytest.raises(ArgumentError, match="holds dates"):
        with_target(pd.date_range("2020-01-01", periods=5))
    with pytest.raises(ArgumentError, match="task must be one of"):
        with_target([1, 2], task="guess")
    with pytest.raises(TooManyErrorsError, match="30 of 90 rows"):
        with_target(["a", "b", "c"] * 30, classes=["a", "b"], on_error="skip")


def test_aliases(shared_data: Path) -> None:
    folder = shared_data / "csv"
    train = CSVDataset(folder / "adult.data", target="classification")
    assert train.classes == ["<=50K", ">50K"]
    with pytest.raises(DataError, match=r"line 2 of adult\.test has an unknown target .* 16280 more"):
        CSVDataset(folder / "adult.test", spec=train.spec)
    test = CSVDataset(folder / "adult.test", spec=train.spec, aliases={"<=50K.": "<=50K", ">50K.": ">50K"})
    assert test.targets is not None
    assert (len(test), int(test.targets.sum())) == (16281, 3846)
    workclass = train.spec["workclass"]
    assert (workclass.missing, len(workclass.vocabulary)) == (1836, 8)  # type: ignore[attr-defined]


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "img" / "red.png")
    Image.new("RGBA", (10, 10), (0, 0, 255, 0)).save(tmp_path / "img" / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    sides = Image.new("RGB", (20, 40), (0, 255, 0))
    sides.paste((0, 0, 0), (0, 0, 20, 20))
    sides.save(tmp_path / "img" / "turned.jpg", exif=exif, quality=95)
    (tmp_path / "t.csv").write_text(
        "file,size,y\nimg/red.png,1.5,a\nimg/clear.png,2.5,b\nimg/turned.jpg,3.5,a\n" + "img/red.png,0.5,b\n" * 3
    )
    return tmp_path


def test_rows_may_point_to_image_files(pictures: Path) -> None:
    ds = CSVDataset(pictures / "t.csv", target="y", image="file", image_size=8)
    x, _ = ds[0]
    assert (x["image"].dtype, x["image"].shape) == (torch.float32, (3, 8, 8))
    folder = ImageTable(pictures / "t.csv", image="file", target="y", size=8)
    for row in range(6):  # upright, over white, scaled: whatever ImageFolder does
        assert torch.equal(ds[row][0]["image"], folder[row][0])
    assert ds[1][0]["image"].min() > 2
    assert not ds.draws_random
    augmented = CSVDataset(pictures / "t.csv", target="y", image="file", image_transform=transforms.for_training(8))
    assert augmented.draws_random
    batches = [torch.cat([x["image"] for x, _ in dlkit.DataLoader(augmented, 4, num_workers=n)]) for n in (0, 1)]
    assert torch.equal(*batches)
    images = [x["image"].shape for x, _ in dlkit.DataLoader(ds, 4, num_workers=1)]
    assert images == [(4, 3, 8, 8), (2, 3, 8, 8)]


def test_image_files_are_looked_for_at_once_and_broken_ones_are_named(pictures: Path) -> None:
    table = pd.read_csv(pictures / "t.csv")
    table.loc[1, "file"] = "img/gone.png"
    table.loc[2, "file"] = None
    with pytest.raises(
        DataError, match=r"row 1 of the DataFrame names no image file in column 'file': .*gone\.png, as"
    ):
        CSVDataset(table, target="y", image="file", image_root=pictures)
    ds = CSVDataset(table, target="y", image="file", image_root=pictures, on_error="skip", image_size=8)
    assert ds.rows.tolist() == [0, 3, 4, 5]
    (pictures / "img" / "red.png").write_bytes(b"no image")
    with (
        pytest.warns(UserWarning, match="left out permanently"),
        pytest.raises(DataError, match=r"red\.png: is not an image in a format dlkit reads"),
    ):
        ds[0]
    with pytest.raises(ArgumentError, match="image_size"):
        CSVDataset(pictures / "t.csv", target="y", image="file", image_size=0)


def test_an_image_transform_of_ones_own(pictures: Path) -> None:
    def flip(image: Image.Image) -> torch.Tensor:
        return torch.tensor([image.size[0] + random.random()])

    ds = CSVDataset(pictures / "t.csv", target="y", image="file", image_transform=flip)
    assert ds.draws_random
    first = [x["image"] for x, _ in dlkit.DataLoader(ds, 2)]
    again = dlkit.DataLoader(ds, 2, num_workers=1, multiprocessing_context="fork")
    assert torch.equal(torch.cat(first), torch.cat([x["image"] for x, _ in again.batches(0)]))
    assert not torch.equal(torch.cat(first), torch.cat([x["image"] for x, _ in again.batches(1)]))
    wrong = CSVDataset(pictures / "t.csv", target="y", image="file", image_transform=lambda image: image)
    with pytest.raises(DataError, match=r"the transform must return a tensor, but returned Image for .*red\.png"):
        wrong[0]


# --- looking ----------------------------------------------------------------------------------------------------------


def test_to_pandas_gives_what_was_read(shared_data: Path) -> None:
    train, *_ = CSVDataset.split(shared_data / "csv" / "titanic.csv", target="survived")
    whole = pd.read_csv(shared_data / "csv" / "titanic.csv")
    frame = train.to_pandas()
    expected = whole.iloc[train.rows.numpy()]
    assert list(frame.columns) == list(whole.columns)
    assert frame.index.tolist() == train.rows.tolist()
    for name in whole.columns:
        left = frame[name].tolist()
        right = expected[name].tolist()
        if name == "alive":
            right = [value == "yes" for value in right]
        assert [value if value == value else None for value in left] == [
            value if value == value else None for value in right
        ], name


def test_repr_tells_what_it_holds(shared_data: Path) -> None:
    shown = repr(CSVDataset(shared_data / "csv" / "reviews_cp949.csv", target="감성", text="리뷰"))
    for part in ("1000 rows of reviews_cp949.csv", "cp949", "target 감성", "left out: 번호 (identifier: "):
        assert part in shown


def test_describe_finds_what_is_suspicious() -> None:
    rng = np.random.default_rng(0)
    y = np.sort(rng.integers(0, 2, 400))
    data = pd.DataFrame(
        {
            "id": np.arange(400),
            "constant": 1.5,
            "noise": rng.normal(size=400).round(1),
            "leak": np.where(y == 1, "paid", "open"),
            "gaps": [None, "a", "b", "a"] * 100,
            "y": y,
        }
    )
    ds = CSVDataset(data, target="y")
    described = ds.describe()
    table = described.columns
    assert table.loc["gaps", ["kind", "missing", "distinct"]].tolist() == ["category", 100, 2]
    assert table.loc["id", "kind"] == "identifier"
    assert table.loc["y", "kind"] == "target"
    findings = "\n".join(described.findings)
    assert "'constant' is constant" in findings
    assert "the order of the rows predicts" in findings
    assert "the identifier 'id' predicts" in findings
    assert "'leak' alone predicts 100% of the target" in findings
    assert "'noise'" not in findings
    shuffled = CSVDataset(data.sample(frac=1, random_state=0).assign(id=range(400)).drop(columns="leak"), target="y")
    assert shuffled.describe().findings[:1] == ["'constant' is constant"]
    assert "identifier" not in "".join(shuffled.describe().findings)


def test_duplicates_and_leaks() -> None:
    data = pd.DataFrame({"a": [1.5, 2, 3, 1.5, 9], "b": ["x", "y", "z", "x ", "w"], "y": [0, 1, 0, 1, 1]})
    train = CSVDataset(data, target="y")
    test = CSVDataset(data.iloc[[1, 4]].assign(a=[2.0, 8.0]), spec=train.spec)
    findings = train.describe(test).findings
    assert any("1 of 5 rows repeat an earlier one" in finding for finding in findings)
    assert any("1 of 2 rows of the other data are also in this" in finding for finding in findings)
    report = check_leaks(train, test)
    assert report.matches == (((1,), (0,)),)
    other = CSVDataset(data.drop(columns="b"), target="y")
    with pytest.raises(ArgumentError, match="same"):
        train.describe(other)


def test_leaks_of_real_data(shared_data: Path) -> None:
    train, _, test = CSVDataset.split(shared_data / "csv" / "titanic.csv", target="survived")
    assert any("'alive' alone predicts 100%" in finding for finding in train.describe(test).findings)
