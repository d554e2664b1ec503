"""The order of an epoch's batches as a pure function of (seed, epoch); names load when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
    from dlkit.samplers.buckets import LengthBuckets as LengthBuckets
    from dlkit.samplers.order import Balanced as Balanced
    from dlkit.samplers.order import Planner as Planner
    from dlkit.samplers.order import Sequential as Sequential
    from dlkit.samplers.order import Shuffle as Shuffle
    from dlkit.samplers.order import SlicedPlan as SlicedPlan
    from dlkit.samplers.order import planner_of as planner_of
    from dlkit.samplers.share import Share as Share

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "Balanced": "dlkit.samplers.order",
        "LengthBuckets": "dlkit.samplers.buckets",
        "Planner": "dlkit.samplers.order",
        "Sequential": "dlkit.samplers.order",
        "Share": "dlkit.samplers.share",
        "Shuffle": "dlkit.samplers.order",
        "SlicedPlan": "dlkit.samplers.order",
        "planner_of": "dlkit.samplers.order",
    },
)
