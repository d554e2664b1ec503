"""The pixel cache: same batches full or empty, no decoding later, only what changed anew, safe from kills and a full disk."""  # noqa: E501

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import warm
from disks import resize, small_disk
from dlkit import transforms
from dlkit.datasets import ImageFolder
from dlkit.datasets.files import cache as imagecache
from dlkit.datasets.files.cache import open_cache
from dlkit.datasets.images.settings import ImageSettings
from dlkit.errors import ArgumentError
from dlkit.loader import DataLoader
from dlkit.storage import appended

# Fills the cache of a folder, one small batch after the other.
FILL = """
import sys
from dlkit import transforms
from dlkit.datasets import ImageFolder
from dlkit.loader import DataLoader
ds = ImageFolder(sys.argv[1], transform=transforms.for_training(16), cache=sys.argv[2], threads=1)
print("ready", flush=True)
for batch in DataLoader(ds, 4, shuffle=True, seed=int(sys.argv[3])):
    print(len(batch[0]), flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(40):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40 + number, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "data"


def epoch(ds: Any, number: int = 0, workers: int = 0) -> list[torch.Tensor]:
    return [x for x, _ in DataLoader(ds, 7, shuffle=True, seed=3, num_workers=workers).batches(number)]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


class Counted:
    """How often an image was decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        real = ImageSettings.array

        def array(settings: ImageSettings, data: bytes, name: str) -> Any:
            self.paths.append(Path(name).name)
            return real(settings, data, name)

        monkeypatch.setattr(ImageSettings, "array", array)


def test_full_or_empty_gives_the_same_batches_and_decodes_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = Counted(monkeypatch)
    ds = ImageFolder(folder, transform=transforms.for_training(16), cache=tmp_path / "cache")
    first = epoch(ds)
    assert sorted(decoded.paths) == sorted(f"{number}.png" for number in range(40))
    assert same(epoch(ds), first)
    assert same(epoch(ds, workers=1), first)
    assert not same(epoch(ds, 1), first)
    later = ImageFolder(folder, transform=transforms.for_training(16), cache=tmp_path / "cache")
    assert same(epoch(later), first)
    assert same(epoch(pickle.loads(pickle.dumps(later))), first)
    assert len(decoded.paths) == 40


