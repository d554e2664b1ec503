"""Whole jobs in one call each, which is what the command line calls. Names load when they are first used.

`train` reads data, chooses a model, trains it, judges it and writes a model file; `read_data` says what a source is.

============ =========================================================================================
`reading`    `read_data`: what a source holds, cut into parts
`choosing`   which model, loss and rate suit it
`tuning`     `fine_tune`: the usual recipe for a pretrained model, its choices made by measuring
`comparing`  `compare`: which backbone suits the data
`training`   `train`: to a model file, continuing where it was stopped
`held_out`   which samples a run has trained on
`evaluating` `evaluate_file`: on other data, or on what a run has held out
`reporting`  `report`: what a model came to, as one HTML file
`searching`  `tune`: the settings of a training, searched for so many minutes
`using`      looking at data, comparing backbones, fetching
============ =========================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
    from dlkit.recipes.comparing import compare as compare
    from dlkit.recipes.evaluating import evaluate_file as evaluate_file
    from dlkit.recipes.reading import Data as Data
    from dlkit.recipes.reading import read_data as read_data
    from dlkit.recipes.reporting import report as report
    from dlkit.recipes.searching import Tuned as Tuned
    from dlkit.recipes.searching import tune as tune
    from dlkit.recipes.training import Trained as Trained
    from dlkit.recipes.training import train as train
    from dlkit.recipes.tuning import fine_tune as fine_tune
    from dlkit.recipes.using import compare_backbones as compare_backbones
    from dlkit.recipes.using import compare_models as compare_models
    from dlkit.recipes.using import download as download
    from dlkit.recipes.using import look_at as look_at

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "Data": "dlkit.recipes.reading",
        "Trained": "dlkit.recipes.training",
        "Tuned": "dlkit.recipes.searching",
        "compare": "dlkit.recipes.comparing",
        "compare_backbones": "dlkit.recipes.using",
        "compare_models": "dlkit.recipes.using",
        "download": "dlkit.recipes.using",
        "evaluate_file": "dlkit.recipes.evaluating",
        "fine_tune": "dlkit.recipes.tuning",
        "look_at": "dlkit.recipes.using",
        "read_data": "dlkit.recipes.reading",
        "report": "dlkit.recipes.reporting",
        "train": "dlkit.recipes.training",
        "tune": "dlkit.recipes.searching",
    },
)
