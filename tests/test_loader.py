"""Batches that depend on the data, the seed and the epoch, and on nothing else."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import Augmented, Stateful
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, Dataset, IterableDataset, TensorDataset, default_collate
from torch.utils.data import DataLoader as TorchDataLoader

import dlkit
from dlkit.errors import ArgumentError

BENCH = Path(__file__).parent.parent / "bench"


def collected(loader) -> torch.Tensor:
    return torch.cat([x for x, _ in loader])


@pytest.fixture(scope="module")
def reference() -> torch.Tensor:
    loader = dlkit.DataLoader(Augmented(), 8, shuffle=True)
    return torch.cat([collected(loader), collected(loader)])


@pytest.mark.parametrize(
    "settings",
    [
        {"num_workers": 1},
        {"num_workers": 2, "persistent_workers": True},
        {"num_workers": 2, "prefetch_factor": 7},
        {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "forkserver"},
    ],
    ids=str,
)
def test_the_same_batches_for_any_workers(settings, reference):
    loader = dlkit.DataLoader(Augmented(), 8, shuffle=True, **settings)
    assert torch.equal(torch.cat([collected(loader), collected(loader)]), reference)


def test_epochs_differ_and_seeds_differ(reference):
    half = len(reference) // 2
    assert not torch.equal(reference[:half], reference[half:])
    other = collected(dlkit.DataLoader(Augmented(), 8, shuffle=True, seed=1))
    assert not torch.equal(other, reference[:half])


@given(
    size=st.integers(1, 50),
    batch=st.integers(1, 12),
    drop=st.booleans(),
    shuffle=st.booleans(),
    start=st.integers(0, 60),
)
def test_every_sample_once_and_any_start(size, batch, drop, shuffle, start):
    loader = dlkit.DataLoader(range(size), batch, shuffle, drop_last=drop)
    whole = [b.tolist() for b in loader.batches(3)]
    assert len(whole) == len(loader) == (size // batch if drop else -(-size // batch))
    flat = [index for b in whole for index in b]
    assert len(set(flat)) == len(flat) == (size // batch * batch if drop else size)
    assert [b.tolist() for b in loader.batches(3, start)] == whole[start:]
    assert [loader.indices(3, number) for number in range(len(whole))] == whole


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_adopted_stock_loader_gives_the_same_samples(shuffle, drop_last):
    stock = TorchDataLoader(range(50), 8, shuffle=shuffle, drop_last=drop_last)
    adopted = dlkit.DataLoader.adopt(stock)
    assert len(adopted) == len(stock)
    if not shuffle:
        assert [b.tolist() for b in adopted] == [b.tolist() for b in stock]
    assert [len(b) for b in adopted] == [len(b) for b in stock]


def test_an_adopted_loader_follows_its_own_generator():
    def order(own: int) -> list[int]:
        stock = TorchDataLoader(range(50), 50, shuffle=True, generator=torch.Generator().manual_seed(own))
        return next(iter(dlkit.DataLoader.adopt(stock))).tolist()

    assert order(1) == order(1) != order(2)


def test_global_streams_are_left_alone(reference):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    collected(dlkit.DataLoader(Augmented(), 8, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)
    collected(dlkit.DataLoader(Augmented(), 8, shuffle=True, num_workers=2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_the_users_own_loop_draws_does_not_depend_on_the_workers(num_workers):
    def draws(workers: int) -> list[float]:
        dlkit.seed_everything(0)
        loader = dlkit.DataLoader(Augmented(), 16, num_workers=workers)
        return [value for _ in loader for value in (random.random(), np.random.randn(), float(torch.rand(())))]

    assert draws(num_workers) == draws(1)


def test_going_on_after_a_restart():
    loader = dlkit.DataLoader(Augmented(), 8, shuffle=True)
    whole = [x for _ in range(2) for x, _ in loader]
    first = dlkit.DataLoader(Augmented(), 8, shuffle=True)
    seen = []
    for x, _ in first:
        seen.append(x)
        if len(seen) == 3:
            state = first.state_dict()
            break
    second = dlkit.DataLoader(Augmented(), 8, shuffle=True)
    second.load_state_dict(state)
    seen += [x for _ in range(2) for x, _ in second]
    assert all(torch.equal(a, b) for a, b in zip(whole, seen, strict=True))
    second.load_state_dict({"epoch": 0, "batch": 8})
    assert len(list(second)) == 8, "a finished epoch is followed by the next"


def test_tensor_datasets_are_indexed_whole_and_give_the_same_batches():
    data = TensorDataset(torch.randn(20, 3), torch.arange(20))
    whole = list(dlkit.DataLoader(data, 6, shuffle=True))
    single = list(dlkit.DataLoader(data, 6, shuffle=True, collate_fn=lambda rows: default_collate(rows)))
    for a, b in zip(whole, single, strict=True):
        assert type(a) is type(b) is list
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_without_a_batch_dimension():
    loader = dlkit.DataLoader(Augmented(), None)
    x, _ = next(iter(loader))
    assert x.shape == (8,)
    stock = dlkit.DataLoader.adopt(TorchDataLoader(Augmented(), batch_size=None))
    assert torch.equal(next(iter(stock))[0], x)
    assert len(loader) == 61


def test_samplers_of_the_users_own():
    loader = dlkit.DataLoader(range(61), 7, sampler=Stateful())
    assert sorted(index for batch in loader for index in batch.tolist()) == list(range(61))
    batches = dlkit.DataLoader(range(61), batch_sampler=BatchSampler(Stateful(), 9, True))
    assert [len(batch) for batch in batches] == [9] * 6


def test_keys_that_are_no_integers():
    class Named(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, key):
            return {"a": 1, "b": 2, "c": 3}[key]

    assert [b.tolist() for b in dlkit.DataLoader(Named(), 2, sampler=["c", "a", "b"])] == [[3, 1], [2]]


class Broken(Augmented):
    def __getitem__(self, index):
        if index == 9:
            raise OSError("nine.png is truncated")
        return super().__getitem__(index)


def test_an_error_in_a_dataset_names_batch_and_samples():
    for workers in (0, 1):
        with pytest.raises(OSError, match=r"nine\.png") as caught:
            list(dlkit.DataLoader(Broken(), 8, num_workers=workers))
        text = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
        assert "while fetching batch 1 of epoch 0, samples [8, 9, 10" in text


class Scheduled(Dataset):
    epoch = -1

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.epoch


def test_set_epoch_reaches_persistent_workers():
    loader = dlkit.DataLoader(Scheduled(), 2, num_workers=1, persistent_workers=True)
    assert [batch.tolist() for _ in range(2) for batch in loader] == [[0, 0], [0, 0], [1, 1], [1, 1]]


def test_an_abandoned_epoch_does_not_leak_into_the_next():
    loader = dlkit.DataLoader(range(40), 4, shuffle=True, num_workers=2, persistent_workers=True)
    next(iter(loader))
    assert [batch.tolist() for batch in loader] == [
        batch.tolist() for batch in dlkit.DataLoader(range(40), 4, True).batches(1)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": [1], "shuffle": True}, "exclude each other"),
        ({"batch_sampler": [[1]], "batch_size": 4}, "excludes batch_size"),
        ({"prefetch": 3}, "unknown argument prefetch"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
    ],
)
def test_arguments_that_cannot_be_meant(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        dlkit.DataLoader(range(4), **arguments)


def test_datasets_that_cannot_be_sought():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(ArgumentError, match="IterableDataset"):
        dlkit.DataLoader(Endless())
    with pytest.raises(ArgumentError, match="__getitem__ and __len__"):
        dlkit.DataLoader(iter([1]))
    assert list(dlkit.DataLoader([], 4, shuffle=True)) == []


_MEMORY = """
import psutil, sys, torch
import dlkit
torch.set_num_threads(1)

class Blob(torch.utils.data.Dataset):
    def __len__(self): return 1_000_000
    def __getitem__(self, index): return torch.tensor([float(index)])

def total():
    me = psutil.Process()
    return sum(process.memory_info().rss for process in [me, *me.children(recursive=True)])

loader = dlkit.DataLoader(Blob(), 10_000, shuffle=True, num_workers=4, persistent_workers=True)
epochs = int(sys.argv[1])
seen = []
for epoch in range(epochs):
    for number, batch in enumerate(loader):
        if number == 50:
            seen.append(total())
print(*seen)
"""


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_memory_stays_flat_over_twenty_epochs_of_a_million_samples():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _MEMORY, "20"], capture_output=True, text=True, timeout=3500, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = [int(value) for value in done.stdout.split()]
    growth = max(seen[2:]) / seen[2]
    text = f"resident memory of the process and its 4 workers in each of {len(seen)} epochs, in MiB:\n"
    text += (
        " ".join(f"{value / 2**20:.0f}" for value in seen) + f"\nlargest after the third epoch: {growth:.3f} of it\n"
    )
    BENCH.joinpath("memory.txt").write_text(text)
    assert len(seen) == 20
    assert growth < 1.05, text