def test_workers_fill_it_for_everybody(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = ImageFolder(folder, transform=transforms.for_training(16), cache=tmp_path / "cache")
    first = epoch(ds, workers=2)
    decoded = Counted(monkeypatch)
    assert same(epoch(ds), first)
    assert decoded.paths == []


def test_only_what_changed_is_decoded_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch(ImageFolder(folder, size=16, cache=tmp_path / "cache"))
    Image.new("RGB", (50, 50), "red").save(folder / "a" / "4.png")
    os.utime(folder / "b" / "5.png", ns=(10**18, 10**18))
    decoded = Counted(monkeypatch)
    ds = ImageFolder(folder, size=16, cache=tmp_path / "cache")
    whole = epoch(ds)
    assert sorted(decoded.paths) == ["4.png", "5.png"]
    assert any((x[:, 0] > 2).all(dim=(1, 2)).any() for x in whole)
    epoch(ds)
    assert len(decoded.paths) == 2


def test_another_rule_has_pixels_of_its_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    epoch(ImageFolder(folder, size=16, cache=cache))
    decoded = Counted(monkeypatch)
    epoch(ImageFolder(folder, size=20, cache=cache))
    epoch(ImageFolder(folder, size=16, color="L", cache=cache))
    ds = ImageFolder(folder, size=16, cache=cache)
    epoch(ds.with_transform(transforms.for_evaluation(24)))
    assert len(decoded.paths) == 120
    train, val = ds.split(0.5)
    epoch(train)
    epoch(val)
    assert len(decoded.paths) == 120


def test_what_is_kept_is_made_smaller(folder: Path) -> None:
    ds = ImageFolder(folder, size=16, cache="memory")
    epoch(ds)
    assert ds._cache is not None
    ds._cache.begin()
    small = [ds._cache.get(row, ds.path) for row in range(40)]
    assert all(pixels is not None and min(pixels.shape[:2]) <= 30 for pixels in small)
    place = ds._cache.folder
    assert place.is_dir()
    del ds, small
    assert not place.exists()


def test_auto_lies_in_the_cache_folder(folder: Path, own_cache: Path) -> None:
    epoch(ImageFolder(folder, size=16, cache="auto"))
    assert any((own_cache / "decoded").glob("*/arrays-*.bin"))


def test_two_processes_fill_it_together(folder: Path, tmp_path: Path) -> None:
    runs = [warm.Program(["-c", FILL, folder, tmp_path / "cache", seed]) for seed in (1, 2)]
    for run in runs:
        assert run.communicate(timeout=60)[0].split()[-1] == "4"
        assert run.returncode == 0
    (index,) = (tmp_path / "cache").glob("*/index-*.bin")
    entries = np.fromfile(index, appended.ENTRY)
    assert len(entries) == len({bytes(key) for key in entries["key"]}) == 40
    cached = ImageFolder(folder, transform=transforms.for_training(16), cache=tmp_path / "cache")
    fresh = ImageFolder(folder, transform=transforms.for_training(16), cache="memory")
    assert same(epoch(cached), epoch(fresh))


def test_a_kill_leaves_a_cache_that_is_good(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = epoch(ImageFolder(folder, transform=transforms.for_training(16), cache="memory"))
    for batches in (1, 3):
        run = warm.Program(["-c", FILL, folder, tmp_path / "cache", 0])
        for _ in range(1 + batches):
            run.stdout.readline()
        run.send_signal(signal.SIGKILL)
        run.communicate()
    # What a kill in the middle of a write leaves: pixels without an entry, and half an entry.
    (index,), (pixels,) = ((tmp_path / "cache").glob(f"*/{name}-*.bin") for name in ("index", "arrays"))
    with open(pixels, "ab") as file:
        file.write(b"x" * 1000)
    with open(index, "ab") as file:
        file.write(b"y" * 20)
    decoded = Counted(monkeypatch)
    ds = ImageFolder(folder, transform=transforms.for_training(16), cache=tmp_path / "cache")
    assert same(epoch(ds), fresh)
    assert 0 < len(decoded.paths) < 40
    assert same(epoch(ImageFolder(folder, transform=transforms.for_training(16), cache=tmp_path / "cache")), fresh)
    assert os.path.getsize(index) == 40 * appended.ENTRY.itemsize


def test_damaged_pixels_are_noticed_and_written_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = ImageFolder(folder, transform=transforms.for_training(16), cache=tmp_path / "cache")
    fresh = epoch(ds)
    (index,), (pixels,) = ((tmp_path / "cache").glob(f"*/{name}-*.bin") for name in ("index", "arrays"))
    data = bytearray(pixels.read_bytes())
    data[len(data) // 2] ^= 1
    pixels.write_bytes(data)
    entries = bytearray(index.read_bytes())
    entries[appended.ENTRY.itemsize + 20] ^= 1  # an offset
    index.write_bytes(entries)
    assert same(epoch(ImageFolder(folder, transform=transforms.for_training(16), cache=tmp_path / "cache")), fresh)
    decoded = Counted(monkeypatch)
    assert same(epoch(ImageFolder(folder, transform=transforms.for_training(16), cache=tmp_path / "cache")), fresh)
    assert decoded.paths == []
    pixels.write_bytes(data[:1000])
    assert same(epoch(ImageFolder(folder, transform=transforms.for_training(16), cache=tmp_path / "cache")), fresh)


def test_an_emptied_folder_is_filled_again(folder: Path, tmp_path: Path) -> None:
    ds = ImageFolder(folder, size=16, cache=tmp_path / "cache")
    fresh = epoch(ds)
    for kept in (tmp_path / "cache").iterdir():
        shutil.rmtree(kept)
    assert same(epoch(ds), fresh)
    assert same(epoch(ds), fresh)
    assert any((tmp_path / "cache").glob("*/index-*.bin"))


def test_a_budget_that_is_too_small_is_said_once(folder: Path, tmp_path: Path) -> None:
    ds = ImageFolder(folder, size=16, cache=tmp_path / "cache", cache_bytes=30_000)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        first = epoch(ds)
        assert same(epoch(ds), first)
    texts = [str(warning.message) for warning in said]
    assert len(texts) == 2
    assert "would need about" in texts[0]
    assert "30,000 bytes are used up by 7 of 40 images" in texts[1] or "takes no more" in texts[1]
    assert ds._cache is not None
    assert ds._cache.used <= 30_000


def test_a_full_disk_ends_the_filling_not_the_training(folder: Path, tmp_path: Path) -> None:
    fresh = epoch(ImageFolder(folder, size=16, cache="memory"))
    ds = ImageFolder(folder, size=16, cache=tmp_path / "cache")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # the kernel then refuses to let a file grow
    try:
        with pytest.warns(UserWarning, match="takes no more"):
            assert same(epoch(ds), fresh)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert ds._cache is not None
    assert ds._cache.used % 1 == 0
    assert same(epoch(ds), fresh)
    assert same(epoch(ImageFolder(folder, size=16, cache=tmp_path / "cache")), fresh)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_is_really_full_and_gets_room_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    fresh = epoch(ImageFolder(folder, size=16, cache="memory"))
    with small_disk(tmp_path / "disk", "64k") as disk:
        place: dict[str, Any] = {"cache": disk / "cache", "cache_bytes": 10**9}  # else half of the disk is the limit
        with warnings.catch_warnings(record=True) as said:  # a worker says it on its own standard error
            warnings.simplefilter("always")
            assert same(epoch(ImageFolder(folder, size=16, **place), workers=workers), fresh)
        if workers == 0:
            assert "takes no more: the disk is full; cached files remain usable" in str(said.pop().message)
            assert said == []
        (index,), (pixels,) = ((disk / "cache").glob(f"*/{name}-*.bin") for name in ("index", "arrays"))
        entries = np.fromfile(index, appended.ENTRY)
        assert 0 < len(entries) < 40
        assert index.stat().st_size == entries.nbytes
        assert pixels.stat().st_size == entries["nbytes"].sum()

        resize(disk, "10m")
        decoded = Counted(monkeypatch)
        assert same(epoch(ImageFolder(folder, size=16, **place)), fresh)
        assert len(decoded.paths) == 40 - len(entries), "what was kept was good"
        assert same(epoch(ImageFolder(folder, size=16, **place), workers=workers), fresh)
        assert len(decoded.paths) == 40 - len(entries)
        assert len(np.fromfile(index, appended.ENTRY)) == 40


def test_a_disk_with_room_for_pixels_but_not_for_their_entry_is_left_as_it_was(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 4), np.uint8)  # 16 KiB
    with small_disk(tmp_path / "disk", "16k") as disk:
        with pytest.raises(OSError, match="No space left"):
            appended.append(disk / "pixels", disk / "index", [(b"k" * 16, 0, image)])
        assert [file.stat().st_size for file in disk.iterdir()] == [0, 0]


def test_the_words_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(tmp_path / "cache", size=2, rule="x")
    assert cache is not None
    cache.begin()
    cache.put(Path("0"), b"k" * 16, np.zeros((2, 2, 3), np.uint8))

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(appended, "_write_all", full)
    with pytest.warns(UserWarning, match="takes no more: the disk is full; cached files remain usable"):
        cache.flush()
    assert cache.used == 0
    cache.put(Path("1"), b"l" * 16, np.zeros((2, 2, 3), np.uint8))
    cache.flush()


def test_many_entries_are_found_without_a_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagecache, "_DICTIONARY_UP_TO", 1000)
    cache = open_cache(tmp_path / "cache", size=1501, rule="x", budget=10**9)
    assert cache is not None
    cache.begin()
    keys = [number.to_bytes(16, "little") for number in range(1501)]
    pixels = np.zeros((1, 1, 1), np.uint8)
    for number, key in enumerate(keys):
        cache.put(Path(str(number)), key, pixels + np.uint8(number % 251))
    cache.flush()
    again = open_cache(tmp_path / "cache", size=1501, rule="x", budget=10**9)
    assert again is not None
    again.begin()
    assert len(again._by_key) == 0
    assert len(again._sorted) == 1501
    for number in (0, 1, 256, 777, 1500):
        kept = again._kept(again._find(keys[number]))
        assert kept is not None
        assert kept.item() == number % 251
    assert again._find(b"z" * 16) == imagecache._ABSENT


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="cannot be made"):
        open_cache(tmp_path / "file" / "cache", size=1, rule="x")


