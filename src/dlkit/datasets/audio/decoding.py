"""Sound files to float32 waveforms: one rule for every format, and no more of a file is read than is asked for.

`open_audio` reads only the header and says what there is; `.waveform(...)` decodes a part of it, or all. libsndfile
(the extra `audio`) does the work; what it stores as integers is read as such and scaled here, which gives the same
floats bit for bit in a sixth of the time. torchcodec, where it imports, reads what libsndfile cannot: m4a, aac, webm.
"""

from __future__ import annotations

import functools
import io
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from dlkit._filekinds import HEAD, kind_of
from dlkit._opening import open_regular, regular
from dlkit._optional import require
from dlkit.datasets.files.decoder import Decoder
from dlkit.errors import ArgumentError, DataError, DlkitError, MissingExtraError
from dlkit.storage.strings import PackedStrings

__all__ = ["EXTENSIONS", "MAX_SAMPLES", "OpenAudio", "SOUNDS", "check_formats", "decode_audio", "open_audio"]

Waveform = npt.NDArray[np.float32]

#: No more samples of a file, counted over its channels, are decoded at once: 1.7 hours of one at 44.1 kHz.
MAX_SAMPLES = 1 << 28
#: What a sample rate may be; a header that says something else lies.
RATES = range(100, 1_000_001)
_SNDFILE = "wav wave flac mp3 ogg oga opus aif aiff aifc au snd caf w64 rf64"
_TORCHCODEC = "m4a aac webm weba wma"
#: What a scan takes for a recording, by its name.
EXTENSIONS = frozenset(f".{name}" for name in f"{_SNDFILE} {_TORCHCODEC}".split())

# Which of libsndfile's formats and subtypes are read as integers. The others (floats, and codecs that compute with
# them) as float32.
_INTEGER_FORMATS = {"WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "CAF"}
_AS_INT16 = {"PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW", "ALAC_16", "IMA_ADPCM", "MS_ADPCM"}
_AS_INT32 = {"PCM_24", "PCM_32", "ALAC_20", "ALAC_24", "ALAC_32"}
_SCALES = {"int16": np.float32(2.0**-15), "int32": np.float32(2.0**-31), "float32": None}

_UNKNOWN = 1 << 62  # frames that libsndfile gives where a header does not say how many
_BLOCK = 1 << 18
_MARGIN = 256  # samples at the lower rate around a part that is resampled: more than soxr's filter looks at
_MP3_LEAD = 10 * 1152
_OGG_TAIL = 1 << 17  # bytes: two pages at least
_OGG_PAGE = re.compile(rb"OggS\0.(.{8})", re.S)
# How many samples may lack at the end: headers of MP3 count frames that encoders fill up differently, and containers
# of video know the time alone.
_SLACK = 4096
# Sizes that writers to a pipe put into a header because they do not know better: the data goes on to the file's end.
_OPEN_ENDED = (range(0x7FFFF000, 0x80001000), range(0xFFFFF000, 0x100000000))
_CLAIM = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.M)


