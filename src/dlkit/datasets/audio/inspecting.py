"""What is in a folder of recordings, before a night is spent on it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlkit._language import Message
from dlkit._showing import few
from dlkit.datasets.audio.dataset import AudioDataset
from dlkit.datasets.audio.decoding import scaled
from dlkit.datasets.audio.settings import AudioSettings
from dlkit.datasets.files.inspecting import FileInspection, listed, look, span

__all__ = ["AudioInspection", "inspect_sounds"]

#: So many samples in a row at the largest value are cut off: a peak that just reaches it has two or three.
CLIPPED_RUN = 4
#: A recording whose loudest sample is below this (-80 dB) holds nothing to hear.
SILENT_BELOW = 1e-4
_FULL = 1 - 2.0**-7  # the largest value of 8 bits: a recording whose own is below was not cut off


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AudioInspection(FileInspection):
    """What `inspect` found in recordings. The other attributes are those of all files; `duplicates` sound the same.

    Attributes:
        rates: Sample rate in Hz to number of files.
        channels: Number of channels to number of files.
        formats: Format and how samples are stored, such as "WAV PCM_16", to number of files.
        seconds: float64 [N], the length of every readable recording.
        levels: float64 [N], the root mean square of each in dB; a sine as loud as possible has -3.
        clipped: Recordings with at least four samples in a row at the largest value.
        silent: Recordings whose loudest sample is below -80 dB.
    """

    kind, noun = "sounds", Message("recording")
    equal = Message("equal recordings")

    rates: Mapping[int, int]
    channels: Mapping[int, int]
    formats: Mapping[str, int]
    seconds: npt.NDArray[np.float64]
    levels: npt.NDArray[np.float64]
    clipped: Sequence[Path]
    silent: Sequence[Path]

    def _measured(self) -> list[str]:
        counted: dict[str, Mapping[Any, int]] = {
            Message("rates in Hz"): self.rates,
            Message("channels"): self.channels,
            Message("formats"): self.formats,
        }
        told: list[str] = [
            Message("{name}: {values}", name=name, values=few([f"{value} ({n:,})" for value, n in found.items()], 8))
            for name, found in counted.items()
        ]
        if self.readable:
            lengths, levels = span(self.seconds), span(self.levels)
            assert lengths is not None
            assert levels is not None
            told.append(Message("length: {min:.2f} to {max:.2f} s, median {median:.2f}", **lengths))
            told.append(Message("all together: {hours:,.2f} hours", hours=self.seconds.sum() / 3600))
            told.append(Message("level: {min:.0f} to {max:.0f} dB, median {median:.0f}", **levels))
        told += listed(Message("clipped"), [self._below(path) for path in self.clipped])
        return told + listed(Message("silent"), [self._below(path) for path in self.silent])

    def _plain(self) -> dict[str, Any]:
        return {
            "rates": {str(rate): count for rate, count in self.rates.items()},
            "channels": {str(number): count for number, count in self.channels.items()},
            "formats": dict(self.formats),
            "seconds": span(self.seconds),
            "hours": float(self.seconds.sum() / 3600),
            "levels": span(self.levels),
            "clipped": [self._below(path) for path in self.clipped],
            "silent": [self._below(path) for path in self.silent],
        }


def inspect_sounds(dataset: AudioDataset, *, threads: int | None = None, progress: bool = True) -> AudioInspection:
    """Read every recording once, piece by piece; see `dlkit.datasets.inspect`.

    Args:
        dataset: The recordings.
        threads: How many threads decode; None for all cores.
        progress: Show a bar when it takes longer than two seconds.
    """
    seen = look(dataset, lambda path: _Facts(path, dataset.settings), threads=threads, progress=progress)
    good = seen.facts.values()
    return seen.told(
        AudioInspection,
        seen.equal(lambda facts: facts.content),
        [],
        rates=_counted(facts.rate for facts in good),
        channels=_counted(facts.channels for facts in good),
        formats=_counted(facts.format for facts in good),
        seconds=np.array([facts.seconds for facts in good], np.float64),
        levels=np.array([facts.level for facts in good], np.float64),
        clipped=seen.files(place for place, facts in seen.facts.items() if facts.clipped),
        silent=seen.files(place for place, facts in seen.facts.items() if facts.peak < SILENT_BELOW),
    )


def _counted(values: Any) -> dict[Any, int]:
    return dict(Counter(values).most_common())


class _Facts:
    """What is measured of one recording."""

    __slots__ = ("channels", "clipped", "content", "format", "level", "peak", "rate", "seconds")

    def __init__(self, path: Path, settings: AudioSettings) -> None:
        digest, squares, self.peak, self.clipped = hashlib.blake2b(digest_size=16), 0.0, 0.0, False
        with settings.open(path) as audio:
            self.format, self.rate, self.channels = audio.format, audio.sample_rate, audio.channels
            self.seconds = audio.frames / audio.sample_rate
            digest.update(f"{self.rate} {self.channels}".encode())
            for block in audio.blocks():
                samples = scaled(block, mono=False)
                digest.update(samples.T.tobytes())
                self.peak = max(self.peak, float(np.abs(samples).max()))
                squares += float(np.square(samples, dtype=np.float64).sum())
                self.clipped = self.clipped or _clips(samples)
        self.content = digest.digest()
        mean = squares / max(1, audio.frames * audio.channels)
        self.level = 10 * float(np.log10(max(mean, 1e-20)))


def _clips(samples: npt.NDArray[np.float32]) -> bool:
    """Whether several samples in a row are at the largest value that there is, above or below."""
    for top in (samples, -samples):
        if (largest := top.max()) < _FULL:
            continue
        at = top == largest
        run = at[:, : at.shape[1] - CLIPPED_RUN + 1].copy()
        for step in range(1, CLIPPED_RUN):
            run &= at[:, step : step + run.shape[1]]
        if run.any():
            return True
    return False
