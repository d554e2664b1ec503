"""Buckets are a permutation of the samples, a pure function of (seed, epoch), with little padding, in random order."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader as TorchDataLoader

from dlkit import DataLoader
from dlkit.errors import ArgumentError, DataError
from dlkit.samplers import LengthBuckets, Planner

LENGTHS = np.random.default_rng(0).integers(4, 513, 50_000)
lengths_lists = st.lists(st.integers(0, 40), max_size=300)


def batches(buckets: LengthBuckets, epoch: int = 0, seed: int = 0) -> list[list[int]]:
    return [batch.tolist() for batch in buckets.plan(seed, epoch)]


def flat(lists: Any) -> list[Any]:
    return sorted(itertools.chain.from_iterable(lists))


def padding(plan: Any, lengths: Any) -> float:
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in map(np.asarray, plan))
    return 1 - sum(int(lengths[batch].sum()) for batch in map(np.asarray, plan)) / padded


@given(lengths_lists, st.integers(1, 9), st.sampled_from([None, 1, 3]), st.integers(0, 3))
def test_every_sample_exactly_once(lengths: list[int], batch_size: int, window: int | None, epoch: int) -> None:
    plan = batches(LengthBuckets(lengths, batch_size, window=window), epoch)
    assert flat(plan) == list(range(len(lengths)))
    assert len(plan) == -(-len(lengths) // batch_size)
    assert all(1 <= len(batch) <= batch_size for batch in plan)


@given(lengths_lists, st.integers(40, 200), st.sampled_from([None, 1, 3]))
def test_batches_of_tokens_stay_within_the_budget(lengths: list[int], tokens: int, window: int | None) -> None:
    plan = batches(LengthBuckets(lengths, tokens=tokens, window=window))
    assert flat(plan) == list(range(len(lengths)))
    assert all(max(lengths[index] for index in batch) * len(batch) <= tokens for batch in plan)


@given(st.lists(st.integers(0, 40), min_size=4), st.integers(1, 9), st.integers(1, 4), st.sampled_from([None, 1, 3]))
def test_ranks_share_the_samples_evenly(lengths: list[int], batch_size: int, ranks: int, window: int | None) -> None:
    plans = [
        batches(LengthBuckets(lengths, batch_size, window=window, num_replicas=ranks, rank=rank))
        for rank in range(ranks)
    ]
    assert flat(itertools.chain.from_iterable(plans)) == list(range(len(lengths)))
    assert len({len(plan) for plan in plans}) == 1
    for step in zip(*plans, strict=True):
        assert max(map(len, step)) - min(map(len, step)) <= 1
        assert min(map(len, step)) >= 1
        assert max(map(len, step)) <= batch_size + 1


def test_ranks_get_batches_of_like_length_in_every_step() -> None:
    for options in ({"batch_size": 64}, {"tokens": 16_384}):
        plans = [LengthBuckets(LENGTHS, **options, num_replicas=4, rank=rank).plan(0, 0) for rank in range(4)]  # type: ignore[arg-type]
        assert sorted(torch.cat([batch for plan in plans for batch in plan]).tolist()) == list(range(len(LENGTHS)))
        assert len({len(plan) for plan in plans}) == 1
        longest = np.array([[LENGTHS[batch.numpy()].max() for batch in plan] for plan in plans])
        costs = np.array([[LENGTHS[batch.numpy()].max() * len(batch) for batch in plan] for plan in plans])
        assert np.median(longest.max(0) - longest.min(0)) <= 12
        assert costs.max(0).sum() / costs.mean(0).sum() < 1.06  # what waiting for the slowest rank costs


@pytest.mark.parametrize("options", [{"batch_size": 64}, {"tokens": 16_384}])
def test_next_to_no_padding_in_an_order_that_tells_nothing_about_length(options: dict[str, int]) -> None:
    plan = LengthBuckets(LENGTHS, **options).plan(0, 0)  # type: ignore[arg-type]
    assert padding(plan, LENGTHS) <= 0.03
    means = [LENGTHS[batch.numpy()].mean() for batch in plan]
    assert abs(np.corrcoef(np.arange(len(plan)), means)[0, 1]) < 4 / np.sqrt(len(plan))


@pytest.mark.parametrize("median", [20, 45, 70])
def test_texts_of_log_normal_length_are_padded_by_less_than_3_percent_and_meet_others_in_the_next_epoch(
    median: int,
) -> None:
    lengths = np.random.default_rng(0).lognormal(np.log(median), 0.8, 50_000).clip(8, 512).astype(np.int64)
    plan, following = (batches(LengthBuckets(lengths, 64), epoch) for epoch in (0, 1))
    assert padding(plan, lengths) < 0.03
    batch_of = {sample: number for number, batch in enumerate(following) for sample in batch}
    pairs = [
        sum(batch_of[batch[0]] == batch_of[other] for other in batch[1:]) / (len(batch) - 1) for batch in plan[:-1]
    ]
    assert np.mean(pairs) < 0.08  # windows of 100 batches: 7 %, with 4 % of padding


def test_lengths_of_millions_are_told_apart() -> None:
    lengths = np.random.default_rng(0).integers(1, 1 << 24, 5000)
    assert padding(LengthBuckets(lengths, 8).plan(0, 0), lengths) < 0.03


def test_a_larger_window_pads_less() -> None:
    shares = [padding(LengthBuckets(LENGTHS, 64, window=window).plan(0, 0), LENGTHS) for window in (1, 4, 16, 64)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.4


def test_order_depends_on_seed_and_epoch_and_nothing_else() -> None:
    first, again = (batches(LengthBuckets(LENGTHS[:999], 8)) for _ in range(2))
    assert first == again
    assert first != batches(LengthBuckets(LENGTHS[:999], 8), epoch=1)
    assert first != batches(LengthBuckets(LENGTHS[:999], 8), seed=1)
    assert first != batches(LengthBuckets(LENGTHS[:999], 8, seed=1))


def test_dropping_the_last_leaves_out_random_samples() -> None:
    buckets = LengthBuckets(np.arange(1003), 10, drop_last=True)
    left_out = []
    for epoch in range(40):
        plan = batches(buckets, epoch)
        assert {len(batch) for batch in plan} == {10}
        left_out += sorted(set(range(1003)) - set(flat(plan)))
    assert 300 < np.mean(left_out) < 700


def test_the_short_batch_is_not_always_that_of_the_longest() -> None:
    buckets = LengthBuckets(np.arange(101), 10, window=11)
    shorts = {next(tuple(batch) for batch in batches(buckets, epoch) if len(batch) == 1) for epoch in range(20)}
    assert len(shorts) > 5


def test_a_stock_loader_iterates_epoch_after_epoch() -> None:
    buckets = LengthBuckets(LENGTHS[:100], 8, seed=3)
    loader = TorchDataLoader(list(range(100)), batch_sampler=buckets)  # type: ignore[arg-type]
    first, second = ([batch.tolist() for batch in loader] for _ in range(2))
    assert len(loader) == 13
    assert first == batches(buckets, 0, seed=3)
    assert second == batches(buckets, 1, seed=3)
    buckets.set_epoch(0)
    assert [batch.tolist() for batch in loader] == first


def test_any_batch_of_any_epoch_can_be_sought() -> None:
    buckets = LengthBuckets(LENGTHS[:100], 8)
    assert isinstance(buckets, Planner)
    loader = DataLoader(list(range(100)), batch_sampler=buckets, seed=5)
    whole = [batch.tolist() for batch in loader.batches(epoch=2)]
    assert [batch.tolist() for batch in loader.batches(epoch=2, start=7)] == whole[7:]
    plan = buckets.plan(0, 0)
    assert [batch.tolist() for batch in plan[-2:]] == [plan[-2].tolist(), plan[len(plan) - 1].tolist()]
    with pytest.raises(IndexError):
        plan[len(plan)]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([[1, 2]], {"batch_size": 4, "tokens": 9}, "batch_size and tokens exclude each other"),
        ([[1, 20]], {"tokens": 9}, "sample 1 has 20 tokens and does not fit into tokens=9"),
        ([[1, -2]], {}, "sample 1 has -2"),
        ([[1.5]], {}, "lengths must be whole numbers in one dimension, not float64"),
        ([[1]], {"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
        ([[1]], {"window": 0}, "window must be"),
        ([[1]], {"tokens": 9, "drop_last": True}, "drop_last needs batch_size"),
        ([[1]], {"num_replicas": 2, "rank": 2}, "rank must be 0 to num_replicas - 1 = 1, not 2"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(arguments: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        LengthBuckets(*arguments, **options)


def test_fewer_samples_than_processes_is_an_error() -> None:
    with pytest.raises(DataError, match="2 samples cannot be distributed over 3 processes"):
        LengthBuckets([1, 2], num_replicas=3, rank=0).plan(0, 0)
    with pytest.raises(DataError, match="cannot be spread evenly over 2 processes"):
        LengthBuckets([9, 9, 9], tokens=9, num_replicas=2, rank=0).plan(0, 0)
