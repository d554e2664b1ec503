"""What an adapter library has put into a model: layers beside frozen ones, which are trained in their place.

PEFT marks each module that it puts around another one with `adapter_layer_names`; the one inside is its `base_layer`
(or, where the whole layer is trained as a copy, its `original_module`). Nothing is imported for it.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

__all__ = ["Adapters", "adapted_layer", "adapters"]

_INSIDE = ("base_layer", "original_module")


class Adapters(NamedTuple):
    """The names of the modules that belong to adapters.

    Attributes:
        around: Those that stand around a layer of the model.
        beside: What is in them beside that layer, and the prompts in front of a model: what is trained.
    """

    around: set[str]
    beside: set[str]


def adapters(model: nn.Module) -> Adapters:
    """What belongs to adapters.

    Args:
        model: Any module; without an adapter both sets are empty.
    """
    found = Adapters(set(), set())
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if _wraps(module):
            found.around.add(name)
            found.beside.update(f"{prefix}{key}" for key in module._modules if key not in _INSIDE)
        if "peft_config" in vars(module) and "prompt_encoder" in module._modules:
            found.beside.add(f"{prefix}prompt_encoder")
    return found


def adapted_layer(model: nn.Module, name: str) -> str:
    """The module that stands instead of a layer: the wrapping one where an adapter works beside the layer.

    Args:
        model: Any module.
        name: Of the layer, or of a part of what works beside it.
    """
    parts = name.split(".")
    holders = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((each for each in holders if _wraps(model.get_submodule(each), "base_layer")), name)


def _wraps(module: nn.Module, *inside: str) -> bool:
    return bool(getattr(module, "adapter_layer_names", ())) and any(key in module._modules for key in inside or _INSIDE)
