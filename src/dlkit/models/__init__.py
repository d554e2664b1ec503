"""Small baseline models: quick to train on two cores, and honest numbers to beat. Names load when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_ROOMS = {
    "SmallConvNet": "dlkit.models.convnet",
    "TabularMLP": "dlkit.models.tabular",
    "TextClassifier": "dlkit.models.text",
}

__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from dlkit.models.convnet import SmallConvNet as SmallConvNet
    from dlkit.models.tabular import TabularMLP as TabularMLP
    from dlkit.models.text import TextClassifier as TextClassifier


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'dlkit.models' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(importlib.import_module(_ROOMS[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
