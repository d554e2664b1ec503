"""Files of a kind that dlkit has never heard of: suffixes and a function that decodes are all it takes."""

from __future__ import annotations

import dataclasses
import functools
import io
import shutil
import warnings
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as StockLoader
from torch.utils.data import default_collate

from dlkit.collate import PadCollate
from dlkit.datasets import Decoder, FileFolder
from dlkit.datasets.files.settings import FileSettings
from dlkit.datasets.images.settings import ImageSettings
from dlkit.errors import ArgumentError, DataError, DataNotFoundError, TooManyErrorsError
from dlkit.loader import DataLoader

KINDS = ("int16 in 1-D", "float32 in 2-D", "waves")


def read_array(data: bytes) -> Any:
    """A format of this file's own: np.load fails now and then in threads of Python 3.11 (cpython issue 106905)."""
    if data[:3] != b"ARR":
        raise ValueError("no array")
    dtype, *shape = data[3:20].decode().split()
    return np.frombuffer(data[20:], dtype).reshape(tuple(map(int, shape)))


def array_file(values: Any) -> bytes:
    shape = " ".join(map(str, values.shape))
    return b"ARR" + f"{values.dtype.str} {shape}".ljust(17).encode() + values.tobytes()


def read_wave(data: bytes) -> Any:
    with wave.open(io.BytesIO(data)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels()).T


def wave_shape(data: bytes) -> tuple[int, ...]:
    with wave.open(io.BytesIO(data)) as file:
        return file.getnchannels(), file.getnframes()


ARRAYS = Decoder(suffixes=[".arr"], decode=read_array, noun="array")
WAVES = Decoder(suffixes=["WAV"], decode=read_wave, shape=wave_shape, noun="recording")


