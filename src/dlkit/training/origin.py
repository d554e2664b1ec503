"""What a script says of its run, noted before any training has changed it: what a resume is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from dlkit.callbacks.base import Callback
from dlkit.runs.every import Every
from dlkit.runs.state import Run
from dlkit.storage.identity import of_tensor
from dlkit.training.identity import identity_of
from dlkit.training.schedules import ScriptRates, schedules_of
from dlkit.training.sources import Source

__all__ = ["Origin", "Settings", "named"]

_SHOWN_VALUES = 64
# The parameters, and what schedules write into the groups.
_NO_SETTINGS = frozenset({"params", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run was set up.

    Attributes:
        must: Must be the same when it is resumed: data, model, optimizers, accumulation.
        may: May differ, and is then told with both values: seed, rates, callbacks, precision.
    """

    must: dict[str, Any]
    may: dict[str, Any]


class Origin:
    """What a run was made from.

    Args:
        run: As it was made, before any training.
        callbacks: All of them, with schedules that have not been stepped.
        loss: As given to the Trainer.
        step: As given to the Trainer.
        given: Further settings that may differ when the run is resumed.

    Attributes:
        rates: The settings of optimizers and schedules.
        identity: What the run is known by.
    """

    def __init__(self, run: Run, callbacks: Sequence[Callback], *, loss: Any, step: Any, **given: Any) -> None:
        self.rates = ScriptRates(run.optimizers)
        self.identity = identity_of(run, loss=loss, step=step)
        self._given = {**_rates_of(run.optimizers), **schedules_of(callbacks), **given, **_loss_settings(run, loss)}

    def settings(
        self, run: Run, source: Source, val: Source | None, callbacks: Sequence[Callback], every: Every
    ) -> Settings:
        """Describe the run as it is set up for a fit.

        Args:
            run: The run.
            source: The training data.
            val: The validation data.
            callbacks: All of them.
            every: When it validates.
        """
        optimizers = {name: _structure(optimizer) for name, optimizer in run.optimizers.items()}
        must: dict[str, Any] = {"data": source.describe(), "model": _shapes(run.model), "optimizer": optimizers}
        parts = {name: _shapes(part) for name, part in run.parts.items() if part.state_dict()}
        must |= {"accumulate": run.accumulate, "parts": parts}
        may = {"seed": run.seed, **self._given, "validate every": f"{every.number} {every.unit}"}
        may |= {"validation data": None if val is None else val.describe()}
        listed = [name for name, callback in named(callbacks).items() if callback.changes_numbers]
        return Settings(must=must, may={**may, "callbacks": listed})


def named(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """Callbacks under the names their state is saved by: the class, numbered from the second of a kind on.

    Args:
        callbacks: In the order of the list.
    """
    result: dict[str, Callback] = {}
    for callback in callbacks:
        name = type(callback).__name__
        count = sum(1 for other in result.values() if type(other).__name__ == name)
        result[f"{name} {count + 1}" if count else name] = callback
    return result


def _rates_of(optimizers: Mapping[str, Optimizer]) -> dict[str, Any]:
    """The learning rates, weight decays and so on of optimizers as they are now."""
    return {
        f"{name}, group {number}, {key}" if len(optimizer.param_groups) > 1 else key: value
        for name, optimizer in optimizers.items()
        for number, group in enumerate(optimizer.param_groups)
        for key, value in group.items()
        if key not in _NO_SETTINGS and isinstance(value, int | float | bool | str | tuple | list | type(None))
    }


def _loss_settings(run: Run, loss: Any) -> dict[str, Any]:
    """What a loss was made with: its numbers and texts, and the values of its buffers, such as class weights."""
    plain = vars(loss).items() if isinstance(loss, nn.Module) else ()
    settings = {
        f"loss, {name}": value
        for name, value in plain
        if isinstance(value, int | float | str) and not name.startswith("_") and name != "training"
    }
    for part, value in run.parts.items():
        buffers = value.named_buffers() if part.partition(".")[0] == "loss" and isinstance(value, nn.Module) else ()
        settings |= {f"state of {part}, {name}": _values(buffer) for name, buffer in buffers}
    return {"loss": type(loss).__name__, **settings}


def _values(buffer: Tensor) -> Any:
    return buffer.tolist() if buffer.numel() <= _SHOWN_VALUES else of_tensor(buffer)


def _shapes(part: Any) -> dict[str, Any]:
    """The tensors of a `state_dict`; of one that may grow and shrink only that there is one."""
    if not isinstance(part, nn.Module):
        return {"state of": type(part).__name__}
    return {name: list(value.shape) for name, value in part.state_dict().items() if hasattr(value, "shape")}


def _structure(optimizer: Optimizer) -> dict[str, Any]:
    shapes = [[list(parameter.shape) for parameter in group["params"]] for group in optimizer.param_groups]
    return {"class": type(optimizer).__name__, "parameters": shapes}
