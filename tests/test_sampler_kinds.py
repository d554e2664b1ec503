"""Samplers and batch samplers may give whole numbers of any kind, in any container, over every dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from torch.utils.data import BatchSampler, ConcatDataset, Dataset, SequentialSampler, Subset, TensorDataset
from torch.utils.data import DataLoader as TorchDataLoader

import dlkit
from dlkit import Trainer
from dlkit.datasets import AudioFolder, CSVDataset, ImageFolder, PackedTextDataset, TextDataset
from dlkit.datasets.base import InMemoryDataset
from dlkit.errors import ArgumentError, DataError
from dlkit.samplers import planner_of


class Own(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index):
        return torch.tensor([float(index)]), index


class Fetching(Own):
    def __getitems__(self, indices):
        assert all(type(index) is int for index in indices)
        return [self[index] for index in indices]


class Memory(InMemoryDataset):
    def __len__(self) -> int:
        return 6

    def take(self, indices):
        return indices[:, None].float(), indices


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> dict[str, Any]:
    from PIL import Image

    root = tmp_path_factory.mktemp("images")
    for number in range(6):
        folder = root / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / f"{number}.png")
        soundfile.write(folder / f"{number}.wav", np.full(40 + number, number / 8), 8_000)
    table = root / "table.csv"
    table.write_text("x,word,y\n" + "".join(f"{number}.5,w{number},{'ab'[number % 2]}\n" for number in range(6)))
    tensors = TensorDataset(torch.arange(6.0)[:, None], torch.arange(6))
    return {
        "tensors": tensors,
        "own": Own(),
        "own with __getitems__": Fetching(),
        "memory": Memory(),
        "packed": PackedTextDataset([[1], [2, 3], [4], [5], [6], [7]], targets=torch.arange(6)),
        "texts": TextDataset([f"word{number} again" for number in range(6)], target=[0, 1] * 3, min_freq=1),
        "table": CSVDataset(table, target="y", drop=["word"]),
        "images": ImageFolder(root, size=8),
        "sounds": AudioFolder(root, sample_rate=8_000, seconds=0.01),
        "sounds of any length": AudioFolder(root, sample_rate=8_000),
        "subset": Subset(tensors, range(6)),
        "joined": ConcatDataset([Subset(tensors, range(3)), Subset(tensors, range(3, 6))]),
    }


OURS = ["memory", "packed", "texts", "table", "images", "sounds", "sounds of any length"]
NAMES = ["tensors", "own", "own with __getitems__", *OURS, "subset", "joined"]
BATCHES: dict[str, Any] = {
    "lists": [[1, 2], [5]],
    "numpy integers": [[np.int64(1), np.int32(2)], [np.int64(5)]],
    "small integers": [[np.uint8(1), np.int16(2)], [np.uint8(5)]],
    "arrays": [np.array([1, 2]), np.array([5])],
    "arrays of small integers": [np.array([1, 2], dtype=np.uint8), np.array([5], dtype=np.int32)],
    "tuples": [(1, 2), (5,)],
    "ranges": [range(1, 3), range(5, 6)],
    "tensors": [torch.tensor([1, 2]), torch.tensor([5])],
    "tensors of int32": [torch.tensor([1, 2], dtype=torch.int32), torch.tensor([5], dtype=torch.int32)],
    "tensors without a dimension": [[torch.tensor(1), torch.tensor(2)], [torch.tensor(5)]],
    "from the end": [[-5, 2], [-1]],
}


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[name], two[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(equal(a, b) for a, b in zip(one, two, strict=True))
    return one == two


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", NAMES)
def test_the_batches_of_torch(datasets, name, kind):
    if kind == "from the end" and name not in ("tensors", *OURS):
        pytest.skip("what a place from the end means is the dataset's to say")
    dataset = datasets[name]
    plain = list(TorchDataLoader(dataset, batch_sampler=[[1, 2], [5]], collate_fn=getattr(dataset, "collate", None)))
    for batches in (dlkit.DataLoader(dataset, batch_sampler=BATCHES[kind]), adopted(dataset, BATCHES[kind])):
        assert equal(list(batches), plain)
        assert [[index % 6 for index in batches.indices(0, number)] for number in range(2)] == [[1, 2], [5]]


def adopted(dataset: Any, batches: Any) -> dlkit.DataLoader:
    collate = getattr(dataset, "collate", None)
    return dlkit.DataLoader.adopt(TorchDataLoader(dataset, batch_sampler=batches, collate_fn=collate))


@pytest.mark.parametrize("kind", ["numpy integers", "arrays", "tensors", "tuples"])
def test_stock_loaders_of_our_datasets(datasets, kind):
    for name in OURS:
        collate = getattr(datasets[name], "collate", None)
        plain = list(TorchDataLoader(datasets[name], batch_sampler=[[1, 2], [5]], collate_fn=collate))
        found = list(TorchDataLoader(datasets[name], batch_sampler=BATCHES[kind], collate_fn=collate))
        assert equal(found, plain)


class Generated:
    """A batch sampler that keeps nothing: each batch is a generator over one list that is used again."""

    def __iter__(self):
        shared: list[int] = []
        for batch in ([1, 2], [5]):
            shared[:] = batch
            yield shared


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_sampler_that_uses_one_list_again(datasets, name):
    plain = list(dlkit.DataLoader(datasets[name], batch_sampler=[[1, 2], [5]]))
    assert equal(list(dlkit.DataLoader(datasets[name], batch_sampler=Generated())), plain)


SAMPLES = {"numpy integers": np.array([3, 1, 4]), "tensor": torch.tensor([3, 1, 4]), "tuple": (3, np.int64(1), 4)}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("name", NAMES)
def test_samplers_of_single_indices(datasets, name, kind):
    plain = list(dlkit.DataLoader(datasets[name], 2, sampler=[3, 1, 4]))
    assert equal(list(dlkit.DataLoader(datasets[name], 2, sampler=SAMPLES[kind])), plain)


@pytest.mark.parametrize("name", ["tensors", "memory", "packed", "texts", "table", "images"])
def test_a_sampler_of_whole_batches_without_a_batch_size(datasets, name):
    """torch's idiom for datasets that fetch several samples at once: `dataset[[0, 1, 2, 3]]`."""
    dataset = datasets[name]
    plain = [list(batch) for batch in dlkit.DataLoader(dataset, 4)]
    for loader in (TorchDataLoader, dlkit.DataLoader):
        bulk = loader(dataset, batch_size=None, sampler=BatchSampler(SequentialSampler(dataset), 4, False))
        assert equal([list(batch) for batch in bulk], plain)
    assert equal(list(dataset[np.array([0, 1, 2, 3])]), plain[0])


