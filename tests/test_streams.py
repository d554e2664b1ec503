"""Iterables of batches as other libraries have them: taken as they are, and brought back exactly or by replaying."""

from __future__ import annotations

import itertools
import random
import sys

import pytest
import torch
from cases import StopAt
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from dlkit import Trainer
from dlkit.callbacks import Checkpoint
from dlkit.errors import ArgumentError, DataError
from dlkit.streams import Stream
from dlkit.training.sources import source_of
from dlkit.training.windows import Windows


def batch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((4, 2), float(number)), torch.arange(4) % 2


class Endless(IterableDataset):
    def __iter__(self):
        for number in itertools.count():
            yield torch.tensor([float(number), float(torch.rand(()))]), number % 2


class Buffered:
    """As a streamed Hugging Face dataset: its state holds the position, and not what its shuffle buffer held."""

    def __init__(self) -> None:
        self._ex_iterable = BufferShuffledExamplesIterable()
        self.position = 0

    def __iter__(self):
        rng, buffer = random.Random(0), []
        for position in range(self.position, 12):
            self.position = position
            buffer.append(position)
            if len(buffer) == 4:
                yield batch(buffer.pop(rng.randrange(4)))
        while buffer:
            yield batch(buffer.pop(rng.randrange(len(buffer))))
        self.position = 0

    def state_dict(self):
        return {"position": self.position + 1}

    def load_state_dict(self, state):
        self.position = state["position"]


class BufferShuffledExamplesIterable:
    buffer_size = 4


class Shuffling:
    """Its state is a position in an order that it draws from `random` as soon as it begins."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self):
        order = list(range(12))
        random.shuffle(order)
        while self.position < 12:
            self.position += 1
            yield batch(order[self.position - 1])
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class Dali:
    """As NVIDIA's iterators: it is its own iterator, and begins anew after each end (or when it is reset)."""

    def __init__(self, auto_reset: bool) -> None:
        self.auto_reset, self.position = auto_reset, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.position == 5:
            if self.auto_reset:
                self.reset()
            raise StopIteration
        self.position += 1
        x, y = batch(self.position)
        return [{"x": x, "label": y}]

    def reset(self):
        self.position = 0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        self.seen: list[float] = []

    def forward(self, x):
        self.seen.append(float(x[0, 0]))
        return self.layers(x)


def trained(make, folder=None, stops=(), **fit):
    for step in [*stops, 0]:
        torch.manual_seed(0)
        model = Net()
        callbacks = [StopAt(step)] if step else []
        if folder is not None:
            callbacks.append(Checkpoint(folder, restore_best=False))
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, device="cpu", progress=False)
        said = []
        trainer.run.say = trainer.run.tell = said.append
        trainer.fit(make(), **{"epochs": 2, **fit})
    return trainer, " ".join(said)


