"""Streams: whatever cannot be sought is restored from its own state, or fast-forwarded, and still exact."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
from cases import StopAt
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler, TensorDataset

import dlkit
from dlkit import Trainer
from dlkit._fetching import ELSEWHERE, LEFT_OUT
from dlkit.callbacks import Callback, Checkpoint
from dlkit.errors import ArgumentError, DataError
from dlkit.training.sources import source_of


class Numbers(IterableDataset):
    """A stream that shuffles with `random` and adds noise from torch."""

    def __iter__(self):
        order = list(range(40))
        random.shuffle(order)
        for index in order:
            yield torch.tensor([float(index), float(torch.rand(()))]), index % 2


class Counter:
    """An iterable with a position of its own, as stateful loaders have."""

    def __init__(self) -> None:
        self.position, self.made = 0, 0

    def __iter__(self):
        while self.position < 10:
            self.position += 1
            self.made += 1
            yield torch.full((4, 2), float(self.position)), torch.zeros(4, dtype=torch.long)
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


def trained(make, folder=None, stops=()):
    for step in [*stops, 0]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        callbacks = [StopAt(step)] if step else []
        if folder is not None:
            callbacks.append(Checkpoint(folder))
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, progress=False, device="cpu")
        loader = make()
        trainer.fit(loader, epochs=2)
    return trainer, loader


MAKERS = {
    "list": lambda: [(torch.full((4, 2), float(i)), torch.zeros(4, dtype=torch.long)) for i in range(10)],
    "iterable dataset": lambda: DataLoader(Numbers(), 4),
    "iterable dataset, worker": lambda: DataLoader(Numbers(), 4, num_workers=1),
    "iterable dataset, persistent": lambda: DataLoader(Numbers(), 4, num_workers=1, persistent_workers=True),
    "own state": Counter,
}


@pytest.mark.parametrize("name", MAKERS)
def test_streams_resume_exactly(tmp_path, name):
    whole, _ = trained(MAKERS[name])
    resumed, _ = trained(MAKERS[name], tmp_path, stops=[3, 10, 14])
    assert whole.run.step == resumed.run.step == 20
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.history.rows == resumed.history.rows


def test_a_loader_with_a_state_of_its_own_is_not_replayed(tmp_path):
    _, loader = trained(Counter, tmp_path, stops=[3])
    assert loader.made == 17


def test_how_it_was_brought_there_is_told(tmp_path, capsys):
    torch.manual_seed(0)
    for step in (3, 0):
        model = nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        callbacks = [Checkpoint(tmp_path), StopAt(step)]
        Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=callbacks).fit(
            MAKERS["iterable dataset"](), epochs=1
        )
    assert "epoch 1, batch 3, step 3, data position fast-forwarded" in capsys.readouterr().err


def test_an_epoch_of_a_stream_has_its_own_randomness():
    source = source_of(DataLoader(Numbers(), 40), seed=0)
    first, again, second = (next(iter(source.batches(epoch)))[0] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_an_iterator_cannot_be_used_twice():
    model = nn.Linear(2, 2)
    trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1), progress=False)
    with pytest.raises(ArgumentError, match="can be iterated only once, and this is epoch 2"):
        trainer.fit(iter(MAKERS["list"]()), epochs=2)


@pytest.mark.parametrize(
    "empty", [[], DataLoader([], 4), dlkit.DataLoader(range(3), 4, drop_last=True)], ids=["list", "stock", "drop_last"]
)
def test_a_loader_that_yields_nothing(empty):
    model = nn.Linear(2, 2)
    trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1), progress=False)
    with pytest.raises(DataError, match="yielded no batch in epoch 1"):
        trainer.fit(empty)


def test_no_loader_at_all():
    with pytest.raises(ArgumentError, match="expected a DataLoader or an iterable of batches, not int"):
        source_of(3, seed=0)


class Curriculum(Sampler[int]):
    """A sampler with a memory: each epoch turns on from where the last one ended, by as much as it was told."""

    def __init__(self) -> None:
        self.first, self.by = 0, 1

    def __iter__(self):
        self.first += self.by
        return iter([(self.first + place) % 12 for place in range(12)])

    def __len__(self) -> int:
        return 12

    def state_dict(self):
        return {"first": self.first, "by": self.by}

    def load_state_dict(self, state):
        self.first, self.by = state["first"], state["by"]


class Learnt(Callback):
    """What is learnt in the middle of an epoch changes the sampler's next ones."""

    def __init__(self, sampler: Curriculum) -> None:
        self.sampler = sampler

    def on_step_end(self, run) -> None:
        if run.step == 4:
            self.sampler.by = 5


