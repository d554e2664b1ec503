"""What is known of a model before it is trained, as far as a model file needs it: found quickly, without calling it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from dlkit import _torch_layers
from dlkit.artifact.inputs import Meaning, describe_example
from dlkit.errors import ArgumentError

__all__ = ["architecture_of", "outline"]


def outline(model: nn.Module, **given: Any) -> dict[str, Any]:
    """What a file says of a model beside its weights and what it gives: the architecture, and what goes in and out.

    Args:
        model: See `save`; it is not called.
        **given: `classes`, `preprocessing`, `task` and `outputs`, see `save`.

    Raises:
        ArgumentError: what `save` would raise for lack of knowledge.
    """
    wanted = {name: given.get(name) for name in ("preprocessing", "classes", "task", "outputs")}
    meaning = Meaning.find(model, **wanted)
    describe_example(meaning, None, small=True)  # raises where only the user can give an input
    return {"architecture": architecture_of(model), "meaning": meaning.document()}


def architecture_of(model: nn.Module) -> dict[str, Any]:
    """How to build a model again.

    Args:
        model: Registered, or made of torch's own layers.

    Raises:
        ArgumentError: it is neither, or was made with arguments that no file can hold.
    """
    architecture = getattr(model, "architecture", None)
    if not isinstance(architecture, Mapping):
        architecture = _torch_layers.describe(model)
    try:
        json.dumps(architecture)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"the arguments of {architecture.get('name')!r} cannot be stored in a file: {error}; a registered model is "
            "made with numbers, texts, lists and dicts only"
        ) from error
    return dict(architecture)
