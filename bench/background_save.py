"""How long a checkpoint stops the training: saving in the background beside a blocking save.

100 million parameters with AdamW-like state left out (400 MB of weights), on the CPU. Both ways save in turn, in one
process, to the same folder; reported are the medians, and their ratio. While a file is written in the background the
training thread works on matrix products, as it would.

Usage: python bench/background_save.py [--rounds 5] [--millions 100]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

import torch
from torch import nn

from dlkit.callbacks import Checkpoint
from dlkit.runs.state import Run


def run_of(millions: int) -> Run:
    side = 5000
    model = nn.ParameterList([nn.Parameter(torch.randn(side, side)) for _ in range(millions // 25)])
    run = Run(
        model,
        {"optimizer": torch.optim.SGD(model.parameters(), 0.1)},
        device=torch.device("cpu"),
        seed=0,
        verbose=False,
    )
    run.capture = lambda: {"model": model.state_dict(), "cursor": run.cursor.step}
    return run


def stall(saver: Checkpoint, run: Run) -> tuple[float, float]:
    """Seconds that a save stops the training thread, and until the file is whole."""
    run.cursor.step += 1
    start = time.perf_counter()
    saver._save(run, None, regular=True)
    stopped = time.perf_counter() - start
    work = torch.randn(1000, 1000)
    while saver._writing is not None and not saver._writing.done():
        work @ work
    saver._join()
    return stopped, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--millions", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = run_of(arguments.millions)
    with tempfile.TemporaryDirectory() as folder:
        savers = {
            kind: Checkpoint(f"{folder}/{kind}", background=kind == "background") for kind in ("blocking", "background")
        }
        times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in savers}
        for number in range(arguments.rounds + 1):
            for kind, saver in savers.items():
                seconds = stall(saver, run)
                if number:  # the first fills the buffers
                    times[kind].append(seconds)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {arguments.millions} M parameters, medians of rounds\n")
    print("| | training stops for | file whole after |\n|---|---|---|")
    for kind, values in times.items():
        stopped, whole = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {kind} | {stopped:.3f} s | {whole:.3f} s |")
    ratio = statistics.median(b[0] / a[0] for a, b in zip(times["blocking"], times["background"], strict=True))
    print(f"\nbackground stops the training for {100 * ratio:.1f} % of what a blocking save takes")


if __name__ == "__main__":
    main()
