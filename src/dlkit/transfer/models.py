"""`create_model`: a pretrained backbone by name, with a head for your classes."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dlkit import _bounds
from dlkit._optional import require
from dlkit.errors import ArgumentError
from dlkit.transfer._trace import run_trace
from dlkit.transfer.backbones import LIBRARIES, Backbone, backbone
from dlkit.transfer.heads import find_heads, replace_head
from dlkit.transfer.inputs import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SMALLEST,
    enlarge_small_images,
    preprocessing_of,
    take_channels,
)
from dlkit.transfer.sounds import hear
from dlkit.transfer.weights import LoadReport, is_here, load_weights
from dlkit.transforms import Preprocessing
from dlkit.transforms.audio.mel import LogMel

__all__ = ["create_model", "has_weights", "rebuild"]

_log = logging.getLogger("dlkit")


def create_model(
    name: str | nn.Module,
    *,
    classes: int | Sequence[str],
    in_chans: int = 3,
    pretrained: bool = True,
    weights: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    log_mel: LogMel | None = None,
) -> nn.Module:
    """A backbone with a fresh head, ready to be frozen and trained.

    The model is the library's own module; what dlkit knows about it is put beside: `preprocessing` (a transform of
    dlkit; `dlkit.transforms.from_model(model, augment=...)` makes one for training of it), `classes`, `weights_report`,
    `architecture` (plain data for `rebuild`; None for your own module), and the method
    `head_parameters()`.

    Small images: the model enlarges images with a shorter side below 96 pixels to 96 by itself (to its own size where
    it takes no other), because a backbone that halves the picture five times sees nothing in 28 pixels.

    Args:
        name: "timm/...", "torchvision/...", or a bare name, which takes timm's model if there is one, else
            torchvision's; "hub/owner/repo:model" for `torch.hub` (it runs the code of that repository; a folder
            instead of owner/repo is taken as it is); or your own module.
        classes: Their number, or their names in the order of the labels.
        in_chans: 3 for colour. 1 for grey images in [0, 1]: the model then normalises by itself, and computes what it
            would compute for the image in three equal, normalised channels.
        pretrained: Download the library's weights (unless `weights` are given); False for random ones.
        weights: A path or URL of weights of your own, see `load_weights`.
        image_size: Side of the images you will use, where it is not the backbone's; None for the backbone's own.
        log_mel: For sounds: the model then takes waveforms [B, 1, T], and looks at this spectrogram of them as at a
            grey image, such as `LogMel(sample_rate=16_000, num_mels=128)`. What waveforms it is given, the data says:
            `preprocessing` is None.

    Raises:
        ArgumentError: no such model (close names are suggested), or it takes no images of this size.
        DownloadError: the library's weights could not be fetched.
        ModelFileError: nothing in the weights fits.

    >>> model = create_model("torchvision/squeezenet1_1", classes=["ant", "bee"], pretrained=False)
    >>> model.classes, model.preprocessing.size, sum(each.numel() for each in model.head_parameters())
    (['ant', 'bee'], (224, 224), 1026)
    """
    names = None if isinstance(classes, int) else [str(each) for each in classes]
    in_chans = 1 if log_mel is not None else in_chans
    if image_size is not None and image_size < 1:
        raise ArgumentError(f"image_size is a number of pixels, not {image_size}")
    made = backbone(name, pretrained=pretrained and weights is None, image_size=image_size)
    model = replace_head(made.model, classes if isinstance(classes, int) else len(classes))
    report = _loaded(model, weights if weights is not None else made.url)
    config = made.config or _config_by_trying(model)
    preprocessing = preprocessing_of(config, in_chans=in_chans, image_size=image_size)
    take_channels(model, in_chans, mean=config.get("mean") or IMAGENET_MEAN, std=config.get("std") or IMAGENET_STD)
    if made.config:
        preprocessing = _adapted(model, config, in_chans, image_size, preprocessing)
    architecture = _architecture(made, classes if names is None else len(names), in_chans, image_size)
    if log_mel is not None:
        hear(model, log_mel)
        own = made.library == "module"  # which a file could not make again
        architecture = None if own or architecture is None else {**architecture, "log_mel": log_mel.document()}
    prepared = preprocessing if log_mel is None else None
    model.__dict__.update(preprocessing=prepared, classes=names, weights_report=report, architecture=architecture)
    return model


def has_weights(name: str) -> bool:
    """Whether the pretrained weights of a backbone of torchvision were downloaded before.

    Args:
        name: "torchvision/...".
    """
    models = require("torchvision.models", extra="dev")
    url = models.get_model_weights(name.removeprefix("torchvision/")).DEFAULT.url
    return is_here(url)


def _architecture(made: Backbone, classes: Any, in_chans: int, image_size: int | None) -> dict[str, Any] | None:
    if made.library == "module":  # a registered one can be made again while nothing about it was changed
        return None if made.config or in_chans != 3 else made.model.__dict__.get("architecture")
    return {
        "library": made.library,
        "name": made.name,
        "num_classes": classes,
        "in_chans": in_chans,
        "image_size": image_size,
    }


def rebuild(architecture: Mapping[str, Any], *, trust_hub: bool = False) -> nn.Module:
    """The same module as one that `create_model` made, with random weights: for a state_dict to be loaded into.

    It has the same names and shapes, takes the same channels, and treats small images the same way. Nothing is
    downloaded, and torch's random stream is left as it was.

    Args:
        architecture: What `create_model` wrote to `model.architecture`, also after a way through JSON.
        trust_hub: Allow an architecture from `torch.hub`, which runs the code of that repository.

    Raises:
        ArgumentError: it is not such a document, names a model that is not installed, or needs `trust_hub`.

    >>> model = create_model("torchvision/squeezenet1_1", classes=2, in_chans=1, pretrained=False)
    >>> again = rebuild(model.architecture)
    >>> again.load_state_dict(model.state_dict())
    <All keys matched successfully>
    """
    _check_architecture(architecture)
    library, name, image_size = architecture["library"], architecture["name"], architecture["image_size"]
    if library == "hub" and not trust_hub:
        raise ArgumentError(
            f"the model is {name!r} of torch.hub: making it runs the code of that repository; pass trust_hub=True if "
            "you trust it"
        )
    heard = architecture.get("log_mel")
    log_mel = None if heard is None else LogMel.from_document(heard)
    with torch.random.fork_rng(devices=[]):
        return create_model(
            f"{library}/{name}",
            classes=architecture["num_classes"],
            in_chans=architecture["in_chans"],
            image_size=image_size,
            pretrained=False,
            log_mel=log_mel,
        )


def _check_architecture(architecture: Any) -> None:
    """The document may come from a file of somebody else's."""
    number = {"num_classes": _bounds.OUTPUTS, "in_chans": _bounds.CHANNELS, "image_size": _bounds.SIDE}
    found = dict(architecture) if isinstance(architecture, Mapping) else {}
    good = set(found) - {"log_mel"} == {"library", "name", *number}
    good = good and found["library"] in LIBRARIES and isinstance(found["name"], str)
    for key, bounds in number.items():
        value = found.get(key)
        fits = type(value) is int and bounds.least <= value <= bounds.most
        good = good and (fits or (value is None and key == "image_size"))
    if not good:
        raise ArgumentError(
            f"architecture must be what create_model wrote, with a library of {', '.join(LIBRARIES)}, a name, "
            f"num_classes, in_chans and image_size (and log_mel), not {architecture!r:.300}"
        )


