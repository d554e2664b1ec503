"""Learning rates by depth: parameter groups with stable names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from dlkit._showing import few
from dlkit.errors import ArgumentError
from dlkit.transfer._trace import run_trace
from dlkit.transfer.heads import find_heads

__all__ = ["add_groups", "param_groups", "warn_of_unheld"]


# Those without a batch dimension: positional_embedding [N, D] in CLIP, relative_position_bias_table [M, H] in Swin.
_TOKEN = re.compile(r"(cls|class|dist|reg|register|mask|pos|position|positional)_?(token|embed|bias)")


def param_groups(
    model: nn.Module,
    lr: float,
    *,
    backbone_lr: float | None = None,
    layer_decay: float = 1.0,
    weight_decay: float | None = None,
    example: Any = None,
) -> list[dict[str, Any]]:
    """Groups for an optimizer, one per depth: `torch.optim.AdamW(param_groups(model, 1e-3, layer_decay=0.8))`.

    Every parameter is in exactly one group, frozen ones too: they have no gradient, so no optimizer moves them, and
    they are ready when they are unfrozen. Each group has a `"name"` ("head", "layer4", "blocks.7", "stem" for what
    lies outside of them) that does not depend on what is frozen.

    Args:
        model: Any module with a head.
        lr: The rate of the head.
        backbone_lr: The rate of the layer next to the head; None for the head's.
        layer_decay: The rate falls by this factor per layer from the head down (Howard and Ruder 2018, section 3.2,
            call it discriminative fine-tuning), in the order of computing. 1 for one rate.
        weight_decay: Put into each group, with 0 for norms, biases and other parameters of one dimension (He et al.
            2019, section 3.1), for class, register, mask and position tokens, and for what a timm model names in
            `no_weight_decay`; these then are groups of their own ("layer4, no decay"). None: the optimizer's.
        example: An input with a batch dimension; None guesses one.

    Raises:
        ArgumentError: a rate that is not above 0, or a decay outside of (0, 1].

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [(group["name"], round(group["lr"], 6)) for group in param_groups(model, 0.1, layer_decay=0.5)]
    [('head', 0.1), ('2', 0.05), ('0', 0.025)]
    """
    for name, rate in (("lr", lr), ("backbone_lr", backbone_lr)):
        if rate is not None and rate <= 0:
            raise ArgumentError(f"{name} must be above 0, not {rate}")
    if not 0 < layer_decay <= 1:
        raise ArgumentError(f"layer_decay must lie above 0 and at most at 1, not {layer_decay}")
    groups, lasting = [], _lasting(model)
    for depth, (layer, parameters) in enumerate(_layers(model, example).items()):
        start = lr if depth == 0 or backbone_lr is None else backbone_lr / layer_decay
        rate = start * layer_decay**depth
        for suffix, decay, part in _by_decay(parameters, weight_decay, lasting):
            groups.append({"params": part, "lr": rate, "name": f"{layer}{suffix}", **decay})
    return groups


def add_groups(
    optimizer: Optimizer,
    model: nn.Module,
    *,
    lr: float | None = None,
    backbone_lr: float | None = None,
    layer_decay: float = 1.0,
    example: Any = None,
) -> list[str]:
    """Add the model's parameters that an optimizer does not have yet, as groups by depth; returns the groups' names.

    For an optimizer that was made on the head alone, before or after unfreezing. Afterwards every parameter is in
    exactly one group.

    Args:
        optimizer: Any optimizer.
        model: The model.
        lr: The head's rate; None takes that of the optimizer's first group.
        backbone_lr: See `param_groups`.
        layer_decay: See `param_groups`.
        example: See `param_groups`.

    Raises:
        ArgumentError: a scheduler was already made on the optimizer, which would not know the new groups.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> optimizer = torch.optim.AdamW(model[2].parameters(), 1e-3)
    >>> add_groups(optimizer, model, backbone_lr=1e-4), add_groups(optimizer, model)
    (['0'], [])
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if all(id(parameter) in held for parameter in model.parameters()):
        return []
    first = optimizer.param_groups[0]
    if "initial_lr" in first:
        raise ArgumentError(
            "the optimizer lacks parameters of the model, and has a scheduler already, which would not know them; "
            "make the optimizer with all of them: torch.optim.AdamW(param_groups(model, lr, backbone_lr=...))"
        )
    rate = float(first["lr"]) if lr is None else lr
    added = []
    for group in param_groups(model, rate, backbone_lr=backbone_lr, layer_decay=layer_decay, example=example):
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in held]
        if group["params"]:
            optimizer.add_param_group(group)
            added.append(group["name"])
    return added


