"""What `Subset`, `random_split` and `ConcatDataset` hide of the data behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, random_split

import dlkit
from dlkit.datasets import CSVDataset, PackedTextDataset
from dlkit.errors import ArgumentError, DataError
from dlkit.models import TabularMLP
from dlkit.training.sources import source_of
from dlkit.transfer.features import identity_of
from dlkit.wrappers import unwrap, view_of


def table(labels: str = "ab", rows: int = 24) -> pd.DataFrame:
    return pd.DataFrame({"x": [float(i % 7) for i in range(rows)], "y": [labels[i % 2] for i in range(rows)]})


def test_a_wrapper_means_what_the_data_behind_it_means():
    data = CSVDataset(table(), target="y")
    part, _ = random_split(data, [0.5, 0.5], torch.Generator().manual_seed(0))
    assert unwrap(data) is unwrap(part) is unwrap(Subset(part, [0])) is unwrap(ConcatDataset([part, data])) is data
    assert unwrap(None) is None


def test_a_wrapper_with_classes_of_its_own_speaks_for_itself():
    part = Subset(CSVDataset(table(), target="y"), [0])
    part.classes = ["ham", "spam"]
    assert unwrap(Subset(part, [0])) is part


def test_joined_data_that_mean_different_things_are_refused():
    first, other = CSVDataset(table(), target="y"), CSVDataset(table("ac"), target="y")
    with pytest.raises(
        DataError, match=r"the first part and another part of the ConcatDataset .*: class 1 is 'b' .* 'c' .*spec="
    ):
        unwrap(ConcatDataset([first, Subset(other, [1])]))
    scaled = CSVDataset(table().assign(x=lambda frame: frame.x * 9), target="y")
    with pytest.raises(
        DataError,
        match=r"column 'x': parts 0 center is 2.75 in the first part and 24.75 in another part of the ConcatDataset",
    ):
        unwrap(ConcatDataset([first, scaled]))
    alike = CSVDataset(table().assign(x=lambda frame: frame.x * 9), target="y", spec=first.spec)
    assert unwrap(ConcatDataset([first, alike])) is first


def test_the_model_file_of_a_joined_training_knows_its_data(tmp_path):
    first = CSVDataset(table(), target="y")
    joined = ConcatDataset([first, CSVDataset(table(rows=8), target="y", spec=first.spec)])
    model = TabularMLP(first.spec, hidden=[4])
    trainer = dlkit.Trainer(
        model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1), progress=False, device="cpu"
    )
    trainer.fit(torch.utils.data.DataLoader(joined, 8))
    assert trainer.run.data is first
    assert dlkit.load(trainer.save(tmp_path / "model.safetensors")).classes == ["a", "b"]


def lines(texts: list[list[int]], shift: int = 0) -> PackedTextDataset:
    return PackedTextDataset(texts, targets=torch.arange(len(texts)) + shift)


TEXTS = [[7] * length for length in (3, 9, 1, 4, 8, 2, 6, 5)]


def stacked(batch: Any) -> list[torch.Tensor]:
    inputs, targets = batch
    return [*(inputs.values() if isinstance(inputs, dict) else [inputs]), targets]


def batches(loader: Any) -> list[list[torch.Tensor]]:
    return [stacked(batch) for batch in loader]


def same(left: Any, right: Any) -> bool:
    pairs = zip(left, right, strict=True)
    return all(all(map(torch.equal, one, two)) for one, two in pairs)


FIRST = CSVDataset(table(), target="y")
BOTH = table(rows=30)
JOINED: dict[str, tuple[Any, Any]] = {  # a wrapper, and what it is to give
    "table": (
        ConcatDataset([FIRST, Subset(CSVDataset(BOTH[24:], target="y", spec=FIRST.spec), [5, 0, 3])]),
        CSVDataset(pd.concat([BOTH[:24], BOTH.iloc[[29, 24, 27]]]), target="y", spec=FIRST.spec),
    ),
    "texts": (ConcatDataset([lines(TEXTS[:3]), lines(TEXTS[3:], 3)]), lines(TEXTS)),
    "parts of texts": (
        Subset(ConcatDataset([lines(TEXTS[:3]), lines(TEXTS[3:], 3)]), [6, 1, 2, 0, 7]),
        PackedTextDataset([TEXTS[i] for i in (6, 1, 2, 0, 7)], targets=torch.tensor([6, 1, 2, 0, 7])),
    ),
    "tensors": (
        Subset(Subset(TensorDataset(torch.arange(9.0), torch.arange(9)), np.array([8, 6, 4, 2])), [3, 1, 0]),
        TensorDataset(torch.tensor([2.0, 6, 8]), torch.tensor([2, 6, 8])),
    ),
}


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("kind", JOINED)
def test_wrapped_data_give_the_batches_of_the_same_data_unwrapped(kind: str, shuffle: bool) -> None:
    wrapper, plain = JOINED[kind]
    expected = batches(dlkit.DataLoader(plain, 2, shuffle=shuffle))
    assert same(batches(dlkit.DataLoader(wrapper, 2, shuffle=shuffle)), expected)
    if not shuffle and kind != "parts of texts":
        stock = source_of(DataLoader(wrapper, 2), seed=0).batches(0)
        assert same([stacked(batch) for batch in stock], expected)
    assert same(batches(dlkit.DataLoader(wrapper, 2, shuffle=shuffle, num_workers=1)), expected)


class Counting(TensorDataset):
    """Notes how it is asked."""

    takes_index_tensors = True
    draws_random = False
    needs_no_worker = True

    def __init__(self, size: int) -> None:
        super().__init__(torch.arange(float(size)))
        self.asked: list[int] = []
        self.epochs: list[int] = []

    def __getitems__(self, indices: torch.Tensor) -> Any:
        self.asked.append(len(indices))
        return [(value,) for value in self.tensors[0][indices]]

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def test_parts_are_asked_for_whole_batches_and_told_the_epoch() -> None:
    first, other = Counting(6), Counting(4)
    loader = dlkit.DataLoader(ConcatDataset([first, Subset(other, range(1, 4))]), 9)
    ((values,),) = loader
    assert values.tolist() == [0, 1, 2, 3, 4, 5, 1, 2, 3]
    assert (first.asked, other.asked) == ([6], [3])
    assert first.epochs == other.epochs == [0]
    view = view_of(loader.dataset)
    assert (view.draws_random, view.needs_no_worker) == (False, True)
    assert view_of(ConcatDataset([first, range(3)])).draws_random is None
    with pytest.raises(IndexError):
        view.__getitems__([9])


def test_a_wrapper_that_does_more_is_left_alone() -> None:
    class Doubled(Subset[Any]):
        def __getitem__(self, index: Any) -> Any:
            return 2 * super().__getitem__(index)[0]

        def __getitems__(self, indices: list[int]) -> list[Any]:
            return [self[index] for index in indices]

    data = Doubled(TensorDataset(torch.arange(4.0)), [3, 1])
    assert view_of(data) is data
    assert [batch.tolist() for batch in dlkit.DataLoader(data, 2)] == [[6, 2]]


def test_parts_that_make_batches_in_different_ways_need_a_collate_function() -> None:
    left = PackedTextDataset(TEXTS, targets=torch.arange(8), pad_id=5)
    joined = ConcatDataset([lines(TEXTS), left])
    with pytest.raises(ArgumentError, match="the parts of the ConcatDataset make batches in different ways"):
        next(iter(dlkit.DataLoader(joined, 16)))
    assert len(next(iter(dlkit.DataLoader(joined, 16, collate_fn=list)))) == 16


def test_a_part_of_a_streamed_table_is_shuffled_as_the_table_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    table(rows=400).to_csv(path, index=False)
    data = CSVDataset(path, target="y", streaming=True)
    part = Subset(data, range(0, 400, 4))
    plan = dlkit.DataLoader(part, 8, shuffle=True).planner.plan(0, 0)
    chosen = torch.cat(list(plan))
    assert sorted(chosen.tolist()) == list(range(100))
    assert chosen.tolist() != list(range(100))
    assert len(list(dlkit.DataLoader(part, 8, shuffle=True))) == 13


def test_joined_data_are_known_by_their_parts() -> None:
    one, two = (TensorDataset(torch.arange(3.0) + shift) for shift in range(2))
    assert identity_of(ConcatDataset([one, two])) == identity_of(ConcatDataset([one, two]))
    assert identity_of(ConcatDataset([one, two])) != identity_of(ConcatDataset([two, one]))
    assert identity_of(ConcatDataset([one, [1, 2]])) is None