WAYS = {
    "sampler": lambda data, sampler: DataLoader(data, 4, sampler=sampler),
    "in a batch sampler": lambda data, sampler: DataLoader(data, batch_sampler=BatchSampler(sampler, 4, False)),
    "dlkit's loader": lambda data, sampler: dlkit.DataLoader(data, 4, sampler=sampler),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_sampler_with_a_state_goes_on_where_it_stood(way, tmp_path):
    data = TensorDataset(torch.arange(24.0).reshape(12, 2), torch.arange(12) % 2)

    def run(folder=None, stop=0):
        torch.manual_seed(0)
        model, sampler, seen = nn.Linear(2, 2), Curriculum(), []
        loader = WAYS[way](data, sampler)
        assert len(loader) == 3

        def step(run, batch):
            seen.append(batch[0][:, 0].tolist())
            loss = nn.functional.cross_entropy(run.model(batch[0]), batch[1])
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            return loss

        callbacks = [Learnt(sampler), *([StopAt(stop)] if stop else []), *([Checkpoint(folder)] if folder else [])]
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        trainer = Trainer(model, None, optimizer, step=step, callbacks=callbacks, progress=False, device="cpu")
        trainer.fit(loader, epochs=4)
        return seen

    whole = run()
    assert [batch[0] / 2 for batch in whole[::3]] == [1, 2, 7, 0]
    for stop in range(1, 12):
        head = run(tmp_path / str(stop), stop)
        assert head + run(tmp_path / str(stop)) == whole, stop


def test_a_loop_of_ones_own_goes_on_with_a_sampler_that_has_a_state():
    loader = dlkit.DataLoader(range(12), 4, sampler=Curriculum())
    next(iter(loader)), next(iter(loader))
    batches = iter(loader)
    next(batches)
    state, rest = loader.state_dict(), [batch.tolist() for batch in [*batches, *loader]]
    again = dlkit.DataLoader(range(12), 4, sampler=Curriculum())
    assert len(again) == 3
    again.load_state_dict(state)
    assert [batch.tolist() for batch in [*again, *again]] == rest


class Everything(IterableDataset):
    """Gives all samples to every worker, unless it divides them."""

    def __init__(self, *, divides: bool, noise: bool = False) -> None:
        self.divides, self.noise = divides, noise

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        step, first = (info.num_workers, info.id) if self.divides and info is not None else (1, 0)
        for index in range(first, 24, step):
            yield {"x": torch.tensor([float(index), float(torch.rand(())) * self.noise])}, index % 2, f"name {index}"


@pytest.mark.parametrize(("workers", "divides", "said"), [(2, False, 1), (2, True, 0), (1, False, 0), (0, False, 0)])
def test_a_stream_that_gives_every_worker_everything_is_told_once(workers, divides, said):
    source = source_of(DataLoader(Everything(divides=divides), 4, num_workers=workers), seed=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = sum(len(batch[1]) for epoch in range(2) for batch in source.batches(epoch))
    message = "two of the 2 workers gave the same first batch: Everything seems to give all its samples to every worker"
    told = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
    assert [each.startswith(message) for each in told] == [True] * said
    assert count == 2 * 24 * (workers if said else 1)


class Shuffled(IterableDataset):
    """Gives each worker everything in an order of its own, or a share; or the same sample again and again."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        order = list(range(24)) if self.kind != "shares" else list(range(info.id, 24, info.num_workers))
        random.Random(info.id).shuffle(order)
        for index in order:
            value = torch.zeros(3) if self.kind == "constant" else torch.tensor([1.0, 2.0, float(index)])
            target = 0 if self.kind == "constant" else index % 2
            yield {"x": value + (info.id if self.kind == "augmented" else 0)}, torch.tensor(target)


@pytest.mark.parametrize(("kind", "said"), [("all", 1), ("shares", 0), ("constant", 0), ("augmented", 0)])
def test_a_stream_that_every_worker_shuffles_in_its_own_way_is_told_at_the_end_of_an_epoch(kind, said):
    source = source_of(DataLoader(Shuffled(kind), 5, num_workers=2), seed=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in source.batches(0):
            pass
        before = len(caught)
        for _ in source.batches(1):
            pass
    message = "each of the 2 workers gave the same 24 samples: Shuffled seems to give all its samples to every worker"
    told = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
    assert [each.startswith(message) for each in told] == [True] * said
    assert before == said


def test_a_run_on_such_a_stream_says_so():
    model = nn.Linear(2, 2)
    step = lambda run, batch: run.model(batch[0]["x"]).mean()  # noqa: E731
    trainer = Trainer(model, None, torch.optim.SGD(model.parameters(), 0.1), step=step, progress=False, device="cpu")
    with pytest.warns(UserWarning, match=r"so each would count 2 times. Let its __iter__ take every n-th, itertools"):
        trainer.fit(DataLoader(Everything(divides=False), 4, num_workers=2))


class Cut(IterableDataset):
    """Numbers of which a share takes every n-th."""

    def __init__(self, numbers: range = range(11)) -> None:
        self.numbers = numbers

    def share(self, place: int, of: int) -> Cut:
        return Cut(self.numbers[place::of])

    def __iter__(self):
        yield from (number + round(100 * float(torch.rand(()))) for number in self.numbers)


def test_shares_of_a_stream_begin_anywhere_and_leave_to_others_what_is_theirs():
    source = source_of(DataLoader(Cut(), 2), 0, shares=3)
    whole = list(source.batches(1))
    assert [LEFT_OUT if batch is LEFT_OUT else len(batch) for batch in whole] == [2, 2, 2, 2, 2, 1]
    for start in (3, 6):
        assert [each.tolist() for each in source.batches(1, start)] == [each.tolist() for each in whole[start:]]
    mine = list(source.batches(1, 3, lambda number: number % 3 == 1))
    assert mine[0] is mine[2] is ELSEWHERE
    assert torch.equal(mine[1], whole[4])


REHEARSALS = {
    "dry run": lambda trainer, loader: trainer.dry_run(loader, loader),
    "lr_find": lambda trainer, loader: trainer.lr_find(loader, steps=8, end=1e-3),
    "overfit": lambda trainer, loader: trainer.overfit(loader, 2, epochs=1),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REHEARSALS)
def test_a_rehearsal_leaves_a_sampler_with_a_state_where_it_stood(name, way):
    data, sampler = TensorDataset(torch.randn(12, 2), torch.arange(12) % 2), Curriculum()
    model, loader = nn.Linear(2, 2), WAYS[way](data, sampler)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, progress=False, device="cpu")
    REHEARSALS[name](trainer, loader)
    assert sampler.first == 0
    trainer.fit(loader, epochs=2)
    assert sampler.first == 2
    REHEARSALS[name](trainer, loader)
    assert sampler.first == 2


class Reader(IterableDataset):
    """A stream that goes on from its own position, wherever that is."""

    position = 0

    def __iter__(self):
        while self.position < 6:
            self.position += 1
            yield torch.full((4, 2), float(self.position)), torch.arange(4) % 2
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


@pytest.mark.parametrize("name", REHEARSALS)
def test_a_rehearsal_leaves_a_stream_with_a_state_where_it_stood(name):
    stream, model = Reader(), nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, progress=False, device="cpu")
    REHEARSALS[name](trainer, DataLoader(stream, batch_size=None))
    assert stream.position == 0
    trainer.fit(DataLoader(stream, batch_size=None))
    assert trainer.run.step == 6
