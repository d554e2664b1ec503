"""Folders of recordings as datasets: samples, batches, lengths, parts, bad files, the cache, transforms."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from cases import StopAt
from torch import nn
from torch.utils.data import DataLoader as StockLoader

import dlkit
from dlkit.callbacks import Checkpoint
from dlkit.collate import PadCollate
from dlkit.datasets import AudioFiles, AudioFolder, AudioTable, Decoder, decode_audio
from dlkit.datasets.audio import dataset as rooms
from dlkit.datasets.files import handover
from dlkit.errors import ArgumentError, DataError, TooManyErrorsError
from dlkit.samplers import LengthBuckets
from dlkit.transforms.audio import AudioAugment, AudioPreprocessing, LogMel

RATE = 8_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twelve recordings by three people, of 0.1 to 0.65 s, in formats and rates that take turns."""
    root, draws = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for number in range(24):
        name = f"{'ab'[number % 2]}/{'xyz'[number // 2 % 3]}_{number}.{('wav', 'flac', 'ogg')[number % 3]}"
        rate = (8_000, 11_025, 16_000)[number // 3 % 3]
        (root / name).parent.mkdir(exist_ok=True)
        samples = draws.uniform(-0.5, 0.5, (rate * (100 + 24 * number) // 1000, 1 + number % 2))
        soundfile.write(root / name, samples, rate)
    return root


def content(batches: Any) -> list[bytes]:
    return [tensor.numpy().tobytes() for batch in batches for tensor in _tensors(batch)]


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    else:
        for each in batch:
            yield from _tensors(each)


def batches(dataset: Any, workers: int = 0, **options: Any) -> Iterator[Any]:
    return iter(dlkit.DataLoader(dataset, 8, seed=3, num_workers=workers, **options))


def test_samples_are_waveforms_and_classes(folder: Path) -> None:
    ds = AudioFolder(folder, sample_rate=RATE)
    assert ds.classes == ["a", "b"]
    assert ds.class_to_idx == {"a": 0, "b": 1}
    assert len(ds) == 24
    for index in (0, 13, 23):
        waveform, target = ds[index]
        assert (waveform.dtype, target.dtype) == (torch.float32, torch.int64)
        assert torch.equal(waveform, torch.from_numpy(decode_audio(ds.path(index), sample_rate=RATE)))
        assert ds.lengths[index] == waveform.shape[1]
    assert ds.shapes()[0] == (1, ds.lengths[0])


def test_a_fixed_length_is_cut_from_the_middle_or_filled_up(folder: Path) -> None:
    whole, cut = AudioFolder(folder, sample_rate=RATE), AudioFolder(folder, sample_rate=RATE, seconds=0.3)
    seen = set()
    for index in range(24):
        waveform, part = whole[index][0], cut[index][0]
        spare = waveform.shape[1] - 2_400
        seen.add(spare > 0)
        wanted = torch.nn.functional.pad(waveform[:, max(0, spare + 1) // 2 :], (0, max(0, -spare)))[:, :2_400]
        assert part.shape == (1, 2_400)
        torch.testing.assert_close(part, wanted, rtol=0, atol=2e-6)
    assert seen == {True, False}
    assert cut.lengths.tolist() == [2_400] * 24


def test_random_parts_come_from_the_stream_of_the_batch(folder: Path) -> None:
    ds = AudioFolder(folder, sample_rate=RATE, seconds=0.05, crop="random")
    assert ds.draws_random
    assert not AudioFolder(folder, seconds=0.05).draws_random
    torch.manual_seed(0)
    first, again = ds[5][0], ds[5][0]
    torch.manual_seed(0)
    assert torch.equal(ds[5][0], first)
    assert not torch.equal(first, again)


class Spectrograms:
    """Of a whole batch, in the process that decoded it."""

    def __call__(self, waveforms: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return LogMel(sample_rate=RATE)(waveforms), labels


VARIED = AudioAugment(shift=0.05, gain=6, noise=(5, 20))


@pytest.mark.parametrize(
    "options",
    [
        {"seconds": 0.2, "crop": "random"},
        {},
        {"seconds": 0.2, "cache": "memory"},
        {"seconds": 0.2, "crop": "random", "batch_transform": Spectrograms()},
        {"transform": AudioPreprocessing(sample_rate=RATE, seconds=0.2, normalize="rms", augment=VARIED)},
        {"transform": AudioPreprocessing(sample_rate=RATE, augment=VARIED)},
    ],
    ids=["random parts", "whole", "kept", "spectrograms", "varied parts", "varied whole"],
)
def test_batches_are_the_same_for_any_number_of_workers(folder: Path, options: dict[str, Any]) -> None:
    ds = AudioFolder(folder, sample_rate=RATE, **options)
    here = content(batches(ds, shuffle=True))
    for workers in (1, 2):
        assert content(batches(ds, workers, shuffle=True)) == here
    alone = AudioFolder(folder, sample_rate=RATE, threads=1, **options)
    assert content(batches(alone, shuffle=True)) == here


def test_spectrograms_of_a_worker_use_their_memory_again(folder: Path) -> None:
    ds = AudioFolder(folder, sample_rate=RATE, seconds=0.2, batch_transform=Spectrograms())
    expected, places = [x for x, _ in batches(ds)], set[int]()
    loader = dlkit.DataLoader(ds, 8, seed=3, num_workers=1, persistent_workers=True)
    for _ in range(4):
        for (x, _), whole in zip(loader, expected, strict=True):
            assert type(x) is torch.Tensor
            assert torch.equal(x, whole)
            x.add_(1)  # the batch is the consumer's own
            places.add(x.data_ptr())
    assert len(places) <= 6  # of 12 batches
    (pieces,) = [
        pieces for token, pieces in handover._mapped.items() if token[0] == loader._inner._iterator._workers[0].pid
    ]  # type: ignore[union-attr]
    assert len(pieces) <= 6


class Ear(nn.Module):
    """The level of each recording, weighed; of padded ones without the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Linear(1, 2)

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        count = waveforms.shape[-1] if mask is None else mask.sum(1, keepdim=True)
        return self.weigh(waveforms[:, 0].square().sum(1, keepdim=True) / count)


@pytest.mark.parametrize("options", [{"seconds": 0.1, "crop": "random"}, {}])
def test_a_run_stopped_at_every_step_is_the_run_that_was_not_stopped(
    folder: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    def fit(stop: int, workers: int, place: Path | None) -> list[bytes]:
        torch.manual_seed(0)
        model = Ear()
        loader = dlkit.DataLoader(
            AudioFolder(folder, sample_rate=RATE, **options), 8, shuffle=True, seed=1, num_workers=workers
        )
        callbacks = [StopAt(stop), *([Checkpoint(place, every="1 steps")] if place is not None else [])]
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        trainer = dlkit.Trainer(
            model, nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, device="cpu", progress=False
        )
        trainer.fit(loader, epochs=2)
        return [value.numpy().tobytes() for value in model.state_dict().values()]

    whole = fit(99, 0, None)
    for step in range(1, 6):
        fit(step, (0, 1, 0, 2, 0)[step - 1], tmp_path)
    assert fit(99, 0, tmp_path) == whole


def test_other_parts_of_the_files_are_other_samples(folder: Path) -> None:
    """Stored features are found again by this name."""
    made = [{}, {"seconds": 0.2}, {"seconds": 0.3}, {"seconds": 0.3, "crop": "random"}, {"sample_rate": 9_000}]
    names = [AudioFolder(folder, **{"sample_rate": RATE, **options}).identity for options in made]
    assert None not in names
    assert len(set(names)) == len(made)
    assert AudioFolder(folder, sample_rate=RATE, seconds=0.2).identity == names[1]


def test_lengths_that_differ_are_padded_and_sorted(folder: Path) -> None:
    ds = AudioFolder(folder, sample_rate=RATE)
    (waveforms, mask), _ = next(batches(ds))
    assert waveforms.shape[1:] == (1, ds.lengths[:8].max())
    assert mask.sum(1).tolist() == ds.lengths[:8].tolist()
    assert isinstance(ds.planner(8, shuffle=True, drop_last=False), LengthBuckets)  # type: ignore[misc]
    padded = sum((~mask).sum().item() for (_, mask), _ in batches(ds, shuffle=True))
    assert padded < sum((~mask).sum().item() for (_, mask), _ in batches(ds, sampler=torch.randperm(24).tolist()))
    with pytest.raises(DataError, match=r"recordings of a batch .*give seconds=.*PadCollate\(dim=-1\)"):
        next(iter(StockLoader(ds, 8)))
    (waveforms, _), _ = next(iter(StockLoader(ds, 8, collate_fn=PadCollate(dim=-1))))
    assert len(waveforms) == 8


def test_lengths_are_read_once_and_kept(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path))
    monkeypatch.setattr(rooms, "KEEP_FROM", 2)
    lengths = AudioFolder(folder, sample_rate=RATE).lengths
    (kept,) = (tmp_path / "scans").glob("*.lengths")
    before = kept.stat().st_ino
    again = AudioFolder(folder, sample_rate=RATE)
    assert np.array_equal(again.lengths, lengths)
    assert again.lengths is again.lengths
    assert kept.stat().st_ino == before
    kept.write_bytes(b"damaged")
    assert np.array_equal(AudioFolder(folder, sample_rate=RATE).lengths, lengths)
    part = AudioFolder(folder, sample_rate=RATE).split(0.5)[1]
    assert part.lengths.tolist() == [part[index][0].shape[1] for index in range(len(part))]


@pytest.mark.parametrize("options", [{}, {"crop": "random"}])
def test_split_keeps_people_together_and_crops_at_random_in_training_alone(
    folder: Path, options: dict[str, Any]
) -> None:
    ds = AudioFolder(folder, sample_rate=RATE, seconds=0.2, **options)
    train, rest = ds.split(0.67, group=lambda path: path.name[0])
    assert not {path.name[0] for path in train._paths()} & {path.name[0] for path in rest._paths()}
    assert (train.settings.crop, rest.settings.crop) == ("random", "center")
    assert train.counts.keys() == rest.counts.keys()
    own = ds.split(0.5, transform=[None, None])
    assert [part.settings.crop for part in own] == ["random", "center"]
    assert [part.draws_random for part in (*train.split(0.5), *rest.split(0.5))] == [True, False, False, False]


def test_where_parts_lie_is_said_by_the_caller_by_the_spec_or_by_what_the_part_is_for(
    folder: Path, tmp_path: Path
) -> None:
    for part in ("train", "val"):
        shutil.copytree(folder, tmp_path / part)
    middle = AudioPreprocessing(sample_rate=RATE, seconds=0.2)
    for options, random in (
        ({"seconds": 0.2}, True),
        ({"seconds": 0.2, "crop": "center"}, False),
        ({"transform": middle}, False),
        ({"transform": dataclasses.replace(middle, augment=VARIED)}, True),
        ({}, False),
    ):
        ds = AudioFolder(tmp_path, **{"sample_rate": RATE, **options})
        assert [part.settings.random_crop for part in ds.split()] == [random, False], options
        assert AudioFolder(tmp_path, part="train", **{"sample_rate": RATE, **options}).settings.random_crop == random
        assert not AudioFolder(tmp_path, part="val", sample_rate=RATE, seconds=0.2).draws_random
    train, val = AudioFolder(tmp_path, sample_rate=RATE, seconds=0.2).split()
    longest = int(np.argmax(train.with_transform(AudioPreprocessing(sample_rate=RATE)).lengths))
    assert torch.equal(val[longest][0], AudioFolder(folder, sample_rate=RATE, seconds=0.2)[longest][0])
    assert not torch.equal(train[longest][0], train[longest][0])


def test_channels_may_stay(folder: Path) -> None:
    ds = AudioFolder(folder, sample_rate=RATE, mono=False, seconds=0.1)
    assert [ds[index][0].shape for index in (0, 23)] == [(1, 800), (2, 800)]
    assert ds.shapes()[::23] == [(1, 800), (2, 800)]
    own_rates = AudioFolder(folder, sample_rate=None)
    assert own_rates.lengths[1] == soundfile.info(own_rates.path(1)).frames


def test_the_cache_gives_the_same_whether_full_or_empty(folder: Path, tmp_path: Path) -> None:
    ds = AudioFolder(folder, sample_rate=RATE, seconds=0.25, cache=tmp_path)
    first = [ds[index][0] for index in range(24)]
    again = AudioFolder(folder, sample_rate=RATE, seconds=0.25, cache=tmp_path)
    assert all(torch.equal(again[index][0], first[index]) for index in range(24))
    bare = AudioFolder(folder, sample_rate=RATE, seconds=0.25)
    for index in range(24):
        torch.testing.assert_close(bare[index][0], first[index], rtol=0, atol=2e-6)
    assert again._cache is not None
    assert again._cache.used == 4 * AudioFolder(folder, sample_rate=RATE).lengths.sum()


def test_what_is_too_long_to_keep_is_read_in_parts(tmp_path: Path) -> None:
    size = 5 * 3600 * 16_000 * 2
    soundfile.write(tmp_path / "long.wav", np.full(1_000, 0.5), 16_000, subtype="PCM_16")
    head = bytearray((tmp_path / "long.wav").read_bytes()[:44])
    head[40:44], head[4:8] = size.to_bytes(4, "little"), (size + 36).to_bytes(4, "little")
    (tmp_path / "long.wav").write_bytes(head)
    os.truncate(tmp_path / "long.wav", 44 + size)
    soundfile.write(tmp_path / "short.wav", np.full(1_000, 0.5), 16_000)
    ds = AudioFiles(tmp_path, seconds=0.05, cache="memory")
    assert [float(ds[index].abs().max()) for index in (0, 1)] == [0, 0.5]
    assert ds._cache is not None
    assert ds._cache.used == 4_000
    with pytest.raises(DataError, match=r"long\.wav: .* are more than"):
        AudioFiles(tmp_path, cache="memory")[0]


def test_what_is_stored_of_a_dataset_is_found_by_what_it_gives(folder: Path) -> None:
    known = [
        AudioFolder(folder, **options).identity
        for options in (
            {},
            {"seconds": 0.1},
            {"seconds": 0.2},
            {"sample_rate": RATE},
            {"seconds": 0.1, "crop": "random"},
        )
    ]
    assert None not in known
    assert len(set(known)) == len(known)
    assert AudioFolder(folder, seconds=0.1).identity == known[1]
    assert AudioFolder(folder, transform=lambda waveform: waveform).identity is None


def test_bad_files_are_left_out_by_policy(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        soundfile.write(tmp_path / "ab"[number % 2] / f"{number}.wav", np.full(800, 0.1), RATE)
    (tmp_path / "a" / "4.wav").write_bytes(b"")
    (tmp_path / "b" / "5.wav").write_bytes((tmp_path / "b" / "7.wav").read_bytes()[:300])
    strict = AudioFolder(tmp_path, seconds=0.1)
    with pytest.raises(DataError, match=r"4\.wav: the file is empty.*on_error='skip'"):
        list(batches(strict))
    assert [Path(bad.file).name for bad in strict.verify()] == ["4.wav", "5.wav"]
    ds = AudioFolder(tmp_path, on_error="skip", max_errors=0.5)
    assert sorted(ds.lengths.tolist())[:3] == [0, 0, 1_600]
    assert len(ds.without_errors()) == 10
    with pytest.warns(UserWarning, match="left out permanently"):
        assert sum(len(targets) for _, targets in batches(AudioFolder(tmp_path, on_error="skip", seconds=0.1))) == 10
    for number in range(6, 12):
        (tmp_path / "ab"[number % 2] / f"{number}.wav").write_bytes(b"text")
    for number in range(20):
        (tmp_path / "a" / f"more{number}.wav").write_bytes(b"text")
    with pytest.raises(TooManyErrorsError):
        AudioFolder(tmp_path, on_error="skip").verify()


def test_files_without_labels(folder: Path) -> None:
    ds = AudioFiles(folder, sample_rate=RATE, seconds=0.1)
    assert ds[0].shape == (1, 800)
    assert len(ds) == 24
    listed = AudioFiles([ds.path(3), ds.path(1)], sample_rate=RATE, seconds=0.1)
    assert torch.equal(next(batches(listed))[0], ds[3])


def test_a_table_says_what_recordings_are(folder: Path, tmp_path: Path) -> None:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    table = pd.DataFrame({"file": names, "label": [name[0] for name in names]})
    table["score"] = [number / 7 for number in range(24)]
    table["heard"] = ["rain|wind", "wind"] * 12
    table.to_csv(tmp_path / "table.csv", index=False)
    options: dict[str, Any] = {"root": folder, "sample_rate": RATE, "seconds": 0.1}
    ds = AudioTable(tmp_path / "table.csv", **options)
    assert (ds.task, ds.classes, ds.input_columns, ds.target_columns) == (
        "classification", ["a", "b"], ("file",), ("label",),
    )  # fmt: skip
    labelled = AudioFolder(folder, sample_rate=RATE, seconds=0.1)
    assert torch.equal(ds[1][0], labelled[[str(labelled.path(at)) for at in range(24)].index(str(ds.path(1)))][0])
    numbers = AudioTable(tmp_path / "table.csv", target="score", scale_target=False, **options)
    assert (numbers.task, numbers[2][1].item()) == ("regression", pytest.approx(2 / 7))
    several = AudioTable(table, target="heard", label_separator="|", **options)
    assert (several.task, several.classes, several[1][1].tolist()) == ("multilabel", ["rain", "wind"], [0, 1])
    assert AudioTable(table, target=None, **options)[0].shape == (1, 800)
    train, rest = ds.split(0.5, group=[name[2] for name in names])
    assert not {path.name[0] for path in train._paths()} & {path.name[0] for path in rest._paths()}
    with pytest.raises(DataError, match=r"row 0.* names no file in column 'file'"):
        AudioTable(pd.DataFrame({"file": [""], "label": [1]}), root=folder)
    with pytest.raises(ArgumentError, match="AudioTable has no argument 'size'"):
        AudioTable(table, size=3, **options)


def test_a_transform_of_your_own_gets_waveforms(folder: Path) -> None:
    ds = AudioFolder(folder, sample_rate=RATE, seconds=0.1, transform=lambda waveform: waveform.abs().mean(1))
    inputs, _ = next(iter(StockLoader(ds, 8)))
    assert inputs.shape == (8, 1)
    with pytest.raises(DataError, match=r"must return a tensor, but returned float.*as_tensor"):
        AudioFolder(folder, transform=lambda waveform: float(waveform.mean()))[0]


@dataclass(frozen=True)
class Louder:
    """What `dlkit.transforms` has for waveforms, in small."""

    sample_rate: int = RATE
    mono: bool = True
    seconds: float | None = 0.1
    draws_random: bool = True

    def draw(self, count: int) -> Any:
        return torch.rand(count, dtype=torch.float64).numpy() if self.draws_random else None

    def apply(self, waveforms: torch.Tensor, numbers: Any) -> torch.Tensor:
        gains = 1.0 if numbers is None else torch.as_tensor(numbers, dtype=torch.float32)
        return waveforms * (gains.view(-1, 1, 1) if waveforms.ndim == 3 and numbers is not None else gains)

    def __call__(self, waveform: torch.Tensor) -> torch.Tensor:
        numbers = self.draw(1)
        return self.apply(waveform, None if numbers is None else numbers[0])

    def for_evaluation(self) -> Louder:
        return Louder(self.sample_rate, self.mono, self.seconds, draws_random=False)


@pytest.mark.parametrize("seconds", [0.1, None])
def test_a_spec_says_what_it_is_given_and_draws_for_the_batch(folder: Path, seconds: float | None) -> None:
    ds = AudioFolder(folder, transform=Louder(seconds=seconds))
    assert (ds.settings.sample_rate, ds.settings.seconds) == (RATE, seconds)
    assert ds.draws_random
    assert not ds.settings.own_transform
    torch.manual_seed(0)
    gains = torch.rand(3, dtype=torch.float64)
    torch.manual_seed(0)
    inputs = [sample[0] for sample in ds.__getitems__([0, 1, 2])]
    plain = AudioFolder(folder, sample_rate=RATE, seconds=seconds)
    for place in range(3):
        torch.testing.assert_close(inputs[place], plain[place][0] * float(gains[place]))
    rest = ds.split(0.5)[1]
    assert not rest.draws_random
    assert torch.equal(rest[0][0], plain[int(rest.indices[0])][0])


def test_files_of_a_decoder_of_your_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "1.npy", np.full((2, RATE), 1 << 14, np.int16))
    ds = AudioFolder(tmp_path, decoder=Decoder(suffixes=["npy"], decode=_of_numpy, rule="1"), sample_rate=RATE)
    assert torch.equal(ds[0][0], torch.full((1, RATE), 0.5))


def _of_numpy(data: bytes) -> Any:
    import io

    return np.load(io.BytesIO(data)), RATE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, "sample_rate must be a whole number of Hz"),
        ({"sample_rate": 16_000.0}, "sample_rate must be"),
        ({"seconds": 0}, "seconds must be a number above 0"),
        ({"seconds": -1.0}, "seconds must be a number above 0"),
        ({"seconds": 1.0, "sample_rate": None}, "seconds= needs sample_rate="),
        ({"seconds": 1e-9}, "less than one sample"),
        ({"mono": 1}, "mono must be True or False"),
        ({"crop": "left", "seconds": 1.0}, "crop must be 'center' or 'random'"),
        ({"crop": "random"}, "crop='random' needs seconds="),
        ({"transform": Louder(), "sample_rate": 11_025}, "the transform was made for sample_rate=8000"),
        ({"size": 3}, "size"),
    ],
)
def test_arguments_that_cannot_be_meant(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ArgumentError, TypeError), match=message):
        AudioFolder(folder, **options)
