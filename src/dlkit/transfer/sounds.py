"""Backbones for images that listen: a log-mel spectrogram as a grey image, made inside the model."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.errors import ArgumentError
from dlkit.transfer.inputs import SMALLEST
from dlkit.transforms.audio.mel import LogMel
from dlkit.transforms.audio.spec import Heard

__all__ = ["hear"]

_RANGE = 80.0  # dB from black to white, where the spectrogram itself has no floor


def hear(model: nn.Module, log_mel: LogMel) -> nn.Module:
    """Let a model for grey images in [0, 1] take waveforms [B, 1, T] instead, in place.

    The loudest place of each spectrogram becomes white, and what is `top_db` below it black; a spectrogram with fewer
    bands or frames than a backbone can look at is enlarged.

    Args:
        model: It takes [B, 1, H, W].
        log_mel: The spectrogram.
    """
    model.register_forward_pre_hook(functools.partial(_as_image, log_mel), prepend=True)
    model.__dict__.update(log_mel=log_mel, spec=Heard(sample_rate=log_mel.sample_rate))
    return model


def _as_image(log_mel: LogMel, model: nn.Module, args: tuple[Any, ...]) -> Any:
    waveforms, *rest = args
    if not isinstance(waveforms, Tensor) or waveforms.dim() != 3 or waveforms.shape[1] != 1:
        shape = list(waveforms.shape) if isinstance(waveforms, Tensor) else type(waveforms).__name__
        raise ArgumentError(f"{type(model).__name__} with log_mel= takes waveforms [B, 1, T], not {shape}")
    levels: Tensor = log_mel(waveforms)
    loudest = levels.amax((-2, -1), keepdim=True)
    image = torch.clamp((levels - loudest) / (log_mel.top_db or _RANGE) + 1, 0, 1)
    size = max(image.shape[2], SMALLEST), max(image.shape[3], SMALLEST)
    if size != (image.shape[2], image.shape[3]):
        image = F.interpolate(image, size, mode="bilinear", align_corners=False)
    return (image.to(waveforms.dtype), *rest)
