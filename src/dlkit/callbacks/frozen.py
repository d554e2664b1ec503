"""The check that a frozen model trains as it was meant to."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from dlkit._showing import few
from dlkit.callbacks.base import Callback
from dlkit.errors import TrainingError
from dlkit.runs.state import Run
from dlkit.transfer.freezing import frozen_tensors, is_frozen
from dlkit.transfer.groups import warn_of_unheld

__all__ = ["CheckFrozen"]


class CheckFrozen(Callback):
    """Looks, once per stage of a frozen model, whether the right things are trained.

    The Trainer has it by itself wherever something is frozen. In the first step of a stage (the start of a fit, and
    whenever other parts are frozen) every trainable parameter must be in exactly one group of an optimizer and get a
    gradient, or a warning names those that do not. After that step, and at the end of the stage, no frozen parameter
    and no frozen buffer may have changed.

    Raises:
        TrainingError: a frozen tensor changed, or a trainable parameter is in several groups; names them.

    >>> check = CheckFrozen()
    """

    def __init__(self) -> None:
        self._names: frozenset[str] | None = None
        self._sums: dict[str, int] = {}
        self._first_step = self._later = False

    def conflict(self, *, own_step: bool, closure: bool) -> str | None:
        return None  # where it sees no gradients, it looks at the tensors alone

    def on_fit_start(self, run: Run) -> None:
        self._names, self._sums = None, {}
        self._first_step = self._later = False

    def on_epoch_start(self, run: Run) -> None:
        frozen = frozen_tensors(run.model) if is_frozen(run.model) else {}
        if self._names is not None and frozenset(frozen) == self._names:
            return
        self._compare(run)  # the end of the stage before: what is thawed now was not to change until now
        self._later = self._names is not None
        self._names, self._first_step = frozenset(frozen), bool(frozen)
        self._sums = _sums(frozen)

    def on_gradients(self, run: Run) -> None:
        if self._first_step:
            self._check_gradients(run)

    def on_step_end(self, run: Run) -> None:
        if self._first_step:
            self._first_step = False
            self._compare(run)

    def on_epoch_end(self, run: Run) -> None:
        if run.epoch + 1 >= run.epochs or run.stop_reason is not None:
            self._compare(run)

    def _compare(self, run: Run) -> None:
        if not self._sums:
            return
        tensors = {**dict(run.model.named_parameters()), **dict(run.model.named_buffers())}
        now = _sums({name: tensors[name] for name in self._sums if name in tensors})
        changed = [name for name, value in self._sums.items() if now.get(name) != value]
        if changed:
            raise TrainingError(
                f"frozen tensors have changed by step {run.step}: {few(changed, 5)}; something other than the "
                "optimizer writes to them, or requires_grad was switched on again (use dlkit.transfer.unfreeze)"
            )

    def _check_gradients(self, run: Run) -> None:
        groups = [group for optimizer in run.optimizers.values() for group in optimizer.param_groups]
        held = [id(parameter) for group in groups for parameter in group["params"]]
        learning = {name: each for name, each in run.model.named_parameters() if each.requires_grad}
        twice = [name for name, parameter in learning.items() if held.count(id(parameter)) > 1]
        if twice:
            raise TrainingError(f"parameters in more than one group of the optimizers: {few(twice, 5)}")
        without = [name for name, parameter in learning.items() if parameter.grad is None]
        if without and run.world.leads:
            warnings.warn(
                f"trainable, but without a gradient in the first step: {few(without, 5)}; are they used in forward?",
                stacklevel=2,
            )
        if self._later and run.world.leads:  # of the first stage the Trainer has told
            warn_of_unheld(learning, run.optimizers)


def _sums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: _sum(tensor) for name, tensor in tensors.items()}


def _sum(tensor: Tensor) -> int:
    own = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # of one in shares each process looks at its own
    value = own.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(value.view(torch.uint8).numpy().data) if value.numel() else 0
