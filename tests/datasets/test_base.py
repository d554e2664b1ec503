"""Whole batches at once give exactly what sample by sample would give, in any DataLoader and to any collate_fn."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Dataset, Subset, default_collate
from torch.utils.data import DataLoader as StockLoader

from dlkit import DataLoader
from dlkit.datasets.base import InMemoryDataset, Samples
from dlkit.errors import ArgumentError

KINDS = ["tensor", "dict", "unlabelled tensor", "unlabelled dict", "dict targets", "scalars"]


class Numbers(InMemoryDataset):
    """Ten samples of one kind; every value tells its index."""

    def __init__(self, kind: str, size: int = 10) -> None:
        self.kind, self.size = kind, size

    def __len__(self) -> int:
        return self.size

    def take(self, indices: torch.Tensor) -> tuple[Any, Any]:
        vectors = indices.float()[:, None] + torch.tensor([0.0, 0.5])
        parts = {"number": vectors, "label": indices * 2}
        return {
            "tensor": (vectors, indices),
            "dict": (parts, indices),
            "unlabelled tensor": (vectors, None),
            "unlabelled dict": (parts, None),
            "dict targets": (vectors, parts),
            "scalars": (indices.double(), indices),
        }[self.kind]


class OneByOne(Dataset[Any]):
    """The same samples without the whole-batch path: what stock torch would do."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


def same(one: Any, other: Any) -> bool:
    """Equal in structure, types, dtypes and every value."""
    if isinstance(one, torch.Tensor):
        return type(one) is type(other) is torch.Tensor and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return type(other) is dict and list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("kind", KINDS)
@given(indices=st.lists(st.integers(-10, 9), min_size=1, max_size=12))
def test_a_whole_batch_is_the_collated_samples(kind: str, indices: list[int]) -> None:
    dataset = Numbers(kind)
    expected = default_collate([dataset[index] for index in indices])
    for given_as in (indices, torch.tensor(indices), np.array(indices)):
        assert same(default_collate(dataset.__getitems__(given_as)), expected)


@pytest.mark.parametrize("kind", KINDS)
@given(indices=st.lists(st.integers(0, 9), min_size=1, max_size=8), data=st.data())
def test_rows_behave_as_the_list_of_samples(kind: str, indices: list[int], data: st.DataObject) -> None:
    """Whatever a collate_fn does to a list it may do to the rows, and gets the same."""
    dataset = Numbers(kind)
    samples = [plain(dataset[index]) for index in indices]

    def rows() -> Samples:
        return dataset.__getitems__(indices)

    place = data.draw(st.integers(-len(indices), len(indices) - 1))
    cut = slice(*data.draw(st.tuples(st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9))))
    assert len(rows()) == len(samples)
    assert same(plain(rows()[place]), samples[place])
    assert same([plain(row) for row in rows()[cut]], samples[cut])
    assert same([plain(row) for row in rows()], samples)
    assert same([plain(row) for row in reversed(rows())], samples[::-1])
    assert same([plain(row) for row in list(rows())], samples)
    assert same([plain(row) for row in [*rows(), *rows()]], samples * 2)
    assert same(default_collate([*rows()]), default_collate(samples))
    assert same(default_collate(list(rows())[:2]), default_collate(samples[:2]))
    assert same(pickle.loads(pickle.dumps(rows())), samples)


def plain(row: Any) -> Any:
    """Samples compare by their values; a row's own type is an implementation detail."""
    if isinstance(row, tuple):
        return tuple(plain(part) for part in row)
    if isinstance(row, dict):
        return {name: plain(value) for name, value in row.items()}
    return row.as_subclass(torch.Tensor) if isinstance(row, torch.Tensor) else row


def zip_collate(batch: Any) -> Any:
    inputs, targets = zip(*batch, strict=True)
    return torch.stack(inputs), torch.stack(targets)


def sort_collate(batch: Any) -> Any:
    batch.sort(key=lambda sample: -int(sample[1]))
    return default_collate(batch)


def comprehension_collate(batch: Any) -> Any:
    return torch.stack([sample[0] for sample in batch]), [int(sample[1]) for sample in batch], len(batch)


def slicing_collate(batch: Any) -> Any:
    return default_collate(batch[1:]), batch[-1][0]


def appending_collate(batch: Any) -> Any:
    batch.append(batch[0])
    return default_collate(batch)


def dropping_collate(batch: Any) -> Any:
    del batch[0]
    return default_collate(batch)


def filtering_collate(batch: Any) -> Any:
    return default_collate([sample for sample in batch if sample[1] % 2])


COLLATES = [
    default_collate,
    zip_collate,
    sort_collate,
    comprehension_collate,
    slicing_collate,
    appending_collate,
    dropping_collate,
    filtering_collate,
]