def _loaded(model: nn.Module, weights: str | os.PathLike[str] | None) -> LoadReport | None:
    if weights is None:
        return None
    report = load_weights(model, weights)
    heads = tuple(f"{name}." for name in find_heads(model).names)
    lacking = [
        name
        for name in (*report.missing, *report.mismatched)
        if not name.startswith(heads) and not name.endswith("num_batches_tracked")
    ]
    if lacking:
        _log.warning("%d tensors of the backbone stay random: %s", len(lacking), report)
    else:
        _log.info(str(report))
    return report


def _adapted(
    model: nn.Module, config: Mapping[str, Any], in_chans: int, image_size: int | None, given: Preprocessing
) -> Preprocessing:
    """Small images enlarged inside the model, and the preprocessing of one that takes its own size only."""
    _, height, width = config.get("input_size") or (3, 224, 224)
    fixed = bool(config.get("fixed_input_size")) or not _takes(model, torch.zeros(2, in_chans, SMALLEST, SMALLEST))
    enlarge_small_images(model, (height, width), fixed=fixed)
    if not fixed or given.size == (height, width):
        return given
    if image_size is not None and image_size > height:
        raise ArgumentError(f"this model takes images of {height} x {width} only; leave image_size out")
    return dataclasses.replace(given, size=(height, width), resize=max(height, width) if given.fit == "crop" else None)


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
