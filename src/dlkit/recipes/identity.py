"""What a run is of, kept beside its checkpoints, so that no run continues with other data or another model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlkit._showing import Lines
from dlkit.callbacks import Callback
from dlkit.errors import ResumeError
from dlkit.recipes.choices import Choice, Wish
from dlkit.recipes.reading import Data
from dlkit.splits import Fold
from dlkit.storage.files import write_json
from dlkit.transforms.audio import AudioPreprocessing

__all__ = ["Note", "saved_settings", "settings_of"]

_SETTINGS = "recipe.json"


def settings_of(data: Data, choice: Choice, wish: Wish) -> dict[str, Any]:
    """What makes this run another one than that in a folder.

    Args:
        data: What it is trained on.
        choice: The model.
        wish: What the caller has said.
    """
    options = {name: value for name, value in data.options.items() if value is not None and name != "on_error"}
    plain = {name: _plain(value) for name, value in options.items()}
    settings = {
        "data": data.source,
        "kind": data.kind,
        **plain,
        "split_seed": data.seed,
        "classes": data.classes,
        "arch": choice.arch,
    }
    if choice.preprocessing is not None:
        settings |= {"frozen": choice.frozen, "views": wish.views, **_size_of(choice.preprocessing)}
        settings |= {"weights": None if wish.weights is None else str(wish.weights), "pretrained": wish.pretrained}
    if data.folds is not None:
        settings["folds"] = len(data.folds.rows)
    if wish.class_weights is not None:
        said = wish.class_weights
        settings["class_weights"] = said if isinstance(said, str) else dict(said)
    settings |= {name: said for name in ("sampler", "thresholds") if (said := getattr(wish, name)) is not None}
    return {**settings, "seed": wish.seed}


def _plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return dataclasses.asdict(value) if isinstance(value, Fold) else list(value) if isinstance(value, tuple) else value


def saved_settings(folder: Path) -> dict[str, Any]:
    """Those of the run in a folder, if there is any.

    Args:
        folder: Of the run.

    Raises:
        ResumeError: they cannot be read.
    """
    path = folder / _SETTINGS
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ResumeError(f"{path} cannot be read ({error}); choose another folder: out=") from error


def _size_of(preprocessing: Any) -> dict[str, Any]:
    if isinstance(preprocessing, AudioPreprocessing):
        return {"sample_rate": preprocessing.sample_rate, "seconds": preprocessing.seconds}
    return {"image_size": list(preprocessing.size)}


class Note(Callback):
    """Keeps beside the checkpoints what they describe, so that no run continues with other data or another model.

    Args:
        folder: Of the run.
        settings: What makes it this run.
    """

    changes_numbers = False

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = folder / _SETTINGS, settings

    def refuse_another(self, saved: Mapping[str, Any]) -> None:
        """Compare with the settings `saved` in the folder."""
        names = [name for name in {**saved, **self.settings} if saved.get(name) != self.settings.get(name)]
        if names:
            raise ResumeError(
                Lines.of(
                    f"{self.path.parent} holds another run:",
                    *(f"  {name}: there {saved.get(name)!r}, now {self.settings.get(name)!r}" for name in names),
                    "choose another folder, out=, or start over with resume=False (what is there is moved aside, "
                    "not deleted)",
                )
            )

    def on_fit_start(self, run: Any) -> None:
        if not run.write_files:
            return
        write_json(self.path, self.settings)
