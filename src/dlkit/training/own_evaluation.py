"""An evaluation of the user's own: what a batch is worth, instead of model, loss and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlkit._layer_errors import explain
from dlkit.runs.state import Run
from dlkit.training.batches import check_scalar
from dlkit.training.counting import Counting

__all__ = ["OwnEvaluation"]


class OwnEvaluation:
    """What the user says of a batch, and what the batch counts in the means of that.

    Args:
        function: `eval_step(run, batch)`, returning a number, a scalar tensor, or a dict of named ones.
        count: What a batch counts; by default its number of samples.
    """

    def __init__(self, function: Callable[[Run, Any], Any], count: Callable[[Any], Any] | None) -> None:
        self.function, self.counting = function, Counting(None, count)

    def __call__(self, run: Run, batch: Any) -> tuple[Any, Any]:
        """The values and the count.

        Args:
            run: The run.
            batch: On the device.
        """
        try:
            values = self.function(run, batch)
        except Exception as error:
            explain(error, run.eval_model, batch)
            raise
        found = {name: _number(each) for name, each in values.items()} if isinstance(values, dict) else _number(values)
        return found, self.counting(batch)


def _number(value: Any) -> Tensor:
    """A number as it is read later; one of Python's keeps all its digits."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return torch.tensor(float(value), dtype=torch.float64)
    return check_scalar(value).detach()
