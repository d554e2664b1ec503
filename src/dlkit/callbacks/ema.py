"""An exponential moving average of the weights."""

from __future__ import annotations

from typing import Any

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dlkit.callbacks.base import Callback
from dlkit.errors import ArgumentError
from dlkit.runs.state import Run

__all__ = ["EMA"]


class EMA(Callback):
    """Keeps a moving average of the weights (Polyak and Juditsky 1992), and validates with it.

    Validations, and therefore early stopping, the best checkpoint and the weights that come back at the end, all use
    the average; training goes on with the raw weights. Buffers (BatchNorm statistics) are averaged as well.

    Args:
        decay: The share that the average keeps in a step; 0.999 looks back over about 1,000 steps.

    >>> ema = EMA(decay=0.99)
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ArgumentError(f"decay must lie between 0 and 1, not {decay}")
        self.decay = decay
        self._average: AveragedModel | None = None
        self._saved: dict[str, Any] | None = None

    def on_fit_start(self, run: Run) -> None:
        """Copy the model, or take the saved average.

        Args:
            run: The run.
        """
        if self._average is None or self._saved is not None:
            average = get_ema_multi_avg_fn(self.decay)
            self._average = AveragedModel(run.model, multi_avg_fn=average, use_buffers=True)
        if self._saved is not None:
            self._average.module.load_state_dict(self._saved["average"])
            self._average.n_averaged.fill_(self._saved["steps"])
            self._saved = None
        run.eval_model = self._average.module

    def on_step_end(self, run: Run) -> None:
        """Take the new weights in.

        Args:
            run: The run.
        """
        if self._average is not None:
            self._average.update_parameters(run.model)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of steps in it."""
        if self._saved is not None:  # taken back, and the fit that will use it has not begun
            return self._saved
        if self._average is None:
            return {}
        return {"average": self._average.module.state_dict(), "steps": int(self._average.n_averaged)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the saved average for the start of the fit.

        Args:
            state: What `state_dict` returned.
        """
        self._saved = state
