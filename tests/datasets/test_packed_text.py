"""Packed texts give the same samples and batches through every way in, and survive the trip to a worker."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Subset

from dlkit import DataLoader
from dlkit.collate import PadCollate, unpad
from dlkit.datasets.texts.packed import PackedTextDataset
from dlkit.errors import ArgumentError
from dlkit.samplers import LengthBuckets, Sequential
from dlkit.storage.arrays import SharedArray

ROWS = [[5, 6, 7], [8], [], [9, 10], [11, 12, 13, 14]]
TARGETS = torch.tensor([0, 1, 2, 3, 4])


def dataset(**options: Any) -> PackedTextDataset:
    return PackedTextDataset(ROWS, targets=TARGETS, **options)


def test_samples_are_ordinary_tensors() -> None:
    ids, target = dataset()[3]
    assert type(ids) is torch.Tensor
    assert (ids.tolist(), ids.dtype, target.item()) == ([9, 10], torch.int64, 3)
    assert dataset()[-1][0].tolist() == ROWS[-1]
    assert dataset().lengths.tolist() == [3, 1, 0, 2, 4]
    with pytest.raises(IndexError, match="index 5 is out of range for PackedTextDataset with 5 samples"):
        dataset()[5]


@pytest.mark.parametrize("targets", [None, TARGETS])
def test_batches_check_their_indices(targets: Any) -> None:
    ds = PackedTextDataset(ROWS, targets=targets)
    for indices in ([0, -1], torch.tensor([0, -1]), np.array([0, -1])):
        rows = [row if targets is None else row[0] for row in ds.__getitems__(indices)]
        assert [row.tolist() for row in rows] == [ROWS[0], ROWS[-1]]
    for wrong in ([0, 5], [-6], torch.tensor([9])):
        with pytest.raises(IndexError, match=r"index -?\d is out of range for 5 samples"):
            ds.__getitems__(wrong)
    assert len(ds.__getitems__([])) == 0
    with pytest.raises(ArgumentError, match="indices must be whole numbers in one dimension"):
        ds.__getitems__(torch.tensor([0.5]))


@given(st.lists(st.lists(st.integers(1, 99), max_size=9), min_size=1, max_size=12), st.sampled_from(["left", "right"]))
def test_whole_batches_equal_samples_one_by_one(rows: list[list[int]], side: Any) -> None:
    ds = PackedTextDataset(rows, targets=torch.arange(len(rows)), pad_id=7, padding_side=side)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    whole, single = ds.collate(ds.__getitems__(order)), ds.collate([ds[index] for index in order])
    assert torch.equal(whole[1], single[1])
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(whole[0][name], single[0][name])
    back = unpad(whole[0]["input_ids"], whole[0]["attention_mask"], side=side)
    assert [row.tolist() for row in back] == [rows[index] for index in order]


def batches_of(loader: Any) -> dict[int, list[int]]:
    """Target to ids, over a whole epoch."""
    found: dict[int, list[int]] = {}
    for inputs, targets in loader:
        assert sorted(inputs) == ["attention_mask", "input_ids"]
        rows = unpad(inputs["input_ids"], inputs["attention_mask"])
        found |= {int(target): row.tolist() for target, row in zip(targets, rows, strict=True)}
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_every_loader_gives_every_sample(workers: int) -> None:
    ds, expected = dataset(), dict(enumerate(ROWS))
    options: dict[str, Any] = {"num_workers": workers}
    assert batches_of(DataLoader(ds, 2, shuffle=True, **options)) == expected
    assert batches_of(TorchDataLoader(ds, 2, shuffle=True, collate_fn=ds.collate, **options)) == expected
    assert batches_of(TorchDataLoader(ds, 2, shuffle=True, **options)) == expected
    part = Subset(ds, [3, 1])
    assert batches_of(TorchDataLoader(part, 2, **options)) == {3: [9, 10], 1: [8]}
    assert batches_of(DataLoader(part, 2, **options)) == {3: [9, 10], 1: [8]}


def test_own_collate_functions_see_ordinary_samples() -> None:
    seen: list[Any] = []

    def own(batch: list[Any]) -> torch.Tensor:
        seen.extend((type(sample[0]), sample[0].tolist(), int(sample[1])) for sample in batch)
        return pad_sequence([ids for ids, _ in batch], batch_first=True)

    loader: Any = TorchDataLoader(dataset(), 5, collate_fn=own)
    (padded,) = list(loader)
    assert padded.shape == (5, 4)
    assert seen == [(torch.Tensor, row, target) for target, row in enumerate(ROWS)]


def test_unlabelled_texts_are_inputs_alone_also_for_code_in_c() -> None:
    ds = PackedTextDataset(ROWS)
    assert ds[0].tolist() == ROWS[0]
    assert pad_sequence(ds.__getitems__([0, 1]), batch_first=True).tolist() == [[5, 6, 7], [8, 0, 0]]
    for loader in (DataLoader(ds, 5), TorchDataLoader(ds, 5)):
        (batch,) = list(loader)
        assert batch["attention_mask"].sum(1).tolist() == [3, 1, 0, 2, 4]


def test_a_changed_batch_is_collated_as_it_was_changed() -> None:
    ds = dataset()
    rows = ds.__getitems__([0, 1, 3])
    rows.pop(0)
    assert ds.collate(rows)[0]["input_ids"].tolist() == [[8, 0], [9, 10]]
    assert torch.utils.data.default_collate(rows)[1].tolist() == [1, 3]


def test_pairs_have_token_types() -> None:
    ds = dataset(types=[0, 0, 1, 0, 0, 1, 0, 1, 1, 1])
    inputs, target = ds[0]
    assert {name: value.tolist() for name, value in inputs.items()} == {
        "input_ids": [5, 6, 7],
        "token_type_ids": [0, 0, 1],
    }
    batch, _ = next(iter(DataLoader(ds, 2)))
    assert batch["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert sorted(batch) == ["attention_mask", "input_ids", "token_type_ids"]
    assert target == 0


def test_the_loader_plans_by_length_only_when_it_shuffles() -> None:
    assert isinstance(DataLoader(dataset(), 2, shuffle=True).planner, LengthBuckets)
    assert isinstance(DataLoader(dataset(), 2).planner, Sequential)
    assert [targets.tolist() for _, targets in DataLoader(dataset(), 2)] == [[0, 1], [2, 3], [4]]
    assert len(DataLoader(dataset(), 2, shuffle=True, drop_last=True)) == 2


def test_another_layout_can_be_asked_for() -> None:
    ds = dataset(collate=PadCollate(layout="packed", input_name="input_ids"))
    batch, _ = next(iter(DataLoader(ds, 3)))
    assert batch["input_ids"].tolist() == [5, 6, 7, 8]
    assert batch["offsets"].tolist() == [0, 3, 4, 4]


def test_a_mapped_file_stays_on_the_disk_and_travels_as_its_path(tmp_path: Path) -> None:
    path = tmp_path / "ids.bin"
    np.arange(100_000, dtype=np.int32).tofile(path)
    ds = PackedTextDataset(SharedArray.map(path, np.int32), np.full(1000, 100))
    sent = pickle.dumps(ds)
    assert len(sent) < 50_000
    assert pickle.loads(sent)[999].tolist() == list(range(99_900, 100_000))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.arange(5), [2, 2]), {}, "lengths sum to 4, but there are 5 numbers"),
        ((np.arange(5),), {}, "lengths is missing"),
        ((np.arange(5) / 2, [5]), {}, "ids must be whole numbers in one dimension, not float64"),
        (([[1 << 40]],), {}, "numbers must be -2147483648 to 2147483647"),
        (([[1], [2]],), {"targets": torch.zeros(3)}, "there are 2 texts but 3 targets"),
        (([[1], [2]],), {"types": [0]}, "there are 2 numbers but 1 types"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        PackedTextDataset(*arguments, **options)
