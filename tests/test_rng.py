"""Streams that start from a number, and nothing else."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlkit import rng

PATHS = st.lists(st.integers(0, 10**6), max_size=4)


def draws() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.randn(()))]


@given(seed=st.integers(-(2**70), 2**70), a=PATHS, b=PATHS)
def test_derive_is_a_function_without_collisions(seed, a, b):
    assert rng.derive(seed, *a) == rng.derive(seed, *a)
    assert 0 <= rng.derive(seed, *a) < 2**64 or not a
    if a != b and a and b:
        assert rng.derive(seed, *a) != rng.derive(seed, *b)


def test_derived_bits_are_even():
    """Neighbouring paths give unrelated bits: each bit is set in about half of the seeds."""
    seeds = [rng.derive(0, epoch, batch) for epoch in range(40) for batch in range(100)]
    for bit in range(64):
        share = sum(seed >> bit & 1 for seed in seeds) / len(seeds)
        assert 0.46 < share < 0.54


def test_all_three_streams_start_from_the_seed():
    rng.set_streams(5)
    np.random.randn()  # leaves half of a pair behind, which the next start must forget
    random.gauss(0, 1)
    rng.set_streams(7)
    first = draws()
    rng.set_streams(7)
    assert draws() == first


def test_the_state_is_plain_and_comes_back(tmp_path):
    np.random.randn()
    random.gauss(0, 1)
    torch.save(rng.state_dict(), tmp_path / "state.pt")
    first = draws()
    rng.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draws() == first


@pytest.mark.parametrize(
    "own", [random.Random(1), np.random.default_rng(1), np.random.RandomState(1), torch.Generator()]
)
def test_generators_that_objects_own(own):
    class Owner:
        def __init__(self) -> None:
            self.parts = [{"deep": own}]

    def draw() -> float:
        if isinstance(own, torch.Generator):
            return float(torch.rand((), generator=own))
        return own.random() if hasattr(own, "random") else own.rand()

    found = rng.find_generators(Owner())
    assert found == [own]
    with rng.isolated(3, own=found):
        first = draw()
    outside = draw()
    with rng.isolated(3, own=found):
        assert draw() == first
    assert draw() != outside


def test_seed_everything():
    assert rng.seed_everything(4) == 4
    first = draws()
    rng.seed_everything(4)
    assert draws() == first