def test_keys_that_are_something_else_stay_as_they_are():
    class Pairs(Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, key):
            index, size = key
            return torch.full((size,), index)

    batches = [[(0, 3), (1, 3)], [(1, 5)]]
    found = list(dlkit.DataLoader(Pairs(), batch_sampler=batches))
    assert [batch.tolist() for batch in found] == [[[0, 0, 0], [1, 1, 1]], [[1, 1, 1, 1, 1]]]


@pytest.mark.parametrize("batches", [[[True, False]], [np.array([True, False])], [torch.tensor([True, False])]])
@pytest.mark.parametrize("name", ["tensors", "own", "memory"])
def test_a_mask_is_not_a_batch(datasets, name, batches):
    with pytest.raises(ArgumentError, match=r"a sampler gave True in the place of an index, which looks like a mask"):
        list(dlkit.DataLoader(datasets[name], batch_sampler=batches))


def test_a_batch_without_any_sample(datasets):
    for name in NAMES:
        with pytest.raises(DataError, match="the plan of epoch 0 has a batch without any sample: batch 1"):
            list(dlkit.DataLoader(datasets[name], batch_sampler=[[1], []]))


def test_an_index_that_is_not_there_is_named(datasets):
    for name in ("tensors", "own with __getitems__", "memory", "packed", "images"):
        dataset = list(range(6)) if name.startswith("own") else datasets[name]
        with pytest.raises(IndexError) as caught:
            list(dlkit.DataLoader(dataset, batch_sampler=[[1, 99]]))
        assert "batch 0 of epoch 0, samples [1, 99]" in "".join(getattr(caught.value, "__notes__", []))


def test_a_planner_of_ones_own_may_give_any_kind(datasets):
    class Plan:
        def plan(self, seed, epoch):
            return [(np.int64(1), 2), np.array([5])]

    plain = list(dlkit.DataLoader(datasets["tensors"], batch_sampler=[[1, 2], [5]]))
    assert equal(list(dlkit.DataLoader(datasets["tensors"], batch_sampler=Plan())), plain)
    assert planner_of(Plan(), None).plan(0, 0)[0] == (1, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_predicting_and_stored_indices(datasets, workers):
    torch.manual_seed(0)
    model = nn.Linear(1, 2)
    trainer = Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), device="cpu", progress=False)
    data = TensorDataset(torch.arange(6.0)[:, None], torch.zeros(6, 2))
    loader = TorchDataLoader(data, batch_sampler=BATCHES["numpy integers"], num_workers=workers)
    trainer.fit(loader, loader)
    assert trainer.run.cursor.samples == 3
    torch.testing.assert_close(trainer.predict(loader), model(data.tensors[0][[1, 2, 5]]).detach())