def assert_equal(left, right):
    assert left.run.step == right.run.step
    assert left.history.rows == right.history.rows
    assert all(torch.equal(a, b) for a, b in zip(left.model.parameters(), right.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("make", "reason"),
    [(Buffered, "its own state loses what its shuffle buffer holds"), (Shuffling, "does not hold the random numbers")],
)
def test_a_state_that_is_not_exact_is_not_trusted_and_that_is_said(tmp_path, make, reason):
    whole, _ = trained(make)
    resumed, said = trained(make, tmp_path, stops=[3, 15])
    assert_equal(whole, resumed)
    assert "data position fast-forwarded (" in said
    assert reason in said


def hugging_face(buffer):
    datasets = pytest.importorskip("datasets.iterable_dataset", exc_type=ImportError) and sys.modules["datasets"]

    def make():
        rows = {"x": [[float(i), 1.0] for i in range(40)], "label": [i % 2 for i in range(40)]}
        stream = datasets.Dataset.from_dict(rows).to_iterable_dataset(num_shards=4)
        stream = stream.shuffle(seed=1, buffer_size=8) if buffer else stream
        return DataLoader(stream.with_format("torch"), 4)

    return make


@pytest.mark.parametrize("buffer", [True, False])
def test_streamed_hugging_face_datasets_resume_exactly(tmp_path, buffer):
    whole, _ = trained(hugging_face(buffer))
    resumed, said = trained(hugging_face(buffer), tmp_path, stops=[3, 15])
    assert_equal(whole, resumed)
    how = "fast-forwarded (its own state loses what its shuffle buffer holds)" if buffer else "restored from its own"
    assert f"batches {how}" in said


def test_a_state_of_another_position_is_not_used():
    stream = Stream(Shuffling(), seed=0)  # as after a batch that was fetched ahead of its use
    stream.load_state_dict({"state": {"position": 5}, "given": 5})
    assert [float(x[0, 0]) for x, _ in stream.batches(0, 4)] == [
        float(x[0, 0]) for x, _ in Stream(Shuffling(), seed=0).batches(0)
    ][4:]


def test_a_web_loader_is_a_loader():
    class WebLoader(IterableDataset):  # as webdataset's: a pipeline that begins with a DataLoader
        def __init__(self, *args, **settings) -> None:
            self.pipeline = [DataLoader(*args, **settings), lambda batches: batches]

        def __iter__(self):
            return self.pipeline[1](iter(self.pipeline[0]))

    whole, _ = trained(lambda: WebLoader(TensorDataset(*batch(3)), batch_size=2))
    assert whole.run.step == 4
    with pytest.raises(ArgumentError, match="or batch_size=None if what it gives are batches"):
        source_of(Endless(), seed=0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
def test_webdatasets_web_loader(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as shard:
        for number in range(12):
            shard.write({"__key__": str(number), "x.pth": torch.full((2,), float(number)), "y.cls": number % 2})
    url = (tmp_path / "a.tar").as_posix()

    def make():
        data = webdataset.WebDataset(url, shardshuffle=False).decode().to_tuple("x.pth", "y.cls").batched(4)
        return webdataset.WebLoader(data, batch_size=None)

    whole, _ = trained(make)
    assert whole.run.step == 6
    assert_equal(whole, trained(make, tmp_path / "run", stops=[2, 4])[0])


@pytest.mark.parametrize("auto_reset", [True, False])
def test_an_iterator_that_begins_anew_is_used_for_every_epoch(tmp_path, auto_reset):
    whole, _ = trained(lambda: Dali(auto_reset), epochs=3)
    assert whole.model.seen == [1.0, 2, 3, 4, 5] * 3
    resumed, _ = trained(lambda: Dali(auto_reset), tmp_path, stops=[2, 7], epochs=3)
    assert_equal(whole, resumed)


def test_an_iterator_that_was_left_in_the_middle_is_refused():
    iterator = Dali(auto_reset=True)
    first = source_of(iterator, seed=0).batches(0)
    next(first), next(first)
    with pytest.raises(ArgumentError, match="Dali was left after 2 batches, and is to start at number 0"):
        next(source_of(iterator, seed=0).batches(0))
    assert float(next(source_of(iterator, seed=0).batches(0, 2))[0]["x"][0, 0]) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_an_endless_stream_has_epochs_of_so_many_steps_that_go_on(tmp_path, workers):
    def make():
        return DataLoader(Endless(), 4, num_workers=workers)

    whole, _ = trained(make, steps_per_epoch=3, epochs=3)
    assert whole.model.seen == [4.0 * number for number in range(9)]
    assert [row["step"] for row in whole.history.rows] == [3, 6, 9]
    resumed, _ = trained(make, tmp_path, stops=[2, 7], steps_per_epoch=3, epochs=3)
    assert_equal(whole, resumed)


@pytest.mark.parametrize("kind", ["loader", "list", "stream"])
def test_data_with_an_end_go_round_across_the_epochs(tmp_path, kind):
    data = TensorDataset(torch.arange(20.0).repeat(2, 1).T.contiguous(), torch.arange(20) % 2)

    def make():
        loader = DataLoader(data, 4, shuffle=kind == "loader")
        return loader if kind == "loader" else list(loader) if kind == "list" else Again(loader)

    whole, _ = trained(make, steps_per_epoch=3, epochs=4)
    assert len(whole.model.seen) == 12
    if kind != "loader":
        assert whole.model.seen == [0.0, 4, 8, 12, 16] * 2 + [0, 4]
    assert_equal(whole, trained(make, tmp_path, stops=[5, 9], steps_per_epoch=3, epochs=4)[0])


class Again:
    """Any object that can be iterated again and again."""

    def __init__(self, loader) -> None:
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


def test_steps_are_of_accumulated_batches():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, accumulate=2, device="cpu", progress=False)
    trainer.fit(DataLoader(Endless(), 4), steps_per_epoch=3)
    assert model.seen == [0.0, 4, 8, 12, 16, 20]
    with pytest.raises(ArgumentError, match="steps_per_epoch"):
        trainer.fit([], steps_per_epoch=0)
    with pytest.raises(DataError, match="yielded no batch"):
        next(Windows(source_of([], seed=0), 3).batches(0))
