"""How fast batches come out of memory: plain tensor indexing against loaders, in samples per second.

    python bench/loader.py [--rounds 7] [--batches 150]

The contenders take turns, `--rounds` times, each giving `--batches` shuffled batches; the table has the median of each
and its ratio to plain indexing, once with one thread and once with torch's default number.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader as StockLoader
from torch.utils.data import TensorDataset

from dlkit import DataLoader
from dlkit.datasets import InMemoryDataset
from dlkit.datasets.letters.packed import PackedImages
from dlkit.datasets.letters.packfile import ImageStore
from dlkit.storage.strings import PackedStrings

Contenders = dict[str, Callable[[], Iterable[Any]]]


class Rows(InMemoryDataset):
    """A table of float32 in memory with a label per row."""

    def __init__(self, rows: Tensor, targets: Tensor) -> None:
        self.rows, self.targets = rows, targets

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The rows and labels at `indices`."""
        return self.rows.index_select(0, indices), self.targets.index_select(0, indices)


def plain(size: int, batch: int, take: Callable[[Tensor], Any]) -> Iterator[Any]:
    """What one would write by hand: a permutation, cut into batches."""
    for indices in torch.randperm(size).split(batch):
        yield take(indices)


def images(batch: int = 128, size: int = 18_724) -> tuple[int, Contenders]:
    """As many grey images as notMNIST (small) has, as float32 in [0, 1]."""
    pixels, targets = torch.randint(0, 256, (size, 28, 28), dtype=torch.uint8), torch.randint(0, 10, (size,))
    dataset = PackedImages(ImageStore(pixels, targets, PackedStrings.of([])), "ABCDEFGHIJ")
    part = dataset.split(0.9, dedupe=False)[0]
    floats = TensorDataset(pixels.unsqueeze(1).float() / 255, targets)

    def by_select(rows: Tensor) -> Any:
        return pixels.index_select(0, rows).unsqueeze(1).float().div_(255), targets.index_select(0, rows)

    def by_index(rows: Tensor) -> Any:
        return pixels[rows].unsqueeze(1).float() / 255, targets[rows]

    return batch, {
        "plain index_select, float": lambda: plain(size, batch, by_select),
        "plain x[i].float() / 255": lambda: plain(size, batch, by_index),
        "dlkit.DataLoader": lambda: DataLoader(dataset, batch, shuffle=True),
        "dlkit.DataLoader, part of a split": lambda: DataLoader(part, batch, shuffle=True),
        "stock DataLoader, dlkit dataset": lambda: StockLoader(dataset, batch, shuffle=True),
        "stock DataLoader, TensorDataset (float)": lambda: StockLoader(floats, batch, shuffle=True),
        "dlkit.DataLoader, TensorDataset (float)": lambda: DataLoader(floats, batch, shuffle=True),
    }


def table(batch: int = 1024, size: int = 1_000_000, columns: int = 15) -> tuple[int, Contenders]:
    """A million rows of 15 float32 columns."""
    rows, targets = torch.rand(size, columns), torch.randint(0, 2, (size,))
    dataset, stock = Rows(rows, targets), TensorDataset(rows, targets)
    return batch, {
        "plain index_select": lambda: plain(size, batch, dataset.take),
        "plain x[i]": lambda: plain(size, batch, lambda indices: (rows[indices], targets[indices])),
        "dlkit.DataLoader": lambda: DataLoader(dataset, batch, shuffle=True),
        "stock DataLoader, dlkit dataset": lambda: StockLoader(dataset, batch, shuffle=True),
        "stock DataLoader, TensorDataset": lambda: StockLoader(stock, batch, shuffle=True),
        "dlkit.DataLoader, TensorDataset": lambda: DataLoader(stock, batch, shuffle=True),
    }


def samples_per_second(batches: Iterable[Any], count: int) -> float:
    """Speed over the first `count` batches, the start of the epoch included."""
    start = time.perf_counter()
    samples = sum(len(batch[0]) for batch in itertools.islice(batches, count))
    return samples / (time.perf_counter() - start)


def measure(contenders: Contenders, rounds: int, batches: int) -> dict[str, float]:
    """The median speed of each; they take turns, so that a busy moment of the machine meets all of them."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, make in contenders.items():
            speeds[name].append(samples_per_second(make(), batches))
    return {name: statistics.median(values) for name, values in speeds.items()}


def main() -> None:
    """Run all of it and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=150)
    arguments = parser.parse_args()
    default = torch.get_num_threads()
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, {default} threads")
    for name, workload in (("images 28x28, uint8 to float32", images), ("table, 15 columns float32", table)):
        for threads in dict.fromkeys((1, default)):
            torch.set_num_threads(threads)
            batch, contenders = workload()
            speeds = measure(contenders, arguments.rounds, arguments.batches)
            best = next(iter(speeds.values()))
            print(f"\n{name}, batch {batch}, {threads} thread{'s' if threads > 1 else ''}")
            for contender, speed in speeds.items():
                print(f"  {contender:42} {speed:12,.0f} samples/s   {speed / best:6.3f}")


if __name__ == "__main__":
    main()
