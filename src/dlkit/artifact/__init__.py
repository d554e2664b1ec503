"""The model file: one safetensors file with everything that prediction needs. Names load when first used.

=========== ==========================================================================================
`header`    the file's head, checked before anything is built
`inputs`    what a model takes and what its outputs mean
`running`   a model, called with whatever its inputs come as
`weights`   its tensors, shared ones once
`opening`   from the file to the model
`exporting` for other programs
`saving`    `save`
=========== ==========================================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Where each public name lives; one line per name, sorted.
_ROOMS = {
    "read_header": "header",
    "save": "saving",
}

__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from dlkit.artifact.header import read_header as read_header
    from dlkit.artifact.saving import save as save


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