def decode_audio(
    source: str | os.PathLike[str] | bytes, *, sample_rate: int | None = 16_000, mono: bool = True
) -> Waveform:
    """Decode a sound file to a waveform float32 [C, T], its loudest possible sample at 1 or -1.

    - Integers are scaled by their full range, floats are taken as they are, even beyond 1.
    - `mono` is the mean of the channels, taken before resampling.
    - Resampling is soxr's "HQ": 20 bits, passes 91 % of the band, linear phase.

    Args:
        source: A path, or the content of a file.
        sample_rate: In Hz; None keeps the file's own.
        mono: One channel; False keeps the file's channels.

    Raises:
        DataError: the file cannot be decoded, holds no sample, NaN or infinity, or more than `MAX_SAMPLES`.
        DataNotFoundError: there is no such file.
        MissingExtraError: the extra `audio` is not installed.

    >>> import soundfile; file = io.BytesIO()
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
        DataError: it is no sound in an accepted format, or its header cannot be true.
        DataNotFoundError: there is no such file.
        MissingExtraError: the extra `audio` is not installed.
    """
    return OpenAudio(source, name or ("sound" if isinstance(source, bytes) else os.fspath(source)))


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

    def __init__(self, source: str | os.PathLike[str] | bytes, name: str) -> None:
        self.name = name
        self._source: Any = source
        if not isinstance(source, bytes):
            regular(source, noun="sound file")
        self._file = self._guarded(lambda: _reader(source))
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
            value: [T] or [C, T]: floats, or int16 or int32, which are scaled.
            sample_rate: In Hz.
            name: What errors call it.

        Raises:
            DataError: another type or shape.
        """
        audio, samples = cls.__new__(cls), np.atleast_2d(np.asarray(value))
        if samples.ndim != 2 or (samples.dtype.kind != "f" and samples.dtype.name not in _SCALES):
            raise DataError(
                f"{name}: decode= must give samples [T] or [C, T] as floats, int16 or int32, not {samples.dtype} "
                f"{list(np.shape(value))}"
            )
        if samples.dtype.kind == "f":
            samples = samples.astype(np.float32)
        audio.name, audio._source, audio._file = name, b"", _InMemory(samples.T, sample_rate)
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
        if self.sample_rate not in RATES:
            raise DataError(
                f"{self.name}: the header says {self.sample_rate:,} Hz; {RATES[0]} to {RATES[-1]:,} Hz can be true"
            )
        if self.frames >= _UNKNOWN:
            raise DataError(
                f"{self.name}: its header does not say how many samples there are; write it anew: ffmpeg -i old.flac "
                "new.flac"
            )
        if self.frames < 1:
            raise DataError(f"{self.name}: holds no samples (its header says 0)")

    def length(self, sample_rate: int | None = None) -> int:
        """How many samples of each channel there are at a rate.

        Args:
            sample_rate: In Hz; None for the file's own.
        """
        return _length(self.frames, self.sample_rate, sample_rate or self.sample_rate)

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
        rate = sample_rate or self.sample_rate
        total = self.length(rate)
        count = total - start if count is None else count
        self._check_size(count * (1 if mono else self.channels))
        common = math.gcd(rate, self.sample_rate)
        theirs, ours = self.sample_rate // common, rate // common  # so many samples there last as long as so many here
        margin = 0 if theirs == ours else -(-_MARGIN * theirs // min(theirs, ours))
        periods = max(0, start * theirs // ours - margin) // theirs
        stop = min(self.frames, -(-(start + count) * theirs // ours) + margin)
        part = self.read(periods * theirs, stop - periods * theirs, mono=mono)
        part = resampled(part, self.sample_rate, rate)[:, start - periods * ours :][:, :count]
        if part.shape[1] == count:
            return part
        padded = np.zeros((part.shape[0], count), np.float32)
        padded[:, : part.shape[1]] = part
        return padded

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
            raise DataError(
                f"{self.name}: is cut off: its header promises {self.frames:,} samples of each channel, and reading "
                f"ends after {start + len(raw):,}"
            )
        samples: Waveform = self._finite(_scaled(raw, mono=mono), start)
        return samples

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """All of it in pieces, at the file's own rate, as [samples, C] of int16, int32 or float32.

        Raises:
            DataError: it cannot be decoded.
        """
        start = 0
        while True:
            block = self._guarded(functools.partial(self._file.read, start, min(_BLOCK, max(0, self.frames - start))))
            if not len(block):
                return
            yield block
            start += len(block)

    def check(self) -> None:
        """Decode all of it and keep nothing; the memory for it does not grow with its length.

        Raises:
            DataError: it cannot be decoded, or holds NaN or infinity.
        """
        done = 0
        for block in self.blocks():
            self._finite(block.T, done)
            done += len(block)
        if self.frames - done > self._file.slack:
            self.read(done)  # says so

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


def resampled(waveform: Waveform, rate: int, wanted: int) -> Waveform:
    """A waveform at another sample rate.

    Args:
        waveform: float32 [C, T].
        rate: Its own, in Hz.
        wanted: The other, in Hz.

    Raises:
        MissingExtraError: the extra `audio` is not installed.
    """
    if rate == wanted:
        return waveform
    resample = require("soxr", extra="audio").resample
    length = _length(waveform.shape[1], rate, wanted)
    result = np.zeros((len(waveform), length), np.float32)
    for channel, out in zip(waveform, result, strict=True):
        made = resample(np.ascontiguousarray(channel), rate, wanted, quality="HQ")[:length]
        out[: len(made)] = made
    return result


def _length(frames: int, rate: int, wanted: int) -> int:
    """Samples at another rate, rounded half up; a recording that is not empty has at least one."""
    return max(1, (2 * frames * wanted + rate) // (2 * rate))


def _scaled(raw: npt.NDArray[Any], *, mono: bool) -> Waveform:
    """float32 [C, T] of [T, C] as it is stored: what libsndfile's own floats are, and their mean."""
    scale, channels = _SCALES[raw.dtype.name], raw.shape[1]
    if not mono or channels == 1:
        planes = np.array(raw.T, np.float32, order="C")
    else:
        planes = raw[:, :1].T.astype(np.float32, order="C")
        for channel in range(1, channels):
            planes += raw[:, channel].astype(np.float32, copy=False)
    if scale is not None:
        planes *= scale
    if mono and channels > 1:
        planes /= np.float32(channels)
    return planes


class _Facts(NamedTuple):
    format: str
    sample_rate: int
    channels: int
    frames: int


def _reader(source: Any) -> Any:
    """What reads a file: libsndfile, or torchcodec where the name says that libsndfile cannot."""
    if isinstance(source, bytes):
        return _SoundFile(source)
    return (_TorchCodec if _ends(os.fspath(source), _TORCHCODEC) else _SoundFile)(os.fspath(source))