def warn_of_unheld(parameters: Mapping[str, nn.Parameter], optimizers: Mapping[str, Optimizer]) -> None:
    """Name the parameters that require gradients and are in no optimizer: they would never change.

    Args:
        parameters: All that there are, by name.
        optimizers: All of them.

    Warns:
        UserWarning: there are some.
    """
    groups = [group for optimizer in optimizers.values() for group in optimizer.param_groups]
    held = {id(parameter) for group in groups for parameter in group["params"]}
    names = [name for name, each in parameters.items() if each.requires_grad and id(each) not in held]
    if names:
        warnings.warn(
            f"trainable, but in no optimizer, so never changed: {few(names, 5)}; hand them to it "
            "(torch.optim.AdamW([*model.parameters(), *loss.parameters()], lr), dlkit.transfer.param_groups(model, lr) "
            "or dlkit.transfer.add_groups(optimizer, model)), or freeze them (requires_grad_(False), "
            "dlkit.transfer.freeze(model))",
            stacklevel=3,
        )


def _layers(model: nn.Module, example: Any) -> dict[str, list[nn.Parameter]]:
    """Parameters by layer, from the head down to the input; what is not its own layer goes with the one before it."""
    parameters = dict(model.named_parameters())
    heads = find_heads(model, example).names
    own = {id(parameter) for each in heads for parameter in model.get_submodule(each).parameters()}
    head = [name for name, parameter in parameters.items() if id(parameter) in own]  # tied ones have another name, too
    order = {name: place for place, name in enumerate(run_trace(model, example).used)}
    rest = sorted((name for name in parameters if name not in head), key=lambda name: order.get(name, len(order)))
    layers: dict[str, list[nn.Parameter]] = {}
    current = "stem"
    for name in rest:
        current = _layer_of(name, model) or current
        layers.setdefault(current, []).append(parameters[name])
    return {"head": [parameters[name] for name in head], **dict(reversed(layers.items()))}


def _layer_of(name: str, model: nn.Module) -> str | None:
    """The layer that a parameter is in: an item of the outermost list of modules, else a child with children."""
    parts = name.split(".")
    module = model
    for depth, part in enumerate(parts[:-1]):
        if isinstance(module, nn.Sequential | nn.ModuleList):
            return ".".join(parts[: depth + 1]) if _has_matrix(module.get_submodule(part)) else None
        module = module.get_submodule(part)
    if len(parts) < 3 or parts[0] == "head":
        return None
    child = model.get_submodule(parts[0])
    lists = any(isinstance(each, nn.Sequential | nn.ModuleList) for each in child.modules())
    return parts[0] if not lists and _has_matrix(child) else None


def _has_matrix(module: nn.Module) -> bool:
    """Norms alone are no layer."""
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _by_decay(
    parameters: list[nn.Parameter], weight_decay: float | None, lasting: set[int]
) -> list[tuple[str, dict[str, float], list[nn.Parameter]]]:
    if weight_decay is None:
        return [("", {}, parameters)]
    decaying = [parameter for parameter in parameters if id(parameter) not in lasting]
    others = [parameter for parameter in parameters if id(parameter) in lasting]
    parts = [("", {"weight_decay": weight_decay}, decaying), (", no decay", {"weight_decay": 0.0}, others)]
    return [part for part in parts if part[2]]


def _lasting(model: nn.Module) -> set[int]:
    """The `id`s of what does not decay: vectors, tokens, positions, and what the model itself leaves out."""
    told = getattr(model, "no_weight_decay", None)  # of timm's models
    left_out = set(told()) if callable(told) else set()
    found = {id(parameter) for name, parameter in model.named_parameters() if name in left_out}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None and (parameter.dim() <= 1 or _is_token(key, parameter)):
                found.add(id(parameter))
    return found


def _is_token(key: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is put beside what the model computes, or added to it, and multiplies nothing.

    Tokens and positions have a batch dimension of 1 to be expanded; a scale per channel is a vector in effect. A layer
    calls what it multiplies with its `weight`, or `in_proj_weight` and the like.
    """
    if key.endswith("weight") or key.startswith(("weight", "original")):
        return False
    sizes = [size for size in parameter.shape if size != 1]
    batched = parameter.dim() >= 3 and parameter.shape[0] == 1
    return batched or len(sizes) <= 1 or _TOKEN.search(key) is not None
