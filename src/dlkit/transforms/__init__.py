"""What happens to an image between file and model: plain data that JSON can hold. Names load when first used.

What happens to a recording is in `dlkit.transforms.audio`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
    from dlkit.transforms.augment import Augment as Augment
    from dlkit.transforms.contrast import LocalContrastNormalization as LocalContrastNormalization
    from dlkit.transforms.mixing import CutMix as CutMix
    from dlkit.transforms.mixing import MixUp as MixUp
    from dlkit.transforms.presets import for_evaluation as for_evaluation
    from dlkit.transforms.presets import for_training as for_training
    from dlkit.transforms.presets import from_model as from_model
    from dlkit.transforms.spec import Preprocessing as Preprocessing

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "Augment": "dlkit.transforms.augment",
        "CutMix": "dlkit.transforms.mixing",
        "LocalContrastNormalization": "dlkit.transforms.contrast",
        "MixUp": "dlkit.transforms.mixing",
        "Preprocessing": "dlkit.transforms.spec",
        "for_evaluation": "dlkit.transforms.presets",
        "for_training": "dlkit.transforms.presets",
        "from_model": "dlkit.transforms.presets",
    },
)
