"""Transfer learning: backbones by name, heads, exact freezing, features computed once.

- `models`: `create_model` and `rebuild`, put together from `backbones` (who makes which model), `heads` (found by what
  a model computes), `inputs` (grey and small images, preprocessing) and `weights` (from files and addresses).
- `freezing`: `freeze` and `unfreeze`; `groups`: learning rates by depth.
- `features`: where features are kept; `_cut`: a frozen model in two halves; `_trace`: what a model computes.

What trains with them, `fine_tune` and `compare`, stands on the Trainer and is in `dlkit.recipes`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Where each public name lives; the door imports a room only when somebody asks for something in it.
_ROOMS = {
    "add_groups": "groups",
    "create_model": "models",
    "find_heads": "heads",
    "freeze": "freezing",
    "frozen_modules": "freezing",
    "frozen_tensors": "freezing",
    "head_parameters": "heads",
    "is_frozen": "freezing",
    "load_weights": "weights",
    "param_groups": "groups",
    "rebuild": "models",
    "replace_head": "heads",
    "unfreeze": "freezing",
}

__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from dlkit.transfer.freezing import freeze as freeze
    from dlkit.transfer.freezing import frozen_modules as frozen_modules
    from dlkit.transfer.freezing import frozen_tensors as frozen_tensors
    from dlkit.transfer.freezing import is_frozen as is_frozen
    from dlkit.transfer.freezing import unfreeze as unfreeze
    from dlkit.transfer.groups import add_groups as add_groups
    from dlkit.transfer.groups import param_groups as param_groups
    from dlkit.transfer.heads import find_heads as find_heads
    from dlkit.transfer.heads import head_parameters as head_parameters
    from dlkit.transfer.heads import replace_head as replace_head
    from dlkit.transfer.models import create_model as create_model
    from dlkit.transfer.models import rebuild as rebuild
    from dlkit.transfer.weights import load_weights as load_weights


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = getattr(importlib.import_module(f"dlkit.transfer.{_ROOMS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'dlkit.transfer' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
