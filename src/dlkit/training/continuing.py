"""Resuming: which saved state a fit takes, and what it reports."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from dlkit import rng
from dlkit._language import Message
from dlkit._showing import Lines
from dlkit.callbacks.base import Callback
from dlkit.errors import ArgumentError, CheckpointError, DamagedCheckpointError
from dlkit.runs.checkpointfile import CheckpointWarning, load_checkpoint
from dlkit.runs.judged import take_trained_back
from dlkit.runs.state import Run
from dlkit.runs.store import CheckpointStore
from dlkit.training.resuming import Script, restore
from dlkit.training.sources import Source

__all__ = ["go_on", "same_threads"]


def go_on(
    run: Run,
    source: Source,
    val: Source | None,
    callbacks: Sequence[Callback],
    stores: Sequence[CheckpointStore],
    how: Any,
    script: Script,
) -> int | None:
    """Put the run back to the newest good state, if there is one; returns how many epochs it was to have then.

    Args:
        run: The run.
        source: The training data.
        val: The validation data.
        callbacks: All of them.
        stores: The folders of the run; the first is the one that it continues from.
        how: As given to `fit`; None for a rehearsal, which continues from nothing.
        script: What the script says.

    Raises:
        CheckpointError: there is nothing to resume from, or nothing of it can be used.
        ResumeError: the saved run and the script do not fit.
    """
    for name, state in _saved_states(run, stores, how):
        try:
            told = restore(run, state, source, callbacks, script)
        except DamagedCheckpointError as error:
            if script.names_file:
                raise type(error)(f"{name} cannot be used: {error}") from error
            if run.world.leads:
                warnings.warn(
                    Message("{name}: {error}; trying the previous one", name=name, error=error),
                    CheckpointWarning,
                    stacklevel=5,
                )
            continue
        run.trained = None  # the file knows better
        source.seed = run.seed
        if val is not None:
            val.seed = rng.derive(run.seed, rng.EVALUATE)
        _tell(run, source, name, [*told, *_threads(run, state.get("threads"))])
        return state.get("epochs")
    take_trained_back(run)
    return None


@contextlib.contextmanager
def same_threads() -> Iterator[None]:
    """Leave torch with the number of threads that it had, whatever a resumed run has set."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _saved_states(run: Run, stores: Sequence[CheckpointStore], how: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What a fit may continue from, best first; whoever takes none of several has none that can be used."""
    if how is None:  # a dry run
        return
    if how is False and run.step:
        raise ArgumentError(
            f"this Trainer has trained {run.step} steps already, which its model, optimizer and callbacks "
            "remember; to start over make a new model, optimizer and Trainer"
        )
    if not run.world.leads:
        for store in stores:
            store.follow()
    if how is False:
        for moved in filter(None, [store.archive() for store in stores if run.world.leads]):
            run.say(Message("starting over; the earlier run was moved to {folder}", folder=moved))
        return
    if how not in ("auto", True):
        yield str(how), load_checkpoint(how)
        return
    for store in stores:
        for entry, state in store.loadable():
            yield str(store.folder / entry.file), state
    where = " or ".join(str(store.folder) for store in stores)
    if count := sum(len(store.entries) for store in stores):
        raise CheckpointError(
            f"none of the {count} checkpoints in {where} can be used; "
            "fit(..., resume=False) starts over and moves them aside"
        )
    if how is True:
        where = f"in {where}" if stores else "because there is no Checkpoint callback"
        raise CheckpointError(f"resume=True, but there is nothing to resume {where}")


def _tell(run: Run, source: Source, name: str, differences: list[str]) -> None:
    cursor = run.cursor
    told = Message(
        "resumed from {name}: epoch {epoch}, batch {batch}, step {step}{way}",
        name=name,
        epoch=cursor.epoch + 1,
        batch=cursor.batch,
        step=cursor.step,
        way=Message(", data position {how}", how=source.how) if cursor.batch else "",
    )
    lines = Lines.of(told, *(f"  {difference}" for difference in differences))
    if differences:
        run.tell(lines)
    else:
        run.say(lines)


def _threads(run: Run, saved: int | None) -> list[str]:
    """A sum over two threads rounds differently from one over one, so the saved number is a part of the run."""
    now = torch.get_num_threads()
    if saved is None or saved == now or run.device.type != "cpu":
        return []
    told = f"threads of torch: saved {saved}, this process has {now}"
    if saved > _processors():
        return [f"{told}; the new ones hold, as there are not so many processors, and the last digits may differ"]
    torch.set_num_threads(saved)
    return [f"{told}; the saved ones hold in this fit"]


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):  # what this process may use, which is less than there are in a container
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
