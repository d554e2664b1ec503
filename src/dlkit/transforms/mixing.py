"""MixUp and CutMix: whole batches in, mixed batches with soft targets out."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dlkit._documents import Document
from dlkit.errors import ArgumentError

__all__ = ["CutMix", "MixUp"]


@dataclass(frozen=True, kw_only=True)
class _Mix(Document):
    """What both share: who is mixed with whom, by how much, and the targets.

    Attributes:
        num_classes: How many classes; targets become [B, num_classes]. Targets that are floats [B, ...] already (soft
            or several labels, regression) are mixed as they are.
        alpha: Of the Beta(alpha, alpha) distribution of the share; small values mix little, 1 is uniform.
        chance: The share of batches that are mixed; the others only get soft targets.
    """

    num_classes: int
    alpha: float = 1.0
    chance: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.num_classes, int) or self.num_classes < 1:
            raise ArgumentError(f"num_classes must be a whole number of at least 1, not {self.num_classes!r}")
        if not isinstance(self.alpha, int | float) or not 0 < self.alpha < 1e6:
            raise ArgumentError(f"alpha must be above 0, not {self.alpha!r}")
        if not isinstance(self.chance, int | float) or not 0 <= self.chance <= 1:
            raise ArgumentError(f"chance must be a number from 0 to 1, not {self.chance!r}")

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed batch: `inputs` [B, ...] of the same shape, and soft targets.

        Args:
            inputs: Floats [B, C, H, W].
            targets: Integers [B], or floats [B, ...].
        """
        if not isinstance(targets, Tensor) or len(targets) != len(inputs):
            raise ArgumentError(f"{type(self).__name__} needs one target for each of the {len(inputs)} inputs")
        soft = self._soft(targets)
        if random.random() >= self.chance or len(inputs) < 2:
            return inputs, soft
        share = random.betavariate(self.alpha, self.alpha)
        order = torch.randperm(len(inputs))
        mixed, share = self._mixed(inputs, inputs.index_select(0, order.to(inputs.device)), share)
        return mixed, torch.lerp(soft.index_select(0, order.to(soft.device)), soft, share)

    def _soft(self, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return targets
        if targets.dim() != 1:
            raise ArgumentError(f"targets must be integers [B] or floats, not {targets.dtype} {list(targets.shape)}")
        if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < self.num_classes:
            raise ArgumentError(f"targets must lie in 0 to {self.num_classes - 1} (num_classes={self.num_classes})")
        return F.one_hot(targets, self.num_classes).float()

    def _mixed(self, inputs: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class MixUp(_Mix):
    """Blend every image of a batch with another one, and their targets in the same shares (Zhang et al. 2018).

    Give it to an image dataset (`ImageFolder(..., batch_transform=MixUp(num_classes=10))`), or call it on a batch. The
    loss must take soft targets, as `CrossEntropyLoss` does.

    Attributes:
        num_classes: How many classes; targets become [B, num_classes].
        alpha: Of the Beta(alpha, alpha) distribution of the share; 0.2 is usual for ImageNet.
        chance: The share of batches that are mixed.

    >>> images, targets = MixUp(num_classes=3)(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))
    >>> images.shape, bool(targets.sum(1).allclose(torch.ones(4)))
    (torch.Size([4, 3, 8, 8]), True)
    """

    _head: ClassVar[Mapping[str, Any]] = {"kind": "MixUp"}

    alpha: float = 0.2

    def _mixed(self, inputs: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
        return torch.lerp(others, inputs, share), share


@dataclass(frozen=True, kw_only=True)
class CutMix(_Mix):
    """Put a rectangle of another image into every image of a batch; targets follow the area (Yun et al. 2019).

    Attributes:
        num_classes: How many classes; targets become [B, num_classes].
        alpha: Of the Beta(alpha, alpha) distribution of the share; 1 is usual.
        chance: The share of batches that are mixed.

    >>> images, targets = CutMix(num_classes=2)(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
    >>> images.shape, targets.shape
    (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    _head: ClassVar[Mapping[str, Any]] = {"kind": "CutMix"}

    def _mixed(self, inputs: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
        height, width = inputs.shape[-2:]
        side = math.sqrt(1 - share)
        middle_y, middle_x = random.randrange(height), random.randrange(width)
        top, bottom = _edges(middle_y, side * height, height)
        left, right = _edges(middle_x, side * width, width)
        mixed = inputs.clone()
        mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _edges(middle: int, length: float, most: int) -> tuple[int, int]:
    half = int(length / 2)
    return max(0, middle - half), min(most, middle + half)
