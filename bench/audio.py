"""Log-mel batches per second out of sound files; contenders take turns, medians, ratios. About two minutes.

    python bench/audio.py [--rounds 5] [--only crops]

From stereo files of 10 s at 44.1 kHz to batches of log-mel spectrograms at 16 kHz, mono: one-second parts at random
places of WAV files; the same out of what is kept decoded; whole FLAC files; whole MP3 files. Contenders: dlkit with
threads in this process, with one worker, and with as many as cores, which make the spectrograms of whole batches; a
plain `Dataset` over soundfile (as torchaudio's tutorials have it: seek, read floats, mix, resample with soxr, log-mel,
one by one) with as many workers as cores; the same with librosa's own functions; Hugging Face datasets (whose decoder
is torchcodec; without FFmpeg soundfile in its place); SPDL (its threads, and its own parser for WAV). It says which of
them do not load (pip install librosa datasets torchcodec spdl-core spdl-io; torchcodec needs FFmpeg, and so does SPDL
for FLAC and MP3). All but librosa compute log-mel by the same code; dlkit resamples by its own, with soxr's quality.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
import soxr
import torch
from torch.utils.data import DataLoader, Dataset

import dlkit
from dlkit.datasets import AudioFolder
from dlkit.transforms.audio import LogMel

RATE, OWN, SECONDS, CORES = 16_000, 44_100, 10, os.cpu_count() or 1
MEL = LogMel(sample_rate=RATE)


def made_up(folder: Path, ending: str, count: int) -> Path:
    """Tones and noise: what FLAC and MP3 make of them costs about as much as music."""
    rng, times = np.random.default_rng(0), np.arange(SECONDS * OWN) / OWN
    for number in range(count):
        tones = sum(np.sin(2 * np.pi * pitch * times) for pitch in rng.uniform(80, 4_000, 6)) / 12
        samples = np.stack([tones, np.roll(tones, 99)], 1) + rng.normal(0, 0.02, (len(times), 2))
        path = folder / "ab"[number % 2] / f"{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, OWN)
    return folder


def batch_size(crop: bool) -> int:
    return 32 if crop else 8


def files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*.*"))


def start_of(crop: bool) -> float:
    return float(torch.rand(())) * (SECONDS - 1) if crop else 0.0


# Contenders: each gives a function that makes batches of one epoch.


class Spectrograms:
    """A whole batch in the process that decoded it."""

    def __call__(self, waveforms: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return MEL(waveforms), labels


def through_dlkit(
    folder: Path, crop: bool, *, workers: int = 0, cache: str | None = None
) -> Callable[[], Iterator[Any]]:
    length: dict[str, Any] = {"seconds": 1.0, "crop": "random"} if crop else {"seconds": float(SECONDS)}
    loader = dlkit.DataLoader(
        AudioFolder(folder, sample_rate=RATE, cache=cache, batch_transform=Spectrograms(), **length),
        batch_size(crop),
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda: iter(loader)


def heard(path: str, crop: bool) -> torch.Tensor:
    """What everybody writes."""
    first = int(start_of(crop) * OWN)
    samples, rate = soundfile.read(path, OWN if crop else -1, first, dtype="float32", always_2d=True)
    mixed = torch.from_numpy(samples).mean(1).numpy()  # numpy takes ten times as long for a short axis
    return MEL(torch.from_numpy(soxr.resample(mixed, rate, RATE))[None])


class Plain(Dataset[Any]):
    """One recording after the other."""

    def __init__(self, folder: Path, crop: bool) -> None:
        self.files, self.crop = files(folder), crop

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return heard(self.files[index], self.crop), index % 2


class Librosa(Plain):
    def __getitem__(self, index: int) -> Any:
        import librosa

        waveform, _ = librosa.load(
            self.files[index], sr=RATE, offset=start_of(self.crop), duration=1.0 if self.crop else None
        )
        power = librosa.feature.melspectrogram(y=waveform, sr=RATE, n_fft=MEL.window, hop_length=MEL.hop, n_mels=64)
        return torch.from_numpy(librosa.power_to_db(power))[None], index % 2


def hugging_face(folder: Path, crop: bool) -> Any:
    import datasets

    found = datasets.Dataset.from_dict({"audio": files(folder)})
    try:
        from torchcodec.decoders import AudioDecoder

        AudioDecoder(files(folder)[0])
    except Exception:  # without FFmpeg: the way around it that users share
        found = found.cast_column("audio", datasets.Audio(decode=False))
        return found.with_transform(lambda batch: {"mel": [heard(each["path"], crop) for each in batch["audio"]]})
    found = found.cast_column("audio", datasets.Audio(sampling_rate=RATE, num_channels=1))

    def prepared(batch: Any) -> Any:
        mels = []
        for decoder in batch["audio"]:
            start = start_of(crop)
            part = decoder.get_samples_played_in_range(start, start + 1) if crop else decoder.get_all_samples()
            samples = part.data.mean(0, keepdim=True)
            length = RATE if crop else SECONDS * RATE
            mels.append(MEL(torch.nn.functional.pad(samples, (0, max(0, length - samples.shape[1])))[:, :length]))
        return {"mel": mels}

    return found.with_transform(prepared)


def of_torch(make: Callable[[Path, bool], Any], folder: Path, crop: bool) -> Callable[[], Iterator[Any]]:
    """A dataset of single samples in a stock loader, whose workers stay."""
    dataset = make(folder, crop)
    dataset[0]  # fails here where it does not load
    loader: Any = DataLoader(dataset, batch_size(crop), shuffle=True, num_workers=CORES, persistent_workers=True)
    return lambda: iter(loader)


def through_spdl(folder: Path, crop: bool) -> Callable[[], Iterator[Any]]:
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    def of_wav(path: str) -> Any:
        data = Path(path).read_bytes()
        samples = np.asarray(spdl.io.load_wav(data, start_of(crop), 1.0 if crop else None))
        mixed = samples.mean(1, dtype=np.float32) * np.float32(2**-15)
        return torch.from_numpy(soxr.resample(mixed, OWN, RATE))

    def of_codec(path: str) -> Any:
        filters = spdl.io.get_audio_filter_desc(sample_rate=RATE, num_channels=1, sample_fmt="fltp")
        samples = spdl.io.to_numpy(spdl.io.load_audio(path, filter_desc=filters)).reshape(-1)
        return torch.from_numpy(np.resize(samples, SECONDS * RATE))

    names = files(folder)
    work = of_wav if names[0].endswith("wav") else of_codec
    work(names[0])

    def epoch() -> Iterator[Any]:
        pipeline = (
            PipelineBuilder()
            .add_source([names[place] for place in torch.randperm(len(names)).tolist()])
            .pipe(work, concurrency=CORES)
            .aggregate(batch_size(crop))
            .add_sink(2)
            .build(num_threads=CORES)
        )
        with pipeline.auto_stop():
            for waveforms in pipeline:
                yield MEL(torch.stack(waveforms)[:, None])

    return epoch


CONTENDERS: dict[str, Callable[[Path, bool], Callable[[], Iterator[Any]]]] = {
    "dlkit": lambda folder, crop: through_dlkit(folder, crop),
    "dlkit 1 worker": lambda folder, crop: through_dlkit(folder, crop, workers=1),
    "dlkit workers": lambda folder, crop: through_dlkit(folder, crop, workers=CORES),
    "dlkit kept": lambda folder, crop: through_dlkit(folder, crop, cache="memory"),
    "soundfile": lambda folder, crop: of_torch(Plain, folder, crop),
    "librosa": lambda folder, crop: of_torch(Librosa, folder, crop),
    "HF datasets": lambda folder, crop: of_torch(hugging_face, folder, crop),
    "SPDL": through_spdl,
}


def measured(epochs: dict[str, Callable[[], Iterator[Any]]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds and processor seconds per batch of each, in turns; the first epoch of each is not counted."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
    for number in range(rounds + 1):
        for name, epoch in epochs.items():
            begin, spent, count = time.perf_counter(), used(), 0
            for batch in epoch():
                count += 1
                del batch
            if number:
                found[name].append(((time.perf_counter() - begin) / count, (used() - spent) / count))
    return found


def used() -> float:
    """Processor seconds of this process and its workers."""
    own = psutil.Process()
    return sum(each.cpu_times().user + each.cpu_times().system for each in (own, *own.children(recursive=True)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["crops", "flac", "mp3"])
    given = parser.parse_args()
    print(
        f"{CORES} cores, load {os.getloadavg()[0]:.1f}; {torch.get_num_threads()} torch threads; batches of 32, "
        "of whole files 8"
    )
    with tempfile.TemporaryDirectory() as folder:
        for title, ending, count in (("crops", "wav", 128), ("flac", "flac", 32), ("mp3", "mp3", 32)):
            if given.only in (None, title):
                compare(title, made_up(Path(folder) / ending, ending, count), given.rounds)


def compare(title: str, folder: Path, rounds: int) -> None:
    epochs: dict[str, Callable[[], Iterator[Any]]] = {}
    for name, contender in CONTENDERS.items():
        try:
            epochs[name] = contender(folder, title == "crops")
        except Exception as error:
            print(f"{title}: {name} does not load: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
    found = measured(epochs, rounds)
    times = {name: statistics.median(wall for wall, _ in rows) for name, rows in found.items()}
    best = min((name for name in found if not name.startswith("dlkit")), key=times.__getitem__)
    for name, rows in found.items():
        pairs = list(zip(rows, found[best], strict=True))
        wall, processor = (statistics.median(other[of] / own[of] for own, other in pairs) for of in (0, 1))
        spent = 1000 * statistics.median(row[1] for row in rows)
        print(
            f"{title:6} {name:16} {1 / times[name]:7.1f} batches/s = {wall:5.2f} x {best}; "
            f"{spent:6.1f} ms of processor time each, 1/{processor:.2f} of its",
            flush=True,
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