def written(path: Path, kind: str, number: int, length: int) -> Path:
    draw = np.random.default_rng(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "waves":
        with wave.open(str(path), "wb") as file:
            file.setparams((2, 2, 8000, length, "NONE", ""))
            file.writeframes(draw.integers(-99, 99, 2 * length).astype("<i2").tobytes())
    else:
        values = draw.integers(-99, 99, length).astype("<i2")
        path.write_bytes(array_file(values if kind == "int16 in 1-D" else draw.random((length, 3), np.float32)))
    return path


@pytest.fixture(params=KINDS, ids=KINDS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Decoder]:
    """24 files of lengths 5 to 8 in three classes."""
    kind: str = request.param
    for number in range(24):
        name = ("bird", "cat", "dog")[number % 3]
        end = "wav" if kind == "waves" else "arr"
        written(tmp_path / "data" / name / f"{number}.{end}", kind, number, 5 + number // 6)
    (tmp_path / "data" / "cat" / "notes.txt").write_text("not of this kind")
    return tmp_path / "data", WAVES if kind == "waves" else ARRAYS


def plain(ds: FileFolder) -> list[torch.Tensor]:
    """The arrays by the decoder alone."""
    return [torch.from_numpy(ds.settings.kind.array(ds.path(i).read_bytes(), "")) for i in range(len(ds))]


def batches(ds: Any, workers: int = 0, **options: Any) -> list[Any]:
    pad = PadCollate(dim=-1 if ds.settings.kind is WAVES else 0)
    return list(DataLoader(ds, 6, shuffle=True, seed=3, num_workers=workers, collate_fn=pad, **options))


def flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [each for part in (value.values() if isinstance(value, dict) else value) for each in flat(part)]


def same(first: Any, second: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(flat(first), flat(second), strict=True))


def test_listing_classes_and_samples(case: tuple[Path, Decoder]) -> None:
    root, decoder = case
    ds = FileFolder(root, decoder)
    assert (ds.classes, len(ds), ds.counts) == (["bird", "cat", "dog"], 24, {"bird": 8, "cat": 8, "dog": 8})
    assert ds.left_out == {f"not {'an array' if decoder is ARRAYS else 'a recording'}": (1, ("cat/notes.txt",))}
    for index, array in enumerate(plain(ds)):
        inputs, target = ds[index]
        assert inputs.dtype == array.dtype
        assert torch.equal(inputs, array)
        assert ds.classes[int(target)] == ds.path(index).parent.name
    assert ds.shapes() == [tuple(array.shape) for array in plain(ds)]
    assert f"24 {decoder.noun}s, 3 classes" in repr(ds)
    alone = FileFolder(root, decoder, labelled=False)
    assert (len(alone), alone.classes, alone.targets) == (24, [], None)
    assert torch.equal(alone[0], plain(alone)[0])


def test_the_same_batches_for_any_number_of_workers_and_threads(case: tuple[Path, Decoder]) -> None:
    root, decoder = case
    expected = batches(FileFolder(root, decoder, threads=1))
    for threads, workers in ((4, 0), (2, 1), (1, 2)):
        assert same(batches(FileFolder(root, decoder, threads=threads), workers), expected)


def test_batches_of_one_shape_go_through_memory_that_is_used_again(tmp_path: Path) -> None:
    for kind, dtype in (("int16 in 1-D", torch.int16), ("float32 in 2-D", torch.float32)):
        for number in range(12):
            written(tmp_path / kind / "ab"[number % 2] / f"{number}.arr", kind, number, 700)
        ds = FileFolder(tmp_path / kind, ARRAYS)
        expected = plain(ds)
        for workers in (0, 1):
            places, seen = set[int](), list[torch.Tensor]()
            for inputs, _ in StockLoader(ds, 1, num_workers=workers):
                places.add(inputs.data_ptr())
                assert inputs.dtype == dtype
                seen.append(inputs.clone())
                del inputs
            assert all(torch.equal(x[0], y) for x, y in zip(seen, expected, strict=True))
            assert len(places) <= 7  # of 12 batches


def test_the_cache_keeps_arrays_of_any_type_and_shape(
    case: tuple[Path, Decoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, decoder = case
    expected = batches(FileFolder(root, decoder))
    ds = FileFolder(root, decoder, cache=tmp_path / "cache")
    assert same(batches(ds, 2), expected)
    calls: list[str] = []
    real = Decoder.array
    monkeypatch.setattr(Decoder, "array", lambda self, data, name: calls.append(name) or real(self, data, name))
    later = FileFolder(root, decoder, cache=tmp_path / "cache")
    assert same(batches(later), expected)
    assert calls == []
    changed = later.path(3)
    shutil.copy(later.path(0), changed)
    batches(later)
    assert calls == []  # this process has seen the file
    again = FileFolder(root, decoder, cache=tmp_path / "cache")
    assert torch.equal(again[3][0], again[0][0])
    assert calls == [str(changed)]
    again[0][0].fill_(0)  # a sample is the consumer's own
    assert same([again[0][0]], [later[0][0]])


def test_files_that_cannot_be_read(case: tuple[Path, Decoder]) -> None:
    root, decoder = case
    bad = root / "cat" / f"bad{'.arr' if decoder is ARRAYS else '.wav'}"
    bad.write_bytes(b"RIFF broken")
    with pytest.raises(DataError, match=rf"{bad}: cannot be decoded: .*on_error='skip'"):
        batches(FileFolder(root, decoder))
    ds = FileFolder(root, decoder, on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = batches(ds, 1)
    assert sum(len(flat(batch)[-1]) for batch in read) == 24
    (left,) = ds.skipped
    assert (left.file, left.row, left.reason[:18]) == (str(bad), None, "cannot be decoded:")
    assert (ds.verify(), len(ds.without_errors())) == (ds.skipped, 24)
    for number in range(11):
        shutil.copy(bad, bad.with_stem(f"worse{number}"))
    with pytest.raises(TooManyErrorsError, match=rf"12 of 36 {decoder.noun}s cannot be read.*cat 12 of 20"):
        FileFolder(root, decoder, on_error="skip", max_errors=0.2).verify()


def test_splits(case: tuple[Path, Decoder]) -> None:
    root, decoder = case
    twin = root / "cat" / f"copy{'.arr' if decoder is ARRAYS else '.wav'}"
    shutil.copy(FileFolder(root, decoder).path(0), twin)
    train, val = FileFolder(root, decoder, transform=torch.from_numpy).split(0.5, seed=1)
    assert not set(train.indices.tolist()) & set(val.indices.tolist())
    assert len(train) + len(val) == 25
    contents = [{part.path(i).read_bytes() for i in range(len(part))} for part in (train, val)]
    assert not contents[0] & contents[1]
    for part in ("train", "val"):
        for path in root.glob("*/[12]?.*"):
            (root.parent / "parts" / part / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root.parent / "parts" / part / path.parent.name)
    assert [len(part) for part in FileFolder(root.parent / "parts", decoder).split()] == [14, 14]


def test_transforms_of_ones_own_and_uneven_batches(case: tuple[Path, Decoder]) -> None:
    root, decoder = case
    even = FileFolder(root, decoder, transform=lambda array: torch.from_numpy(array.flatten()[:3].astype(np.float64)))
    inputs, targets = next(iter(StockLoader(even, 24)))
    assert (inputs.dtype, len(targets)) == (torch.float64, 24)
    with pytest.raises(DataError, match=rf"the {decoder.noun}s of a batch have different shapes.*PadCollate"):
        next(iter(StockLoader(FileFolder(root, decoder), 24)))
    assert len(next(iter(StockLoader(FileFolder(root, decoder), 24, collate_fn=list)))) == 24
    for other in (torch.ones(3, requires_grad=True), torch.ones(3, device="meta"), torch.ones(3, dtype=torch.bfloat16)):
        inputs, _ = next(iter(StockLoader(FileFolder(root, decoder, transform=lambda array, x=other: x), 4)))
        assert (inputs.shape, inputs.device, inputs.dtype) == ((4, 3), other.device, other.dtype)
        assert inputs.requires_grad == other.requires_grad
    with pytest.raises(DataError, match="must return a tensor, but returned ndarray"):
        FileFolder(root, decoder, transform=lambda array: array)[0]


def test_what_is_said_of_slips(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"list of endings such as \['.npy'\], not '.arr'"):
        Decoder(suffixes=".arr", decode=read_array)
    with pytest.raises(ArgumentError, match="decode must be a function"):
        Decoder(suffixes=[".arr"], decode="numpy")  # type: ignore[arg-type]
    with pytest.raises(DataNotFoundError, match="give the folder that holds the arrays"):
        FileFolder(tmp_path / "nowhere", ARRAYS)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds no class folders with arrays"):
        FileFolder(tmp_path, ARRAYS)
    written(tmp_path / "a" / "1.arr", KINDS[0], 1, 3)
    unknown = Decoder(suffixes=[".arr"], decode=lambda data: read_array(data))
    with pytest.raises(ArgumentError, match="cache= needs to know decode= again"):
        FileFolder(tmp_path, unknown, cache="memory")
    words = Decoder(suffixes=[".arr"], decode=functools.partial(str, encoding="latin-1"))
    with pytest.raises(DataError, match=r"1\.arr: decode= must give an array of numbers"):
        FileFolder(tmp_path, words)[0]


def test_another_decoder_takes_nothing_of_what_the_first_has_kept(tmp_path: Path) -> None:
    written(tmp_path / "data" / "a" / "1.arr", KINDS[0], 1, 3)
    for rule in ("1", "2"):
        scaled = Decoder(suffixes=[".arr"], decode=lambda data, by=int(rule): read_array(data) * by, rule=rule)
        ds = FileFolder(tmp_path / "data", scaled, cache=tmp_path / "cache")
        assert torch.equal(ds[0][0], plain(ds)[0])
    assert default_collate(ds.__getitems__([0]))[0].shape == (1, 3)


def test_in_a_new_process(tmp_path: Path) -> None:
    for number in range(6):
        written(tmp_path / "ab"[number % 2] / f"{number}.arr", KINDS[1], number, 4)
    ds = FileFolder(tmp_path, ARRAYS)
    assert same(batches(ds, 1, multiprocessing_context="forkserver"), batches(ds))


@pytest.mark.parametrize("settings", [FileSettings, ImageSettings])
def test_options_by_name_are_the_fields_of_the_settings(settings: type[FileSettings], tmp_path: Path) -> None:
    fields = {field.name for field in dataclasses.fields(settings)}
    assert fields - {"decoder"} == set(settings.OPTIONS.__annotations__) - {"decoder"}
    with pytest.raises(ArgumentError, match=r"FileFolder has no argument 'treads'; do you mean 'threads'\?"):
        FileFolder(tmp_path, ARRAYS, treads=1)  # type: ignore[call-arg]
