"""1,200,000 image files: the first scan, opening again, batches with 4 spawned workers, and their memory.

    python bench/image_scale.py [--files 1200000] [--folder FOLDER]

The files are hard links to one small PNG per class. Measured through `dlkit.DataLoader`, whose first batch the main
process fetches while the workers start, and through a stock one, which waits for them; each over `ImageFolder` and over
a dataset of nothing, which shows what four new processes with torch cost by themselves. How long the second and the
20th batch take says what that first batch is worth.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import dlkit
from dlkit.datasets import ImageFolder

WORKERS, BATCH = 4, 64
SETTINGS: dict[str, Any] = {"num_workers": WORKERS, "multiprocessing_context": "spawn"}
NUMBERS = (1, 2, 20)


class Nothing(Dataset[Any]):
    """What a worker costs by itself."""

    needs_no_worker = True

    def __len__(self) -> int:
        return BATCH * NUMBERS[-1]

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3, 8, 8), index


class Taken(NamedTuple):
    """Seconds to open the dataset, to start the workers and to have batches, from the beginning; MB of a worker."""

    opened: float
    started: float
    batches: tuple[float, ...]
    memory: float


def linked(folder: Path, count: int) -> Path:
    classes = 1000
    for label in range(classes):
        place = folder / f"class {label}"
        place.mkdir(parents=True)
        Image.new("RGB", (16, 16), (label % 256, 0, 0)).save(place / "0.png")
        for number in range(1, count // classes):
            os.link(place / "0.png", place / f"{number}.png")
    return folder


def measured(make_dataset: Callable[[], Any], loader: Any) -> Taken:
    start = time.perf_counter()
    dataset = make_dataset()
    opened = time.perf_counter() - start
    batches = loader(dataset, BATCH, **SETTINGS)
    # `dlkit.DataLoader.__iter__` does nothing before the first batch is asked for.
    iterator = batches.batches(0) if loader is dlkit.DataLoader else iter(batches)
    started = time.perf_counter() - start
    times = []
    for number in range(1, NUMBERS[-1] + 1):
        next(iterator)
        if number in NUMBERS:
            times.append(time.perf_counter() - start)
    workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
    memory = sum(child.memory_full_info().uss for child in workers) / 1e6 / WORKERS
    return Taken(opened, started, tuple(times), memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_200_000)
    parser.add_argument("--folder", type=Path, help="where the files lie, or are made")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "files"
        if not folder.is_dir():
            linked(folder, options.files)
            time.sleep(0.1)  # a folder that changed just now is not kept
        start = time.perf_counter()
        size = len(ImageFolder(folder, size=8, progress=False))
        first = time.perf_counter() - start
        print(f"{size:,} files, load {os.getloadavg()[0]:.1f}")
        print(f"  first opening (a scan, if none was kept) {first:.2f} s")

        def opening() -> Any:
            return ImageFolder(folder, size=8, progress=False)

        contenders = {
            "dlkit.DataLoader": (opening, dlkit.DataLoader),
            "dlkit.DataLoader, dataset of nothing": (Nothing, dlkit.DataLoader),
            "stock DataLoader": (opening, DataLoader),
            "stock DataLoader, dataset of nothing": (Nothing, DataLoader),
        }
        taken: dict[str, list[Taken]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, contender in contenders.items():
                taken[name].append(measured(*contender))
        print(f"  seconds from before opening again to, with {WORKERS} spawned workers:")
        print(f"  {'':38}{'open':>7}{'started':>9}{'batch 1':>9}{'batch 2':>9}{'batch 20':>10}{'MB/worker':>11}")
        for name, rounds in taken.items():
            middle = [statistics.median(values) for values in zip(*(row.batches for row in rounds), strict=True)]
            opened, started = (
                statistics.median(getattr(row, what) for row in rounds) for what in ("opened", "started")
            )
            text = f"{opened:7.2f}{started:9.2f}{middle[0]:9.2f}{middle[1]:9.2f}{middle[2]:10.2f}"
            print(f"  {name:38}{text}{statistics.median(row.memory for row in rounds):11.0f}")
        print(f"  the pickled dataset: {len(pickle.dumps(opening())):,} bytes; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