def test_later_epochs_do_not_wait_for_the_lock(folder: Path, tmp_path: Path) -> None:
    ds = ImageFolder(folder, size=16, cache=tmp_path / "cache")
    epoch(ds)
    from dlkit.storage.files import FileLock

    assert ds._cache is not None
    with FileLock(ds._cache._lock):
        start = time.monotonic()
        epoch(ds)
        assert time.monotonic() - start < 5


# Leftovers


def changed(folder: Path, seed: int) -> None:
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        os.utime(path, ns=(seed * 10**9, seed * 10**9))


def test_leftovers_of_changed_files_go_when_they_are_more_than_half(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagecache, "_RECLAIM_FROM", 1000)
    cache = tmp_path / "cache"
    reader = ImageFolder(folder, size=16, cache=cache)
    epoch(reader)
    for seed in (1, 2):
        changed(folder, seed)
        epoch(ImageFolder(folder, size=16, cache=cache))
    (before,) = cache.glob("*/arrays-*.bin")
    size = before.stat().st_size
    decoded = Counted(monkeypatch)
    ds = ImageFolder(folder, size=16, cache=cache)
    (after,), (index,) = cache.glob("*/arrays-*.bin"), cache.glob("*/index-*.bin")
    assert after.stat().st_size < size / 2
    assert index.stat().st_size == 40 * appended.ENTRY.itemsize
    fresh = epoch(ds)
    assert decoded.paths == []
    assert same(fresh, epoch(ImageFolder(folder, size=16, cache="memory")))
    assert same(epoch(reader), fresh)  # it still read the old pair
    assert same(epoch(pickle.loads(pickle.dumps(reader))), fresh)
    assert len(list(cache.glob("*/*.bin"))) == 2


