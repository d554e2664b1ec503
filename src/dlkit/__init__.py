"""dlkit: datasets, a Trainer, transfer learning and model files for PyTorch.

Plain PyTorch in, plain PyTorch out: datasets work in a stock `DataLoader`, each model is an `nn.Module`, and
optimizers, schedulers, losses and metrics are your own objects. Names load when they are first used.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

# Where each public name lives; the door imports a room only when somebody asks for something in it.
_ROOMS = {
    "DataLoader": "dlkit.loader",
    "Predictor": "dlkit.inference",
    "Trainer": "dlkit.training",
    "compare": "dlkit.recipes",
    "fine_tune": "dlkit.recipes",
    "launch": "dlkit.launching",
    "load": "dlkit.inference",
    "register": "dlkit.registry",
    "save": "dlkit.artifact",
    "seed_everything": "dlkit.rng",
}
_HIDDEN = {"__version__": "dlkit._version"}
_MODULES = (
    "artifact",
    "callbacks",
    "collate",
    "datasets",
    "download",
    "errors",
    "inference",
    "metrics",
    "models",
    "plots",
    "recipes",
    "samplers",
    "serving",
    "sklearn",
    "specs",
    "splits",
    "storage",
    "tokens",
    "training",
    "transfer",
    "transforms",
)

__all__ = sorted([*_ROOMS, *_MODULES])

if TYPE_CHECKING:
    from dlkit._version import __version__ as __version__
    from dlkit.artifact import save as save
    from dlkit.inference import Predictor as Predictor
    from dlkit.inference import load as load
    from dlkit.launching import launch as launch
    from dlkit.loader import DataLoader as DataLoader
    from dlkit.recipes import compare as compare
    from dlkit.recipes import fine_tune as fine_tune
    from dlkit.registry import register as register
    from dlkit.rng import seed_everything as seed_everything
    from dlkit.training import Trainer as Trainer


def __getattr__(name: str) -> Any:
    if home := _ROOMS.get(name) or _HIDDEN.get(name):
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"dlkit.{name}")
    raise AttributeError(f"module 'dlkit' has no attribute {name!r}; {_hint(name)}")


def _hint(name: str) -> str:
    """The room that has the name, or the names that come near."""
    from dlkit._near import hint

    # `from dlkit import rng` asks for an attribute first, and then imports the file: no room may be imported meanwhile.
    inner = name.startswith("_") or importlib.util.find_spec(f"dlkit.{name}") is not None
    for room in () if inner else _MODULES:
        if room != "sklearn" and name in importlib.import_module(f"dlkit.{room}").__all__:
            return f"it is dlkit.{room}.{name}"
    return hint(name, __all__)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
