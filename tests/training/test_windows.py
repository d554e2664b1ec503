"""Epochs of so many steps, of which a process reads its own batches only."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils.data import Dataset

from dlkit import DataLoader
from dlkit.loader import ELSEWHERE
from dlkit.training.sources import source_of
from dlkit.training.windows import Windows


class Numbers(Dataset[int]):
    """Knows what was read of it."""

    def __init__(self) -> None:
        self.read = list[int]()

    def __len__(self) -> int:
        return 14

    def __getitem__(self, place: int) -> int:
        self.read.append(place)
        return place


def windows(data: Any, count: int) -> Windows:
    return Windows(source_of(DataLoader(data, 2, shuffle=True), seed=0), count)


@pytest.mark.parametrize("start", [0, 3])
def test_batches_of_another_process_are_not_read(start: int) -> None:
    """Epochs of 4 batches over data of 7, so that the second and the fourth go over an end of the data."""
    whole, data = windows(Numbers(), 4), Numbers()
    parts = windows(data, 4)
    for epoch in range(4):
        expected = [batch.tolist() for batch in whole.batches(epoch, start)]
        data.read.clear()
        own = list(parts.batches(epoch, start, lambda number: number % 2 == 1))
        assert len(own) == len(expected)
        for number, (batch, wanted) in enumerate(zip(own, expected, strict=True), start):
            assert batch is ELSEWHERE if number % 2 == 0 else batch.tolist() == wanted
        assert sorted(data.read) == sorted(
            place for number, wanted in enumerate(expected, start) if number % 2 for place in wanted
        )
