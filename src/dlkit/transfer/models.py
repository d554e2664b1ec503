"""`create_model`: a pretrained backbone by name, with a head for your classes."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlkit._optional import require
from dlkit.errors import ArgumentError, DownloadError
from dlkit.transfer._trace import run_trace
from dlkit.transfer.heads import replace_head
from dlkit.transfer.inputs import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SMALLEST,
    enlarge_small_images,
    preprocessing_of,
    take_channels,
)
from dlkit.transfer.weights import LoadReport, load_weights

__all__ = ["create_model"]

_log = logging.getLogger("dlkit")


def create_model(
    name: str | nn.Module,
    *,
    classes: int | Sequence[str],
    in_chans: int = 3,
    pretrained: bool = True,
    weights: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
) -> nn.Module:
    """A backbone with a fresh head, ready to be frozen and trained.

    The model is the library's own module; what dlkit knows about it is put beside: `preprocessing` (plain data for
    JSON, in the form of dlkit's transforms), `classes`, `weights_report`, and the method `head_parameters()`.

    Small images: the model enlarges images with a shorter side below 96 pixels to 96 by itself (to its own size where
    it takes no other), because a backbone that halves the picture five times sees nothing in 28 pixels.

    Args:
        name: "timm/...", "torchvision/...", or a bare name, which takes timm's model if there is one, else
            torchvision's; "hub/owner/repo:model" for `torch.hub` (it runs the code of that repository; a folder in the
            place of owner/repo is taken as it is); or a module of your own.
        classes: Their number, or their names in the order of the labels.
        in_chans: 3 for colour. 1 for grey images in [0, 1]: the model then normalises by itself, and computes what it
            would compute for the image in three equal, normalised channels.
        pretrained: Download the library's weights (unless `weights` are given); False for random ones.
        weights: A path or URL of weights of your own, see `load_weights`.
        image_size: Side of the images you will use, where it is not the backbone's; None for the backbone's own.

    Raises:
        ArgumentError: no such model (close names are told), or it takes no images of this size.
        DownloadError: the library's weights could not be fetched.
        ModelFileError: nothing in the weights fits.

    >>> model = create_model("torchvision/squeezenet1_1", classes=["ant", "bee"], pretrained=False)
    >>> model.classes, model.preprocessing["size"], sum(each.numel() for each in model.head_parameters())
    (['ant', 'bee'], [224, 224], 1026)
    """
    names = None if isinstance(classes, int) else [str(each) for each in classes]
    if image_size is not None and image_size < 1:
        raise ArgumentError(f"image_size is a number of pixels, not {image_size}")
    own_weights = pretrained and weights is None
    model, config, address = _build(name, pretrained=own_weights, image_size=image_size)
    replace_head(model, classes if isinstance(classes, int) else len(classes))
    report = _loaded(model, weights if weights is not None else address)
    known, config = bool(config), config or _config_by_trying(model)
    preprocessing = preprocessing_of(config, in_chans=in_chans, image_size=image_size)
    take_channels(model, in_chans, mean=config.get("mean") or IMAGENET_MEAN, std=config.get("std") or IMAGENET_STD)
    if known:
        _adapt_size(model, config, in_chans, image_size, preprocessing)
    model.__dict__.update(preprocessing=preprocessing, classes=names, weights_report=report)
    return model


def _loaded(model: nn.Module, weights: str | os.PathLike[str] | None) -> LoadReport | None:
    if weights is None:
        return None
    report = load_weights(model, weights)
    _log.info(str(report))
    backbone = len(report.missing) + len(report.mismatched)
    if backbone > len(report.loaded):
        _log.warning("most of the weights do not fit: %s", report)
    return report


def _adapt_size(
    model: nn.Module, config: Mapping[str, Any], in_chans: int, image_size: int | None, spec: dict[str, Any]
) -> None:
    _, height, width = config.get("input_size") or (3, 224, 224)
    fixed = bool(config.get("fixed_input_size")) or not _takes(model, torch.zeros(2, in_chans, SMALLEST, SMALLEST))
    if fixed and image_size is not None and image_size > height and list(spec["size"]) != [height, width]:
        raise ArgumentError(f"this model takes images of {height} x {width} only; leave image_size out")
    if fixed and list(spec["size"]) != [height, width]:
        spec.update(size=[height, width], resize=None if spec["resize"] is None else max(height, width))
    enlarge_small_images(model, (height, width), fixed=fixed)


def _config_by_trying(model: nn.Module) -> dict[str, Any]:
    """A module that does not say what it was made for: the size of an image that it takes."""
    shape = run_trace(model).example.shape
    return {"input_size": (3, *shape[2:])} if len(shape) == 4 else {}


def _takes(model: nn.Module, example: Any) -> bool:
    try:
        run_trace(model, example.to("meta"))
    except ArgumentError:
        return False
    return True


_Built = tuple[nn.Module, Mapping[str, Any], str | None]


def _build(name: str | nn.Module, *, pretrained: bool, image_size: int | None) -> _Built:
    """The model with the head of its library, what it was made for, and the address of its weights, if any."""
    if isinstance(name, nn.Module):
        return name, _config_of(name), None
    library, _, rest = name.partition("/")
    if library == "hub":
        return _from_hub(rest, pretrained=pretrained)
    if library in _BUILDERS:
        return _BUILDERS[library](rest, pretrained, image_size)
    for library, build in _BUILDERS.items():
        if name in _names(library):
            return build(name, pretrained, image_size)
    raise _unknown(name, list(_BUILDERS))


def _names(library: str) -> set[str]:
    if library == "timm":
        timm = require("timm", extra="dev")
        return {*timm.list_models(), *timm.list_models(pretrained=True)}
    models = require("torchvision.models", extra="dev")
    return set(models.list_models(module=models))


def _unknown(name: str, libraries: Sequence[str]) -> ArgumentError:
    names = sorted(set().union(*(_names(library) for library in libraries)))
    close = difflib.get_close_matches(name, names, 5, 0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() has all names"
    return ArgumentError(f"no model {name!r} in {' or '.join(libraries)}; {hint}")


def _from_timm(name: str, pretrained: bool, image_size: int | None) -> _Built:
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
    return model, found, None


def _from_torchvision(name: str, pretrained: bool, image_size: int | None) -> _Built:
    del image_size
    models = require("torchvision.models", extra="dev")
    if name not in _names("torchvision"):
        raise _unknown(name, ["torchvision"])
    options: dict[str, Any] = {"weights": None}
    known = inspect.signature(models.get_model_builder(name)).parameters
    if name in ("googlenet", "inception_v3"):  # their auxiliary heads serve a training from scratch
        options |= {"aux_logits": False, "init_weights": not pretrained, "transform_input": False}
    assert "weights" in known
    model = models.get_model(name, **options)
    entry = _usual_weights(models.get_model_weights(name), pretrained=pretrained)
    return model, _config_of_preset(entry.transforms()), entry.url if pretrained else None


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


def _from_hub(name: str, *, pretrained: bool) -> _Built:
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
    return model, _config_of(model), None


def _no_weights(name: str, error: Exception) -> DownloadError:
    first = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason given"
    return DownloadError(
        f"the pretrained weights of {name} could not be fetched: {type(error).__name__}: {first}; without a network "
        "pass weights=<path of a file>, or pretrained=False for random weights"
    )


_BUILDERS: dict[str, Callable[[str, bool, int | None], _Built]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
}
