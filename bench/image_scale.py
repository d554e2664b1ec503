"""1,200,000 image files: the first scan, opening again, the first batch with 4 spawned workers, and their memory.

    python bench/image_scale.py [--files 1200000] [--folder FOLDER]

The files are hard links to one small PNG per class. What a spawned worker needs for itself (Python and torch) is
measured with a dataset of nothing: dlkit's part is what its batch takes beyond that.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from dlkit.datasets import ImageFolder

WORKERS = 4


class Nothing(Dataset[Any]):
    """What a worker costs by itself."""

    def __len__(self) -> int:
        return 1024

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3, 8, 8), index


def linked(folder: Path, count: int) -> Path:
    classes = 1000
    for label in range(classes):
        place = folder / f"class {label}"
        place.mkdir(parents=True)
        Image.new("RGB", (16, 16), (label % 256, 0, 0)).save(place / "0.png")
        for number in range(1, count // classes):
            os.link(place / "0.png", place / f"{number}.png")
    return folder


def first_batch(dataset: Any) -> tuple[float, float]:
    """Seconds to the first batch with spawned workers, and the workers' own memory in MB, all together."""
    start = time.perf_counter()
    iterator = iter(DataLoader(dataset, 64, shuffle=False, num_workers=WORKERS, multiprocessing_context="spawn"))
    next(iterator)
    taken = time.perf_counter() - start
    workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
    own = sum(child.memory_full_info().uss for child in workers) / 1e6
    return taken, own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_200_000)
    parser.add_argument("--folder", type=Path, help="where the files lie, or are made")
    parser.add_argument("--rounds", type=int, default=2)
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
        print(f"  first opening (a scan, if none was kept) {first:6.2f} s")
        opened, ours, nothing = [], [], []
        for _ in range(options.rounds):
            nothing.append(first_batch(Nothing()))
            start = time.perf_counter()
            dataset = ImageFolder(folder, size=8, progress=False)
            opened.append(time.perf_counter() - start)
            ours.append(first_batch(dataset))
        bare, own = (statistics.median(pair[0] for pair in taken) for taken in (nothing, ours))
        again = statistics.median(opened)
        print(f"  opening again                            {again:6.2f} s")
        print(f"  first batch, {WORKERS} spawned workers           {own:6.2f} s")
        print(f"  the same with a dataset of nothing       {bare:6.2f} s")
        print(f"  dlkit's part of opening and first batch  {again + own - bare:6.2f} s")
        memory = [statistics.median(pair[1] for pair in taken) / WORKERS for taken in (nothing, ours)]
        print(f"  memory of a worker alone                 {memory[1]:6.0f} MB, of nothing {memory[0]:.0f} MB")
        print(f"  the pickled dataset                      {len(pickle.dumps(dataset)):6,} bytes")


if __name__ == "__main__":
    main()
