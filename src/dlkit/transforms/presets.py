"""The usual preprocessings by name, and the one that a pretrained model was trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dlkit.errors import ArgumentError
from dlkit.transforms.augment import Augment
from dlkit.transforms.spec import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocessing

__all__ = ["for_evaluation", "for_training", "from_model"]

Size = int | tuple[int, int]
Color = Literal["RGB", "L"]


def for_training(
    size: Size,
    *,
    scale: tuple[float, float] | None = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    flip_vertical: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    erase: float = 0.0,
    interpolation: Interpolation = "bilinear",
    color: Color = "RGB",
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
) -> Preprocessing:
    """Random crop, mirror image, normalisation: the training of most image classifiers.

    Args:
        size: Side of the square output in pixels, or (height, width).
        scale: The share of the image's area that is cut out, from and to; (0.08, 1) made ImageNet models, fewer than
            some thousand images do better with (0.3, 1). None: no random crop, the middle is taken.
        ratio: Width per height of the crop, from and to.
        flip: The chance of a mirror image; 0 for letters and digits.
        flip_vertical: The chance of an upside-down image; 0.5 for views from above, such as satellite images.
        brightness: 0.2 multiplies by 0.8 to 1.2; and so do contrast and saturation.
        contrast: See brightness.
        saturation: See brightness.
        erase: The chance that a random rectangle becomes the mean.
        interpolation: "bilinear", "bicubic" or "nearest".
        color: "RGB" or "L" (grey).
        mean: Per channel, of pixels in [0, 1]; ImageNet's by default, which pretrained models expect.
        std: Per channel.

    Raises:
        ArgumentError: an invalid value.

    >>> for_training(224).shape
    (3, 224, 224)
    """
    augment = Augment(
        scale=scale,
        ratio=ratio,
        flip=flip,
        flip_vertical=flip_vertical,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        erase=erase,
    )
    height, width = _pair(size)
    return Preprocessing(
        size=(height, width),
        resize=round(max(height, width) * 256 / 224),  # for its `for_evaluation()`
        interpolation=interpolation,
        color=color,
        augment=augment,
        **_normal(color, mean, std),
    )


def for_evaluation(
    size: Size,
    *,
    resize: int | None = None,
    fit: Literal["crop", "stretch", "pad"] = "crop",
    interpolation: Interpolation = "bilinear",
    color: Color = "RGB",
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
) -> Preprocessing:
    """Resize, cut out the middle, normalise: nothing is random.

    Args:
        size: Side of the square output in pixels, or (height, width).
        resize: What the shorter side is made before the center crop; by default `size * 256 / 224`, rounded,
            so 256 for 224.
        fit: "crop"; "stretch" changes the proportions instead; "pad" keeps the whole image and fills with the mean.
        interpolation: "bilinear", "bicubic" or "nearest".
        color: "RGB" or "L" (grey).
        mean: Per channel, of pixels in [0, 1]; ImageNet's by default, which pretrained models expect.
        std: Per channel.

    Raises:
        ArgumentError: an invalid value.

    >>> for_evaluation(224).resize, for_evaluation((32, 100), fit="stretch", color="L").shape
    (256, (1, 32, 100))
    """
    height, width = _pair(size)
    if resize is None and fit == "crop":
        resize = round(max(height, width) * 256 / 224)
    return Preprocessing(
        size=(height, width),
        resize=resize,
        fit=fit,
        interpolation=interpolation,
        color=color,
        **_normal(color, mean, std),
    )


def from_model(model: Any, *, augment: Augment | None = None, size: Size | None = None) -> Preprocessing:
    """The preprocessing that a pretrained model, or a set of weights, was made for.

    Args:
        model: A timm model; an entry of a torchvision weights enum, such as `ResNet18_Weights.DEFAULT`; or a model with
            an attribute `preprocessing`, which `dlkit.transfer.create_model` puts there. A torchvision model does not
            say which weights it has, so give the weights.
        augment: What is random, for training.
        size: Another size than the model's own, for models that take any; the crop's share stays the same.

    Raises:
        ArgumentError: the object does not say; or its preprocessing cannot be written as a `Preprocessing`.

    >>> from torchvision.models import ResNet18_Weights
    >>> from_model(ResNet18_Weights.IMAGENET1K_V1) == for_evaluation(224)
    True
    """
    own = getattr(model, "preprocessing", None)
    if isinstance(own, Preprocessing):
        fields: dict[str, Any] = {name: getattr(own, name) for name in _FIELDS}
    elif isinstance(config := getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None), Mapping):
        fields = _from_timm(config)
    elif callable(getattr(model, "transforms", None)):
        fields = _from_torchvision(model.transforms())
    else:
        raise ArgumentError(
            f"{type(model).__module__}.{type(model).__qualname__} does not say how its images are prepared; give a "
            "timm model or torchvision's weights (ResNet18_Weights.DEFAULT), or transforms.for_evaluation(size, ...)"
        )
    if size is not None:
        fields |= _other_size(fields, _pair(size))
    return Preprocessing(**{**fields, "augment": augment})


_FIELDS = ("size", "resize", "fit", "interpolation", "color", "mean", "std", "then")


def _from_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    channels, height, width = config["input_size"]
    mode = str(config.get("crop_mode") or "center")
    fits = {"center": "crop", "squash": "stretch", "border": "pad"}
    if mode not in fits:
        raise ArgumentError(f"the model's crop_mode {mode!r} is not one of {', '.join(fits)}; write the preprocessing")
    if channels not in (1, 3):
        raise ArgumentError(f"the model takes {channels} channels; images have 3, or 1 in grey")
    share = float(config.get("crop_pct") or 0.875)
    exact = mode == "center" and height == width
    return {
        "size": (height, width),
        "resize": math.floor(height / share) if exact else math.floor(max(height, width) / share),
        "fit": fits[mode],
        "interpolation": _interpolation(config.get("interpolation") or "bicubic"),
        "color": "RGB" if channels == 3 else "L",
        "mean": tuple(float(value) for value in config["mean"])[:channels],
        "std": tuple(float(value) for value in config["std"])[:channels],
    }


def _from_torchvision(preset: Any) -> dict[str, Any]:
    try:
        (crop,), (resize,) = preset.crop_size, preset.resize_size
        mean, std, interpolation = tuple(preset.mean), tuple(preset.std), preset.interpolation
    except (AttributeError, TypeError, ValueError) as error:
        raise ArgumentError(f"{type(preset).__name__} is not the preprocessing of an image classifier") from error
    return {
        "size": (int(crop), int(crop)),
        "resize": max(int(resize), int(crop)),
        "interpolation": _interpolation(getattr(interpolation, "value", interpolation)),
        "mean": tuple(map(float, mean)),
        "std": tuple(map(float, std)),
    }


def _interpolation(name: Any) -> str:
    known = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest", "random": "bicubic"}
    if str(name) not in known:
        raise ArgumentError(f"the model's interpolation {name!r} is not one of bilinear, bicubic, nearest")
    return known[str(name)]


def _other_size(fields: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    resize = fields.get("resize")
    scaled = None if resize is None else max(*size, round(resize * max(size) / max(fields["size"])))
    return {"size": size, "resize": scaled}


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int) and not isinstance(size, bool):
        return size, size
    if isinstance(size, tuple | list) and len(size) == 2:
        return size[0], size[1]
    raise ArgumentError(f"size must be a number of pixels, or (height, width), not {size!r}")


def _normal(color: str, mean: Any, std: Any) -> dict[str, Any]:
    """Mean and deviation for 3 channels or 1; ImageNet's grey value is the mean of its channels'."""
    defaults = {"RGB": (IMAGENET_MEAN, IMAGENET_STD), "L": ((0.449,), (0.226,))}.get(color, (None, None))
    channels = 3 if color == "RGB" else 1
    given = []
    for value, default in zip((mean, std), defaults, strict=True):
        if value is None:
            given.append(default)
        else:
            given.append((value,) * channels if isinstance(value, int | float) else tuple(value))
    return {"mean": given[0], "std": given[1]}
