"""What happens to an image between file and model: plain data that JSON can hold. Names load when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Where each public name lives; one line per name, sorted.
_ROOMS = {
    "Augment": "spec",
    "CutMix": "mixing",
    "LocalContrastNormalization": "contrast",
    "MixUp": "mixing",
    "Preprocessing": "spec",
    "for_evaluation": "presets",
    "for_training": "presets",
    "from_json": "documents",
    "from_model": "presets",
    "spec_of": "documents",
    "to_json": "documents",
}

__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from dlkit.transforms.contrast import LocalContrastNormalization as LocalContrastNormalization
    from dlkit.transforms.documents import from_json as from_json
    from dlkit.transforms.documents import spec_of as spec_of
    from dlkit.transforms.documents import to_json as to_json
    from dlkit.transforms.mixing import CutMix as CutMix
    from dlkit.transforms.mixing import MixUp as MixUp
    from dlkit.transforms.presets import for_evaluation as for_evaluation
    from dlkit.transforms.presets import for_training as for_training
    from dlkit.transforms.presets import from_model as from_model
    from dlkit.transforms.spec import Augment as Augment
    from dlkit.transforms.spec import Preprocessing as Preprocessing


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
