"""Log-mel spectrograms, MFCC and masks on them: plain data, called on waveforms in dataset, model or notebook."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dlkit import _bounds
from dlkit._documents import Document
from dlkit.errors import ArgumentError

__all__ = ["LogMel", "MFCC", "SpectrogramMask"]

_OVERLAP, _FRAMES = 32, 1_000  # no more spectra at once, and in a second: a file may say what takes all memory
_IN_CACHE = 1 << 15  # samples
_SMALLEST = 1e-10  # power below which nothing is distinguished: -100 dB
_BREAK, _STEP = 1000.0, math.log(6.4) / 27  # Slaney's scale: 200/3 Hz per mel up to 1000 Hz, then logarithmic


@dataclass(frozen=True, kw_only=True)
class LogMel(Document):
    """The log-mel spectrogram of waveforms in decibel, as librosa computes it with the same settings.

    Windows are Hann's and centred, with silence beyond both ends, so that zeros behind a recording change none of its
    own frames. Filters are Slaney's, of equal area (`librosa.filters.mel`); power is in dB to a reference of 1, and at
    most `top_db` below the loudest place of the recording (`librosa.power_to_db`).

    Attributes:
        sample_rate: Of the waveforms, in Hz.
        num_mels: Bands.
        window: Of one spectrum, in samples; 25 ms is usual.
        hop: From one spectrum to the next, in samples; 10 ms is usual.
        low: The lowest frequency, in Hz.
        high: The highest, in Hz; None for half the sample rate.
        top_db: How far below the loudest point differences are kept; None for down to -100 dB.

    Raises:
        ArgumentError: an invalid value.

    >>> LogMel(sample_rate=16_000)(torch.randn(2, 1, 16_000)).shape
    torch.Size([2, 1, 64, 101])
    """

    _title: ClassVar[str] = "the log-mel spectrogram"
    _head: ClassVar[Mapping[str, Any]] = {"kind": "LogMel"}

    sample_rate: int
    num_mels: int = 64
    window: int | None = None
    hop: int | None = None
    low: float = 0.0
    high: float | None = None
    top_db: float | None = 80.0

    def __post_init__(self) -> None:
        _bounds.whole(self.sample_rate, "sample_rate", _bounds.RATE)
        _bounds.whole(self.num_mels, "num_mels", _bounds.MELS)
        for name, share in (("window", 40), ("hop", 100)):
            value = round(self.sample_rate / share) if getattr(self, name) is None else getattr(self, name)
            object.__setattr__(self, name, _bounds.whole(value, name, _bounds.FFT))
        assert self.window is not None
        assert self.hop is not None
        if self.hop < max(self.window / _OVERLAP, self.sample_rate / _FRAMES):
            raise ArgumentError(
                f"hop must be at least 1 ms and 1/{_OVERLAP} of the window of {self.window:,} samples, not "
                f"{self.hop:,} at {self.sample_rate:,} Hz"
            )
        most = self.sample_rate / 2
        low, high = self.low, most if self.high is None else self.high
        for name, value in (("low", low), ("high", high)):
            object.__setattr__(self, name, _bounds.number(value, name, _bounds.Range(0, most)))
        if not low < high:
            raise ArgumentError(f"low must be below high, not {low:g} and {high:g} Hz")
        if self.top_db is not None:
            _bounds.number(self.top_db, "top_db", _bounds.DECIBEL)

    @property
    def size(self) -> int:
        """Rows of the spectrogram."""
        return self.num_mels

    def frames(self, samples: Any) -> Any:
        """Spectra of so many samples.

        Args:
            samples: A number, or a tensor of numbers.

        >>> LogMel(sample_rate=16_000).frames(16_000)
        101
        """
        assert self.hop is not None
        return samples // self.hop + 1

    def __call__(self, waveforms: Tensor) -> Tensor:
        """The spectrograms, float32 [..., num_mels, frames].

        Args:
            waveforms: Floats [..., T].

        Raises:
            ArgumentError: something else.
        """
        return self.decibels(self.power(waveforms))

    def power(self, waveforms: Tensor) -> Tensor:
        """The power in each band, without logarithm: [..., num_mels, frames].

        Args:
            waveforms: Floats [..., T].
        """
        if not isinstance(waveforms, Tensor) or not waveforms.is_floating_point() or not waveforms.dim():
            kind = waveforms.dtype if isinstance(waveforms, Tensor) else type(waveforms).__name__
            raise ArgumentError(f"waveforms must be a tensor of floats [..., T], not {kind}")
        assert self.window is not None
        assert self.hop is not None
        flat = waveforms.float().reshape(-1, waveforms.shape[-1])
        filters = _filters(self.sample_rate, self.window, self.num_mels, self.low, self.high)
        with _in_full():
            bands = _in_bands(flat, self.window, self.hop, filters)
        return bands.reshape(*waveforms.shape[:-1], *bands.shape[1:])

    def decibels(self, power: Tensor) -> Tensor:
        """Power as dB, not more than `top_db` below the loudest place of each.

        Args:
            power: [..., num_mels, frames].
        """
        levels = 10 * power.clamp(min=_SMALLEST).log10()
        if self.top_db is None:
            return levels
        return torch.maximum(levels, levels.amax((-2, -1), keepdim=True) - self.top_db)


@dataclass(frozen=True, kw_only=True)
class MFCC(Document):
    """Mel-frequency cepstral coefficients: the discrete cosine transform of a log-mel spectrogram, as librosa's.

    Attributes:
        mel: The spectrogram.
        num_coefficients: How many are kept.

    Raises:
        ArgumentError: more coefficients than bands.

    >>> MFCC(mel=LogMel(sample_rate=8_000), num_coefficients=13)(torch.randn(8_000)).shape
    torch.Size([13, 101])
    """

    _title: ClassVar[str] = "the MFCC"
    _head: ClassVar[Mapping[str, Any]] = {"kind": "MFCC"}

    mel: LogMel
    num_coefficients: int = 20

    def __post_init__(self) -> None:
        _bounds.whole(self.num_coefficients, "num_coefficients", _bounds.Range(1, self.mel.num_mels))

    @property
    def size(self) -> int:
        """Rows of the result."""
        return self.num_coefficients

    def __call__(self, waveforms: Tensor) -> Tensor:
        """The coefficients, float32 [..., num_coefficients, frames].

        Args:
            waveforms: Floats [..., T].
        """
        levels = self.mel(waveforms)
        with _in_full():
            return _like(_cosines(self.mel.num_mels, self.num_coefficients), levels) @ levels


@dataclass(frozen=True, kw_only=True)
class SpectrogramMask(Document):
    """Random stripes of a spectrogram become its mean: SpecAugment (Park et al. 2019, arXiv:1904.08779).

    Attributes:
        time: The longest stripe of time, as a share of all frames.
        frequency: The widest stripe of frequency, as a share of all bands.
        stripes: How many of each.

    >>> masked = SpectrogramMask(time=0.5)(torch.randn(4, 1, 64, 100))
    """

    _title: ClassVar[str] = "the mask"
    _head: ClassVar[Mapping[str, Any]] = {"kind": "SpectrogramMask"}

    time: float = 0.0
    frequency: float = 0.0
    stripes: int = 1

    def __post_init__(self) -> None:
        for name in ("time", "frequency"):
            _bounds.number(getattr(self, name), name, _bounds.Range(0, 1))
        _bounds.whole(self.stripes, "stripes", _bounds.STEPS)

    def draw(self, count: int, device: torch.device | str = "cpu") -> Tensor:
        """The random numbers for `count` spectrograms [count, stripes, 4], from torch's global stream.

        Args:
            count: How many.
            device: Whose stream.
        """
        return torch.rand(count, self.stripes, 4, device=device)

    def __call__(self, spectrograms: Tensor, numbers: Tensor | None = None, frames: Tensor | None = None) -> Tensor:
        """The masked spectrograms, all of a batch at once.

        Args:
            spectrograms: [B, C, bands, frames].
            numbers: From `draw`; None draws them.
            frames: int64 [B], how many frames are of the recording, where others are padding.
        """
        count, _, bands, width = spectrograms.shape
        numbers = self.draw(count, spectrograms.device) if numbers is None else numbers
        long = torch.full((count,), width, device=spectrograms.device) if frames is None else frames
        in_time = _stripes(numbers[..., :2], self.time, long, width)
        in_bands = _stripes(numbers[..., 2:], self.frequency, torch.full_like(long, bands), bands)
        mean = spectrograms.mean((1, 2, 3), keepdim=True)
        return torch.where(in_time[:, None, None, :] | in_bands[:, None, :, None], mean, spectrograms)


def _stripes(numbers: Tensor, share: float, sizes: Tensor, width: int) -> Tensor:
    """Which places are in a stripe: bool [B, width]; numbers [B, stripes, 2] say how wide it is and where."""
    sizes = sizes[:, None].to(numbers.dtype)
    wide = (numbers[..., 0] * share * sizes).floor()
    begin = (numbers[..., 1] * (sizes - wide + 1)).floor()
    places = torch.arange(width, device=numbers.device)
    return ((places >= begin[..., None]) & (places < (begin + wide)[..., None])).any(1)


@contextlib.contextmanager
def _in_full() -> Iterator[None]:
    """Without autocast: powers reach over more magnitudes than half precision has."""
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _in_bands(flat: Tensor, window: int, hop: int, filters: npt.NDArray[np.float32]) -> Tensor:
    """Power in bands [B, bands, frames] of windows of [B, T] that are centred at multiples of `hop`."""
    weights = _like(_hann(window), flat)
    padded = F.pad(flat, (window // 2, window // 2))
    if torch.compiler.is_exporting():  # an exported program has no complex numbers: the transform as a convolution
        waves = F.conv1d(padded[:, None], (_like(_fourier(window), flat) * weights)[:, None], stride=hop)
        real, imaginary = waves.chunk(2, 1)
        return _like(filters, flat) @ (real.square() + imaginary.square())
    both = _like(filters, flat).T.repeat_interleave(2, 0)  # for the real and the imaginary part of each
    # A few at a time, whose spectra stay in the processor's cache.
    rows = max(1, _IN_CACHE // padded.shape[1]) if flat.device.type == "cpu" else max(1, len(flat))
    found = []
    for some in padded.split(rows):
        spectra = torch.view_as_real(torch.fft.rfft(some.unfold(1, window, hop) * weights))
        found.append((spectra.square_().flatten(2) @ both).transpose(1, 2))
    return torch.cat(found)


def _like(values: npt.NDArray[np.float32], tensor: Tensor) -> Tensor:
    return torch.from_numpy(values).to(tensor.device)


# Kept as arrays, not as tensors: what is made while a model is exported or run without memory is not a tensor for
# later.


@functools.lru_cache(maxsize=32)
def _hann(window: int) -> npt.NDArray[np.float32]:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _fourier(window: int) -> npt.NDArray[np.float32]:
    """Cosines and sines as rows: [2 * (window // 2 + 1), window]."""
    turns = np.outer(np.arange(window // 2 + 1), np.arange(window)) % window / window
    return np.concatenate([np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)]).astype(np.float32)


@functools.lru_cache(maxsize=32)
def _filters(rate: int, window: int, count: int, low: float, high: float) -> npt.NDArray[np.float32]:
    """Triangles of equal area over the spectrum: [count, window // 2 + 1]."""
    edges = _to_hertz(np.linspace(_to_mel(low), _to_mel(high), count + 2))
    bins = np.linspace(0, rate / 2, window // 2 + 1) if window % 2 == 0 else np.arange(window // 2 + 1) * rate / window
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    area = 2 / (edges[2:] - edges[:-2])
    return (np.maximum(0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32)


def _to_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < _BREAK else 15 + math.log(hertz / _BREAK) / _STEP


def _to_hertz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mels < 15, mels * 200 / 3, _BREAK * np.exp(_STEP * (mels - 15)))


@functools.lru_cache(maxsize=32)
def _cosines(bands: int, count: int) -> npt.NDArray[np.float32]:
    """The orthonormal discrete cosine transform: [count, bands]."""
    rows = np.cos(np.pi / bands * np.outer(np.arange(count), np.arange(bands) + 0.5)) * math.sqrt(2 / bands)
    rows[0] /= math.sqrt(2)
    return rows.astype(np.float32)
