"""The streams of this process, lent to a fetch: it draws from the batch's seed, and the process does not notice."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

import dlkit
from dlkit import rng
from dlkit.lending import Lender


def own_draws() -> tuple[float, ...]:
    """What a user's loop draws, pairs of normals included, of which `random` and numpy keep the second one."""
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))


class Drawing(Dataset):
    """Draws from the streams that it is told to, at some of its samples only."""

    def __init__(self, *streams: str, only: int = -1, fails: bool = False) -> None:
        self.streams, self.only, self.fails, self.calls = streams, only, fails, 0

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        self.calls += 1
        if self.only not in (-1, index):
            return torch.tensor([float(index)])
        draws = {
            "random": random.random,
            "gauss": lambda: random.gauss(0, 1),
            "numpy": np.random.rand,
            "randn": np.random.randn,
            "torch": lambda: float(torch.rand(())),
            "seeded": lambda: random.seed(index) or random.random(),
        }
        values = [draws[stream]() for stream in self.streams]
        if self.fails and values[0] > 0.5:
            raise OSError(f"drew {values[0]}")
        return torch.tensor(values, dtype=torch.float64)


STREAMS = ["random", "gauss", "numpy", "randn", "torch", "seeded"]


@pytest.mark.parametrize("streams", [(), *[(stream,) for stream in STREAMS], tuple(STREAMS)])
@pytest.mark.parametrize("only", [-1, 7])
@pytest.mark.parametrize("draws_in_loop", [False, True])
def test_batches_and_own_draws_are_those_of_a_loader_with_workers(streams, only, draws_in_loop, monkeypatch):
    """A worker starts every stream anew for each batch and never touches this process: what all else must equal."""

    def run(there: bool) -> tuple[list[torch.Tensor], list[tuple[float, ...]]]:
        rng.seed_everything(3)
        own_draws()
        loader = dlkit.DataLoader(Drawing(*streams, only=only), 3, shuffle=only == -1, seed=1, collate_fn=list)
        if there:  # what happens here and there, without the processes
            fetched = [seeded(loader, task) for task in tasks(loader)]
            monkeypatch.setattr(loader, "_with_workers", lambda: fetched)
            batches = loader._fetch_there(
                iter(()), loader.order.plan(1, 0), range(len(loader)), rng.derive(1, rng.FETCH, 0)
            )
        else:
            batches = loader.batches(0)
        seen, drawn = [], []
        for batch in batches:
            seen += batch
            drawn += [own_draws()] if draws_in_loop else []
        return seen, [*drawn, own_draws()]

    here, there = run(there=False), run(there=True)
    assert all(torch.equal(a, b) for a, b in zip(here[0], there[0], strict=True))
    assert here[1] == there[1]


def tasks(loader):
    return list(loader._iterate_tasks(0, range(len(loader)), loader.order.plan(1, 0), rng.derive(1, rng.FETCH, 0)))


def seeded(loader, task):
    with rng.isolated(task.seed):
        rng.set_streams(task.seed)
        return loader._fetcher.fetch(task)


def test_only_a_first_fetch_that_draws_from_random_is_repeated():
    for streams, calls in (((), 12), (("numpy", "torch"), 12), (("random",), 12 + 3), (("random", "numpy"), 12 + 3)):
        data = Drawing(*streams)
        list(dlkit.DataLoader(data, 3, collate_fn=list))
        assert data.calls == calls, streams
    data = Drawing("random", only=10)
    loader = dlkit.DataLoader(data, 3, collate_fn=list)
    list(loader)
    assert data.calls == 12 + 3
    list(loader)
    assert data.calls == 12 + 3 + 12, "it is known now"


def test_a_dataset_that_says_so_is_never_asked_twice():
    data = Drawing("random")
    data.draws_random = True
    list(dlkit.DataLoader(data, 3))
    assert data.calls == 12


def test_what_a_dataset_says_does_not_hold_for_a_collate_function_of_the_users_own():
    class Still(Drawing):
        draws_random = False

    def noisy(samples):
        return [len(sample) + random.random() for sample in samples]

    first, again = (list(dlkit.DataLoader(Still(), 3, collate_fn=noisy, seed=0)) for _ in range(2))
    assert first == again


def test_an_error_is_that_of_the_fetch_from_its_own_seed():
    def message(number: int) -> str:
        random.seed(number)  # which must not matter
        with pytest.raises(OSError, match="drew") as caught:
            list(dlkit.DataLoader(Drawing("random", fails=True), 3, collate_fn=list, seed=2))
        return str(caught.value)

    assert message(1) == message(2)
    data = Drawing("torch", fails=True)
    with pytest.raises(OSError, match="drew"):
        list(dlkit.DataLoader(data, 12, collate_fn=list))
    assert data.calls <= 12, "one that drew nothing from `random` fails at once"


def test_a_loader_within_a_fetch_leaves_the_same_behind_with_and_without_workers():
    class Reader(Dataset):
        """Every sample reads through a loader of its own, then draws."""

        def __init__(self, workers: int) -> None:
            self.workers = workers

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index):
            inner = dlkit.DataLoader(Drawing("random", "randn", "torch"), 6, num_workers=self.workers, seed=index)
            return torch.cat([batch.flatten() for batch in inner] + [torch.tensor(own_draws(), dtype=torch.float64)])

    def run(workers: int) -> tuple[torch.Tensor, tuple[float, ...]]:
        rng.seed_everything(0)
        return torch.cat(list(dlkit.DataLoader(Reader(workers), 1))), own_draws()

    here, there = run(0), run(1)
    assert torch.equal(here[0], there[0])
    assert here[1] == there[1]


@pytest.mark.parametrize("draws_in_loop", [False, True])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(draws_in_loop):
    """Whether somebody has drawn since the last fetch belongs to the state."""

    def loop(stop_at: int | None) -> list[tuple[float, ...]]:
        rng.seed_everything(5)
        drawn, loader = [], dlkit.DataLoader(Drawing(), 2, seed=0)
        for number, _ in enumerate(loader.batches(0)):
            drawn += [own_draws()] if draws_in_loop or number == 5 else []
            if number == stop_at:
                state = rng.state_dict()
                break
        if stop_at is not None:
            rng.seed_everything(99)
            list(dlkit.DataLoader(Drawing("random"), 2))
            rng.load_state_dict(state)
            for number, _ in enumerate(loader.batches(0, stop_at + 1), stop_at + 1):
                drawn += [own_draws()] if draws_in_loop or number == 5 else []
        return drawn

    assert loop(None) == loop(0) == loop(3)


@pytest.mark.parametrize("drawn_before", [False, True])
def test_an_isolated_block_leaves_no_trace(drawn_before):
    def run(between: bool) -> tuple[float, ...]:
        rng.seed_everything(5)
        batches = dlkit.DataLoader(Drawing(), 2, seed=0).batches(0)
        next(batches)
        if drawn_before:
            own_draws()
        if between:
            with rng.isolated(7):
                list(dlkit.DataLoader(Drawing("random"), 2))
        next(batches)
        return own_draws()

    assert run(between=True) == run(between=False)


def test_ctrl_c_in_a_fetch_puts_the_streams_back():
    def interrupted() -> None:
        own_draws()
        raise KeyboardInterrupt

    lender, numpy_own = Lender(), np.random.get_bit_generator()
    for _ in range(2):
        rng.seed_everything(1)
        with pytest.raises(KeyboardInterrupt):
            lender.lend(0, interrupted)
        assert np.random.get_bit_generator() is numpy_own
        after = own_draws()
        rng.seed_everything(1)
        lender.lend(0, int)
        assert own_draws() == after
