"""What a backbone is fed: its preprocessing, grey images, small images."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.errors import ArgumentError
from dlkit.transfer._trace import run_trace
from dlkit.transforms import Preprocessing, from_model
from dlkit.transforms.spec import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "SMALLEST", "enlarge_small_images", "preprocessing_of", "take_channels"]

#: Images with a shorter side below this are enlarged to it: a backbone that halves the picture five times would
#: otherwise look at hardly more than one place.
SMALLEST = 96

_log = logging.getLogger("dlkit")


def preprocessing_of(config: Mapping[str, Any], *, in_chans: int, image_size: int | None) -> Preprocessing:
    """How images become the input of a backbone.

    Args:
        config: What the backbone was made with: input_size, crop_pct, crop_mode, interpolation, mean, std.
        in_chans: 3; or 1 for grey, where the model normalises by itself.
        image_size: Another size than the backbone's.
    """
    _, height, width = config.get("input_size") or (3, 224, 224)
    if image_size is not None:
        height = width = max(image_size, SMALLEST)
    share = config.get("crop_pct") if image_size is None or image_size >= SMALLEST else 1.0
    usual = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} | {name: value for name, value in config.items() if value}
    known = SimpleNamespace(pretrained_cfg=usual | {"input_size": (3, height, width), "crop_pct": share})
    found = from_model(known)
    return dataclasses.replace(found, color="L", mean=(0.0,), std=(1.0,)) if in_chans == 1 else found


def take_channels(
    model: nn.Module, in_chans: int, *, mean: Sequence[float], std: Sequence[float], example: Any = None
) -> nn.Module:
    """Let a model for colour images take images of other channels, in place.

    Grey images are given as they are, in [0, 1]: the first layer is folded so that the model computes, to rounding,
    what it computes for the grey image copied into three channels and normalised with `mean` and `std`. Where the first
    layer is not a plain convolution, the image is copied and normalised in front of the model. For other numbers of
    channels the kernels of the three colours are repeated in turn and scaled (as timm does it).

    Args:
        model: A model that takes [B, 3, H, W].
        in_chans: Channels of the new input.
        mean: Of the three channels, of pixels in [0, 1].
        std: Of the three channels.
        example: An input with a batch dimension; None guesses one.

    Raises:
        ArgumentError: no first convolution was found, for a number of channels other than 1 and 3.

    >>> conv = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    >>> grey = torch.rand(1, 1, 5, 5)
    >>> before = conv((grey.expand(1, 3, 5, 5) - 0.5) / 0.25)
    >>> folded = take_channels(conv, 1, mean=[0.5] * 3, std=[0.25] * 3)
    >>> torch.allclose(folded(grey), before, atol=1e-5)
    True
    """
    if in_chans == 3:
        return model
    if in_chans < 1:
        raise ArgumentError(f"in_chans must be at least 1, not {in_chans}")
    first = _first_convolution(model, example)
    if in_chans == 1 and first is None:
        _expand(model, mean, std)
    elif in_chans == 1 and first is not None:
        _fold(first, mean, std)
    elif first is not None:
        _repeat(first, in_chans)
    else:
        raise ArgumentError(
            f"in_chans={in_chans}: {type(model).__name__} does not begin with one plain convolution; "
            "replace its first layer yourself and pass the module"
        )
    return model


def _first_convolution(model: nn.Module, example: Any) -> nn.Conv2d | None:
    """The convolution that sees the image, if there is exactly one and its weights are used as they are."""
    calls = run_trace(model, example).calls
    seeing = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and name in calls and module.in_channels == 3 and calls[name].used_before == 0
    ]
    others = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3 and m not in seeing]
    plain = ("Conv2d", "Conv2dSame")  # others standardise their weights over the channels, which a fold would change
    if len(seeing) != 1 or others or type(seeing[0]).__name__ not in plain or seeing[0].groups != 1:
        return None
    return seeing[0] if seeing[0].padding_mode == "zeros" and set(seeing[0]._parameters) == {"weight", "bias"} else None


def _fold(conv: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> None:
    """W·(g - m)/s = (ΣW/s)·g - (ΣW·m/s)·1: a convolution over the grey image and a channel of ones.

    A bias in place of the ones would be wrong at the border, where padding is not a pixel.
    """
    weight = conv.weight.detach()
    scale = weight.new_tensor(std).reshape(1, 3, 1, 1)
    shift = weight.new_tensor(mean).reshape(1, 3, 1, 1)
    image, ones = (weight / scale).sum(1, keepdim=True), -(weight * shift / scale).sum(1, keepdim=True)
    conv.weight = nn.Parameter(torch.cat([image, ones], 1))
    conv.in_channels = 2
    conv.register_forward_pre_hook(_with_ones)


def _with_ones(conv: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (torch.cat([args[0], torch.ones_like(args[0])], 1), *args[1:])


def _repeat(conv: nn.Conv2d, in_chans: int) -> None:
    weight = conv.weight.detach()
    turns = [channel % 3 for channel in range(in_chans)]
    conv.weight = nn.Parameter(weight[:, turns] * (3 / in_chans))
    conv.in_channels = in_chans


def _expand(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    model.register_forward_pre_hook(functools.partial(_to_three, tuple(mean), tuple(std)))


def _to_three(mean: tuple[float, ...], std: tuple[float, ...], model: nn.Module, args: tuple[Any, ...]) -> Any:
    image, *rest = args
    shift = image.new_tensor(mean).reshape(1, 3, 1, 1)
    scale = image.new_tensor(std).reshape(1, 3, 1, 1)
    return ((image - shift) / scale, *rest)


def enlarge_small_images(model: nn.Module, size: tuple[int, int], *, fixed: bool) -> nn.Module:
    """Let a model enlarge images that are too small for it by itself, in place.

    Args:
        model: The model.
        size: Height and width that the backbone was made for.
        fixed: It takes no other size: everything smaller is enlarged to that. Else images with a shorter side below
            `SMALLEST` are enlarged until it has so many pixels.
    """
    model.register_forward_pre_hook(functools.partial(_enlarged, size, fixed, {}))
    return model


def _enlarged(
    size: tuple[int, int], fixed: bool, told: dict[str, bool], model: nn.Module, args: tuple[Any, ...]
) -> Any:
    image, *rest = args
    height, width = image.shape[-2:]
    target = _target(height, width, size, fixed=fixed)
    if target == (height, width):
        return None
    if not told and not image.is_meta and not hasattr(model, "log_mel"):  # a spectrogram is not an image in a file
        told["told"] = True
        _log.warning(
            "%s enlarges images of %d x %d to %d x %d by itself: it was made for %d x %d, and needs a shorter side of "
            "at least %d; enlarge them when they are read (model.preprocessing) to save the time",
            type(model).__name__, height, width, *target, *size, size[0] if fixed else SMALLEST,
        )  # fmt: skip
    return (F.interpolate(image, target, mode="bilinear", align_corners=False), *rest)


def _target(height: int, width: int, size: tuple[int, int], *, fixed: bool) -> tuple[int, int]:
    if fixed:
        return size if height < size[0] or width < size[1] else (height, width)
    if min(height, width) >= SMALLEST:
        return height, width
    factor = SMALLEST / min(height, width)
    return round(height * factor), round(width * factor)
