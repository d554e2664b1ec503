"""Models that return more than one output: each part that training needs is trained, or refused with what to do.

The conventions of torchvision's references are known: auxiliary heads of GoogLeNet (Szegedy et al. 2014), Inception and
the segmentation models with their weights, and the dict of losses of the detectors. What else there is, is followed in
the autograd graph of the first step: a part that holds a loss, or leads to parameters that nothing else trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from dlkit._nested import tensors_in
from dlkit._shapes import shape_of
from dlkit.errors import TrainingError

__all__ = ["auxiliary", "check_trained", "fields", "members", "total"]

# The names of all parts: weights of those that are trained beside the first.
_AUXILIARY = {
    ("logits", "aux_logits"): {"aux_logits": 0.4},
    ("logits", "aux_logits2", "aux_logits1"): {"aux_logits2": 0.3, "aux_logits1": 0.3},
    ("out", "aux"): {"aux": 0.5},
}


def fields(output: Any) -> dict[str, Any]:
    """The parts of an output by name; nothing for a tensor, a list or a tuple without names.

    Args:
        output: What a model gave.
    """
    if isinstance(output, Mapping):
        return dict(output)
    if hasattr(output, "_asdict"):
        return dict(output._asdict())
    return {} if isinstance(output, Tensor) else dict(getattr(output, "__dict__", {}))


def auxiliary(output: Any) -> list[tuple[float, Tensor]]:
    """The auxiliary outputs that are trained on the same target, each with the weight of its loss.

    Args:
        output: What a model gave.
    """
    parts = fields(output)
    weights = _AUXILIARY.get(tuple(parts), {})
    return [(weight, parts[name]) for name, weight in weights.items() if parts[name] is not None]


def members(output: Any) -> Tensor | None:
    """The outputs [members, B, ...] of an ensemble, each of which is trained on the same target; None for others.

    Args:
        output: What a model gave: an object or dict whose only part is named "members", such as that of
            `dlkit.models.TabularEnsemble` in training.
    """
    parts = {} if isinstance(output, Tensor) else fields(output)
    return parts["members"] if parts.keys() == {"members"} and isinstance(parts["members"], Tensor) else None


def total(output: Any) -> Any:
    """The loss in what a model gave that returns its loss itself: it, its `loss`, or the sum of a dict of losses.

    Args:
        output: What the model gave.
    """
    if isinstance(output, Tensor):
        return output
    parts = fields(output)
    if parts.get("loss") is not None:
        return parts["loss"]
    if parts and all(isinstance(part, Tensor) and part.dim() == 0 for part in parts.values()):
        return sum(parts.values())
    if getattr(output, "loss", None) is not None:
        return output.loss
    raise TrainingError(
        f"the model returned {shape_of(output)}, in which there is no loss; expected with loss=None one number, an "
        "object or dict with 'loss', or a dict of losses, which are added"
    )


def check_trained(output: Any, loss: Tensor, model: nn.Module) -> None:
    """Refuse an output with a part that training needs and that the loss does not contain.

    Args:
        output: What the model gave.
        loss: Before its backward.
        model: Whose parameters are to be trained.

    Raises:
        TrainingError: names the parts, and a parameter that would not be trained.
    """
    if isinstance(output, Tensor):
        return
    reached = _nodes([loss])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    missing = []
    for name, part in fields(output).items():
        tensors = [tensor for tensor in tensors_in(part) if tensor.requires_grad]
        leaves = [node for node in _nodes(tensors) - reached if hasattr(node, "variable")]
        untrained = [names[id(node.variable)] for node in leaves if id(node.variable) in names]
        if untrained:
            missing.append(f"{name!r} (leads to {sorted(untrained)[0]}, which would not be trained)")
        elif any(tensor.dim() == 0 and tensor.grad_fn not in reached for tensor in tensors):
            missing.append(f"{name!r} (one number: a loss that is not in the sum? if it is only shown, .detach() it)")
    if missing:
        raise TrainingError(
            f"the model returned several parts ({type(output).__name__}: {shape_of(fields(output) or output)}), and "
            f"the loss leaves out {', '.join(missing)}; return them as a tuple or a plain dict, which a custom "
            "loss gets whole, or let the model return the whole loss, with loss=None"
        )


def _nodes(tensors: Iterable[Tensor]) -> set[Any]:
    """The nodes of the graphs behind tensors; those of parameters have a `variable`."""
    waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                waiting.append(node)
    return seen
