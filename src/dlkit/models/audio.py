"""`AudioClassifier`: a convolutional baseline that listens to waveforms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.errors import ArgumentError, TrainingError
from dlkit.registry import register
from dlkit.transforms.audio.mel import LogMel, SpectrogramMask
from dlkit.transforms.audio.spec import Heard

__all__ = ["AudioClassifier"]

_FLAT = 1e-3  # dB: a spectrogram that varies less is silence


@register("dlkit.models.AudioClassifier")
class AudioClassifier(nn.Module):
    """Scores for recordings: a log-mel spectrogram, four 3 × 3 convolutions over it, maximum and mean over the time.

    What it takes are waveforms, so the spectrogram is part of the model file and of an export. Each spectrogram is
    normalised by its own mean and deviation: loudness counts for nothing. Bands keep their places up to the last layer,
    times do not. While it is trained, stripes of the spectrogram are masked (SpecAugment, Park et al. 2019,
    arXiv:1904.08779).

    What is padding, by the mask, never changes a result: a recording has the same logits alone and beside a longer one,
    but for rounding.

    Args:
        num_classes: How many scores (logits) come out per recording; 1 for a regression.
        sample_rate: Of the waveforms, in Hz.
        in_chans: Channels of the waveforms.
        num_mels: Bands of the spectrogram.
        width: Channels of the first layer; the last has four times as many.
        dropout: The share of pooled features set to zero while training.
        time_mask: The longest masked stripe of time, as a share of the recording.
        frequency_mask: The widest masked stripe of frequency, as a share of the bands.

    Raises:
        ArgumentError: A count below 1, a share outside 0 to 1, or an invalid rate.
        TrainingError: In `forward`, waveforms of another shape or type.

    >>> model = AudioClassifier(num_classes=10, sample_rate=8_000)
    >>> model(torch.randn(4, 1, 8_000)).shape
    torch.Size([4, 10])
    """

    def __init__(
        self,
        num_classes: int,
        sample_rate: int = 16_000,
        *,
        in_chans: int = 1,
        num_mels: int = 40,
        width: int = 16,
        dropout: float = 0.3,
        time_mask: float = 0.1,
        frequency_mask: float = 0.1,
    ) -> None:
        super().__init__()
        for name, value in {"num_classes": num_classes, "in_chans": in_chans, "width": width}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArgumentError(f"{name} is a whole number of at least 1; got {value!r}")
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout must be at least 0 and below 1; got {dropout!r}")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.spec = Heard(sample_rate=sample_rate, channels=in_chans)
        self.mel = LogMel(sample_rate=sample_rate, num_mels=num_mels)
        self.masking = SpectrogramMask(time=time_mask, frequency=frequency_mask)
        self.blocks = nn.ModuleList(
            [
                _Block(in_chans, width, halved=True),
                _Block(width, 2 * width, halved=True),
                _Block(2 * width, 4 * width, halved=True),
                _Block(4 * width, 4 * width, halved=False),
            ]
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * 4 * width * -(-num_mels // 8), num_classes)

    def forward(self, waveforms: Tensor, mask: Tensor | None = None) -> Tensor:
        """Score recordings.

        Args:
            waveforms: float [B, in_chans, T].
            mask: bool [B, T], True where the recording is, which must begin at the left; None where nothing is padding.

        Returns:
            The logits, float [B, num_classes].
        """
        self._check(waveforms, mask)
        frames = None
        if mask is not None:
            waveforms = waveforms * mask[:, None]
            frames = self.mel.frames(mask.sum(1))
        maps = self.mel(waveforms)
        inside = None
        if frames is not None:
            inside = (torch.arange(maps.shape[-1], device=maps.device) < frames[:, None])[:, None, None]
        maps = _standardised(maps, inside).to(waveforms.dtype)
        if self.training:
            maps = self.masking(maps, frames=frames)
        for block in self.blocks:
            maps, inside = block(maps, inside)
        features = torch.cat([maps.amax(3), _mean(maps, inside)], 1).flatten(
            1
        )  # none is below 0, so padding is not a maximum
        logits: Tensor = self.head(self.dropout(features))
        return logits

    def _check(self, waveforms: Tensor, mask: Tensor | None) -> None:
        shape = list(waveforms.shape)
        if len(shape) != 3 or shape[1] != self.in_chans or not shape[2] or not waveforms.is_floating_point():
            hint = "; give one channel: waveforms.unsqueeze(1)" if len(shape) == 2 and self.in_chans == 1 else ""
            raise TrainingError(
                f"AudioClassifier(in_chans={self.in_chans}) takes waveforms of floats [B, {self.in_chans}, T]; got "
                f"{waveforms.dtype} {shape}{hint}"
            )
        if mask is not None and list(mask.shape) != [shape[0], shape[2]]:
            raise TrainingError(f"the mask of waveforms {shape} is [B, T]; got {list(mask.shape)}")


class _Block(nn.Module):
    """Convolution, normalisation, ReLU; then of each 2 × 2 places the largest. What is padding is 0 again behind it."""

    def __init__(self, in_chans: int, out_chans: int, *, halved: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_chans, out_chans, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_chans)
        self.halved = halved

    def forward(self, maps: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor | None]:
        # Laid out channel by channel, which is a third faster on CPUs.
        maps = self.convolution(maps.contiguous(memory_format=torch.channels_last))
        maps = F.relu(self._normalised(maps, inside))
        if inside is not None:
            maps = maps * inside
        if not self.halved:
            return maps, inside
        return F.max_pool2d(maps, 2, ceil_mode=True), None if inside is None else inside[..., ::2]

    def _normalised(self, maps: Tensor, inside: Tensor | None) -> Tensor:
        """By statistics of the recordings alone: those of padding would depend on what is beside what."""
        if inside is None or not self.training:
            normal: Tensor = self.norm(maps)
            return normal
        there = inside[:, 0, 0]
        columns = maps.permute(0, 3, 1, 2)  # [B, T, C, M]
        flat = columns[there]
        out = torch.zeros_like(columns)
        out[there] = self.norm(flat[..., None])[..., 0]
        return out.permute(0, 2, 3, 1)


def _standardised(maps: Tensor, inside: Tensor | None) -> Tensor:
    """Spectrograms [B, C, M, T] of mean 0 and deviation 1 each, over the frames of the recording."""
    mean = _mean(maps, inside).mean((1, 2))[:, None, None, None]
    centred = maps - mean
    if inside is not None:
        centred = centred * inside
    deviation = _mean(centred.square(), inside).mean((1, 2)).sqrt()[:, None, None, None]
    return centred / deviation.clamp(min=_FLAT)


def _mean(maps: Tensor, inside: Tensor | None) -> Tensor:
    """The mean over time of [B, C, M, T], over the frames of the recording: [B, C, M]."""
    if inside is None:
        return maps.mean(3)
    return (maps * inside).sum(3) / inside.sum(3).clamp(min=1)
