"""Sound files to float32 waveforms: one rule for every format, and no more of a file is read than is asked for.

`open_audio` reads only the header and says what there is; `.waveform(...)` decodes a part of it, or all. libsndfile
(the extra `audio`) does the work; what it stores as integers is read as such and scaled here, which gives the same
floats bit for bit in a sixth of the time. torchcodec, where it imports, reads what libsndfile cannot: m4a, aac, webm.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from dlkit._bounds import RATE
from dlkit._filekinds import HEAD, kind_of
from dlkit._opening import open_regular, regular
from dlkit._optional import require
from dlkit.datasets.audio.readers import (
    MAX_SAMPLES,
    SNDFILE,
    TORCHCODEC,
    UNKNOWN,
    InMemory,
    Reader,
    ends,
    reader,
    torchcodec,
    usual_wave,
)
from dlkit.datasets.files.decoder import Decoder
from dlkit.errors import ArgumentError, DataError, DlkitError
from dlkit.storage.strings import PackedStrings
from dlkit.transforms.audio.resampling import REACH, resample_all, resampled_length
from dlkit.transforms.audio.spec import as_waveform

__all__ = ["EXTENSIONS", "MAX_SAMPLES", "OpenAudio", "SOUNDS", "check_formats", "decode_audio", "open_audio"]

Waveform = npt.NDArray[np.float32]

#: What a scan takes for a recording, by its name.
EXTENSIONS = frozenset(f".{name}" for name in f"{SNDFILE} {TORCHCODEC}".split())

_SCALES = {np.dtype(np.int16): np.float32(2.0**-15), np.dtype(np.int32): np.float32(2.0**-31)}

_BLOCK = 1 << 18


def decode_audio(
    source: str | os.PathLike[str] | bytes, *, sample_rate: int | None = 16_000, mono: bool = True
) -> Waveform:
    """Decode a sound file to a waveform float32 [C, T], its loudest possible sample at 1 or -1.

    - Integers are scaled by their full range, floats are taken as they are, even beyond 1.
    - `mono` is the mean of the channels, taken before resampling.
    - Resampling is that of `dlkit.transforms.audio.resample`: 20 bits, passes 91 % of the band, linear phase.

    Args:
        source: A path, or the content of a file.
        sample_rate: In Hz; None keeps the file's own.
        mono: One channel; False keeps the file's channels.

    Raises:
        DataError: the file cannot be decoded, holds no sample, NaN or infinity, or more than `MAX_SAMPLES`.
        DataNotFoundError: there is no such file.
        MissingExtraError: the extra `audio` is not installed.

    >>> import io, soundfile; file = io.BytesIO()
    >>> soundfile.write(file, np.zeros((44_100, 2)), 44_100, format="WAV")
    >>> decode_audio(file.getvalue()).shape
    (1, 16000)
    """
    with open_audio(source) as audio:
        return audio.waveform(sample_rate=sample_rate, mono=mono)


def open_audio(source: str | os.PathLike[str] | bytes, *, name: str | None = None) -> OpenAudio:
    """Read a sound file's header: rate, channels, frames. Nothing is decoded yet. Use it in a `with`.

    Args:
        source: A path, or the content of a file.
        name: What errors call it; the path by default.

    Raises:
        DataError: it is not a sound in an accepted format, or its header cannot be true.
        DataNotFoundError: there is no such file.
        MissingExtraError: the extra `audio` is not installed.
    """
    return OpenAudio(source, name or ("sound" if isinstance(source, bytes) else os.fspath(source)))


class Part(NamedTuple):
    """A part of a recording with what surrounds it, not resampled yet.

    Attributes:
        samples: float32 [C, T].
        sample_rate: Theirs, in Hz; None for samples that are resampled already.
        skip: How many samples stand before the part, once resampled.
        length: How many it has, once resampled.
    """

    samples: Waveform
    sample_rate: int | None
    skip: int
    length: int

    def cut(self, made: Waveform) -> Waveform:
        """The part alone, [C, length].

        Args:
            made: `samples`, resampled.
        """
        part = made[:, self.skip : self.skip + self.length]
        if part.shape[1] == self.length:
            return part
        padded = np.zeros((part.shape[0], self.length), np.float32)
        padded[:, : part.shape[1]] = part
        return padded


class OpenAudio:
    """A sound file whose header has been read; made by `open_audio`.

    Args:
        source: A path, or the content of a file.
        name: What errors call it.

    Attributes:
        name: What errors call it.
        format: The format and how its samples are stored, such as "WAV PCM_16".
        sample_rate: In Hz.
        channels: How many.
        frames: Samples of each channel.
    """

    format: str
    sample_rate: int
    channels: int
    frames: int
    _file: Reader

    def __init__(self, source: str | os.PathLike[str] | bytes, name: str) -> None:
        self.name = name
        self._source: Any = source
        found: Reader | None = None if isinstance(source, bytes) else usual_wave(source)
        if found is None and not isinstance(source, bytes):
            regular(source, noun="sound file")
        self._file = found or self._guarded(lambda: reader(source))
        try:
            self.format, self.sample_rate, self.channels, self.frames = self._file.facts
            self._check_header()
        except BaseException:
            self.close()
            raise

    @classmethod
    def of_array(cls, value: Any, sample_rate: int, name: str) -> OpenAudio:
        """Samples in memory as if they came from a file.

        Args:
            value: [T] or [C, T]: floats, or signed integers, which are scaled.
            sample_rate: In Hz.
            name: What errors call it.

        Raises:
            DataError: another type or shape, NaN or infinity.
        """
        audio = cls.__new__(cls)
        audio.name, audio._source = name, b""
        try:
            audio._file = InMemory(as_waveform(value).T, sample_rate)
        except ArgumentError as error:
            raise DataError(f"{name}: decode= did not return a recording: {error}") from error
        audio.format, audio.sample_rate, audio.channels, audio.frames = audio._file.facts
        audio._check_header()
        return audio

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _check_header(self) -> None:
        if not RATE.least <= self.sample_rate <= RATE.most:
            raise DataError(
                f"{self.name}: the header says {self.sample_rate:,} Hz; {RATE.least} to {RATE.most:,} Hz can be true"
            )
        if self.frames >= UNKNOWN:
            raise DataError(
                f"{self.name}: its header does not say how many samples there are; rewrite it: ffmpeg -i old.flac "
                "new.flac"
            )
        if self.frames < 1:
            raise DataError(f"{self.name}: holds no samples (its header says 0)")

    def length(self, sample_rate: int | None = None) -> int:
        """How many samples of each channel there are at a rate.

        Args:
            sample_rate: In Hz; None for the file's own.
        """
        return resampled_length(self.frames, self.sample_rate, sample_rate or self.sample_rate)

    def waveform(
        self, *, sample_rate: int | None = None, mono: bool = False, start: int = 0, count: int | None = None
    ) -> Waveform:
        """A part of the recording, float32 [C, count], with zeros beyond its end.

        A part is decoded with what surrounds it, so that it is what cutting it out of all would give: where the rate
        changes up to rounding (some 1e-7 of the full range), else exactly.

        Args:
            sample_rate: In Hz; None keeps the file's own.
            mono: The mean of the channels.
            start: The first sample, at `sample_rate`.
            count: How many samples of each channel, at `sample_rate`; None for all that follow.

        Raises:
            DataError: it cannot be decoded, holds NaN or infinity, or is more than `MAX_SAMPLES`.
        """
        part = self.part(sample_rate=sample_rate, mono=mono, start=start, count=count)
        return resampled([part], sample_rate)[0]

    def part(
        self, *, sample_rate: int | None = None, mono: bool = False, start: int = 0, count: int | None = None
    ) -> Part:
        """A part of the recording at the file's own rate, from which `resampled` makes what `waveform` returns.

        Args:
            sample_rate: In Hz, what it will be resampled to; None keeps the file's own.
            mono: The mean of the channels.
            start: The first sample, at `sample_rate`.
            count: How many samples of each channel, at `sample_rate`; None for all that follow.

        Raises:
            DataError: as `waveform`.
        """
        rate = sample_rate or self.sample_rate
        count = self.length(rate) - start if count is None else count
        self._check_size(count * (1 if mono else self.channels))
        common = math.gcd(rate, self.sample_rate)
        theirs, ours = self.sample_rate // common, rate // common  # so many samples there last as long as so many here
        margin = 0 if theirs == ours else -(-REACH * theirs // min(theirs, ours))
        periods = max(0, start * theirs // ours - margin) // theirs
        stop = min(self.frames, -(-(start + count) * theirs // ours) + margin)
        samples = self.read(periods * theirs, stop - periods * theirs, mono=mono)
        return Part(samples, self.sample_rate, start - periods * ours, count)

    def read(self, start: int = 0, count: int | None = None, *, mono: bool = False) -> Waveform:
        """Samples at the file's own rate, float32 [C, count].

        Args:
            start: The first one.
            count: How many of each channel; None for all that follow.
            mono: The mean of the channels.

        Raises:
            DataError: there are fewer than the header promises, NaN or infinity, or more than `MAX_SAMPLES`.
        """
        count = self.frames - start if count is None else count
        self._check_size(count * self.channels)
        raw = self._guarded(lambda: self._file.read(start, count))
        if count - len(raw) > self._file.slack:
            self._refuse_end(start + len(raw))
        samples: Waveform = self._finite(scaled(raw, mono=mono), start)
        return samples

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """All of it in pieces, at the file's own rate, as [samples, C] of int16, int32 or float32.

        Raises:
            DataError: it cannot be decoded, is cut off, or holds NaN or infinity.
        """
        done = 0
        while done < self.frames:
            block = self._guarded(functools.partial(self._file.read, done, min(_BLOCK, self.frames - done)))
            if not len(block):
                if self.frames - done > self._file.slack:
                    self._refuse_end(done)
                return
            self._finite(block.T, done)
            yield block
            done += len(block)

    def check(self) -> None:
        """Decode all of it and keep nothing; the memory for it does not grow with its length.

        Raises:
            DataError: it cannot be decoded, or holds NaN or infinity.
        """
        for _ in self.blocks():
            pass

    def _refuse_end(self, end: int) -> None:
        raise DataError(
            f"{self.name}: is cut off: its header promises {self.frames:,} samples of each channel, and reading ends "
            f"after {end:,}"
        )

    def _finite(self, samples: Any, start: int) -> Any:
        """The samples [C, T] as they are, if they are numbers."""
        if self._file.floats and not (finite := np.isfinite(samples)).all():
            first = (start + int(np.flatnonzero(~finite.all(0))[0])) / self.sample_rate
            raise DataError(f"{self.name}: holds NaN or infinity, at {first:.3f} s for the first time")
        return samples

    def _check_size(self, count: int) -> None:
        if count > MAX_SAMPLES:
            raise DataError(
                f"{self.name}: {count:,} samples are more than the {MAX_SAMPLES:,} that are decoded at once; a part is "
                "taken with seconds=, or cut the recording into pieces"
            )

    def _guarded(self, work: Callable[[], Any]) -> Any:
        """Run code of a decoder; whatever it raises on a broken file becomes a DataError that names the file."""
        try:
            return work()
        except (DlkitError, ImportError, MemoryError) as error:
            if isinstance(error, DataError):
                raise DataError(f"{self.name}: {error}") from error
            raise
        except Exception as error:  # decoders raise whatever a broken file leads to
            raise DataError(f"{self.name}: {self._why(error)}") from error

    def _why(self, error: Exception) -> str:
        if isinstance(self._source, bytes):
            head = self._source[:HEAD]
        else:
            with open_regular(self._source, noun="sound file") as file:
                head = file.read(HEAD)
        if not head:
            return "the file is empty (0 bytes)"
        told = kind_of(head)
        if told is not None and told.family != "media":
            return f"is {told.name}, not a sound" + (f"; {told.advice}" if told.advice else "")
        if all(byte > 31 or byte in b"\t\n\r" for byte in head):
            return "is text, not a sound"
        reason = getattr(error, "error_string", "") or f"{type(error).__name__}: {error}"
        return f"cannot be decoded: {reason}"


def resampled(parts: Sequence[Part], rate: int | None) -> list[Waveform]:
    """The waveforms [C, length] of parts, each with zeros beyond the end of its recording.

    Args:
        parts: From `OpenAudio.part`, for this rate.
        rate: In Hz; None keeps their own.
    """
    found: dict[int, Waveform] = {}
    for theirs in {part.sample_rate for part in parts}:
        places = [place for place, part in enumerate(parts) if part.sample_rate == theirs]
        given = [parts[place].samples for place in places]
        made = given if rate is None or theirs is None else resample_all(given, theirs, rate)
        found.update(zip(places, made, strict=True))
    return [part.cut(found[place]) for place, part in enumerate(parts)]


def scaled(raw: npt.NDArray[Any], *, mono: bool) -> Waveform:
    """float32 [C, T] of samples as they are stored: what libsndfile's own floats are, or their mean.

    Args:
        raw: [T, C] of int16, int32 or float32.
        mono: The mean of the channels, float32 [1, T].
    """
    scale, channels = _SCALES.get(raw.dtype, np.float32(1)), raw.shape[1]
    if mono and channels > 1:
        floats = raw.astype(np.float32, copy=False)  # in one pass, which adding columns of integers would not be
        planes: Waveform = np.add(floats[:, 0], floats[:, 1])[None]
        for channel in range(2, channels):
            planes += floats[:, channel]
        if channels & (channels - 1):
            planes *= scale
            planes /= np.float32(channels)
        else:  # in one pass, as both are powers of two
            planes *= scale / np.float32(channels)
        return planes
    planes = np.array(raw.T, np.float32, order="C")
    planes *= scale
    return planes


def check_formats(names: PackedStrings) -> None:
    """Say at once, and not in the middle of a training, that recordings need a package that cannot be imported.

    Args:
        names: Of all files.

    Raises:
        MissingExtraError: it names the package.
    """
    require("soundfile", extra="audio")
    together = names.arrays()[0].tobytes().lower()
    for suffix in TORCHCODEC.split():
        if f".{suffix}".encode() in together and any(ends(name, suffix) for name in names):
            torchcodec(f".{suffix} files")
            return


#: What recordings are to datasets of files, which open them themselves to read a part.
SOUNDS = Decoder(
    suffixes=EXTENSIONS,
    decode=decode_audio,
    noun="recording",
    rule="1",
    advice="for recordings without labels use AudioFiles(folder), for labels in a table AudioTable(csv, root=folder)",
)


def opened(decoder: Decoder | None, path: os.PathLike[str], read: Callable[[Any], bytes]) -> OpenAudio:
    """A recording, opened by the user's own decoder where the name has one of its endings.

    Args:
        decoder: Gives `(samples, sample_rate)` of a file's content; None for none.
        path: The file.
        read: Reads a file whole.

    Raises:
        DataError: it cannot be read.
    """
    if decoder is None or not decoder.fits(os.fspath(path)):
        return open_audio(path)
    value = decoder.decoded(read(path), os.fspath(path))
    if not isinstance(value, tuple) or len(value) != 2:
        raise ArgumentError(f"decode= of a dataset of recordings must give (samples, sample_rate), not {type(value)}")
    return OpenAudio.of_array(*value, os.fspath(path))
