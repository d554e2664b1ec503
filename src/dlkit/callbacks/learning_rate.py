"""Learning rate schedulers of torch, stepped where they belong, with a warm-up."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from dlkit._arguments import instance, whole_number
from dlkit.callbacks.base import Callback, unseen_gradients
from dlkit.errors import ArgumentError
from dlkit.runs.history import Row
from dlkit.runs.state import Run

__all__ = ["LearningRate"]


class LearningRate(Callback):
    """Steps any scheduler of torch: after each optimizer step, after each epoch, or at each validation.

    `Trainer(..., scheduler=...)` takes one of these, or a bare scheduler of torch, which is then stepped per epoch
    (`OneCycleLR` and `CyclicLR` per step, as torch documents them; `ReduceLROnPlateau` at each validation).

    Args:
        scheduler: Made by you on the same optimizer; None for a warm-up alone.
        every: "step" or "epoch". None picks as above. `ReduceLROnPlateau` ignores it.
        monitor: What `ReduceLROnPlateau` looks at.
        warmup: Number of optimizer steps over which the rate rises linearly to the scheduled one. The scheduler counts
            its steps all the while.

    Raises:
        ArgumentError: another `every`, a negative `warmup`, or something that is not a scheduler; at the start of the
            fit, if it was made on another optimizer, or a plateau looks at what nobody measures, or the wrong way.

    >>> import torch
    >>> optim = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> rate = LearningRate(torch.optim.lr_scheduler.CosineAnnealingLR(optim, 100), every="step", warmup=10)
    """

    #: Before the loggers, which write down the rate that a warm-up puts into the row.
    order = -10

    def __init__(
        self,
        scheduler: LRScheduler | None = None,
        *,
        every: str | None = None,
        monitor: str = "val_loss",
        warmup: int = 0,
    ) -> None:
        if scheduler is not None:
            instance("scheduler", scheduler, LRScheduler, "a scheduler of torch.optim.lr_scheduler")
        if every not in (None, "step", "epoch"):
            raise ArgumentError(f"a scheduler is stepped every 'step' or 'epoch', not {every!r}")
        warmup = whole_number("warmup", warmup, least=0, unit="steps")
        self.scheduler: LRScheduler | None = scheduler
        self.monitor, self.warmup = monitor, warmup
        self.plateau = isinstance(scheduler, ReduceLROnPlateau)
        self.every = every or ("step" if isinstance(scheduler, OneCycleLR | CyclicLR) else "epoch")
        self._scheduled: list[Any] = []

    def conflict(self, *, own_step: bool, closure: bool) -> str | None:
        if closure and self.warmup:
            return (
                f"LearningRate(warmup={self.warmup}) sets the rate when the gradients are there, and an "
                "optimizer with a closure has read its rate before; use a scheduler that rises by itself"
            )
        return unseen_gradients(f"LearningRate(warmup={self.warmup})") if own_step and self.warmup else None

    def on_fit_start(self, run: Run) -> None:
        scheduler = self.scheduler
        if scheduler is not None and all(scheduler.optimizer is not optimizer for optimizer in run.optimizers.values()):
            raise ArgumentError(
                "the scheduler was made on an optimizer that is not the run's, so it would change nothing; "
                f"make it on the one you pass: {type(scheduler).__name__}(optimizer, ...)"
            )
        if scheduler is not None:
            # The order is right here by construction, but torch warns when a run is resumed at the end of an epoch, or
            # when the gradient scaler leaves the first step out.
            scheduler.optimizer._opt_called = True  # type: ignore[attr-defined]
        if isinstance(scheduler, ReduceLROnPlateau):
            own = scheduler.mode if run.directions.get(self.monitor, False) is None else None
            higher = run.higher_is_better(self.monitor, own)  # raises where nobody measures it, and names what there is
            wanted = "max" if higher else "min"
            if scheduler.mode != wanted:
                raise ArgumentError(
                    f"ReduceLROnPlateau(mode={scheduler.mode!r}) has the wrong direction: of {self.monitor!r} "
                    f"{'higher' if higher else 'lower'} is better; make it with mode={wanted!r}"
                )

    def on_gradients(self, run: Run) -> None:
        if run.step < self.warmup:
            factor = (run.step + 1) / self.warmup
            groups = [group for optimizer in run.optimizers.values() for group in optimizer.param_groups]
            self._scheduled = [group["lr"] for group in groups]
            for group in groups:
                group["lr"] = group["lr"] * factor

    def on_step_end(self, run: Run) -> None:
        if self._scheduled:
            groups = [group for optimizer in run.optimizers.values() for group in optimizer.param_groups]
            for group, rate in zip(groups, self._scheduled, strict=True):
                group["lr"] = rate
            self._scheduled = []
        if self.every == "step" and self.scheduler is not None and not self.plateau:
            self.scheduler.step()

    def on_log(self, run: Run, row: Row) -> None:
        """Show a plateau the value that all callbacks see, and the history the rate that a warm-up makes."""
        if run.step < self.warmup:
            row["lr"] *= (run.step + 1) / self.warmup  # as the coming step will have it
        if isinstance(self.scheduler, ReduceLROnPlateau) and self.monitor in row:
            self.scheduler.step(row[self.monitor])

    def on_epoch_end(self, run: Run) -> None:
        if self.every == "epoch" and self.scheduler is not None and not self.plateau:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scheduler is None else {"scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