class _SoundFile:
    """A file opened by libsndfile: by its path, whose ending says what an MP3 is to it."""

    def __init__(self, source: Any) -> None:
        self._source, self._at = source, 0
        self._file = file = self._opened()
        stored = file.subtype if file.format in _INTEGER_FORMATS else ""
        self._dtype = "int16" if stored in _AS_INT16 else "int32" if stored in _AS_INT32 else "float32"
        self.floats, self.slack = self._dtype == "float32", _SLACK if file.format == "MP3" else 0
        self.facts = _Facts(f"{file.format} {file.subtype}", file.samplerate, file.channels, file.frames)
        for claim, found in _CLAIM.findall(file.extra_info):
            if int(claim) > int(found) and not any(int(claim) in sizes for sizes in _OPEN_ENDED):
                raise DataError(f"is cut off: its header promises {int(claim):,} bytes of sound, and {found} are there")

    def _opened(self) -> Any:
        module = require("soundfile", extra="audio")
        if not isinstance(self._source, bytes):
            return module.SoundFile(self._source)
        try:
            return module.SoundFile(io.BytesIO(self._source))
        except module.LibsndfileError:
            if not self._source.startswith((b"ID3", b"\xff")):
                raise
            with tempfile.TemporaryDirectory() as folder:  # an MP3, which it may not know by its content
                path = os.path.join(folder, "sound.mp3")
                with open(path, "wb") as file:
                    file.write(self._source)
                return module.SoundFile(path)

    def read(self, start: int, count: int) -> npt.NDArray[Any]:
        begin = start
        if start != self._at:
            if self._at:  # what a codec remembers of other samples would be heard
                self._file.close()
                self._file = self._opened()
            begin = self._entrance(start)
            if begin:
                self._file.seek(begin)
        raw: npt.NDArray[Any] = self._file.read(start - begin + count, dtype=self._dtype, always_2d=True)
        self._at = begin + len(raw)
        return raw[start - begin :]

    def _entrance(self, start: int) -> int:
        """Where to begin reading, so that samples from `start` on are those of a file that is read from its beginning.

        An MP3 borrows bits from frames before. In the last page of a Vorbis stream libsndfile 1.2 misses the sample by
        as much as the page is shortened.
        """
        if not self._file.seekable():
            return 0
        if self._file.format == "MP3":
            return max(0, start - _MP3_LEAD)
        if self._file.subtype == "VORBIS":
            return min(start, self._before_last_page())
        return start

    def _before_last_page(self) -> int:
        if isinstance(self._source, bytes):
            tail = self._source[-_OGG_TAIL:]
        else:
            with open_regular(self._source) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _OGG_TAIL))
                tail = file.read()
        ends = [int.from_bytes(found.group(1), "little", signed=True) for found in _OGG_PAGE.finditer(tail)]
        return max(0, ends[-2] - 1) if len(ends) > 1 else 0

    def close(self) -> None:
        self._file.close()


class _TorchCodec:
    """A file opened by torchcodec, which addresses parts by their time."""

    floats, slack = True, _SLACK

    def __init__(self, source: Any) -> None:
        self._decoder = _torchcodec(source).AudioDecoder(source)
        about = self._decoder.metadata
        rate, seconds = int(about.sample_rate), about.duration_seconds_from_header
        self._all = self._decoder.get_all_samples().data if seconds is None else None
        frames = round(float(seconds) * rate) if self._all is None else self._all.shape[1]
        self.facts = _Facts(str(about.codec), rate, int(about.num_channels), frames)

    def read(self, start: int, count: int) -> npt.NDArray[Any]:
        rate = self.facts.sample_rate
        found = (
            self._decoder.get_samples_played_in_range(start / rate, (start + count) / rate).data
            if self._all is None
            else self._all[:, start:]
        )
        samples: npt.NDArray[Any] = found.numpy().T[:count]
        return samples

    def close(self) -> None:
        self._decoder = self._all = None


class _InMemory:
    """Samples [T, C] that a decoder of the user's own gave."""

    slack = 0

    def __init__(self, samples: npt.NDArray[Any], sample_rate: int) -> None:
        self._samples, self.floats = samples, samples.dtype.kind == "f"
        self.facts = _Facts("decoded", int(sample_rate), samples.shape[1], len(samples))

    def read(self, start: int, count: int) -> npt.NDArray[Any]:
        return self._samples[start : start + count]

    def close(self) -> None:
        """Nothing is open."""


def _torchcodec(what: str) -> Any:
    """torchcodec's decoders, or how to get them."""
    try:
        from torchcodec import decoders
    except Exception as error:  # without FFmpeg it raises a RuntimeError
        raise MissingExtraError(
            f"{what}: needs torchcodec, which cannot be imported ({type(error).__name__}): pip install the torchcodec "
            "that belongs to this torch, and FFmpeg; or convert such files: ffmpeg -i a.m4a a.flac"
        ) from error
    return decoders


def _ends(name: str, suffixes: str) -> bool:
    return name.lower().rpartition(".")[2] in suffixes.split()


def check_formats(names: PackedStrings) -> None:
    """Say at once, and not in the middle of a training, that recordings need a package that cannot be imported.

    Args:
        names: Of all files.

    Raises:
        MissingExtraError: it names the package.
    """
    require("soundfile", extra="audio")
    together = names.arrays()[0].tobytes().lower()
    for suffix in _TORCHCODEC.split():
        if f".{suffix}".encode() in together and any(_ends(name, suffix) for name in names):
            _torchcodec(f".{suffix} files")
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
