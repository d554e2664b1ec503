"""`AudioPreprocessing`: from a decoded recording to what the model takes, as plain data that travels through JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit import _bounds
from dlkit._kinds import Spec, values
from dlkit.errors import ArgumentError
from dlkit.transforms.audio.augment import AudioAugment, Numbers
from dlkit.transforms.audio.resampling import resample

__all__ = ["AudioPreprocessing", "Heard", "as_waveform"]

_LOUDNESS = 0.1  # what "rms" makes the root mean square: -20 dB
_QUIET = 1e-5  # -100 dB; below, a recording is silence and stays it
_EXAMPLE = 1.0  # second, of a recording that may have any length


@dataclass(frozen=True, kw_only=True)
class AudioPreprocessing(Spec):
    """How recordings become a model's input: waveforms float32 [C, T] of one rate, and of one length where that is set.

    Audio datasets carry it out; on its own it is called on a waveform. It is picklable, and equal to what
    `AudioPreprocessing.from_json(it.to_json())` gives.

    Attributes:
        sample_rate: In Hz; other recordings are resampled.
        channels: 1 takes the mean of all channels; else recordings must have so many.
        seconds: The length: longer recordings are cut, shorter ones get silence behind. None leaves them as they are.
        normalize: "none"; "peak" makes the largest value 1; "rms" makes the root mean square 0.1. Silence stays.
        augment: What is random; None for evaluation, in which the middle is cut out.

    Raises:
        ArgumentError: an invalid value.

    >>> prepare = AudioPreprocessing(sample_rate=8_000, seconds=0.5)
    >>> prepare(torch.randn(2, 8_000), sample_rate=8_000).shape
    torch.Size([1, 4000])
    """

    kind: ClassVar[str] = "audio"
    noun: ClassVar[str] = "sounds"
    way: ClassVar[str] = (
        "open both with the same sample_rate, seconds and normalisation: AudioFolder(..., sample_rate=...)"
    )
    _title: ClassVar[str] = "the preprocessing of sounds"
    _head: ClassVar[Mapping[str, Any]] = {"kind": "AudioPreprocessing"}

    sample_rate: int = 16_000
    channels: int = 1
    seconds: float | None = None
    normalize: Literal["none", "peak", "rms"] = "none"
    augment: AudioAugment | None = None

    def __post_init__(self) -> None:
        _bounds.whole(self.sample_rate, "sample_rate", _bounds.RATE)
        _bounds.whole(self.channels, "channels", _bounds.TRACKS)
        if self.normalize not in ("none", "peak", "rms"):
            raise ArgumentError(f"normalize must be 'none', 'peak' or 'rms', not {self.normalize!r}")
        if self.augment is not None and not isinstance(self.augment, AudioAugment):
            raise ArgumentError(f"augment must be an AudioAugment or None, not {type(self.augment).__name__}")
        if self.seconds is None:
            return
        object.__setattr__(self, "seconds", _bounds.number(self.seconds, "seconds", _bounds.SECONDS))
        if not 1 <= self.channels * self.seconds * self.sample_rate <= _bounds.WAVEFORM:
            raise ArgumentError(
                f"seconds={self.seconds:g} at {self.sample_rate:,} Hz must make 1 to {_bounds.WAVEFORM:,} samples"
            )

    @property
    def any_length(self) -> bool:  # type: ignore[override]
        """Whether recordings keep their lengths, so that batches are padded."""
        return self.seconds is None

    @property
    def length(self) -> int | None:
        """Samples of each waveform; None where they keep their lengths."""
        return None if self.seconds is None else round(self.seconds * self.sample_rate)

    @property
    def mono(self) -> bool:
        """Whether channels are mixed down to one."""
        return self.channels == 1

    @property
    def crop(self) -> Literal["center", "random"]:
        """Which part datasets cut out of recordings that are longer than `seconds`."""
        return "random" if self.seconds is not None and self.augment is not None and self.augment.crop else "center"

    @property
    def draws_random(self) -> bool:
        """Whether `draw` draws."""
        return self.augment is not None

    def for_evaluation(self) -> Self:
        """The same without augmentation."""
        return dataclasses.replace(self, augment=None)

    def example(self, *, small: bool = False) -> Any:
        """Two waveforms; where their length is free, of a second, and the mask that says what is not padding.

        Args:
            small: A second at the most.
        """
        second = round(_EXAMPLE * self.sample_rate)
        length = second if self.length is None else min(self.length, second) if small else self.length
        waveforms = values([2, self.channels, length], "float32", -1.0, 1.0)
        if self.length is not None:
            return waveforms
        return [waveforms, values([2, length], "bool", 1, 2)]

    def compared(self) -> dict[str, Any]:
        """What a sample means; the length may differ between training and evaluation."""
        return {name: getattr(self, name) for name in ("sample_rate", "channels", "normalize")}

    def draw(self, count: int) -> Numbers | None:
        """The random numbers for `count` recordings [count, 5], from torch's global stream; None if nothing is random.

        Args:
            count: How many.
        """
        return None if self.augment is None else self.augment.draw(count)

    def apply(self, waveforms: Tensor, numbers: Numbers | None = None) -> Tensor:
        """Augmentation and normalisation of waveforms that are decoded, resampled and cut, in place.

        Args:
            waveforms: float32 [B, C, T], all of a batch at once; or [C, T], one of its own length.
            numbers: From `draw`, a row for each; None where nothing is random.

        Raises:
            ArgumentError: they have another number of channels.
        """
        if waveforms.dim() == 2:
            return self.apply(waveforms[None], None if numbers is None else numbers[None])[0]
        if waveforms.shape[1] != self.channels:
            raise ArgumentError(
                f"the preprocessing is for recordings of {self.channels} channels, and there are {waveforms.shape[1]}"
            )
        if self.augment is not None and numbers is not None:
            self.augment.moved_and_noisy(waveforms, numbers, self.sample_rate)
        if self.normalize != "none":
            rms = self.normalize == "rms"
            level = waveforms.square().mean((1, 2)).sqrt() / _LOUDNESS if rms else waveforms.abs().amax((1, 2))
            waveforms.div_(torch.where(level < _QUIET, 1.0, level)[:, None, None])
        if self.augment is not None and numbers is not None:
            self.augment.louder(waveforms, numbers)
        return waveforms

    def __call__(self, waveform: Any, *, sample_rate: int | None = None) -> Tensor:
        """One recording, its middle if it is too long, with random numbers drawn if anything is random: float32 [C, T].

        Args:
            waveform: Floats in -1 to 1, or integers of which the largest is 1: [C, T] or [T], an array or a tensor.
            sample_rate: Its own rate; None for the model's.

        Raises:
            ArgumentError: something else, or another number of channels.
        """
        found = self._channels(as_waveform(waveform))
        if sample_rate is not None and sample_rate != self.sample_rate:
            found = resample(found, sample_rate, self.sample_rate)
        length = self.length or found.shape[1]
        start = (max(0, found.shape[1] - length) + 1) // 2  # as datasets cut
        part = found[:, start : start + length]
        out = torch.zeros(1, self.channels, length)
        out[0, :, : part.shape[1]] = torch.from_numpy(np.ascontiguousarray(part))
        return self.apply(out, self.draw(1))[0]

    def _channels(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if len(waveform) == self.channels:
            return waveform
        if self.channels == 1:
            mixed: npt.NDArray[np.float32] = waveform.mean(0, keepdims=True, dtype=np.float32)
            return mixed
        raise ArgumentError(f"the model takes recordings of {self.channels} channels, and this one has {len(waveform)}")


class Heard(AudioPreprocessing):
    """What a model that listens says of its inputs: their rate and channels, and nothing of length and loudness."""

    def compared(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("sample_rate", "channels")}


def as_waveform(waveform: Any) -> npt.NDArray[np.float32]:
    """A recording in memory as float32 [C, T].

    Args:
        waveform: [C, T] or [T], an array or a tensor; floats as they are, signed integers scaled by their full range.

    Raises:
        ArgumentError: something else, more channels than any recording has, NaN or infinity.

    >>> as_waveform(np.array([-32768, 16384], np.int16))
    array([[-1. ,  0.5]], dtype=float32)
    """
    array = waveform.detach().cpu().numpy() if isinstance(waveform, Tensor) else np.asarray(waveform)
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "if" or not array.size:
        raise ArgumentError(
            f"a recording is an array [T] or [C, T] of floats in -1 to 1, or of signed integers, not {array.dtype} of "
            f"shape {list(array.shape)}"
        )
    if array.shape[0] > _bounds.TRACKS.most:
        raise ArgumentError(
            f"a recording is an array [C, T], and {list(array.shape)} has {array.shape[0]:,} channels; transpose it: "
            "array.T"
        )
    if array.dtype.kind == "i":
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    found = array.astype(np.float32)
    if not np.isfinite(found).all():
        raise ArgumentError("the recording holds NaN or infinity")
    return found