def test_a_kill_while_leftovers_go_leaves_a_good_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    for seed in (1, 2, 3):
        changed(folder, seed)
        epoch(ImageFolder(folder, size=16, cache=cache))
    script = """
import os, sys
from dlkit.datasets import ImageFolder
from dlkit.datasets.files import cache
from dlkit.storage import appended
cache._RECLAIM_FROM = 1000
steps = int(sys.argv[3])
class Dying:
    def __init__(self, path): self.real = real(path)
    def __enter__(self): return self.real.__enter__()
    def __exit__(self, *error):
        global steps
        steps -= 1
        if steps == 0: os.kill(os.getpid(), 9)
        done = self.real.__exit__(*error)
        if steps == 1 and sys.argv[4] == "after": os.kill(os.getpid(), 9)
        return done
real, appended.atomic_write = appended.atomic_write, Dying
ImageFolder(sys.argv[1], size=16, cache=sys.argv[2])
"""
    fresh = epoch(ImageFolder(folder, size=16, cache="memory"))
    for arguments in (("1", ""), ("2", ""), ("2", "after")):
        run = warm.run(["-c", script, folder, cache, *arguments])
        assert run.returncode == -signal.SIGKILL
        decoded = Counted(monkeypatch)
        assert same(epoch(ImageFolder(folder, size=16, cache=cache)), fresh)
        assert decoded.paths == []
        monkeypatch.undo()
    monkeypatch.setattr(imagecache, "_RECLAIM_FROM", 1000)
    assert same(epoch(ImageFolder(folder, size=16, cache=cache)), fresh)
    assert len([path for path in cache.glob("*/*") if path.suffix == ".bin"]) == 2


def test_two_processes_write_while_leftovers_go(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagecache, "_RECLAIM_FROM", 1000)
    cache = tmp_path / "cache"
    for seed in (1, 2):
        changed(folder, seed)
        epoch(ImageFolder(folder, size=16, cache=cache))
    writer = ImageFolder(folder, size=16, cache=cache)
    epoch(writer)
    changed(folder, 3)
    epoch(ImageFolder(folder, size=16, cache=cache))
    ImageFolder(folder, size=16, cache=cache)  # leftovers go
    changed(folder, 4)
    writer._cache._start()  # type: ignore[union-attr]
    fresh = epoch(writer)  # writes to the new pair
    assert same(fresh, epoch(ImageFolder(folder, size=16, cache="memory")))
    decoded = Counted(monkeypatch)
    assert same(epoch(ImageFolder(folder, size=16, cache=cache)), fresh)
    assert decoded.paths == []


def test_what_nobody_opens_any_more_makes_room(folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch(ImageFolder(folder, size=16, cache="auto"))
    place = own_cache / "decoded"
    (lock,) = place.glob("*/lock")
    epoch(ImageFolder(folder, size=20, cache="auto"))
    assert len(list(place.glob("*/arrays-*"))) == 2
    for file in lock.parent.iterdir():
        os.utime(file, (0, 0))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        epoch(ImageFolder(folder, size=24, cache="auto"))
    assert not lock.exists()
    assert len(list(place.glob("*/arrays-*"))) <= 2


def test_interrupting_the_filling_leaves_a_good_cache(folder: Path, tmp_path: Path) -> None:
    run = warm.Program(["-c", FILL, folder, tmp_path / "cache", 0])
    for _ in range(3):
        run.stdout.readline()
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 0 or "KeyboardInterrupt" in said
    cached = ImageFolder(folder, transform=transforms.for_training(16), cache=tmp_path / "cache")
    fresh = ImageFolder(folder, transform=transforms.for_training(16), cache="memory")
    assert same(epoch(cached), epoch(fresh))
