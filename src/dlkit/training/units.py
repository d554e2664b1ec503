"""The unit of what is reported: a regression on a scaled target is measured and predicted in the target's own unit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlkit._shapes import shape_of
from dlkit.errors import TrainingError
from dlkit.objective import Objective, logits_in

__all__ = ["Unit"]


class Unit:
    """From the numbers that the loss compares to those that the data's file holds.

    Args:
        target: The `Target` of a table's spec; None where nothing is scaled.
        objective: What the loss says of the output.

    Raises:
        TrainingError: a scaled target, and a loss that takes the output for a logarithm.

    >>> Unit(None, Objective()).pair(1, 2)
    (1, 2)
    """

    def __init__(self, target: Any, objective: Objective) -> None:
        scaled = getattr(target, "task", None) == "regression" and (any(target.center) or set(target.scale) != {1.0})
        self._target: Any = target if scaled else None
        if scaled and objective.form == "logarithms":
            raise TrainingError(
                "the loss interprets the output as the logarithm of a count, and the target is scaled around its mean; "
                "read the table with scale_target=False"
            )

    def pair(self, output: Any, target: Any) -> tuple[Any, Any]:
        """Output and target of a batch for the metrics, in float64 where they are scaled back.

        Args:
            output: The model's output; or an object or a dict that has it as "logits".
            target: Of the same shape.

        Raises:
            TrainingError: the output has another shape than the target, so that its unit is not known.
        """
        if self._target is None:
            return output, target
        logits = logits_in(output)
        values = output if logits is None else logits
        if not isinstance(values, Tensor) or not isinstance(target, Tensor) or not self._fits(values):
            raise TrainingError(
                f"metrics are reported in the unit of the target, and of an output {shape_of(values)} for a target "
                f"{shape_of(target)} the unit is not known; {_WAY}"
            )
        return self._back(values), self._back(target)

    def predictions(self, outputs: Any) -> Any:
        """Outputs of all samples.

        Args:
            outputs: On the CPU.

        Raises:
            TrainingError: they are not one number per target column.
        """
        if self._target is None:
            return outputs
        if not isinstance(outputs, Tensor) or not self._fits(outputs):
            raise TrainingError(
                "predictions are given in the unit of the target, and of outputs "
                f"{shape_of(outputs)} the unit is not known; predict(..., scaled=True) gives the outputs as they are"
            )
        return self._target.unscale(outputs)

    def _fits(self, values: Tensor) -> bool:
        return values.shape[1:].numel() == len(self._target.scale)

    def _back(self, values: Tensor) -> Tensor:
        exact = values.detach().cpu() if values.device.type == "mps" else values.detach()  # MPS has no float64
        back: Tensor = self._target.unscale(exact.to(torch.float64))
        return back


_WAY = "read the table with scale_target=False, or let the model give one number per target column"
