"""What opens sound files: libsndfile (the extra `audio`), and torchcodec for what that cannot read.

Each reader gives any run of samples [T, C] as the file stores them: int16, int32 or float32.
"""

from __future__ import annotations

import io
import os
import re
import struct
import tempfile
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dlkit._bounds import RATE
from dlkit._cores import scratch
from dlkit._opening import open_regular
from dlkit._optional import require
from dlkit.datasets.audio.mp3 import after_id3, length_is_a_guess
from dlkit.errors import DataError, MissingExtraError

__all__ = [
    "Facts",
    "InMemory",
    "MAX_SAMPLES",
    "Reader",
    "SNDFILE",
    "TORCHCODEC",
    "UNKNOWN",
    "ends",
    "reader",
    "torchcodec",
]

#: No more samples of a file, counted over its channels, are decoded at once: 1.7 hours of one at 44.1 kHz.
MAX_SAMPLES = 1 << 28
#: The endings of files that libsndfile reads.
SNDFILE = "wav wave flac mp3 ogg oga opus aif aiff aifc au snd caf w64 rf64"
#: And of those that torchcodec reads.
TORCHCODEC = "m4a aac webm weba wma"
# Which of libsndfile's formats and subtypes are read as integers. The others (floats, and codecs that compute with
# them) as float32.
_INTEGER_FORMATS = {"WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "CAF"}
_AS_INT16 = {"PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW", "ALAC_16", "IMA_ADPCM", "MS_ADPCM"}
_AS_INT32 = {"PCM_24", "PCM_32", "ALAC_20", "ALAC_24", "ALAC_32"}
#: At least so many frames libsndfile gives where a header does not say how many there are.
UNKNOWN = 1 << 62
_WAVE_HEAD = 1024
_MP3_LEAD = 10 * 1152
_OGG_TAIL = 1 << 17  # bytes: two pages at least
_OGG_PAGE = re.compile(rb"OggS\0.(.{8})", re.S)
# How many samples may lack at the end: headers of MP3 count frames that encoders fill up differently, and containers
# of video know the time alone.
_SLACK = 4096
# Sizes that writers to a pipe put into a header because they do not know better: the data continues to the file's end.
_OPEN_ENDED = (range(0x7FFFF000, 0x80001000), range(0xFFFFF000, 0x100000000))
_CLAIM = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.M)


class Facts(NamedTuple):
    """What a header says.

    Attributes:
        format: The format and how it stores samples, such as "WAV PCM_16".
        sample_rate: In Hz.
        channels: How many.
        frames: Samples of each channel.
    """

    format: str
    sample_rate: int
    channels: int
    frames: int


class Reader(Protocol):
    """An open sound file.

    Attributes:
        facts: What its header says.
        floats: Whether it stores floats, which may be NaN or infinite.
        slack: How many samples may lack at the end, because its header is not exact.
    """

    facts: Facts
    floats: bool
    slack: int

    def read(self, start: int, count: int) -> npt.NDArray[Any]:
        """Samples [count, C], fewer where the file ends; int16, int32 or float32.

        Args:
            start: The first one of each channel.
            count: How many of each channel.
        """

    def close(self) -> None:
        """Close the file."""


def reader(source: str | os.PathLike[str] | bytes) -> Reader:
    """Open a sound file: by libsndfile, or by torchcodec where the name says that libsndfile cannot read it.

    Args:
        source: A path to a regular file, or the content of a file.

    Raises:
        DataError: the file is shorter than its header says.
        MissingExtraError: a package that reads it is not installed.
    """
    if isinstance(source, bytes):
        return _SoundFile(source)
    path = os.fspath(source)
    return _TorchCodec(path) if ends(path, TORCHCODEC) else _SoundFile(path)


def usual_wave(path: str | os.PathLike[str]) -> Reader | None:
    """A usual WAV file of 16 bits, open; None for any other file, and where libsndfile should decide.

    Args:
        path: The file.

    Raises:
        DataNotFoundError: there is none.
        DataError: what is there is not a file.
    """
    return _Wave.of(os.fspath(path)) if ends(os.fspath(path), "wav wave") else None