@pytest.mark.parametrize("collate", COLLATES, ids=lambda function: function.__name__)
def test_any_collate_fn_gets_ordinary_samples(collate: Any) -> None:
    whole = list(StockLoader(Numbers("tensor"), 4, collate_fn=collate))
    single = list(StockLoader(OneByOne(Numbers("tensor")), 4, collate_fn=collate))
    assert same(whole, single)
    assert same(list(DataLoader(Numbers("tensor"), 4, collate_fn=collate)), single)


def test_stacking_unlabelled_rows() -> None:
    """C code reads a list's own storage past every override."""
    for collate in (torch.stack, tuple, list, lambda batch: torch.stack([*batch]).sum(0)):
        whole = list(StockLoader(Numbers("unlabelled tensor"), 4, collate_fn=collate))
        single = list(StockLoader(OneByOne(Numbers("unlabelled tensor")), 4, collate_fn=collate))
        assert [same_values(a, b) for a, b in zip(whole, single, strict=True)] == [True] * 3


def same_values(one: Any, other: Any) -> bool:
    return bool(torch.equal(torch.stack([*one]), torch.stack([*other])))


def test_every_kind_with_and_without_workers() -> None:
    for kind in KINDS:
        single = list(StockLoader(OneByOne(Numbers(kind)), 4))
        assert same(list(StockLoader(Numbers(kind), 4)), single), kind
        assert same(list(DataLoader(Numbers(kind), 4)), single), kind


def test_worker_processes_give_the_same() -> None:
    both = ConcatDataset([Numbers("dict"), Numbers("dict", 5)])
    single = list(StockLoader(OneByOne(both), 4))
    assert same(list(StockLoader(both, 4, num_workers=2)), single)
    assert same(list(DataLoader(both, 4, num_workers=2)), single)
    sliced = list(StockLoader(Numbers("tensor"), 4, num_workers=2, collate_fn=slicing_collate))
    assert same(sliced, list(StockLoader(OneByOne(Numbers("tensor")), 4, collate_fn=slicing_collate)))


@pytest.mark.parametrize("kind", KINDS)
def test_subset_and_concat(kind: str) -> None:
    part = Subset(Numbers(kind), [7, 2, 2, 9])
    assert same(list(StockLoader(part, 3)), list(StockLoader(OneByOne(part), 3)))
    nested = Subset(part, [3, 0])
    assert same(list(StockLoader(nested, 3)), list(StockLoader(OneByOne(nested), 3)))
    joined = ConcatDataset([Numbers(kind, 3), Numbers(kind, 4)])
    assert same(list(StockLoader(joined, 5)), list(StockLoader(OneByOne(joined), 5)))
    assert same(list(DataLoader(joined, 5)), list(DataLoader(OneByOne(joined), 5)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_size_of_none_gives_single_samples(kind: str) -> None:
    whole, single = StockLoader(Numbers(kind), None), StockLoader(OneByOne(Numbers(kind)), None)
    assert same(list(whole), list(single))


@settings(max_examples=30)
@given(index=st.integers(-30, 30))
def test_one_sample_counts_from_both_ends_and_refuses_the_rest(index: int) -> None:
    dataset = Numbers("tensor")
    if -10 <= index < 10:
        assert dataset[index][1] == index % 10
        assert dataset[np.int64(index)][1] == dataset[torch.tensor(index)][1] == index % 10
        assert dataset.__getitems__([index])[0][1] == index % 10
    else:
        with pytest.raises(IndexError, match=f"{index} is out of range"):
            dataset[index]
        with pytest.raises(IndexError, match=f"{index} is out of range for 10 samples"):
            dataset.__getitems__([0, index])


def test_rows_refuse_what_is_out_of_range() -> None:
    rows = Numbers("tensor").__getitems__([1, 2])
    with pytest.raises(IndexError, match="sample 2 of a batch of 2"):
        rows[2]
    with pytest.raises(IndexError, match="sample -3 of a batch of 2"):
        rows[-3]


@pytest.mark.parametrize("indices", [torch.tensor([0.5]), torch.tensor([[1]]), torch.tensor([True])])
def test_indices_of_another_kind_are_refused(indices: torch.Tensor) -> None:
    with pytest.raises(ArgumentError, match="indices must be whole numbers in one dimension"):
        Numbers("tensor").__getitems__(indices)


def test_a_loop_over_the_dataset_ends() -> None:
    assert [int(target) for _, target in Numbers("tensor")] == list(range(10))


def test_a_subclass_that_lacks_something_says_so() -> None:
    with pytest.raises(TypeError, match="must define __len__"):
        len(InMemoryDataset())
    with pytest.raises(TypeError, match="must define take"):
        InMemoryDataset().take(torch.tensor([0]))
