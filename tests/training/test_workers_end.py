"""Worker processes end with what they work for, while the trainer, the loader and the error's traceback live on."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import dlkit
from dlkit import Trainer


class Samples(Dataset[Any]):
    def __init__(self, broken: bool) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        if self.broken and index == 4:
            raise OSError("cannot be read")
        return torch.full((3,), float(index)), index % 2


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        while True:
            yield torch.ones(3), 1


class Subclassed(DataLoader[Any]):
    """A loader that cannot be rebuilt, and is a stream."""


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 2), 0

    def forward(self, x: torch.Tensor) -> Any:
        self.calls += 1
        if self.calls == 3:
            raise ValueError("in the model")
        return self.layer(x)


def fit(loader: Any, model: nn.Module | None = None, **settings: Any) -> Trainer:
    model = model or nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, device="cpu", progress=False)
    trainer.fit(loader, **settings)
    return trainer


ENDS: dict[str, tuple[Callable[[], Any], str]] = {
    "a loop of one's own over broken data": (lambda: list(dlkit.DataLoader(Samples(True), 4, num_workers=1)), "read"),
    "a training on broken data": (lambda: fit(DataLoader(Samples(True), 4, num_workers=1)), "read"),
    "a training on a broken stream": (lambda: fit(Subclassed(Samples(True), 4, num_workers=1)), "read"),
    "a model that fails": (lambda: fit(DataLoader(Samples(False), 4, num_workers=1), Fails()), "in the model"),
    "data without an end": (lambda: fit(DataLoader(Endless(), 4, num_workers=1), steps_per_epoch=2, epochs=2), ""),
}


@pytest.mark.parametrize(("work", "error"), ENDS.values(), ids=ENDS)
def test_no_worker_is_left(work: Callable[[], Any], error: str) -> None:
    """Garbage collection would come to them some time, and wait five seconds for each loader."""
    before = set(multiprocessing.active_children())
    kept: Any = None
    if error:
        with pytest.raises((OSError, ValueError), match=error) as kept:
            work()
    else:
        kept = work()
    assert set(multiprocessing.active_children()) <= before
    del kept
