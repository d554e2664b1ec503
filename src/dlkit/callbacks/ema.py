"""An exponential moving average of the weights."""

from __future__ import annotations

from typing import Any

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dlkit.callbacks.base import Callback
from dlkit.errors import ArgumentError
from dlkit.runs.parts import buffers_of, load_buffers
from dlkit.runs.state import Run

__all__ = ["EMA"]


class EMA(Callback):
    """Keeps a moving average of the weights (Polyak and Juditsky 1992), and validates with it.

    Validations, and therefore early stopping and the best checkpoint, all use the average, and so the average is what
    the model holds when the fit ends (that of the best validation, where a `Checkpoint` restores it). Training
    continues from the raw weights, also in a further fit. Buffers (BatchNorm statistics) are averaged as well.

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

    def on_setup(self, run: Run) -> None:
        """Judge by the average of an earlier fit, so that it is left again however this one ends."""
        if self._average is not None:
            run.eval_model = self._average.module

    def on_fit_start(self, run: Run) -> None:
        if self._average is None or self._saved is not None:
            self._average = AveragedModel(run.model, multi_avg_fn=_of_own_rows(self.decay), use_buffers=True)
        if self._saved is not None:
            self._average.module.load_state_dict(self._saved["average"])
            load_buffers(self._average.module, self._saved.get("buffers", {}))
            self._average.n_averaged.fill_(self._saved["steps"])
            self._saved = None
        run.eval_model = self._average.module

    def on_step_end(self, run: Run) -> None:
        if self._average is not None:
            self._average.update_parameters(run.model)

    def state_dict(self) -> dict[str, Any]:
        if self._saved is not None:  # taken back, and the fit that will use it has not begun
            return self._saved
        if self._average is None:
            return {}
        average, steps = self._average.module, int(self._average.n_averaged)
        return {"average": average.state_dict(), "buffers": buffers_of(average), "steps": steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved = state


def _of_own_rows(decay: float) -> Any:
    """torch's update; of a model that several processes share out each averages the rows that it holds."""
    update = get_ema_multi_avg_fn(decay)

    def own(tensors: Any) -> list[Any]:
        return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]

    return lambda averages, now, number: update(own(averages), own(now), number)
