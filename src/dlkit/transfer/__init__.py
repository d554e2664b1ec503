"""Transfer learning: backbones by name, heads, exact freezing, features computed once.

- `models`: `create_model` and `rebuild`, put together from `backbones` (who makes which model), `heads` (found by what
  a model computes), `inputs` (grey and small images, preprocessing) and `weights` (from files and addresses).
- `texts`: `create_text_model`, an encoder of transformers.
- `freezing`: `freeze` and `unfreeze`; `groups`: learning rates by depth.
- `features`: where features are kept; `_cut`: a frozen model in two halves; `_trace`: what a model computes.

What trains with them, `fine_tune` and `compare`, is built on the Trainer and is in `dlkit.recipes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

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
    from dlkit.transfer.texts import create_text_model as create_text_model
    from dlkit.transfer.weights import load_weights as load_weights

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "add_groups": "dlkit.transfer.groups",
        "create_model": "dlkit.transfer.models",
        "create_text_model": "dlkit.transfer.texts",
        "find_heads": "dlkit.transfer.heads",
        "freeze": "dlkit.transfer.freezing",
        "frozen_modules": "dlkit.transfer.freezing",
        "frozen_tensors": "dlkit.transfer.freezing",
        "head_parameters": "dlkit.transfer.heads",
        "is_frozen": "dlkit.transfer.freezing",
        "load_weights": "dlkit.transfer.weights",
        "param_groups": "dlkit.transfer.groups",
        "rebuild": "dlkit.transfer.models",
        "replace_head": "dlkit.transfer.heads",
        "unfreeze": "dlkit.transfer.freezing",
    },
)
