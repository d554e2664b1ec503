"""The options that all datasets of recordings share."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from dlkit._bounds import RATE
from dlkit._opening import regular
from dlkit.datasets.audio.decoding import MAX_SAMPLES, SOUNDS, OpenAudio, Part, check_formats, opened
from dlkit.datasets.files.decoder import Array, Decoder, read_with_status
from dlkit.datasets.files.settings import FileOptions, FileSettings
from dlkit.errors import ArgumentError
from dlkit.storage.strings import PackedStrings

__all__ = ["AudioOptions", "AudioSettings"]

#: Raised by one whenever the samples that are kept for a file would change.
_RULE = "2"
# What a transform may say itself, as a spec of `dlkit.transforms` does: what waveforms it is to be given.
_TOLD = ("sample_rate", "mono", "seconds")


class AudioOptions(FileOptions, total=False):
    """The options of every dataset of recordings, as its constructor takes them by name; see `AudioSettings`."""

    sample_rate: int | None
    mono: bool
    seconds: float | None
    crop: Literal["center", "random"] | None
    decoder: Decoder | None


@dataclass(frozen=True, kw_only=True)
class AudioSettings(FileSettings):
    """The options that all datasets of recordings share, checked where they are made; the others as `FileSettings`.

    Attributes:
        sample_rate: What all are resampled to, in Hz; None keeps each file's own.
        mono: The mean of the channels; False keeps them, `[C, T]`.
        seconds: The length of every sample: of a longer recording a part is cut out, and only that is read and decoded;
            a shorter one is followed by zeros. None gives each its own length: `dlkit.DataLoader` then pads the batch
            to its longest (`PadCollate(dim=-1)`) and, when it shuffles, takes recordings of similar length together.
        crop: Which part, with `seconds`: "center", or "random", drawn from the batch's stream. None is "random" for
            training (the first part of a `split`, and `part="train"`), and "center" for all else, as one of
            `dlkit.transforms` is asked itself. `split` keeps "random" for the first part alone.
        transform: Any callable that makes a tensor of a waveform, float32 [C, T], run one by one in the thread that
            fetches, because it may draw random numbers. One of `dlkit.transforms` draws for a whole batch first
            (`draw(count)`) and is applied to whole batches (`apply(waveforms, numbers)`); where it says `sample_rate`,
            `mono` and `seconds` itself, they are taken from it.
        decoder: Reads files of another kind as well: `Decoder(suffixes=[".sph"], decode=read)`, where `read` gives
            `(samples, sample_rate)` of a file's content, [T] or [C, T] in floats, int16 or int32.

    Raises:
        ArgumentError: an invalid argument.
    """

    OPTIONS, READS = AudioOptions, SOUNDS

    sample_rate: int | None = 16_000
    mono: bool = True
    seconds: float | None = None
    crop: Literal["center", "random"] | None = None

    def __post_init__(self) -> None:
        self._take_from_transform()
        super().__post_init__()
        if self.sample_rate is not None and (
            type(self.sample_rate) is not int or not RATE.least <= self.sample_rate <= RATE.most
        ):
            raise ArgumentError(
                f"sample_rate must be a whole number of Hz, {RATE.least} to {RATE.most:,}, or None for each file's "
                f"own, not {self.sample_rate!r}"
            )
        if not isinstance(self.mono, bool):
            raise ArgumentError(f"mono must be True or False, not {self.mono!r}")
        if self.crop not in (None, "center", "random"):
            raise ArgumentError(f"crop must be 'center' or 'random', not {self.crop!r}")
        if self.seconds is None:
            if self.crop == "random":
                raise ArgumentError("crop='random' needs seconds=, how much is cut out")
            return
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float) or not 0 < self.seconds < 1e6:
            raise ArgumentError(f"seconds must be a number above 0, or None for whole recordings, not {self.seconds!r}")
        if self.sample_rate is None:
            raise ArgumentError("seconds= needs sample_rate=, or samples would have as many lengths as there are rates")
        if self.length == 0:
            raise ArgumentError(f"seconds={self.seconds} at {self.sample_rate} Hz is less than one sample")

    def _take_from_transform(self) -> None:
        """What a transform says of the waveforms that it wants; told twice, both must say the same."""
        defaults = {field.name: field.default for field in dataclasses.fields(AudioSettings)}
        for name in _TOLD:
            told, given = getattr(self.transform, name, None), getattr(self, name)
            if told is None or told == given:
                continue
            if given != defaults[name]:
                raise ArgumentError(f"{name}={given!r}, but the transform was made for {name}={told!r}: leave it out")
            object.__setattr__(self, name, told)

    @property
    def _made_as(self) -> str:
        return f"recording {_RULE} {self.sample_rate} {self.mono}"

    def check_names(self, names: PackedStrings) -> None:
        check_formats(names)

    @property
    def length(self) -> int | None:
        """How many samples of each channel every waveform has; None where each has its own length."""
        return None if self.seconds is None else round(self.seconds * (self.sample_rate or 0))

    @property
    def random_crop(self) -> bool:
        """Whether the part of a longer recording is drawn: asked for here, or by what the transform augments."""
        return self.length is not None and "random" in (self.crop, getattr(self.transform, "crop", None))

    @property
    def draws(self) -> bool:
        """Whether the transform is one of `dlkit.transforms`, which draws first and is applied to a whole batch."""
        return hasattr(self.transform, "draw") and hasattr(self.transform, "apply")

    @property
    def own_transform(self) -> bool:
        return self.transform is not None and not self.draws

    def _judging(self) -> Self:
        return dataclasses.replace(super()._judging(), crop="center")

    def for_training(self) -> Self:
        # At random places, unless `crop` or the transform says where.
        said = self.crop is not None or self.length is None or self.draws
        return self if said else dataclasses.replace(self, crop="random")

    def open(self, path: Path) -> OpenAudio:
        """The recording in a file, its header read.

        Args:
            path: The file.

        Raises:
            DataError: the file is not a sound, or a broken one.
        """
        return opened(self.decoder, path, lambda path: read_with_status(path)[0])

    def load(self, path: Path) -> tuple[Array, os.stat_result]:
        """A whole recording, float32 [C, T], as it is kept in the cache."""
        status = regular(path, noun="sound file")
        with self.open(path) as audio:
            return audio.waveform(sample_rate=self.sample_rate, mono=self.mono), status

    def part(self, path: Path, spot: float) -> Part:
        """What of a recording is used, at its own rate; nothing else of it is decoded.

        Args:
            path: The file.
            spot: From 0 to 1, where in the recording the part lies.

        Raises:
            DataError: it cannot be read.
        """
        with self.open(path) as audio:
            start, count = self.span(audio.length(self.sample_rate), spot)
            return audio.part(sample_rate=self.sample_rate, mono=self.mono, start=start, count=count)

    def too_long(self, path: Path) -> bool:
        """Whether a recording, of which parts are used, is too long to be decoded and kept as a whole.

        Args:
            path: The file.

        Raises:
            DataError: it cannot be read.
        """
        if self.length is None:
            return False
        with self.open(path) as audio:
            longest: int = audio.channels * max(audio.frames, audio.length(self.sample_rate))
        return longest > MAX_SAMPLES

    def span(self, length: int, spot: float) -> tuple[int, int]:
        """The first sample and the number of samples that are used of a recording.

        Args:
            length: Of the recording, in samples at `sample_rate`.
            spot: From 0 to 1, where in the recording the part lies.
        """
        count = self.length or length
        return int(spot * (max(0, length - count) + 1)) if spot < 1 else max(0, length - count), count

    def check(self, path: Path) -> None:
        with self.open(path) as audio:
            audio.check()

    def measure(self, path: Path) -> tuple[int, ...]:
        with self.open(path) as audio:
            return 1 if self.mono else audio.channels, self.length or audio.length(self.sample_rate)

    @property
    def evened(self) -> str:
        return "give seconds=, or collate_fn=PadCollate(dim=-1) pads them (batch_size=1 works without)"

    def sample(self, array: Array, path: Path) -> Tensor:
        """One waveform through a transform of the user's own."""
        waveform = torch.from_numpy(array)
        if self.transform is None:
            return waveform
        return self._transformed(waveform, path, "a waveform, float32 [C, T]", "end it with torch.as_tensor")
