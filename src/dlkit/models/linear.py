"""`fit_linear`: a linear model with L2 by L-BFGS, to its one optimum: the start or the whole of some models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["center_and_scale", "fit_linear"]

_HISTORY, _GRADIENT, _CHANGE = 10, 1e-5, 1e-8


def center_and_scale(targets: Tensor) -> tuple[float, float]:
    """The mean of numbers and their standard deviation, 1 where all are equal.

    Args:
        targets: [N].
    """
    values = targets.double()
    return float(values.mean()), float(values.std(unbiased=False)) or 1.0


def fit_linear(
    inputs: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    outputs: int,
    *,
    decay: float,
    transposed: Tensor | None = None,
    start: tuple[Tensor, Tensor] | None = None,
    steps: int = 200,
) -> tuple[Tensor, Tensor]:
    """Minimise `loss(inputs @ weight + bias, targets) + decay / 2 * weight.square().sum()` (Liu and Nocedal 1989).

    The loss is convex for torch's losses, so there is one optimum, and nothing of it depends on chance.

    Args:
        inputs: float32 [N, features], dense or sparse in rows (CSR).
        targets: [N] or [N, outputs].
        loss: A mean over samples.
        outputs: How many there are.
        decay: Strength of the L2 penalty, above 0.
        transposed: The transpose of sparse inputs, in rows as well.
        start: Weight and bias to begin at, of a neighbouring strength.
        steps: At most.

    Returns:
        weight [features, outputs] and bias [outputs].

    >>> weight, bias = fit_linear(torch.eye(2), torch.tensor([1.0, 3.0]), torch.nn.MSELoss(), 1, decay=1e-6)
    >>> (torch.eye(2) @ weight + bias).squeeze(1).round().tolist()
    [1.0, 3.0]
    """
    across = inputs.t() if transposed is None else transposed
    weight, bias = start or (torch.zeros(inputs.shape[1], outputs), torch.zeros(outputs))
    weight, bias = (each.clone().requires_grad_() for each in (weight, bias))
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=steps,
        history_size=_HISTORY,
        tolerance_grad=_GRADIENT,
        tolerance_change=_CHANGE,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        with torch.no_grad():
            scores = inputs @ weight + bias
        with torch.enable_grad():
            scores.requires_grad_()
            shaped = scores.squeeze(1) if targets.dim() == 1 and targets.is_floating_point() else scores
            value = loss(shaped, targets)
            (gradient,) = torch.autograd.grad(value, scores)
        # By hand: autograd would transpose sparse inputs again in every step.
        weight.grad, bias.grad = across @ gradient + decay * weight.detach(), gradient.sum(0)
        return value.detach() + decay / 2 * weight.detach().square().sum()

    optimizer.step(closure)
    return weight.detach(), bias.detach()
