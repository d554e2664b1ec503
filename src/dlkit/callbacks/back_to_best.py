"""Back to the best weights with a lower rate, where training no longer gets better."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dlkit._arguments import whole_number
from dlkit._language import Message
from dlkit.callbacks.base import Callback, warn_unmeasured
from dlkit.errors import ArgumentError
from dlkit.runs.history import Row
from dlkit.runs.state import Run

__all__ = ["BackToBest"]


class BackToBest(Callback):
    """On a plateau: back to the best weights, with a lower learning rate; after some plateaus it ends the run.

    `ReduceLROnPlateau` continues from wherever the weights have drifted to; this continues from where they were best.
    What the optimizer has gathered (momentum) stays. The best weights are a part of its saved state, so a run that is
    stopped at any moment continues exactly.

    Args:
        monitor: A value of the history.
        patience: How many validations in a row may fail to improve; at least 1.
        factor: What every rate of the optimizers is then multiplied by.
        times: How often it goes back; the plateau after that ends the run.
        mode: "min" or "max"; None takes the direction from the metric itself.

    Attributes:
        best: The best value seen, None before the first.
        waited: Validations since then, or since it went back.
        gone_back: How often it went back.

    Raises:
        ArgumentError: an invalid argument; at the start of the fit, if nothing measures `monitor`.

    >>> plateau = BackToBest(patience=4, factor=0.25, times=3)
    """

    #: After `Checkpoint`, whose best file must hold the weights that were evaluated, not those it goes back to.
    order = 2000

    needs_whole_model = True

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 4,
        factor: float = 0.25,
        times: int = 3,
        mode: str | None = None,
    ) -> None:
        self.patience = whole_number("patience", patience, least=1, unit="validations")
        self.times = whole_number("times", times, least=0)
        if not 0 < factor <= 1:
            raise ArgumentError(f"factor must be above 0 and at most 1, not {factor!r}")
        self.monitor, self.factor, self.mode = monitor, factor, mode
        self.best: float | None = None
        self.waited = self.gone_back = 0
        self._weights: dict[str, Tensor] = {}
        self._due = False

    def on_fit_start(self, run: Run) -> None:
        self._higher_is_better = run.higher_is_better(self.monitor, self.mode)
        self._go_back_if_due(run)  # it was stopped between the judgement and the way back

    def on_log(self, run: Run, row: Row) -> None:
        if self.monitor not in row:
            warn_unmeasured(self, self.monitor, run, row)
            return
        value = float(row[self.monitor])
        if self._is_better(value):
            self.best, self.waited = value, 0
            state = run.model.state_dict()
            self._weights = {name: tensor.detach().clone() for name, tensor in state.items()}
            return
        self.waited += 1
        if self.waited < self.patience:
            return
        if self.gone_back == self.times:
            best = "no value was finite" if self.best is None else f"best {self.best:.6g}"
            told = Message(
                "no better {monitor} on {plateaus} plateaus ({best})",
                monitor=self.monitor,
                plateaus=self.times + 1,
                best=best,
            )
            run.request_stop(told, final=True)
        else:
            self._due = True

    def on_safe_point(self, run: Run) -> None:
        if self._due:
            self._go_back_if_due(run)

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "waited": self.waited,
            "gone_back": self.gone_back,
            "due": self._due,
            "weights": dict(self._weights),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited, self.gone_back = state["best"], state["waited"], state["gone_back"]
        self._due = state["due"]
        self._weights = {name: tensor.detach().clone() for name, tensor in state["weights"].items()}

    @torch.no_grad()
    def _go_back_if_due(self, run: Run) -> None:
        if not self._due or run.stop_reason is not None:
            return
        self._due, self.waited, self.gone_back = False, 0, self.gone_back + 1
        if self._weights:
            run.model.load_state_dict(self._weights)
        for optimizer in run.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * self.factor
        run.say(
            Message(
                "{monitor} on a plateau: best weights restored, learning rate multiplied by {factor:g}",
                monitor=self.monitor,
                factor=self.factor,
            )
        )

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        return value > self.best if self._higher_is_better else value < self.best
