"""What a step on several processes costs: dlkit beside torch's DistributedDataParallel with the same small batches.

Two processes over gloo, one thread each, `accumulate` batches a step; in each round both contenders take their steps in
turn in the same two processes. DDP adds gradients once a step (`no_sync` before), as one would write it by hand.
Reported is the median over rounds of the median step, and of its ratio to DDP's in the same round; and one process with
dlkit to one without, for what the fixed tree costs alone. Two minutes and a half on two cores, most of it ResNet-18's.

Usage: python bench/distributed.py [--rounds 5] [--steps N] [--accumulate 4] [--models mlp cnn resnet18]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from statistics import median
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

STEPS = {"mlp": 40, "cnn": 24, "resnet18": 8}  # of a contender in a round; the first quarter warms up


def make(name: str) -> tuple[nn.Module, tuple[int, ...], int]:
    """A model, the shape of its samples, and how many a small batch has."""
    torch.manual_seed(0)
    if name == "mlp":
        return (
            nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)),
            (64,),
            64,
        )
    if name == "cnn":
        blocks = [(3, 32), (32, 64), (64, 128), (128, 256)]
        layers = [
            layer
            for i, o in blocks
            for layer in (nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2))
        ]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10)), (3, 32, 32), 16
    from torchvision.models import resnet18

    return resnet18(num_classes=10), (3, 64, 64), 8


def batches(shape: tuple[int, ...], size: int, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    ready = [(torch.randn(size, *shape), torch.randint(0, 10, (size,))) for _ in range(8)]
    return [ready[number % 8] for number in range(count)]


def with_dlkit(name: str, steps: int, accumulate: int) -> list[float]:
    from dlkit import Trainer
    from dlkit.callbacks import Callback

    class Clock(Callback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, run: Any) -> None:
            self.times.append(time.perf_counter())

    model, shape, size = make(name)
    clock = Clock()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with contextlib.redirect_stderr(io.StringIO()):
        Trainer(
            model, nn.CrossEntropyLoss(), optimizer, accumulate=accumulate, callbacks=[clock], device="cpu"
        ).fit(batches(shape, size, steps * accumulate))  # fmt: skip
    return clock.times


def by_hand(name: str, steps: int, accumulate: int) -> list[float]:
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    model, shape, size = make(name)
    if world > 1:
        model = DistributedDataParallel(model)
    loss, optimizer, times = nn.CrossEntropyLoss(), torch.optim.AdamW(model.parameters(), 1e-3), []
    data = batches(shape, size, steps * accumulate)
    own = range(accumulate * rank // world, accumulate * (rank + 1) // world)
    for step in range(steps):
        for place in own:
            x, y = data[step * accumulate + place]
            last = place == own[-1] or world == 1
            with contextlib.nullcontext() if last else model.no_sync():
                (loss(model(x), y) / len(own)).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
    return times


def work(name: str, rounds: int, steps: int, accumulate: int) -> None:
    """Print for each round the median step of the loop by hand and of dlkit."""
    torch.set_num_threads(1)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        dist.init_process_group("gloo")
    found = []
    for _ in range(rounds):
        took = [contender(name, steps, accumulate) for contender in (by_hand, with_dlkit)]
        found.append([median(b - a for a, b in itertools.pairwise(times[steps // 4 :])) for times in took])
    if several:
        gc.collect()  # what still holds the group would abort the process at its end
        dist.barrier()
        dist.destroy_process_group()
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(found))


def raw(name: str, rounds: int, steps: int) -> None:
    """Print for each round the median time of torch's `all_reduce` and of dlkit's exchange, of a model's gradients."""
    from dlkit.distributed import World, joined
    from dlkit.training.exchanging import Exchange, Notice
    from dlkit.training.summing import Tree

    torch.set_num_threads(1)
    like = [torch.zeros_like(each) for each in make(name)[0].parameters()]
    flat, world, found = torch.ones(sum(each.numel() for each in like)), World.of_environment(), []
    with joined(world, torch.device("cpu")):
        exchange = Exchange(world, world.size)
        for _ in range(rounds):
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(steps):
                tree = Tree()
                tree.add(world.rank, [each + 1 for each in like])
                for kept, call in zip(
                    times, (lambda: dist.all_reduce(flat), lambda t=tree: exchange(t, like, Notice())), strict=True
                ):
                    dist.barrier()
                    began = time.perf_counter()
                    call()
                    kept.append(time.perf_counter() - began)
            found.append([median(each) for each in times])
        dist.barrier()
    if world.leads:
        print(json.dumps(found))


def measured(name: str, size: int, rounds: int, steps: int, accumulate: int, what: str = "--work") -> list[list[float]]:
    command = [sys.executable, __file__, what, "--models", name, "--rounds", str(rounds), "--steps", str(steps)]
    command += ["--accumulate", str(accumulate)]
    if size > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of a contender in a round, for all models")
    parser.add_argument("--accumulate", type=int, default=4)
    parser.add_argument("--models", nargs="+", default=["mlp", "cnn", "resnet18"])
    parser.add_argument("--work", action="store_true")
    parser.add_argument("--raw", action="store_true")
    given = parser.parse_args()
    if given.raw:
        raw(given.models[0], given.rounds, given.steps)
        return
    if given.work:
        work(given.models[0], given.rounds, given.steps, given.accumulate)
        return
    print(f"torch {torch.__version__}, {os.cpu_count()} cores ({platform.machine()}), gloo, one thread a process")
    print(f"{given.accumulate} batches a step, {given.rounds} rounds of {given.steps or STEPS} steps\n")
    print("| model (parameters) | DDP, 2 processes | dlkit, 2 | ratio | by hand, 1 process | dlkit, 1 | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in given.models:
        parameters = sum(p.numel() for p in make(name)[0].parameters())
        cells = []
        for size in (2, 1):
            rows = measured(name, size, given.rounds, given.steps or STEPS[name], given.accumulate)
            hand, own = (median(column) * 1e3 for column in zip(*rows, strict=True))
            cells.append(f"{hand:.2f} ms | {own:.2f} ms | {median(row[1] / row[0] for row in rows):.2f}")
        print(f"| {name} ({parameters / 1e6:.2f} M) | {' | '.join(cells)} |", flush=True)
    print("\n| gradients of, between 2 processes | all_reduce | dlkit's exchange | ratio |")
    print("|---|---|---|---|")
    for name in given.models:
        rows = measured(name, 2, given.rounds, given.steps or STEPS[name], given.accumulate, "--raw")
        torchs, own = (median(column) * 1e3 for column in zip(*rows, strict=True))
        print(
            f"| {name} | {torchs:.2f} ms | {own:.2f} ms | {median(row[1] / row[0] for row in rows):.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
