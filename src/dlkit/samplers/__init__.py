"""The order of an epoch's batches as a pure function of (seed, epoch); names load when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_ROOMS = {
    "LengthBuckets": "dlkit.samplers.buckets",
    "Planner": "dlkit.samplers.order",
    "Sequential": "dlkit.samplers.order",
    "Shuffle": "dlkit.samplers.order",
    "SlicedPlan": "dlkit.samplers.order",
    "planner_of": "dlkit.samplers.order",
}

__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from dlkit.samplers.buckets import LengthBuckets as LengthBuckets
    from dlkit.samplers.order import Planner as Planner
    from dlkit.samplers.order import Sequential as Sequential
    from dlkit.samplers.order import Shuffle as Shuffle
    from dlkit.samplers.order import SlicedPlan as SlicedPlan
    from dlkit.samplers.order import planner_of as planner_of


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'dlkit.samplers' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(importlib.import_module(_ROOMS[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
