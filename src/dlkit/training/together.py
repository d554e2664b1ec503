"""What the processes of one run share beside the sums of their steps: batches, a check at the start, and the end."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dlkit._fetching import ELSEWHERE, Mine
from dlkit._version import __version__
from dlkit.errors import ArgumentError, CheckpointError, TrainingError
from dlkit.runs.state import Run
from dlkit.streams import Stream
from dlkit.training.origin import Settings
from dlkit.training.probing import alike, differing, mark_of, marks_of
from dlkit.training.sources import Source, Wrapping

__all__ = ["Dealt", "check", "check_folders", "leave_the_same"]

_SHOWN = 6
_LATE = 5.0  # seconds after which a file on another machine is taken not to come


class Dealt(Wrapping):
    """A source of which each process works on its share of every step's batches, an unbroken run of them.

    Args:
        source: The batches of the whole run.
        run: Says how many batches a step has, and which process this is.
    """

    def __init__(self, source: Source, run: Run) -> None:
        super().__init__(source)
        self._run, self._compared = run, False

    def batches(self, epoch: int, start: int = 0, mine: Mine = None) -> Iterator[Any]:
        world, together = self._run.world, self._run.accumulate
        if world.size == 1:
            return self.source.batches(epoch, start, mine)
        own = frozenset(world.share(together))
        batches = self.source.batches(epoch, start, lambda number: number % together in own)
        return batches if self.source.how == "restored directly" else self._agreed(batches)

    def _agreed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """A stream may end earlier in one process than in another: each has as many steps as that of the longest."""
        world, together = self._run.world, self._run.accumulate
        while True:
            group = list(itertools.islice(batches, together))
            longest = max(row[0] for row in world.numbers([len(group)]))
            self._check_same()
            yield from [*group, *[ELSEWHERE] * (longest - len(group))]
            if longest < together:
                return

    def _check_same(self) -> None:
        """Once: refuse a stream of which each process reads another part; most of it would be passed over."""
        stream: Any = self.source
        while (inner := getattr(stream, "source", None)) is not None:
            stream = inner
        if self._compared or not isinstance(stream, Stream):
            return
        marks = self._run.world.everybodys(None if stream.begins is None else mark_of(stream.begins))
        self._compared, stream.begins = True, None
        known = [(rank, mark) for rank, mark in enumerate(marks) if mark is not None]
        for rank, mark in known:
            if not alike(known[0][1], mark):
                raise TrainingError(
                    f"process {rank} reads another stream than process {known[0][0]}: leave out what splits it by "
                    "rank (split_dataset_by_node, for example), as the Trainer deals the batches; or let the dataset "
                    "say how it is cut, with a method share(place, of)"
                )


def check(run: Run, settings: Settings, identity: Mapping[str, Any], called: nn.Module, source: Source) -> None:
    """Refuse processes that do not train the same run, before the first step.

    Args:
        run: Fresh or resumed.
        settings: What the script says.
        identity: What the run is known by.
        called: What is called in the model's place.
        source: The training data.

    Raises:
        ArgumentError: there are more processes than batches in a step, gradients are sparse, or the model is wrapped
            to be trained by several processes already.
        TrainingError: names the process that differs, and in what.
    """
    world = run.world
    if world.size == 1:
        return
    if world.size > run.accumulate:
        raise ArgumentError(
            f"{world.size} processes share the batches of a step, and there is only {run.accumulate}: with "
            f"accumulate={world.size} and batches of a {world.size}th of the size the step is the same"
        )
    if isinstance(called, DistributedDataParallel):
        raise ArgumentError("pass the model itself, without DistributedDataParallel: the Trainer adds the gradients")
    if hasattr(called, "set_requires_gradient_sync"):
        raise ArgumentError("pass the model itself, and parallel='shard' to the Trainer, which then uses fully_shard")
    if sparse := [name for name, part in run.model.named_modules() if _has_sparse_gradients(part)]:
        raise ArgumentError(
            f"the gradients of {', '.join(sparse)} are sparse, which several processes cannot add up; make them with "
            "sparse=False"
        )
    said = world.everybodys(_described(run, settings, identity))
    marks = world.everybodys(marks_of(source))
    for rank, other in enumerate(said):
        names = [name for name in {**said[0], **other} if other.get(name) != said[0].get(name)]
        told = [f"{name} ({other.get(name)} instead of {said[0].get(name)})" for name in names[:_SHOWN]]
        told += [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
        told += [] if told or (data := differing(marks[0], marks[rank])) is None else [data]
        if told:
            raise TrainingError(f"process {rank} does not train the same run as process 0: {'; '.join(told)}")


def check_folders(run: Run, folders: Sequence[Path]) -> None:
    """Refuse a run folder that not all processes see: they continue from what is in it.

    Args:
        run: Whose leading process has made the folders.
        folders: Of the Checkpoints.

    Raises:
        CheckpointError: names the process and the folder.
    """
    world = run.world
    for folder in folders if world.size > 1 else ():
        mark, *_ = world.everybodys((folder, f".seen-{os.getpid()}-{time.time_ns()}"))
        if world.leads:
            (mark[0] / mark[1]).touch()
        world.wait()
        seen = world.everybodys((_appears(folder / mark[1]), str(folder)))
        if world.leads:
            (mark[0] / mark[1]).unlink(missing_ok=True)
        for rank, (there, name) in enumerate(seen):
            if not there:
                raise CheckpointError(
                    f"process {rank} does not see in {name} what process 0 writes into {mark[0]}: give all processes "
                    "one folder, on a file system that their machines share"
                )


def _appears(path: Path) -> bool:
    """Whether there is a file, which a network's file system may show late."""
    end = time.monotonic() + _LATE
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _has_sparse_gradients(part: nn.Module) -> bool:
    return isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse and part.weight.requires_grad


def _first_samples(run: Run) -> list[Any]:
    known = range(min(3, run.num_batches or 0))
    return [None if (indices := run.indices(0, number)) is None else str(indices[:8]) for number in known]


def _described(run: Run, settings: Settings, identity: Mapping[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for value in run.model.state_dict().values():
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return {
        "dlkit": __version__,
        "torch": torch.__version__,
        "Python": identity["python"],
        "threads of torch": torch.get_num_threads(),
        "seed": run.seed,
        "batches": run.num_batches,
        "place in the run": (run.cursor.epoch, run.cursor.batch, run.cursor.step),
        "samples of the first batches (leave out samplers that share them out)": _first_samples(run),
        "settings": json.dumps(settings.must, default=str, sort_keys=True),
        "weights": digest.hexdigest()[:12],
        **{name: str(value) for name, value in settings.may.items() if name != "seed"},
        **{f"code of {name}": code for name, code in identity["code"].items()},
        **{f"module {name}": module for name, module in identity["modules"].items()},
    }


def leave_the_same(run: Run) -> None:
    """At the end of a fit: the weights that the leading process brought back are those of all.

    Args:
        run: The run.
    """
    if run.world.size == 1:
        return
    run.world.give([value for value in run.model.state_dict().values() if isinstance(value, torch.Tensor)])
    said = run.world.numbers([-1 if run.weights_from is None else run.weights_from, run.asked])
    run.hear(asked for _, asked in said)  # of a signal since the last step
    run.agree()
    run.weights_from = None if said[0][0] < 0 else said[0][0]
    if run.weights_from is not None:
        run.eval_model = run.model
