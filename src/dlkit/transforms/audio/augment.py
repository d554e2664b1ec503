"""What is random about a recording in training: drawn first for a whole batch, carried out after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit import _bounds
from dlkit._documents import Document
from dlkit.errors import ArgumentError

__all__ = ["AudioAugment"]

Numbers = npt.NDArray[np.float64]

# Which columns of the table of random numbers serve what.
_SHIFT, _GAIN, _CHANCE, _NOISE, _SEED = range(5)
_COLUMNS = 5


@dataclass(frozen=True, kw_only=True)
class AudioAugment(Document):
    """What is random in training; part of an `AudioPreprocessing`. Every value is checked when it is made.

    Attributes:
        crop: Whether a dataset cuts recordings that are longer than `seconds` at a random place; else in their middle.
        shift: In seconds; the recording is moved by up to so much, earlier or later, with silence in the gap.
        gain: In dB; the recording becomes louder or quieter by up to so much.
        noise: White noise at a ratio of signal to noise from this many dB to that many, such as (10, 40); None for no
            noise.
        noise_chance: The share of recordings that get it.

    Raises:
        ArgumentError: an invalid value.

    >>> AudioAugment(shift=0.1, gain=6, noise=(10, 40)).noise
    (10.0, 40.0)
    """

    _title: ClassVar[str] = "the augmentation"
    _head: ClassVar[Mapping[str, Any]] = {"kind": "AudioAugment"}

    crop: bool = True
    shift: float = 0.0
    gain: float = 0.0
    noise: tuple[float, float] | None = None
    noise_chance: float = 0.5

    def __post_init__(self) -> None:
        _bounds.number(self.shift, "shift", _bounds.Range(0, _bounds.SECONDS.most))
        _bounds.number(self.gain, "gain", _bounds.Range(0, _bounds.DECIBEL.most))
        _bounds.number(self.noise_chance, "noise_chance", _bounds.Range(0, 1))
        if self.noise is not None:
            edges = tuple(self.noise) if isinstance(self.noise, tuple | list) else ()
            if len(edges) != 2:
                raise ArgumentError(f"noise must be two ratios in dB, from and to, not {self.noise!r}")
            span = _bounds.Range(-_bounds.DECIBEL.most, _bounds.DECIBEL.most)
            low, high = (_bounds.number(edge, "noise", span) for edge in edges)
            object.__setattr__(self, "noise", (low, high))

    def draw(self, count: int) -> Numbers:
        """The random numbers for `count` recordings [count, 5], from torch's global stream.

        Args:
            count: How many.
        """
        return torch.rand(count, _COLUMNS, dtype=torch.float64).numpy()

    def moved_and_noisy(self, waveforms: Tensor, table: Numbers, sample_rate: int) -> Tensor:
        """Shift and noise, in place.

        Args:
            waveforms: float32 [B, C, T].
            table: From `draw`.
            sample_rate: In Hz.
        """
        for waveform, numbers in zip(waveforms, table, strict=True):
            steps = round((2 * numbers[_SHIFT] - 1) * self.shift * sample_rate)
            if steps:
                _shift(waveform, steps)
            if self.noise is not None and numbers[_CHANCE] < self.noise_chance:
                ratio = self.noise[0] + (self.noise[1] - self.noise[0]) * float(numbers[_NOISE])
                # A stream of its own: what a recording gets depends on its row alone, not on the length of others.
                stream = torch.Generator().manual_seed(int(numbers[_SEED] * (1 << 53)))
                noise = torch.randn(waveform.shape, generator=stream)
                waveform.add_(noise, alpha=float(waveform.square().mean().sqrt()) * 10 ** (-ratio / 20))
        return waveforms

    def louder(self, waveforms: Tensor, table: Numbers) -> Tensor:
        """Gain, in place.

        Args:
            waveforms: float32 [B, C, T].
            table: From `draw`.
        """
        if self.gain:
            factors = 10 ** ((2 * torch.from_numpy(table[:, _GAIN]) - 1) * self.gain / 20)
            waveforms.mul_(factors.float()[:, None, None])
        return waveforms


def _shift(waveform: Tensor, steps: int) -> None:
    moved = torch.zeros_like(waveform)
    size = max(0, waveform.shape[-1] - abs(steps))
    if size and steps > 0:
        moved[..., steps:] = waveform[..., :size]
    elif size:
        moved[..., :size] = waveform[..., -steps:]
    waveform.copy_(moved)
