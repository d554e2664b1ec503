"""Local contrast normalisation of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dlkit import _bounds
from dlkit._documents import Document
from dlkit.errors import ArgumentError

__all__ = ["LocalContrastNormalization"]


@dataclass(frozen=True, kw_only=True)
class LocalContrastNormalization(Document):
    """Take from every pixel the mean of its neighbourhood and divide by the neighbourhood's deviation.

    `v = x - mean(x)`, `y = v / max(c, sqrt(mean(v²)))`, the means weighted by a Gaussian over a square window and over
    all channels, and `c` the mean of the deviations of the image (Jarrett, Kavukcuoglu, Ranzato, LeCun 2009, "What is
    the best multi-stage architecture for object recognition?", section 2.1). At the border the image is mirrored.

    Attributes:
        window: The window's side, odd, in pixels.
        sigma: The Gaussian's standard deviation in pixels; None for a quarter of the window.

    Raises:
        ArgumentError: a window that is not odd, or not smaller than twice the image.

    >>> flat = torch.full((1, 3, 16, 16), 0.7)
    >>> bool(LocalContrastNormalization()(flat).abs().max() < 1e-3)
    True
    """

    _head: ClassVar[Mapping[str, Any]] = {"kind": "LocalContrastNormalization"}

    window: int = 9
    sigma: float | None = None

    def __post_init__(self) -> None:
        if _bounds.whole(self.window, "window", _bounds.WINDOW) % 2 == 0:
            raise ArgumentError(f"window must be an odd whole number, not {self.window!r}")
        if self.sigma is not None:
            _bounds.number(self.sigma, "sigma", _bounds.SIGMA)

    def __call__(self, images: Tensor) -> Tensor:
        """The normalised images, of the same shape.

        Args:
            images: Floats [C, H, W] or [B, C, H, W].
        """
        if not images.is_floating_point() or images.dim() not in (3, 4):
            raise ArgumentError(f"images must be floats [C, H, W] or [B, C, H, W], not {_described(images)}")
        if min(images.shape[-2:]) <= self.window // 2:
            raise ArgumentError(f"a window of {self.window} pixels is too large for images {list(images.shape)}")
        batch = images if images.dim() == 4 else images.unsqueeze(0)
        centred = batch - self._blurred(batch.mean(1, keepdim=True))
        deviation = self._blurred(centred.square().mean(1, keepdim=True)).sqrt()
        # Row by row: one long sum is cut up among threads. And a flat image has no contrast to divide by.
        floor = deviation.mean(3, keepdim=True).mean(2, keepdim=True).clamp(min=1e-4)
        return (centred / torch.maximum(deviation, floor)).reshape(images.shape)

    def _blurred(self, values: Tensor) -> Tensor:
        """Weighted shifts along both axes: sums in a fixed order, so that the number of threads changes no bit."""
        half = self.window // 2
        sigma = self.sigma or self.window / 4
        weights = torch.exp(-0.5 * (torch.arange(-half, half + 1, dtype=torch.float64) / sigma) ** 2)
        shares = (weights / weights.sum()).tolist()
        padded = F.pad(values, (half, half, half, half), mode="reflect")
        height, width = values.shape[-2:]
        rows = _weighted([padded[..., shift : shift + height, :] for shift in range(self.window)], shares)
        return _weighted([rows[..., shift : shift + width] for shift in range(self.window)], shares)


def _weighted(parts: list[Tensor], shares: list[float]) -> Tensor:
    total = parts[0] * shares[0]
    for part, share in zip(parts[1:], shares[1:], strict=True):
        total = total.add_(part, alpha=share)
    return total


def _described(value: Any) -> str:
    return f"{value.dtype} of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
