"""A CSV file of a million rows and 15 columns: until it is ready, and rows per second of shuffled batches of 1024.

    python bench/tabular.py [--rounds 7] [--rows 1000000]

The contenders take turns, `--rounds` times; the tables have the median of each, and the ratio to reading by pandas with
the pyarrow engine, or to plain tensor indexing with one thread. Whoever needs longer than a second for an epoch is
measured over its first batches. fastai and HF datasets take part where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader as StockLoader
from torch.utils.data import Dataset, TensorDataset

from dlkit import DataLoader
from dlkit.datasets import CSVDataset

BATCH = 1024
Contenders = dict[str, tuple[Callable[[], Iterable[Any]], int]]  # what to iterate over, and how many batches at most


def numbers(rows: int) -> pd.DataFrame:
    """15 columns: 14 numbers and a class."""
    rng = np.random.default_rng(0)
    columns = {f"x{place}": rng.normal(size=rows).round(6) for place in range(14)}
    return pd.DataFrame({**columns, "y": rng.integers(0, 2, rows)})


def mixed(rows: int) -> pd.DataFrame:
    """15 columns: 8 fractions, 3 integers, 3 categories and a class."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {f"x{place}": rng.normal(size=rows).round(6) for place in range(8)}
    columns |= {f"n{place}": rng.integers(0, 1000, rows) for place in range(3)}
    columns |= {f"c{size}": rng.choice([f"value {i}" for i in range(size)], rows) for size in (20, 40, 60)}
    return pd.DataFrame({**columns, "y": rng.integers(0, 2, rows)})


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rows_per_second(batches: Iterable[Any], most: int) -> float:
    """Speed over an epoch or its first batches, its start included."""
    start = time.perf_counter()
    rows = sum(_length(batch) for batch in itertools.islice(batches, most))
    return rows / (time.perf_counter() - start)


def _length(batch: Any) -> int:
    while not isinstance(batch, Tensor):
        batch = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
    return len(batch)


def in_turns(work: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each; they take turns, so that a busy moment of the machine meets all of them."""
    results: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, measure in work.items():
            results[name].append(measure())
    return {name: statistics.median(values) for name, values in results.items()}


def until_ready(path: Path, rounds: int) -> dict[str, float]:
    """Seconds from a file to what can be trained on."""
    return in_turns(
        {
            "pandas, pyarrow engine (reading alone)": lambda: seconds(lambda: pd.read_csv(path, engine="pyarrow")),
            "CSVDataset, ready": lambda: seconds(lambda: CSVDataset(path, target="y")),
            "CSVDataset.split, ready": lambda: seconds(lambda: CSVDataset.split(path, target="y")),
        },
        rounds,
    )


def plain(parts: list[Tensor], take: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Any]:
    """What one would write by hand: a permutation, cut into batches."""
    for indices in torch.randperm(len(parts[0])).split(BATCH):
        yield [take(part, indices) for part in parts]


class Iloc(Dataset[Any]):
    """The Dataset of most tutorials: a row of the DataFrame at a time."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = self.frame.iloc[index]
        return torch.tensor(row.iloc[:-1].to_numpy(dtype=np.float32)), torch.tensor(int(row.iloc[-1]))


def contenders(ds: CSVDataset, frame: pd.DataFrame) -> Contenders:
    """Everything that gives shuffled batches of this table."""
    assert ds.targets is not None
    parts = [part for part in (ds.numeric, ds.categorical, ds.targets) if part is not None]
    whole = len(ds)
    found: Contenders = {
        "plain x[i]": (lambda: plain(parts, lambda part, i: part[i]), whole),
        "plain index_select": (lambda: plain(parts, lambda part, i: part.index_select(0, i)), whole),
        "dlkit.DataLoader": (lambda: DataLoader(ds, BATCH, shuffle=True), whole),
        "stock DataLoader, CSVDataset": (lambda: StockLoader(ds, BATCH, shuffle=True), whole),
        "stock DataLoader, TensorDataset": (lambda: StockLoader(TensorDataset(*parts), BATCH, shuffle=True), 40),
    }
    if ds.categorical is None:
        found["stock DataLoader, df.iloc per row"] = (lambda: StockLoader(Iloc(frame), BATCH, shuffle=True), 2)
        if importlib.util.find_spec("datasets"):
            found["stock DataLoader, HF datasets"] = (hugging_face(frame), 10)
        if importlib.util.find_spec("fastai"):
            found["fastai TabDataLoader"] = (fastai(frame), 40)
    return found


def hugging_face(frame: pd.DataFrame) -> Callable[[], Iterable[Any]]:
    from datasets import Dataset as Arrow

    arrow = Arrow.from_pandas(frame).with_format("torch")
    return lambda: StockLoader(arrow, BATCH, shuffle=True)


def fastai(frame: pd.DataFrame) -> Callable[[], Iterable[Any]]:
    from fastai.tabular.all import FillMissing, Normalize, TabDataLoader, TabularPandas

    table = TabularPandas(frame, [FillMissing, Normalize], [], [*frame.columns[:-1]], "y")
    return lambda: TabDataLoader(table, bs=BATCH, shuffle=True, num_workers=0)


def streams(path: Path) -> dict[str, Callable[[], float]]:
    """The same table without having it in memory."""
    ds = CSVDataset(path, target="y", streaming=True)

    def epoch(workers: int) -> float:
        return rows_per_second(DataLoader(ds, BATCH, shuffle=True, num_workers=workers), len(ds))

    return {f"dlkit.DataLoader, {workers} workers": lambda workers=workers: epoch(workers) for workers in (0, 1, 2)}


def show(title: str, results: dict[str, float], unit: str, digits: int) -> None:
    base = next(iter(results.values()))
    print(f"\n{title}")
    for name, value in results.items():
        print(f"  {name:40} {value:12,.{digits}f} {unit}   {value / base:6.3f}", flush=True)


def main() -> None:
    """Run all of it and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, pandas {pd.__version__}, Python {platform.python_version()}, {threads} cores")
    folder = Path(tempfile.mkdtemp())
    for name, make in (("14 numbers", numbers), ("11 numbers, 3 categories", mixed)):
        frame, path = make(arguments.rows), folder / "table.csv"
        frame.to_csv(path, index=False)
        show(f"{name}: ready", until_ready(path, arguments.rounds), "s", 3)
        ds = CSVDataset(path, target="y")
        torch.set_num_threads(1)  # more are slower for all: a batch is fetched in a tenth of a millisecond
        work = {
            contender: lambda make=make, most=most: rows_per_second(make(), most)
            for contender, (make, most) in contenders(ds, frame).items()
        }
        show(f"{name}: shuffled batches of {BATCH}", in_turns(work, arguments.rounds), "rows/s", 0)
        streamed = in_turns(streams(path), min(3, arguments.rounds))
        show(f"{name}: streamed from the file, decoding included", streamed, "rows/s", 0)
        torch.set_num_threads(threads)
    path.unlink()


if __name__ == "__main__":
    main()
