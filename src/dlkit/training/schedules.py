"""Whose learning rates hold when a run continues, and whether a schedule reaches as far as the run shall."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_rates

from dlkit.callbacks.base import Callback
from dlkit.callbacks.learning_rate import LearningRate
from dlkit.errors import ArgumentError, ResumeError
from dlkit.runs.state import Run
from dlkit.training.identity import code_of

__all__ = ["ScriptRates", "check_schedules", "planned", "put_functions", "schedules_of"]

# What moves while a schedule is stepped, or is given by the optimizer; the rest is how it was planned.
_MOVING = frozenset(
    [
        "last_epoch",
        "_step_count",
        "_last_lr",
        "_get_lr_called_within_step",
        "_is_initial",
        "base_lrs",
        "best",
        "num_bad_epochs",
        "cooldown_counter",
        "T_cur",
        "min_lrs",
        "default_min_lr",
        "lr_lambdas",
        "_schedulers",
        "_scale_fn_ref",
        "_scale_fn_custom",
    ]
)
_NOTHING = 1e-8  # a factor at which nothing is learned any more
_ENDS = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps", "PolynomialLR": "total_iters"}


class ScriptRates:
    """The settings of the optimizers, and the schedules, as the script made them.

    Args:
        optimizers: By name, before any training.
    """

    def __init__(self, optimizers: Mapping[str, Optimizer]) -> None:
        self._groups: dict[str, list[dict[str, Any]]] = {name: [] for name in optimizers}
        self.complete(optimizers)

    def complete(self, optimizers: Mapping[str, Optimizer]) -> None:
        """Take in groups that were added when the run was set up.

        Args:
            optimizers: By name.
        """
        for name, optimizer in optimizers.items():
            known = self._groups[name]
            for group in optimizer.param_groups[len(known) :]:
                known.append({key: copy.copy(value) for key, value in group.items() if key != "params"})

    def put(self, run: Run, callbacks: Sequence[Callback]) -> None:
        """Let them hold for a run that has been put back: each schedule stands where it would after as many steps.

        Args:
            run: At its position.
            callbacks: Of which those that step a schedule begin as the script made them.
        """
        for name, optimizer in run.optimizers.items():
            for group, settings in zip(optimizer.param_groups, self._groups[name], strict=True):
                group.update(copy.copy(settings))
        for callback in planned(callbacks):
            callback.scheduler.optimizer._opt_called = True  # else torch warns
            for _ in range(run.step if callback.every == "step" else run.epoch):
                callback.scheduler.step()


def planned(callbacks: Sequence[Callback]) -> list[Any]:
    """The `LearningRate`s whose schedule is planned beforehand: not that of a plateau, which follows what is measured.

    Args:
        callbacks: All of them.
    """
    return [each for each in callbacks if isinstance(each, LearningRate) and each.scheduler and not each.plateau]


def schedules_of(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """How the schedules were made, as settings of the run that can be compared.

    Args:
        callbacks: All of them, with schedules that have not been stepped.
    """
    schedules = [callback.scheduler for callback in callbacks if callback.scheduler is not None]
    settings: dict[str, Any] = {"schedule": [type(each).__name__ for each in schedules]}
    for scheduler, place in itertools.chain.from_iterable(map(_all_in, schedules)):
        values = scheduler.state_dict().items()
        settings |= {f"schedule, {place}, {key}": value for key, value in values if _is_setting(key, value)}
        functions = [_described(each) for each in getattr(scheduler, "lr_lambdas", ())]
        settings |= {f"schedule, {place}, function": functions} if functions else {}
    return settings


def put_functions(callbacks: Sequence[Callback]) -> None:
    """Let the functions of the script hold from the first step on: a saved state has the rate, but not the function.

    Args:
        callbacks: All of them, with their saved states.
    """
    for scheduler in (callback.scheduler for callback in callbacks):
        if isinstance(scheduler, torch_rates.LambdaLR):
            groups, factors = scheduler.optimizer.param_groups, scheduler.lr_lambdas
            for group, factor, base in zip(groups, factors, scheduler.base_lrs, strict=False):
                group["lr"] = base * factor(scheduler.last_epoch)  # as torch does: the same function gives the same


def check_schedules(run: Run, callbacks: Sequence[Callback], before: int | None, epochs: int) -> None:
    """Refuse a run that is longer than the one a schedule was planned for, before it is trained.

    Args:
        run: At its position.
        callbacks: All of them, with the schedules that hold.
        before: How many epochs the run was to have when it was last trained; None for one that begins.
        epochs: How many it shall have now.

    Raises:
        ArgumentError: a `OneCycleLR` has fewer steps than a run that begins.
        ResumeError: a schedule ends where the shorter run did.
    """
    for callback in planned(callbacks):
        wanted, had = _length(run, callback, epochs), _length(run, callback, before)
        end, name = _end(callback.scheduler, had), type(callback.scheduler).__name__
        if end is None or wanted is None or end >= wanted:
            continue
        unit = "steps" if callback.every == "step" else "epochs"
        if had is not None and before is not None and before < epochs and end >= had - 1:
            raise ResumeError(_longer(name, end, wanted, unit, before, epochs))
        if isinstance(callback.scheduler, torch_rates.OneCycleLR):
            raise ArgumentError(
                f"OneCycleLR was made for {end} steps and cannot continue after them; {epochs} epochs are {wanted} "
                f"{unit}: make it with total_steps={wanted}"
            )


def _longer(name: str, end: int, wanted: int, unit: str, before: int, epochs: int) -> str:
    return (
        f"{name} was planned for {end} {unit}, when the run was to have {before} epochs; now it shall have {epochs}, "
        f"which are {wanted} {unit}, and the rate would leave its plan. Two ways: make the schedule for {wanted} "
        f"{unit}, with a new optimizer and Trainer, and continue with fit(..., rates='script'), which takes the rate "
        f"where that schedule then stands; or keep epochs={before}, and train a longer run from its beginning in "
        "another folder"
    )


def _length(run: Run, callback: LearningRate, epochs: int | None) -> int | None:
    """The steps that a schedule takes in so many epochs; None if unknown."""
    if epochs is None or callback.every == "epoch":
        return epochs
    return None if run.num_batches is None else epochs * math.ceil(run.num_batches / run.accumulate)


def _end(scheduler: Any, had: int | None) -> int | None:
    """After how many steps a schedule has come to the end it was planned for; None for one that has none."""
    if isinstance(scheduler, torch_rates.SequentialLR):
        last = _end(scheduler._schedulers[-1], None if had is None else had - scheduler._milestones[-1])
        return None if last is None else int(scheduler._milestones[-1]) + last
    if isinstance(scheduler, torch_rates.ChainedScheduler):
        return max((end for each in scheduler._schedulers if (end := _end(each, had)) is not None), default=None)
    if isinstance(scheduler, torch_rates.LinearLR):  # one that rises is a warm-up, and stays where it is
        return int(scheduler.total_iters) if scheduler.end_factor < scheduler.start_factor else None
    if isinstance(scheduler, torch_rates.LambdaLR):
        ends = had is not None and all(abs(factor(had)) < _NOTHING for factor in scheduler.lr_lambdas)
        return had if ends else None
    name = _ENDS.get(type(scheduler).__name__)
    return None if name is None else int(getattr(scheduler, name))


def _all_in(scheduler: Any) -> Iterator[tuple[Any, str]]:
    inner = getattr(scheduler, "_schedulers", ())
    name = type(scheduler).__name__
    yield scheduler, name
    for number, each in enumerate(inner):
        yield from ((part, f"{name} {number + 1}, {place}") for part, place in _all_in(each))


def _described(function: Any) -> str:
    """A factor of a schedule: what it does, and the numbers it was made with, such as the steps of the run."""
    if isinstance(function, functools.partial):
        numbers = [*map(repr, function.args), *(f"{name}={value!r}" for name, value in function.keywords.items())]
        return f"{_described(function.func)}({', '.join(numbers)})"
    return f"{getattr(function, '__qualname__', type(function).__qualname__)} {code_of(function)}".strip()


def _is_setting(key: str, value: Any) -> bool:
    items = value if isinstance(value, list | tuple) else [value]
    return key not in _MOVING and all(isinstance(item, int | float | str | bool | type(None)) for item in items)
