"""Another sample rate by band-limited interpolation: spectra of many waveforms at once, times that of a filter."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit import _bounds
from dlkit._cores import scratch

__all__ = ["REACH", "resample", "resample_all", "resampled_length"]

Waveform = npt.NDArray[np.float32]

# As soxr's "HQ": all but the top 8.6 % of the band that both rates have passes; what is not in it is 126 dB below.
_PASSES, _ATTENUATION = 0.9136, 126.0
#: How far the filter looks in each direction, in samples at the lower rate (Kaiser's formula, 1974).
REACH = math.ceil((_ATTENUATION - 7.95) / (14.36 * (1 - _PASSES)))
# How many samples are transformed together: more share the set-up, and of too many the memory is returned and mapped
# again each time.
_MOST = 1 << 18
_LONGEST = 1_000  # samples of a period; more may have large prime factors, whose transforms lose four of 24 bits
_LEAST = 2  # blocks: a single long one MKL computes in another way, with other roundings


def resample(waveform: Waveform, rate: int, to: int) -> Waveform:
    """A waveform at another rate, by band-limited interpolation: 20 bits, linear phase, zeros beyond both ends.

    Args:
        waveform: float32 [C, T].
        rate: Its rate in Hz.
        to: The rate that it gets.

    Raises:
        ArgumentError: an invalid rate.

    >>> resample(np.zeros((2, 44_100), np.float32), 44_100, 16_000).shape
    (2, 16000)
    """
    return resample_all([waveform], rate, to)[0]


def resample_all(waveforms: Sequence[Waveform], rate: int, to: int) -> list[Waveform]:
    """What `resample` makes of each of several waveforms, in less time than one after the other takes.

    Args:
        waveforms: Each float32 [C, T], of its own length.
        rate: Of all of them, in Hz.
        to: The rate that they get.

    Raises:
        ArgumentError: an invalid rate.
    """
    for name, value in (("rate", rate), ("to", to)):
        _bounds.whole(value, name, _bounds.RATE)
    if rate == to:
        return list(waveforms)
    made = [np.empty((len(each), resampled_length(each.shape[1], rate, to)), np.float32) for each in waveforms]
    by_size = defaultdict[int, list[tuple[Waveform, Waveform]]](list)
    for each, out in zip(waveforms, made, strict=True):
        by_size[_periods(rate, to, each.shape[1])].extend(zip(each, out, strict=True))
    for periods, channels in by_size.items():
        _resample_into(channels, _blocks(rate, to, periods))
    return made


def _resample_into(channels: Sequence[tuple[Waveform, Waveform]], blocks: _Blocks) -> None:
    """Resample each first row of samples into the second one."""
    begins = np.cumsum([0, *(blocks.count(len(given)) for given, _ in channels)]).tolist()
    most = max(_LEAST, _MOST // blocks.size_given)
    for first in range(0, begins[-1], most):
        count = min(most, begins[-1] - first)
        samples = max(_LEAST, count) * blocks.step + 2 * blocks.rim
        stream = scratch("stream", samples, blocks.response.numpy().dtype)
        stream.fill(0)
        inside = [
            (*pair, begin - first)
            for pair, begin, end in zip(channels, begins, begins[1:], strict=False)
            if begin < first + count and end > first
        ]
        for given, _, begin in inside:
            _copy(given, stream, begin * blocks.step + 2 * blocks.rim)
        found = blocks.interpolated(stream)
        for _, out, begin in inside:
            _copy(found, out, -(begin * blocks.step_made + blocks.rim_made))


def resampled_length(samples: int, rate: int, to: int) -> int:
    """How many samples `resample` makes: rounded half up, and of a recording that is not empty at least one.

    Args:
        samples: Of each channel.
        rate: Its rate in Hz.
        to: The rate that it gets.

    >>> resampled_length(441, 44_100, 16_000)
    160
    """
    return max(1, (2 * samples * to + rate) // (2 * rate))


class _Blocks(NamedTuple):
    """How a stream is cut into overlapping blocks, of which the inner parts are right; all in samples.

    Each waveform begins `2 * rim` after the begin of a block, and no block sees two of them.

    Attributes:
        response: Floats [bins], what the spectra are multiplied with.
        size: Of a block that is made.
        step: From one block to the next.
        step_made: The same in what is made.
        rim: What a block has at each end besides.
        rim_made: The same in what is made.
    """

    response: Tensor
    size: int
    step: int
    step_made: int
    rim: int
    rim_made: int

    @property
    def size_given(self) -> int:
        """Of a block that is transformed."""
        return self.step + 2 * self.rim

    def count(self, samples: int) -> int:
        """Blocks for a waveform.

        Args:
            samples: Its length.
        """
        return -(-(samples + 2 * self.rim) // self.step)

    def interpolated(self, stream: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The inner parts of all blocks of a stream, one behind the other, in memory that the next call uses again.

        Args:
            stream: Floats [blocks * step + 2 * rim].
        """
        given = torch.from_numpy(stream).unfold(0, self.size_given, self.step)
        spectra = torch.fft.rfft(given)[:, : len(self.response)]
        made = torch.fft.irfft(spectra * self.response, self.size)[:, self.rim_made : self.rim_made + self.step_made]
        inner = scratch("inner", made.numel(), stream.dtype)
        torch.from_numpy(inner).view(made.shape).copy_(made)
        return inner


def _periods(rate: int, to: int, samples: int) -> int:
    """How many whole periods a block for a waveform has: 16 rims, or less if the waveform is short."""
    common = math.gcd(rate, to)
    rims = _rims(rate, to)
    needed = -(-samples * common // rate) + 4 * rims
    return next((rims * times for times in (8, 16) if needed <= rims * times), 16 * rims)


def _rims(rate: int, to: int) -> int:
    """In how many periods, after which both rates meet, lies all that the filter sees in one direction."""
    return -(-REACH * math.gcd(rate, to) // min(rate, to))


def _blocks(rate: int, to: int, periods: int) -> _Blocks:
    common, rims = math.gcd(rate, to), _rims(rate, to)
    given, made = rate // common, to // common  # samples in a period
    inner = periods - 2 * rims
    return _Blocks(
        _response(given * periods, made * periods),
        made * periods,
        inner * given,
        inner * made,
        rims * given,
        rims * made,
    )


@functools.lru_cache(maxsize=32)
def _response(given: int, made: int) -> Tensor:
    """Of the filter, for blocks of `given` samples that become `made`; Kaiser's window on a sinc."""
    low, high = min(given, made), max(given, made)
    times = np.fft.fftfreq(high) * low  # in samples at the lower rate, around 0
    window = np.i0(0.1102 * (_ATTENUATION - 8.7) * np.sqrt(np.maximum(0, 1 - (times / REACH) ** 2)))
    cut = (1 + _PASSES) / 2
    kernel = np.where(np.abs(times) < REACH, np.sinc(cut * times) * window, 0)
    response = np.fft.rfft(kernel / kernel.sum()).real[: low // 2 + 1]
    exact = math.gcd(given, made) * _LONGEST < high
    return torch.from_numpy((response * made / given).astype(np.float64 if exact else np.float32))


def _copy(source: npt.NDArray[Any], target: npt.NDArray[Any], place: int) -> None:
    """Put a row of samples at a place of another one, which may lie beyond its ends."""
    begin, end = max(0, place), min(len(target), place + len(source))
    if begin < end:
        target[begin:end] = source[begin - place : end - place]
