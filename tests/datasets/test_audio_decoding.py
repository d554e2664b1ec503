"""Sound files to waveforms: every format and subtype, parts of files, and files that are not what they say."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from dlkit.datasets import decode_audio
from dlkit.datasets.audio.decoding import EXTENSIONS, open_audio
from dlkit.datasets.audio.mp3 import frame_length
from dlkit.errors import DataError, DataNotFoundError, DlkitError, MissingExtraError
from dlkit.transforms.audio import resample

FORMATS = sorted(set(soundfile.available_formats()) - {"RAW", "SD2"})


def noise(frames: int = 700, channels: int = 2) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).uniform(-0.999, 0.999, (frames, channels))


def encoded(samples: Any, rate: int = 16_000, **kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **({"format": "WAV"} | kind))
    return file.getvalue()


def wav(
    data: bytes, *, rate: int = 16_000, channels: int = 1, bits: int = 16, form: int = 1, claim: int | None = None
) -> bytes:
    """A WAV by hand, which may claim anything."""
    claim = len(data) if claim is None else claim
    width = channels * bits // 8
    head = struct.pack("<HHIIHH", form, channels, rate, rate * width & 0xFFFFFFFF, width & 0xFFFF, bits)
    riff = struct.pack("<I", min(claim + 36, 0xFFFFFFFF))
    return b"RIFF" + riff + b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", claim) + data


@pytest.mark.parametrize("form", FORMATS)
def test_samples_are_those_of_libsndfile_bit_for_bit(form: str, tmp_path: Path) -> None:
    tried = 0
    for subtype in soundfile.available_subtypes(form):
        for samples in (noise(), noise(channels=1)):
            try:
                data = encoded(samples, format=form, subtype=subtype)
            except (soundfile.LibsndfileError, ValueError):
                continue  # not every format takes every subtype, rate and number of channels
            try:
                with soundfile.SoundFile(io.BytesIO(data)) as file:  # an MP3 is another after a seek, if only to 0
                    wanted = file.read(file.frames, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                continue  # it writes what it cannot read
            if not len(wanted):
                continue
            got = decode_audio(data, sample_rate=None, mono=False)
            np.testing.assert_array_equal(got, wanted.T, err_msg=f"{form} {subtype}", strict=True)
            (tmp_path / "a.wav").write_bytes(data)  # a usual WAV is read without libsndfile
            if form in ("WAV", "WAVEX", "FLAC"):
                np.testing.assert_array_equal(decode_audio(tmp_path / "a.wav", sample_rate=None, mono=False), got)
            mixed = decode_audio(data, sample_rate=None)
            np.testing.assert_array_equal(mixed, wanted.T.mean(0, keepdims=True), err_msg=f"{form} {subtype}")
            tried += 1
    assert tried or form in ("MPC2K", "SDS", "XI", "WVE", "HTK", "SVX", "VOC", "IRCAM")


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
@pytest.mark.parametrize("rate", [None, 8_000, 16_000, 48_000])
def test_a_part_is_what_cutting_it_out_of_all_gives(form: str, rate: int | None) -> None:
    time = np.arange(3 * 22_050) / 22_050
    tones = np.stack([np.sin(2 * np.pi * each * time) * 0.3 for each in (440, 1333)], 1)
    with open_audio(encoded(tones, 22_050, format=form)) as audio:
        whole = audio.waveform(sample_rate=rate, mono=True)
        assert whole.shape == (1, 3 * (rate or 22_050))
        for start in (whole.shape[1] // 2, 1, 777, whole.shape[1] - 1_000, 0):
            part = audio.waveform(sample_rate=rate, mono=True, start=start, count=1_000)
            exact = rate is None and form in ("WAV", "FLAC", "AIFF")
            np.testing.assert_allclose(part, whole[:, start : start + 1_000], rtol=0, atol=0 if exact else 2e-6)


def test_channels_are_mixed_before_they_are_resampled() -> None:
    samples = noise(44_100).astype(np.float32)
    wanted = resample(decode_audio(encoded(samples, 44_100), sample_rate=None), 44_100, 16_000)
    np.testing.assert_array_equal(decode_audio(encoded(samples, 44_100)), wanted)


def test_beyond_the_end_there_are_zeros() -> None:
    with open_audio(encoded(noise(100, 1))) as audio:
        assert audio.waveform(start=90, count=20)[0, 10:].tolist() == [0] * 10


def test_all_of_a_list_of_endings_is_known() -> None:
    assert {".wav", ".flac", ".mp3", ".ogg", ".m4a"} <= EXTENSIONS


PCM = (np.arange(2_000) % 256).astype("<i2").tobytes()

RIGHT = {
    "192 kHz": (wav(PCM, rate=192_000), 2_000),
    "24 channels": (wav(PCM[: 48 * 40], channels=24), 40),
    "size not known": (wav(PCM, claim=0xFFFFFFFF), 2_000),
    "size of a stream": (wav(PCM, claim=0x7FFFF000), 2_000),
    "an odd byte": (wav(PCM + b"x"), 2_000),
    "one sample": (wav(b"\1\0"), 1),
    "8 bits": (wav(PCM, bits=8), 4_000),
}


@pytest.mark.parametrize("name", RIGHT)
def test_odd_files_are_right(name: str, tmp_path: Path) -> None:
    data, frames = RIGHT[name]
    assert decode_audio(data, sample_rate=None).shape == (1, frames)
    (tmp_path / "a.wav").write_bytes(data)
    np.testing.assert_array_equal(decode_audio(tmp_path / "a.wav"), decode_audio(data))
    with open_audio(tmp_path / "a.wav") as audio:
        last = audio.waveform(mono=True, start=frames - 1, count=3)
    assert last.tolist() == [[decode_audio(data, sample_rate=None)[0, -1], 0, 0]]


@pytest.mark.parametrize("where", range(0, 48, 3))
def test_a_header_with_a_wrong_byte_is_what_libsndfile_makes_of_it(where: int, tmp_path: Path) -> None:
    for value in (0, 1, 0x7F, 0xFF):
        data = bytearray(wav(PCM[:400], channels=2))
        data[where] = value
        (tmp_path / "a.wav").write_bytes(data)
        (tmp_path / "a.flac").write_bytes(data)  # by this name, libsndfile reads it
        assert _outcome(tmp_path / "a.wav") == _outcome(tmp_path / "a.flac"), value


def _outcome(path: Path) -> Any:
    try:
        with open_audio(path) as audio:
            return audio.sample_rate, audio.read().tolist()
    except DataError as error:
        return str(error).replace(path.name, "")


FLOATS = np.array([0, 0.5, np.nan, np.inf], "<f4")

BAD = {
    "empty": (b"", r"the file is empty \(0 bytes\)"),
    "text": (b"these are not the samples\n" * 9, "is text, not a sound"),
    "html": (b"<!DOCTYPE html><html></html>", "is an HTML page, not a sound"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a PNG image, not a sound"),
    "header only": (wav(PCM)[:30], "cannot be decoded"),
    "no samples": (wav(b""), "holds no samples"),
    "cut off": (wav(PCM)[:1_000], "is cut off: its header promises 4,000 bytes of sound, and 956 are there"),
    "4 GB": (wav(PCM, claim=4_000_000_000), "is cut off: its header promises 4,000,000,000 bytes"),
    "0 Hz": (wav(PCM, rate=0), "cannot be decoded"),
    "5 Hz": (wav(PCM, rate=5), "the header says 5 Hz"),
    "2 GHz": (wav(PCM, rate=2_000_000_000), "the header says 2,000,000,000 Hz"),
    "0 channels": (wav(PCM, channels=0), "cannot be decoded"),
    "2000 channels": (wav(PCM, channels=2000), "cannot be decoded"),
    "NaN": (wav(FLOATS[:3].tobytes(), bits=32, form=3), "holds NaN or infinity, at 0.000 s"),
    "infinity": (wav(FLOATS[[0, 1, 3]].tobytes(), bits=32, form=3), "holds NaN or infinity"),
    "half a FLAC": (
        encoded(noise(20_000), format="FLAC")[:20_000],
        "cannot be decoded: Error : flac decoder lost sync",
    ),
    "half an OGG": (encoded(noise(20_000), format="OGG")[:4_200], "(cannot be decoded|holds no samples)"),
    "half an MP3": (encoded(noise(60_000), format="MP3")[:9_000], "is cut off: its header promises 60,000"),
    "noise": (bytes(range(256)) * 20, "cannot be decoded"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    data, message = BAD[name]
    path = tmp_path / "sound.wav"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"sound\.wav: .*{message}"):
        decode_audio(path)
    with pytest.raises(DataError, match=message), open_audio(path) as audio:
        audio.check()


def test_an_unknown_number_of_samples_is_refused() -> None:
    data = bytearray(encoded(noise(5_000), format="FLAC"))
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that say how many samples there are: 0 means unknown
    data[22:26] = bytes(4)
    with pytest.raises(DataError, match="sound: its header does not say how many samples there are"):
        decode_audio(bytes(data))


@pytest.mark.parametrize("size", [40, 5_000])
@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3", "AIFF", "OGG"])
def test_id3_and_a_cover_image_are_passed_over(form: str, size: int, tmp_path: Path) -> None:
    data, picture = encoded(noise(20_000), format=form), b"APIC" + bytes(size)
    tag = b"ID3\x03\x00\x00" + bytes([0, 0, len(picture) >> 7, len(picture) & 127]) + picture
    path = tmp_path / f"a.{form.lower()}"
    behind = [data + b"id3 " + struct.pack("<I", len(tag)) + tag] if form == "WAV" else []
    for both in (tag + data, *behind):
        path.write_bytes(both)
        np.testing.assert_array_equal(decode_audio(both), decode_audio(data))
        np.testing.assert_array_equal(decode_audio(path), decode_audio(data))
        with open_audio(path) as audio, open_audio(data) as plain:
            part = audio.waveform(mono=True, start=9_000, count=1_000)
            np.testing.assert_array_equal(part, plain.waveform(mono=True, start=9_000, count=1_000))


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_mp3_is_known_by_its_content_and_by_its_name(rate: int, channels: int, tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(data := encoded(noise(20_000, channels), rate, format="MP3"))
    np.testing.assert_array_equal(decode_audio(tmp_path / "a.mp3"), decode_audio(data))


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_an_mp3_without_a_header_that_says_its_length(mode: str, rate: int, tmp_path: Path) -> None:
    """libsndfile takes the bit rate of the first frame for that of all, and reads no further than that makes."""
    path, loud = tmp_path / "a.mp3", np.concatenate([noise(rate, 1), np.zeros((9 * rate, 1))])
    with soundfile.SoundFile(path, "w", rate, 1, bitrate_mode=mode, compression_level=0.5) as file:
        for start in range(0, len(loud), 4096):
            file.write(loud[start : start + 4096])
    whole = decode_audio(path, sample_rate=None)
    assert whole.shape[1] == 10 * rate
    data = path.read_bytes()
    path.write_bytes(data[frame_length(int.from_bytes(data[:4], "big")) :])
    if mode == "VARIABLE":
        with pytest.raises(DataError, match=r"a\.mp3: is an MP3 of varying bit rate without a header"):
            decode_audio(path)
    else:
        assert decode_audio(path, sample_rate=None).shape[1] == pytest.approx(10 * rate, abs=5_000)


def test_ten_hours_are_not_read_for_a_second(tmp_path: Path) -> None:
    path, seconds = tmp_path / "long.wav", 10 * 3600
    size = seconds * 16_000 * 2
    path.write_bytes(wav(b"", claim=size))
    os.truncate(path, 44 + size)
    tracemalloc.start()
    with open_audio(path) as audio:
        assert audio.length(8_000) == seconds * 8_000
        part = audio.waveform(sample_rate=8_000, mono=True, start=seconds * 4_000, count=8_000)
        with pytest.raises(DataError, match=r"long\.wav: 576,000,000 samples are more than .* seconds="):
            audio.waveform(sample_rate=16_000, mono=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert part.shape == (1, 8_000)
    assert peak < 1 << 20


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match=r"pipe\.wav is a named pipe"):
        decode_audio(pipe)
    with pytest.raises(DataNotFoundError, match="there is no sound file"):
        decode_audio(tmp_path / "gone.wav")
    with pytest.raises(DataError, match="is a folder"):
        decode_audio(tmp_path)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(PCM))
    (tmp_path / "b.wav").write_bytes(b"text")
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    for _ in range(3):
        decode_audio(tmp_path / "a.wav")
        with pytest.raises(DataError):
            decode_audio(tmp_path / "b.wav")
    assert len(before) == (len(os.listdir("/proc/self/fd")) if before else 0)


def test_what_libsndfile_cannot_read_names_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))
    with pytest.raises(DlkitError, match=r"a\.m4a: ") as caught:
        decode_audio(tmp_path / "a.m4a")
    try:
        import torchcodec  # noqa: F401
    except Exception:
        assert isinstance(caught.value, MissingExtraError)
        assert "FFmpeg" in str(caught.value)


@pytest.mark.parametrize(("kind", "codec"), [("m4a", "aac"), ("aac", "aac"), ("webm", "libopus")])
def test_torchcodec_reads_what_libsndfile_cannot(kind: str, codec: str, tmp_path: Path) -> None:
    try:
        import torchcodec  # noqa: F401
    except Exception as error:
        pytest.skip(f"torchcodec does not load here: {error!r:.80}")
    if not (ffmpeg := shutil.which("ffmpeg")):
        pytest.skip("there is no ffmpeg here to make the files")
    wave = (0.3 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16_000)
    made = tmp_path / f"a.{kind}"
    subprocess.run([ffmpeg, "-loglevel", "error", "-i", tmp_path / "a.wav", "-c:a", codec, made], check=True)
    heard = decode_audio(made, sample_rate=8_000)
    assert 24_000 <= heard.shape[1] < 24_700  # ADTS says nothing of the encoder's padding
    second = heard[0, 8_000:16_000]
    assert np.abs(np.fft.rfft(second)).argmax() == 440
    assert 0.25 < np.abs(second).max() < 0.35
