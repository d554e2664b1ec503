"""While workers start as new processes, this one fetches the first batch: the same one, and nothing else changes."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import Augmented
from torch.utils.data import DataLoader as TorchDataLoader

import dlkit


class Anywhere(Augmented):
    """Says for each sample in which process it was fetched."""

    needs_no_worker = True
    epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> Any:
        return *super().__getitem__(index), self.epoch, os.getpid()


class Opening(Anywhere):
    """Cannot be pickled any more once it has fetched."""

    def __getitem__(self, index: int) -> Any:
        self.lock = threading.Lock()
        return super().__getitem__(index)


class Undeclared(Anywhere):
    needs_no_worker = False


class Interrupted(Anywhere):
    """Ctrl-C meets the main process while it fetches."""

    def __getitem__(self, index: int) -> Any:
        if multiprocessing.parent_process() is None:
            raise KeyboardInterrupt
        return super().__getitem__(index)


class Broken(Anywhere):
    def __getitem__(self, index: int) -> Any:
        raise OSError("nine.png is truncated")


def do_nothing(_: int) -> None:
    """A `worker_init_fn`."""


def loader(dataset: Any = None, **settings: Any) -> dlkit.DataLoader:
    return dlkit.DataLoader(Anywhere() if dataset is None else dataset, 8, shuffle=True, **settings)


def passes(loader: dlkit.DataLoader, number: int = 3) -> tuple[list[Any], list[list[bool]]]:
    """Two epochs, the second again from its third batch: batches, a loop's own draws; which were fetched here."""
    dlkit.seed_everything(0)
    given, here = [], []
    for epoch, start in ((0, 0), (1, 0), (1, 3))[:number]:
        here.append([])
        for x, y, epochs, pids in loader.batches(epoch, start):
            given.append((x, y, epochs, random.random(), np.random.randn(), torch.rand(())))
            (pid,) = set(pids.tolist())
            here[-1].append(pid == os.getpid())
    return given, here


@pytest.fixture(scope="module")
def reference() -> list[Any]:
    here, there = (passes(loader(num_workers=workers, multiprocessing_context=None))[0] for workers in (0, 2))
    torch.testing.assert_close(here, there, rtol=0, atol=0)
    return here


def starting(**settings: Any) -> dlkit.DataLoader:
    """Workers that are forked from a process of their own, which are started as spawned ones in a tenth of the time."""
    return loader(num_workers=2, multiprocessing_context="forkserver", **settings)


@pytest.mark.parametrize(
    ("context", "number"),
    [("spawn", 1), ("forkserver", 3), (multiprocessing.get_context("forkserver"), 3)],
    ids=["spawn", "forkserver", "an object"],
)
def test_the_first_batch_of_each_epoch_is_fetched_here_and_the_same(context, number, reference):
    batches, here = passes(loader(num_workers=1, multiprocessing_context=context), number)
    assert here == [[True] + [False] * 7, [True] + [False] * 7, [True] + [False] * 4][:number]
    torch.testing.assert_close(batches, reference[: len(batches)], rtol=0, atol=0)


def test_with_persistent_workers_only_the_first_one_and_what_a_fetch_opens_is_not_pickled(reference):
    batches, here = passes(starting(dataset=Opening(), persistent_workers=True))
    assert here == [[True] + [False] * 7, [False] * 8, [False] * 5]
    torch.testing.assert_close(batches, reference, rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"multiprocessing_context": "forkserver", "worker_init_fn": do_nothing},
        {"multiprocessing_context": "forkserver", "dataset": Undeclared()},
        {"multiprocessing_context": "fork"},
    ],
    ids=["worker_init_fn", "undeclared", "fork"],
)
def test_otherwise_only_workers_fetch(settings):
    *_, pids = next(iter(loader(num_workers=1, **settings)))
    assert os.getpid() not in pids


@pytest.fixture
def workers() -> Callable[[], list[Any]]:
    """The workers that were started in this test; those of others may not have ended yet."""
    others = {child.pid for child in multiprocessing.active_children()}
    return lambda: [child for child in multiprocessing.active_children() if child.pid not in others]


def test_an_epoch_with_one_batch_left_starts_no_workers(reference, workers):
    last = starting().batches(0, 7)
    first = next(last)
    assert workers() == []
    torch.testing.assert_close(first[:3], reference[7][:3], rtol=0, atol=0)
    assert list(last) == list(starting().batches(0, 8)) == []


@pytest.fixture
def new_processes_by_default() -> Any:
    """As on macOS and Windows, and from Python 3.14 on."""
    was = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method(was, force=True)


def test_no_worker_is_left_over_when_an_epoch_is_given_up(new_processes_by_default, workers):
    batches = iter(loader(num_workers=2))
    *_, pids = next(batches)
    assert os.getpid() in pids
    assert len(workers()) == 2
    del batches
    assert workers() == []


def a_closure(batch: Any = None) -> Any:
    return lambda samples: (batch, samples)


class Local:
    """What nobody can find by its name: a class in a function, or a cell of a notebook where processes are new."""

    def __init__(self) -> None:
        self.transform = lambda sample: sample

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Any:
        return self.transform(index)


@pytest.mark.parametrize("settings", [{"dataset": Local()}, {"collate_fn": a_closure()}], ids=["dataset", "collate"])
def test_what_cannot_be_sent_to_new_processes_is_one_sentence(settings, new_processes_by_default):
    way = r"^num_workers=1: the workers start as new processes here \('forkserver'\), so .*lambda.*num_workers=0, "
    with pytest.raises(dlkit.errors.ArgumentError, match=way):
        next(iter(loader(num_workers=1, **settings)))
    assert len(list(loader(num_workers=1, multiprocessing_context="fork", **settings))) > 0


@pytest.mark.parametrize("dataset", [Interrupted(), Broken()], ids=["Ctrl-C", "broken"])
def test_no_worker_is_left_over_when_the_first_batch_fails(dataset, workers):
    stock = TorchDataLoader(dataset, 8, num_workers=1, multiprocessing_context="forkserver")
    with pytest.raises((KeyboardInterrupt, OSError)) as caught:
        next(iter(dlkit.DataLoader.adopt(stock)))
    assert caught.type is KeyboardInterrupt or "while fetching batch 0 of epoch 0" in caught.value.__notes__[0]
    del caught
    assert workers() == []
