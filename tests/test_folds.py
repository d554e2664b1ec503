"""Folds: each sample is tested on once, nothing lies on both sides, the past trains; for any dataset."""

from __future__ import annotations

import gc
import itertools
import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import KFold, StratifiedKFold, TimeSeriesSplit
from torch.utils.data import TensorDataset

from dlkit.datasets import CSVDataset, Glyphs, ImageFolder, ImageTable, TextDataset, windows
from dlkit.errors import ArgumentError
from dlkit.splits import Fold, folds, part_of_keys, split_indices

Parts = list[tuple[np.ndarray[Any, Any], ...]]


def all_folds(n: int, of: int, val: float = 0.0, **how: Any) -> Parts:
    return [split_indices(n, Fold(number, of=of, val=val), **how) for number in range(1, of + 1)]


def judged_in(parts: Parts) -> list[int]:
    return sorted(np.concatenate([part[-1] for part in parts]).tolist())


def assert_whole(parts: Parts, n: int) -> None:
    for part in parts:
        assert sorted(np.concatenate(part).tolist()) == list(range(n))
    assert judged_in(parts) == list(range(n))


@given(n=st.integers(10, 200), of=st.integers(2, 8), val=st.sampled_from([0.0, 0.2]), seed=st.integers(0, 2**40))
def test_each_sample_is_tested_on_once_in_parts_as_equal_as_kfolds(n: int, of: int, val: float, seed: int) -> None:
    parts = all_folds(n, of, val, seed=seed)
    assert_whole(parts, n)
    theirs = [len(test) for _, test in KFold(of).split(np.zeros(n))]
    assert sorted(len(part[-1]) for part in parts) == sorted(theirs)
    assert all(np.array_equal(a, b) for one, two in zip(parts, all_folds(n, of, val, seed=seed), strict=True)
               for a, b in zip(one, two, strict=True))  # fmt: skip


@given(labels=st.lists(st.integers(0, 3), min_size=20, max_size=150), of=st.integers(2, 6), seed=st.integers(0, 9))
def test_classes_are_dealt_as_evenly_as_stratified_k_fold_deals_them(labels: list[int], of: int, seed: int) -> None:
    sizes = np.bincount(labels)
    if sizes[sizes > 0].min() < of:
        with pytest.raises(ArgumentError, match=rf"cannot lie in each of {of} folds"):
            all_folds(len(labels), of, stratify=labels, seed=seed)
        return
    parts = all_folds(len(labels), of, stratify=labels, seed=seed)
    assert_whole(parts, len(labels))
    counts = np.array([np.bincount(np.array(labels)[part[-1]], minlength=4) for part in parts])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(1)) <= 1
    theirs = StratifiedKFold(of).split(np.zeros(len(labels)), labels)
    other = np.array([np.bincount(np.array(labels)[test], minlength=4) for _, test in theirs])
    assert np.array_equal(np.sort(counts, axis=0), np.sort(other, axis=0))


@given(
    groups=st.lists(st.integers(0, 30), min_size=60, max_size=150),
    of=st.integers(2, 6),
    val=st.sampled_from([0.0, 0.25]),
    stratify=st.booleans(),
)
def test_a_group_is_in_one_part_of_each_fold_and_tested_on_once(
    groups: list[int], of: int, val: float, stratify: bool
) -> None:
    if len(set(groups)) < 2 * of:  # enough that a validation part can be cut from what is not tested on
        groups = [n % (2 * of) for n in range(len(groups))]
    keys, labels = np.array(groups), [n % 2 for n in range(len(groups))] if stratify else None
    parts = all_folds(len(groups), of, val, group=groups, stratify=labels)
    assert_whole(parts, len(groups))
    for part in parts:
        held = [set(keys[rows].tolist()) for rows in part]
        assert sum(map(len, held)) == len(set.union(*held))
        assert all(len(rows) for rows in part)


