"""Backbones by name: which library has one, how it is made, and how to write down what was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlkit._near import nearest
from dlkit._optional import require
from dlkit.errors import ArgumentError, DownloadError
from dlkit.transfer.inputs import SMALLEST

__all__ = ["Backbone", "LIBRARIES", "backbone"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model as its library makes it.

    Attributes:
        model: With the head of its library.
        config: What it was made for, in timm's words: input_size, crop_pct, mean, std, ...
        url: The address of its weights, where they are not loaded yet.
        library: "timm", "torchvision", "hub", or "module" for one that was handed over.
        name: In that library; with the tag of its weights, where there are several.
    """

    model: nn.Module
    config: Mapping[str, Any]
    library: str
    name: str
    url: str | None = None


def backbone(name: str | nn.Module, *, pretrained: bool, image_size: int | None) -> Backbone:
    """Make a model, with the head of its library.

    Args:
        name: See `dlkit.transfer.create_model`.
        pretrained: With the library's weights, or their address.
        image_size: Side of the images, for models that are made for one size.

    Raises:
        ArgumentError: no such model; close names are suggested.
        DownloadError: the library's weights could not be fetched.
    """
    if isinstance(name, nn.Module):
        kind = f"{type(name).__module__}.{type(name).__qualname__}"
        return Backbone(model=name, config=_config_of(name), library="module", name=kind)
    library, _, rest = name.partition("/")
    if library in LIBRARIES:
        return LIBRARIES[library](rest, pretrained, image_size)
    for library in _NAMED:
        if name in _names(library):
            return LIBRARIES[library](name, pretrained, image_size)
    raise _unknown(name, _NAMED)


def _names(library: str) -> set[str]:
    if library == "timm":
        timm = require("timm", extra="dev")
        return {*timm.list_models(), *timm.list_models(pretrained=True)}
    models = require("torchvision.models", extra="dev")
    return set(models.list_models(module=models))


def _unknown(name: str, libraries: Sequence[str]) -> ArgumentError:
    names = sorted(set().union(*(_names(library) for library in libraries)))
    close = nearest(name, names, most=5, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() has all names"
    return ArgumentError(f"no model {name!r} in {' or '.join(libraries)}; {hint}")


def _from_timm(name: str, pretrained: bool, image_size: int | None) -> Backbone:
    timm = require("timm", extra="dev")
    if name not in _names("timm") and name.partition(".")[0] not in _names("timm"):
        raise _unknown(name, ["timm"])
    config = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"num_classes": getattr(config, "num_classes", 0) or 1000}
    size = (getattr(config, "input_size", None) or (3, 224, 224))[1]
    if image_size is not None and image_size not in (*range(SMALLEST), size):
        options |= {"img_size": image_size} if getattr(config, "fixed_input_size", False) else {}
    try:
        try:
            model = timm.create_model(name, pretrained=pretrained, **options)
        except TypeError:
            options.pop("img_size", None)
            model = timm.create_model(name, pretrained=pretrained, **options)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise _no_weights(name, error) from error
    found = dict(getattr(model, "pretrained_cfg", None) or {})
    if side := options.get("img_size"):
        found["input_size"] = (3, side, side)
    tag = found.get("tag")
    return Backbone(
        model=model, config=found, library="timm", name=f"{name}.{tag}" if tag and "." not in name else name
    )


def _from_torchvision(name: str, pretrained: bool, image_size: int | None) -> Backbone:
    del image_size
    models = require("torchvision.models", extra="dev")
    if name not in _names("torchvision"):
        raise _unknown(name, ["torchvision"])
    entry = _usual_weights(models.get_model_weights(name), pretrained=pretrained)
    config = _config_of_preset(entry.transforms())
    options: dict[str, Any] = {"weights": None}
    if name in ("googlenet", "inception_v3"):  # their auxiliary heads serve a training from scratch
        options |= {"aux_logits": False, "init_weights": not pretrained, "transform_input": False}
    if name.startswith("vit_"):  # one size for each set of weights
        options["image_size"] = config["input_size"][1]
    model = models.get_model(name, **options)
    return Backbone(model=model, config=config, library="torchvision", name=name, url=entry.url if pretrained else None)


def _usual_weights(weights: Any, *, pretrained: bool) -> Any:
    """The newest weights; without them, those that weights from elsewhere most resemble."""
    return weights.DEFAULT if pretrained or "IMAGENET1K_V1" not in weights.__members__ else weights.IMAGENET1K_V1


def _config_of_preset(preset: Any) -> dict[str, Any]:
    (crop,), (resize,) = preset.crop_size, preset.resize_size
    return {
        "input_size": (3, crop, crop),
        "crop_pct": crop / max(crop, resize),
        "interpolation": preset.interpolation.value,
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
    }


def _config_of(model: nn.Module) -> dict[str, Any]:
    return dict(getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {})


def _from_hub(name: str, pretrained: bool, image_size: int | None) -> Backbone:
    del image_size
    repository, _, entry = name.rpartition(":")
    if not repository or not entry:
        raise ArgumentError(f"'hub/{name}' names no model; write hub/owner/repo:model, or hub/<folder>:model")
    local = Path(repository).is_dir()
    source = {"source": "local"} if local else {"trust_repo": "check"}
    try:
        build: Callable[..., Any] = torch.hub.load
        model = build(repository, entry, **source, **({"pretrained": True} if pretrained else {}))
    except OSError as error:
        raise _no_weights(f"hub/{name}", error) from error
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"hub/{name} gave a {type(model).__name__}, not a module")
    return Backbone(model=model, config=_config_of(model), library="hub", name=name)


def _no_weights(name: str, error: Exception) -> DownloadError:
    first = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason given"
    return DownloadError(
        f"the pretrained weights of {name} could not be fetched: {type(error).__name__}: {first}; without a network "
        "pass weights=<path of a file>, or pretrained=False for random weights"
    )


#: What makes the models of each library, from (name, pretrained, image_size).
LIBRARIES: dict[str, Callable[[str, bool, int | None], Backbone]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
    "hub": _from_hub,
}
_NAMED = ("timm", "torchvision")  # where a bare name is looked for, in this order