class _Wave(Reader):
    """A usual WAV file of 16 bits, read without libsndfile, which takes three times as long for a part of it."""

    floats, slack = False, 0

    def __init__(self, file: IO[bytes], facts: Facts, begin: int) -> None:
        self._file, self.facts, self._begin = file, facts, begin

    @classmethod
    def of(cls, path: str) -> _Wave | None:
        """The file, None if there is anything in its header that libsndfile should decide.

        Args:
            path: A regular file.
        """
        file = open_regular(path, noun="sound file", buffering=0)
        found = _usual(file.read(_WAVE_HEAD), os.fstat(file.fileno()).st_size)
        if found is None:
            file.close()
            return None
        return cls(file, *found)

    def read(self, start: int, count: int) -> npt.NDArray[Any]:
        width = 2 * self.facts.channels
        count = min(count, self.facts.frames - start)
        self._file.seek(self._begin + start * width)
        # Memory that is used again: fresh one costs more than the copying. All that is read is converted at once.
        raw = scratch("samples", count * self.facts.channels, "<i2").reshape(count, self.facts.channels)
        left, done = raw.reshape(-1).view(np.uint8).data, 0
        while done < len(left) and (more := self._file.readinto(left[done:])):  # type: ignore[attr-defined]
            done += more
        return raw[: done // width]

    def close(self) -> None:
        self._file.close()


def _without_tag(source: Any) -> Any:
    """A sound without the ID3 tag in front of it, where libsndfile would not pass it over: in memory, and of an OGG."""
    with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as content:
        begin = after_id3(content)
        content.seek(begin)
        kind = content.read(4) if begin else b""
        wanted = (b"RIFF", b"FORM", b"fLaC", b"OggS") if isinstance(source, bytes) else (b"OggS",)
        return kind + content.read() if kind in wanted else source


def _usual(head: bytes, size: int) -> tuple[Facts, int] | None:
    """What the header of a WAV of 16 bits says, and where its samples begin; None for any other."""
    if head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt ":
        return None
    length, form, channels, rate, _, width, bits = struct.unpack_from("<IHHIIHH", head.ljust(_WAVE_HEAD, b"\0"), 16)
    place = 20 + length
    while (name := head[place : place + 4]) != b"data":
        if len(name) < 4:
            return None
        extent = int.from_bytes(head[place + 4 : place + 8], "little")
        place += 8 + extent + extent % 2
    extent = int.from_bytes(head[place + 4 : place + 8], "little")
    fits = form == 1 and bits == 16 and 0 < channels <= 64 and 0 < rate <= RATE.most and width == 2 * channels
    if not fits or extent % width or not 0 < extent <= size - place - 8:
        return None
    return Facts("WAV PCM_16", rate, channels, extent // width), place + 8


class _SoundFile(Reader):
    """A file opened by libsndfile: by its path, whose ending says what an MP3 is to it."""

    def __init__(self, source: Any) -> None:
        self._source, self._at = _without_tag(source), 0
        self._file = file = self._opened()
        stored = file.subtype if file.format in _INTEGER_FORMATS else ""
        self._dtype = "int16" if stored in _AS_INT16 else "int32" if stored in _AS_INT32 else "float32"
        self.floats, self.slack = self._dtype == "float32", _SLACK if file.format == "MP3" else 0
        self.facts = Facts(f"{file.format} {file.subtype}", file.samplerate, file.channels, file.frames)
        if file.format == "MP3":
            with self._bytes() as content:
                if length_is_a_guess(content):
                    raise DataError(
                        "is an MP3 of varying bit rate without a header that says how long it is, of which libsndfile "
                        "reads a part; convert it: ffmpeg -i old.mp3 new.flac"
                    )
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
            with tempfile.TemporaryDirectory(
                ignore_cleanup_errors=True
            ) as folder:  # an MP3, which it may not know by its content
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

    def _bytes(self) -> IO[bytes]:
        return io.BytesIO(self._source) if isinstance(self._source, bytes) else open_regular(self._source)

    def _before_last_page(self) -> int:
        with self._bytes() as content:
            content.seek(max(0, content.seek(0, os.SEEK_END) - _OGG_TAIL))
            tail = content.read()
        ends = [int.from_bytes(found.group(1), "little", signed=True) for found in _OGG_PAGE.finditer(tail)]
        return max(0, ends[-2] - 1) if len(ends) > 1 else 0

    def close(self) -> None:
        self._file.close()


class _TorchCodec(Reader):
    """A file opened by torchcodec, which addresses parts by their time."""

    floats, slack = True, _SLACK

    def __init__(self, source: Any) -> None:
        self._decoder = torchcodec(source).AudioDecoder(source)
        about = self._decoder.metadata
        rate, seconds = int(about.sample_rate), about.duration_seconds_from_header
        # The header of an .aac is a guess.
        guessed = seconds is None or ends(source, "aac")
        if guessed and (seconds or 0) * rate * int(about.num_channels) > MAX_SAMPLES:
            raise DataError(f"holds {seconds:,.0f} s in a format that is decoded as a whole; convert it to FLAC")
        self._all = self._decoder.get_all_samples().data if guessed else None
        frames = round(float(seconds) * rate) if self._all is None else self._all.shape[1]
        self.facts = Facts(str(about.codec), rate, int(about.num_channels), frames)

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


class InMemory(Reader):
    """Samples in memory, as if they came from a file.

    Args:
        samples: float32 [T, C].
        sample_rate: In Hz.
    """

    floats, slack = False, 0

    def __init__(self, samples: npt.NDArray[np.float32], sample_rate: int) -> None:
        self._samples = samples
        self.facts = Facts("decoded", int(sample_rate), samples.shape[1], len(samples))

    def read(self, start: int, count: int) -> npt.NDArray[Any]:
        return self._samples[start : start + count]

    def close(self) -> None:
        """Nothing is open."""


def torchcodec(what: str) -> Any:
    """torchcodec's decoders.

    Args:
        what: What needs them, for the error.

    Raises:
        MissingExtraError: it cannot be imported; the message says how to get it.
    """
    try:
        from torchcodec import decoders
    except Exception as error:  # without FFmpeg it raises a RuntimeError
        raise MissingExtraError(
            f"{what}: needs torchcodec, which cannot be imported ({type(error).__name__}): pip install the torchcodec "
            "that belongs to this torch, and FFmpeg; or convert such files: ffmpeg -i a.m4a a.flac"
        ) from error
    return decoders


def ends(name: str, suffixes: str) -> bool:
    """Whether a file's name has one of the endings.

    Args:
        name: With or without folders.
        suffixes: Such as `SNDFILE`.
    """
    return name.lower().rpartition(".")[2] in suffixes.split()