@given(
    moments=st.lists(st.integers(0, 10_000), min_size=40, max_size=120, unique=True),
    of=st.integers(2, 6),
    val=st.sampled_from([0.0, 0.2]),
)
def test_the_past_trains_and_what_comes_is_tested_on(moments: list[int], of: int, val: float) -> None:
    times, parts = np.array(moments), all_folds(len(moments), of, val, time=moments)
    for part in parts:
        for before, after in itertools.pairwise(part):
            assert times[before].max() < times[after].min()
    assert len(set(judged_in(parts))) == len(judged_in(parts))
    theirs = [(len(train), len(test)) for train, test in TimeSeriesSplit(of).split(times)]
    ours = [(sum(map(len, part[:-1])), len(part[-1])) for part in parts]
    assert np.abs(np.array(ours) - np.array(theirs)).max() <= of  # they give what does not divide to the first training
    assert np.ptp([test for _, test in ours]) <= 1
    for part, later in itertools.pairwise(parts):  # each trains on all that an earlier one has seen
        assert set(np.concatenate(part).tolist()) == set(np.concatenate(later[:-1]).tolist())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fractions": Fold(1, of=5), "n": 4}, "4 samples are too few for 5 folds, which need 5"),
        ({"fractions": Fold(1, of=5), "n": 5, "time": range(5)}, "5 samples are too few for 5 folds, which need 6"),
        ({"fractions": Fold(1, of=3), "stratify": [0] * 8 + [1] * 2}, "class '1' has 2 samples, .* at most 2 folds"),
        (
            {"fractions": Fold(1, of=3), "stratify": [0] * 9 + [1], "class_names": ["no", "yes"]},
            "class 'yes' has 1 samples, .* each of 3 folds: they allow no folds",
        ),
        ({"fractions": Fold(1, of=3), "group": [7] * 5 + [8] * 5}, "2 groups are too few for 3 folds"),
    ],
)
def test_what_cannot_be_folded_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        split_indices(**{"n": 10, **arguments})


