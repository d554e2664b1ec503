"""Models of images and sounds that answer with quantities, in whatever unit these are.

What a model learns best are numbers around 0 of deviation 1. So the weights of its last layer are those of such numbers
while it is trained, and are multiplied out for the file, which needs to know nothing of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dlkit.transfer.heads import find_heads

__all__ = ["StandardError", "in_units_of", "multiplied_out"]


class StandardError(nn.MSELoss):
    """The mean squared error in deviations of each column, so that all count the same.

    Args:
        scale: The deviation of each.
    """

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The error of a batch.

        Args:
            output: [B, columns].
            target: The same, or [B] of one column.
        """
        return super().forward(output / self.scale, target.reshape(output.shape) / self.scale)


class _Unit(nn.Module):
    """Numbers of mean 0 and deviation 1 as those of a unit."""

    scale: Tensor
    center: Tensor

    def __init__(self, scale: Tensor, center: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("center", center)

    def forward(self, values: Tensor) -> Tensor:
        return values * self.scale + self.center


def in_units_of(targets: Tensor, model: nn.Module) -> StandardError:
    """Let a new model answer in the unit of the targets: at first their mean, give or take a deviation.

    Args:
        targets: Of the training data, float [N] or [N, columns].
        model: Its head has as many outputs.

    Returns:
        The loss to train it with.
    """
    values = targets.reshape(len(targets), -1).double()
    center, scale = values.mean(0).float(), values.std(0, correction=0).float()
    scale = torch.where(scale > 0, scale, 1.0)
    for name in ("head",) if hasattr(model, "head") else find_heads(model).names:
        layer: Any = model.get_submodule(name)
        wide = scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
        parametrize.register_parametrization(layer, "weight", _Unit(wide, torch.zeros(())), unsafe=True)
        parametrize.register_parametrization(layer, "bias", _Unit(scale, center), unsafe=True)
    return StandardError(scale)


def multiplied_out(model: nn.Module) -> nn.Module:
    """The model with plain weights, for a file; the same model where there is nothing to do.

    Args:
        model: After training.
    """
    layers: list[Any] = [layer for layer in model.modules() if parametrize.is_parametrized(layer)]
    for layer in layers:
        for name in [name for name, steps in layer.parametrizations.items() if isinstance(steps[0], _Unit)]:
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    return model
