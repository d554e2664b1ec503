"""What the processes of one run share beside the sums of their steps: batches, a check at the start, and the end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch

from dlkit.errors import ArgumentError, TrainingError
from dlkit.loader import Mine
from dlkit.runs.state import Run
from dlkit.training.sources import Source, Wrapping

__all__ = ["Dealt", "check", "leave_the_same"]


class Dealt(Wrapping):
    """A source of which each process works on its share of every step's batches, an unbroken run of them.

    Args:
        source: The batches of the whole run.
        run: Says how many batches a step has, and which process this is.
    """

    def __init__(self, source: Source, run: Run) -> None:
        super().__init__(source)
        self._run = run

    def batches(self, epoch: int, start: int = 0, mine: Mine = None) -> Iterator[Any]:
        world, together = self._run.world, self._run.accumulate
        if world.size == 1:
            return self.source.batches(epoch, start, mine)
        own = frozenset(world.share(together))
        return self.source.batches(epoch, start, lambda number: number % together in own)


def check(run: Run, settings: Any, *, custom: bool) -> None:
    """Refuse processes that do not train the same run, before the first step.

    Args:
        run: Fresh or resumed.
        settings: What the script says.
        custom: Whether the step is the user's own.

    Raises:
        ArgumentError: there are more processes than batches in a step, or the step is the user's own.
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
    if custom:
        raise ArgumentError("a step of your own cannot be shared by several processes; leave out step=")
    said = world.everybodys(_described(run, settings))
    for rank, other in enumerate(said):
        different = [
            f"{name} ({other[name]} instead of {said[0][name]})" for name in other if other[name] != said[0][name]
        ]
        if different:
            raise TrainingError(f"process {rank} does not train the same run as process 0: {'; '.join(different)}")


def _described(run: Run, settings: Any) -> dict[str, Any]:
    digest = hashlib.sha256()
    for value in run.model.state_dict().values():
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return {
        "torch": torch.__version__,
        "threads of torch": torch.get_num_threads(),
        "seed": run.seed,
        "batches": run.num_batches,
        "place in the run": (run.cursor.epoch, run.cursor.batch, run.cursor.step),
        "settings": json.dumps(getattr(settings, "must", settings), default=str, sort_keys=True),
        "weights": digest.hexdigest()[:12],
    }


def leave_the_same(run: Run) -> None:
    """At the end of a fit: the weights that the leading process brought back are those of all.

    Args:
        run: The run.
    """
    if run.world.size == 1:
        return
    run.world.give([value for value in run.model.state_dict().values() if isinstance(value, torch.Tensor)])
    (step, *_) = run.world.numbers([-1 if run.weights_from is None else run.weights_from])
    run.weights_from = None if step[0] < 0 else step[0]
    if run.weights_from is not None:
        run.eval_model = run.model
