"""Splits are exact partitions, pure functions of the seed, and never tear apart what belongs together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import warm
from dlkit.errors import ArgumentError
from dlkit.splits import check_leaks, content_keys, split_indices

shares = st.lists(st.integers(1, 9), min_size=2, max_size=4).map(lambda parts: [part / sum(parts) for part in parts])


def wanted(n: int, fractions: list[float]) -> list[int]:
    """The largest remainder, written down a second time and slowly."""
    quotas = [round(n * share, 9) for share in fractions]
    counts = [int(quota) for quota in quotas]
    for part in sorted(range(len(quotas)), key=lambda part: counts[part] - quotas[part])[: n - sum(counts)]:
        counts[part] += 1
    return counts


def assert_partition(parts: list[np.ndarray], n: int) -> None:
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)


@given(n=st.integers(2, 300), fractions=shares, seed=st.integers(-(2**70), 2**70))
def test_random_split_is_a_partition_of_exact_sizes(n: int, fractions: list[float], seed: int) -> None:
    assume(all(wanted(n, fractions)))
    parts = split_indices(n, fractions, seed=seed)
    assert_partition(parts, n)
    assert [len(part) for part in parts] == wanted(n, fractions)
    again = split_indices(n, fractions, seed=seed)
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))


@given(labels=st.lists(st.integers(0, 3), min_size=30, max_size=200), fractions=shares, seed=st.integers(0, 9))
def test_stratified_split_keeps_each_class_share(labels: list[int], fractions: list[float], seed: int) -> None:
    sizes = np.bincount(labels)
    assume(all(size == 0 or size >= len(fractions) for size in sizes) and all(wanted(len(labels), fractions)))
    parts = split_indices(len(labels), fractions, stratify=labels, seed=seed)
    assert_partition(parts, len(labels))
    assert [len(part) for part in parts] == wanted(len(labels), fractions)
    for part, share in zip(parts, fractions, strict=True):
        have = np.bincount(np.array(labels)[part], minlength=len(sizes))
        assert np.abs(have - share * sizes).max() < (1 + 1e-6 if len(fractions) == 2 else 2)


@given(
    groups=st.lists(st.integers(0, 40), min_size=60, max_size=200),
    keys=st.lists(st.integers(0, 1000), min_size=200, max_size=200),
    fractions=shares,
    seed=st.integers(0, 9),
    stratify=st.booleans(),
)
def test_groups_and_duplicates_stay_together(
    groups: list[int], keys: list[int], fractions: list[float], seed: int, stratify: bool
) -> None:
    n = len(groups)
    labels = [place % 2 for place in range(n)] if stratify else None
    for bound in ({"group": groups}, {"dedupe": keys[:n]}, {"group": groups, "dedupe": keys[:n]}):
        try:
            parts = split_indices(n, fractions, stratify=labels, seed=seed, **bound)
        except ArgumentError as error:  # chains of duplicates can join everything into fewer groups than parts
            assert "groups cannot be cut" in str(error)  # noqa: PT017
            continue
        assert_partition(parts, n)
        assert all(len(part) for part in parts)
        for values in bound.values():
            held = [set(np.array(values)[part].tolist()) for part in parts]
            assert sum(map(len, held)) == len(set().union(*held))


@given(st.lists(st.integers(1, 3), min_size=80, max_size=150), shares, st.integers(0, 5))
def test_few_duplicates_do_not_move_the_sizes(copies: list[int], fractions: list[float], seed: int) -> None:
    """With enough samples of their own beside them, groups of two and three leave the sizes exact."""
    keys = [key for key, count in enumerate(copies) for _ in range(count)] + list(range(1000, 1100))
    parts = split_indices(len(keys), fractions, dedupe=keys, seed=seed)
    assert [len(part) for part in parts] == wanted(len(keys), fractions)


def test_duplicates_are_dealt_to_every_part_in_its_share() -> None:
    keys = [*range(500), *range(500), *range(1000, 2000)]
    train, test = split_indices(2000, 0.8, dedupe=keys)
    assert 190 <= sum(index < 1000 for index in test.tolist()) <= 210, (len(train), len(test))


def test_stratified_groups_come_near_the_shares_of_each_class() -> None:
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 200, 5000)
    labels = (draw.random(5000) < (groups % 10) / 10).astype(int)
    train, test = split_indices(5000, 0.8, stratify=labels, group=groups)
    assert abs(len(test) - 1000) <= 15
    assert abs(labels[train].mean() - labels[test].mean()) < 0.01


def test_another_seed_gives_another_split_of_the_same_sizes() -> None:
    splits = {tuple(split_indices(100, 0.8, seed=seed)[1].tolist()) for seed in range(50)}
    assert len(splits) == 50
    assert {len(test) for test in splits} == {20}
    grouped = {tuple(split_indices(100, 0.8, group=np.arange(100) // 5, seed=seed)[1].tolist()) for seed in range(20)}
    assert len(grouped) > 10


def test_the_split_never_changes_between_releases() -> None:
    """Whoever wrote down accuracy on a test part must find the same test part after an upgrade of anything."""
    assert split_indices(20, 0.75, seed=0)[1].tolist() == [0, 1, 12, 13, 15]
    labels, groups = [place % 2 for place in range(40)], [place // 3 for place in range(40)]
    assert split_indices(40, 0.75, stratify=labels, group=groups, seed=7)[1].tolist() == [
        18,
        19,
        20,
        24,
        25,
        26,
        33,
        34,
        35,
        39,
    ]


def test_every_index_is_drawn_equally_often() -> None:
    drawn = np.zeros(20)
    for seed in range(400):
        drawn[split_indices(20, 0.5, seed=seed)[0]] += 1
    assert 160 < drawn.min() < drawn.max() < 240


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a", "b"] * 5, 1),
        (np.array(["x", "yy"] * 5), 1),
        (torch.tensor([0, 1] * 5), 1),
        (pd.Series(["a", None] * 5), 1),
        (pd.Categorical(["a", "b"] * 5), 1),
        ([1.0, float("nan")] * 5, 1),
        ([None, "b"] * 5, 1),
    ],
)
def test_labels_of_every_kind(labels: object, expected: int) -> None:
    _, test = split_indices(10, 0.8, stratify=labels)
    assert sorted(index % 2 for index in test.tolist()) == [0, expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 10, "fractions": [0.5, 0.4]}, r"sum to 1, not \[0.5, 0.4\]"),
        ({"n": 10, "fractions": 1.0}, "above 0"),
        ({"n": 10, "fractions": 1.5}, "between 0 and 1"),
        ({"n": 10, "fractions": [1.5, -0.5]}, "above 0"),
        ({"n": 10, "fractions": []}, "fractions"),
        ({"n": 10, "fractions": float("nan")}, "nan"),
        ({"n": 1, "fractions": 0.5}, "1 samples cannot be cut into 2 parts"),
        ({"n": 0, "fractions": 0.5}, "0 samples"),
        ({"n": 10, "fractions": 0.99}, r"part 1 \(share 0.01\) of 10 samples would be empty"),
        ({"n": 4, "fractions": 0.5, "stratify": [1, 2]}, r"stratify must have one value for each of the 4 .* \[2\]"),
        ({"n": 4, "fractions": 0.5, "group": np.zeros((4, 2))}, r"group must have one value .* shape \[4, 2\]"),
        ({"n": 4, "fractions": 0.5, "group": [7, 7, 7, 7]}, "1 groups cannot be cut into 2 parts"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        split_indices(**arguments)


def test_a_part_is_never_empty_because_groups_are_large() -> None:
    train, test = split_indices(100, 0.9, group=[0] * 50 + [1] * 50)
    assert (len(train), len(test)) == (50, 50)
    parts = split_indices(102, [0.9, 0.05, 0.05], group=[0] * 100 + [1, 2])
    assert sorted(map(len, parts)) == [1, 1, 100]


@given(st.lists(st.integers(0, 5), max_size=30), st.lists(st.integers(0, 5), max_size=30))
def test_leaks_are_exactly_the_common_values(train: list[int], test: list[int]) -> None:
    common = set(train) & set(test)
    for kind in (
        list,
        torch.tensor,
        lambda v: np.array(v, dtype=np.int64),
        lambda v: pd.DataFrame({"a": v}, dtype=int),
    ):
        if kind is torch.tensor and not (train and test):
            continue
        report = check_leaks(kind(train), kind(test))
        assert report.train.tolist() == [place for place, value in enumerate(train) if value in common]
        assert report.test.tolist() == [place for place, value in enumerate(test) if value in common]
        assert bool(report) == bool(common)
        assert {tuple(train[place] for place in first) for first, _ in report.matches} == {
            (value,) * train.count(value) for value in common
        }


def test_rows_of_tables_are_compared_by_value() -> None:
    train = pd.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"], "when": pd.to_datetime(["2020-01-01"] * 3)})
    test = pd.DataFrame(
        {
            "when": pd.to_datetime(["2020-01-01"] * 3).astype("datetime64[ns]"),
            "b": pd.Series(["z", np.nan, "x"], dtype=object),
            "a": [3.0, 2.0, float("nan")],
        }
    )
    assert check_leaks(train, test).matches == (((2,), (0,)), ((1,), (1,)))
    assert check_leaks({"a": [1, 2]}, {"a": torch.tensor([2.0, 5.0])}).matches == (((1,), (0,)),)


def test_keys_tell_apart_and_bring_together() -> None:
    values = torch.tensor([[0.0, float("nan")], [-0.0, float("nan")], [float("nan"), 0.0]])
    keys = content_keys(values)
    assert keys[0] == keys[1] != keys[2]
    assert content_keys(values.bfloat16())[0] == content_keys(values.bfloat16())[1]
    assert len(set(content_keys(["a", b"a", 1, "1", ("a", "b"), None, "None"]).tolist())) == 7
    assert np.array_equal(content_keys(np.array(["ab", "c"])), content_keys(["ab", "c"]))
    assert content_keys({"a": [1, 2], "b": [2, 1]})[0] != content_keys({"a": [2, 1], "b": [1, 2]})[0]
    assert len(content_keys(np.zeros((0, 4)))) == 0


def test_keys_are_the_same_in_another_process() -> None:
    code = "from dlkit.splits import content_keys; print(hash('x'), content_keys(['x', 'y', ('z', 1)]).tolist())"
    seeded, keys = warm.run(["-c", code], check=True).stdout.split(" ", 1)
    assert keys.strip() == str(content_keys(["x", "y", ("z", 1)]).tolist())
    assert seeded != str(hash("x"))


def test_the_report_says_how_much_and_where() -> None:
    report = check_leaks([*"abcdefgh", "a"], [*"habcdefz"])
    assert repr(report).splitlines()[:2] == [
        "LeakReport: 7 of 8 test samples (87.5 %) equal one of 8 training samples",
        "  test 0 = train 7",
    ]
    assert "  test 1 = train 0, 8" in repr(report)
    assert repr(report).endswith("and 2 more")
    assert len(report) == 7


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), r"train \[3\], test \[4\]"),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3)), "float32 and test float64"),
        (pd.DataFrame({"a": [1], "label": [2]}), pd.DataFrame({"a": [1]}), "only one of them has label"),
        (np.zeros(2), [0.0], "one kind, not ndarray and list"),
        ({"a": [1, 2], "b": [1]}, {"a": [1], "b": [1]}, r"one length, not \[1, 2\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(train: object, test: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        check_leaks(train, test)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_a_split_by_content_never_leaks(seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 2, (200, 1, 3, 2), dtype=np.uint8)
    train, test = split_indices(200, 0.7, dedupe=content_keys(images), seed=seed)
    assert not check_leaks(images[train], images[test])
    assert check_leaks(images[: len(images) // 2], images[len(images) // 2 :])


def test_a_class_that_is_too_rare_for_every_part_goes_to_the_first_and_is_named():
    labels = np.array([0] * 60 + [1] * 40 + [2] + [3] * 2)
    with pytest.warns(
        UserWarning, match=r"2 of 4 classes have fewer samples than .* first part .*'lynx' \(1\), 'owl' \(2\)"
    ):
        parts = split_indices(103, [0.8, 0.1, 0.1], stratify=labels, class_names=["cat", "dog", "lynx", "owl"])
    counts = [np.bincount(labels[part], minlength=4).tolist() for part in parts]
    assert counts == [[48, 32, 1, 2], [6, 4, 0, 0], [6, 4, 0, 0]]
    assert sorted(np.concatenate(parts)) == list(range(103))