def test_folds_that_there_are_not() -> None:
    for arguments, message in (
        ((6, 5), "number=6: the folds are 1 to 5"),
        ((0, 5), "number must be a whole number of at least 1"),
        ((1, 1), "of must be a whole number of at least 2"),
        ((1, 5, 1.0), "val must be a share from 0 to below 1, not 1.0"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Fold(*arguments)
    with pytest.raises(ArgumentError, match=r"of must be a whole number of at least 2"):
        folds([1, 2, 3], 1)
    with pytest.raises(ArgumentError, match=r"folds need all samples at once"):
        part_of_keys(np.arange(9, dtype=np.uint64), Fold(1, of=3))


FRAME = pd.DataFrame(
    {
        "x": np.arange(60.0),
        "city": [f"city{n % 6}" for n in range(60)],
        "user": [f"u{n % 12}" for n in range(60)],
        "day": np.arange(60)[::-1],
        "said": [f"word{n} again" for n in range(60)],
        "y": ["no", "yes", "no"] * 20,
    }
)


def test_a_table_is_fitted_anew_on_the_training_rows_of_each_fold() -> None:
    table = CSVDataset(FRAME, target="y", drop="said")
    seen = []
    for train, val, test in folds(table, 5, val=0.2, group="user", seed=3):
        rows = [FRAME.iloc[part.rows.numpy()] for part in (train, val, test)]
        users = [set(part["user"]) for part in rows]
        assert sum(map(len, users)) == 12 == len(set.union(*users))
        assert train.spec == test.spec
        assert train.spec.numbers[0].parts[0].center == pytest.approx(rows[0]["x"].mean())
        assert "user" not in {column.name for column in train.spec.columns if column.used}
        seen += test.rows.tolist()
    assert sorted(seen) == list(range(60))
    days = [(train.to_pandas()["day"].max(), test.to_pandas()["day"].min()) for train, test in folds(table, time="day")]
    assert all(before < after for before, after in days)
    assert [sorted(part.rows.tolist()) for part in next(folds(table, 4, seed=1))] == [
        sorted(part.rows.tolist()) for part in CSVDataset.split(FRAME, Fold(1, of=4), target="y", drop="said", seed=1)
    ]


def test_the_folds_of_a_part_keep_the_rest_out(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    train, kept = CSVDataset.split(tmp_path / "rows.csv", 0.8, target="y", drop="said")
    found = [part for parts in folds(train, 4) for part in parts]
    assert sorted({row for part in found for row in part.rows.tolist()}) == train.rows.tolist()
    assert sorted(row for part in found[1::2] for row in part.rows.tolist()) == train.rows.tolist()
    texts, others = TextDataset.split(tmp_path / "rows.csv", 0.8, text="said", target="y")
    tested_on = [text for _, test in folds(texts, 4, group="user") for text in test.texts]
    assert sorted(tested_on) == sorted(texts.texts)
    assert not set(tested_on) & set(others.texts)
    assert len(kept) == 12


def test_a_vocabulary_is_that_of_the_training_texts() -> None:
    texts = TextDataset(FRAME, text="said", target="y", min_freq=1)
    for train, test in folds(texts, 3, stratify=True):
        assert train.spec is test.spec
        assert all(f"{text.split()[0]}" not in train.spec.encoder.tokens for text in test.texts)


def test_letters_files_and_any_other_dataset(tmp_path: Path) -> None:
    letters = Glyphs(200)
    fonts = [set(test.font_ids.tolist()) for _, test in folds(letters, 3)]
    assert sum(map(len, fonts)) == len(set.union(*fonts))
    for n in range(24):
        folder = tmp_path / "pictures" / "ab"[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 9 * n, np.uint8)).save(folder / f"{n}.png")
    images = ImageFolder(tmp_path / "pictures")
    tested_on = [test.indices for _, test in folds(images, 4)]
    assert sorted(torch.cat(tested_on).tolist()) == list(range(24))
    names = [f"pictures/{'ab'[n % 2]}/{n}.png" for n in range(24)]
    pd.DataFrame({"file": names, "label": ["a", "b"] * 12, "camera": [n // 4 for n in range(24)]}).to_csv(
        tmp_path / "files.csv", index=False
    )
    cameras = [
        set((test.indices // 4).tolist()) for _, test in folds(ImageTable(tmp_path / "files.csv"), 3, group="camera")
    ]
    assert sum(map(len, cameras)) == 6
    targets = torch.tensor([0, 0, 1] * 8)
    plain = TensorDataset(torch.rand(24, 2), targets)
    for train, test in folds(plain, 4, stratify=targets, seed=5):
        assert (len(train), len(test), int(targets[test.indices].sum())) == (18, 6, 2)
    assert [len(test) for _, test in folds(plain, 5, stratify=False)] == [5, 5, 5, 5, 4]
    with pytest.raises(ArgumentError, match=r"stratify=True: TensorDataset has no targets"):
        next(folds(plain, 4, stratify=True))


def test_what_has_no_folds_says_what_to_do(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    streamed = CSVDataset(tmp_path / "rows.csv", target="y", streaming=True)
    with pytest.raises(ArgumentError, match=r"a streamed table is split row by row, .* read it without streaming="):
        next(folds(streamed))
    with pytest.raises(ArgumentError, match=r"folds need all samples at once: leave out streaming="):
        CSVDataset.split(tmp_path / "rows.csv", Fold(1, of=3), target="y", streaming=True)
    train, _ = CSVDataset.split(FRAME, 0.8, target="y")
    with pytest.raises(ArgumentError, match=r"has the spec of other data"):
        next(folds(CSVDataset(FRAME, spec=train.spec)))
    with pytest.raises(ArgumentError, match=r"target: a dataset that is split again keeps its options"):
        CSVDataset.split(train, 0.5, target="y")
    with pytest.raises(ArgumentError, match=r"class 'yes' has 2 samples, which cannot lie in each of 5 folds"):
        next(folds(CSVDataset(FRAME[:8].assign(y=["no"] * 6 + ["yes"] * 2), target="y")))
    for part in ("train", "test"):
        (tmp_path / "laid" / part / "a").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "laid" / part / "a" / "x.png")
    with pytest.raises(
        ArgumentError, match=r"is laid out in train, test, which folds would mix: cut the folder .*train"
    ):
        next(folds(ImageFolder(tmp_path / "laid")))
    with pytest.raises(ArgumentError, match=r"windows of one series"):
        next(folds(windows(torch.rand(50, 1), 5, 1)))


def test_lists_are_not_kept_for_folds_and_have_them_all_the_same(tmp_path: Path) -> None:
    class Words(list[str]):
        pass

    said = Words(f"{'good' if n % 2 else 'bad'} film {n}" for n in range(20))
    alive, wanted = weakref.ref(said), sorted(said)
    texts = TextDataset(said, target=["p" if n % 2 else "n" for n in range(20)])
    del said
    gc.collect()
    assert alive() is None
    assert sorted(text for _, test in folds(texts, 4) for text in test.texts) == wanted
    with pytest.raises(ArgumentError, match=r"these texts came from a list: split the list itself"):
        next(folds(texts, 4, group="user"))
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    frame = pd.DataFrame({"file": ["x.png"] * 12, "label": ["a", "b"] * 6, "camera": [n // 2 for n in range(12)]})
    images = ImageTable(frame, root=tmp_path)
    found = list(folds(images, 3, group="camera", dedupe=False))
    assert sum(len(set((test.indices // 2).tolist())) for _, test in found) == 6
    assert pickle.loads(pickle.dumps(images)).indices.tolist() == list(range(12))
