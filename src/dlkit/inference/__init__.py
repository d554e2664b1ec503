"""Prediction with a model file: files in, names and numbers out. Reaches no training code. Names load when first used.

=========== ==========================================================================================
`outputs`   from logits to names, labels and values
`inputs`    what a caller asks for, prepared as in validation: of `images`, `tables`, `texts`, in `batches`
`frames`    predictions as tables
`scoring`   labelled data, its classes matched by name
`predictor` `load` and `Predictor`
=========== ==========================================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Where each public name lives; one line per name, sorted.
_ROOMS = {
    "Prediction": "outputs",
    "Predictor": "predictor",
    "load": "predictor",
}

__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from dlkit.inference.outputs import Prediction as Prediction
    from dlkit.inference.predictor import Predictor as Predictor
    from dlkit.inference.predictor import load as load


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
