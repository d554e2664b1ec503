"""Prediction with a model file: files in, names and numbers out. Reaches no training code. Names load when first used.

=========== ==========================================================================================
`outputs`   from logits to names, labels and values
`inputs`    what a caller asks for, prepared as in validation: `images`, `sounds`, `tables`, `texts`, in `batches`
`frames`    predictions as tables
`scoring`   labelled data, its classes matched by name
`predictor` `load` and `Predictor`
=========== ==========================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
    from dlkit.inference.outputs import Prediction as Prediction
    from dlkit.inference.predictor import Predictor as Predictor
    from dlkit.inference.predictor import load as load

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "Prediction": "dlkit.inference.outputs",
        "Predictor": "dlkit.inference.predictor",
        "load": "dlkit.inference.predictor",
    },
)
