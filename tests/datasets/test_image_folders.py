"""ImageFolder and ImageFiles: what a folder holds, exact batches for any workers and threads, bad files by policy."""

from __future__ import annotations

import csv
import functools
import gc
import json
import os
import pickle
import random
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader as StockLoader
from torch.utils.data import default_collate
from torchvision.transforms import v2

import warm
from dlkit import transforms
from dlkit._cores import default_threads, for_each
from dlkit._progress import Bar
from dlkit.datasets import ImageFiles, ImageFolder, decode_image
from dlkit.datasets.files import handover, listing
from dlkit.datasets.files.listing import scan
from dlkit.datasets.files.memory import BatchMemory
from dlkit.datasets.images.decoding import EXTENSIONS, IMAGES
from dlkit.errors import ArgumentError, DataError, DataNotFoundError, TooManyErrorsError
from dlkit.loader import DataLoader
from dlkit.reading.targets import natural
from dlkit.transforms import Augment, MixUp
from screens import new_screen


def save(path: Path, number: int = 0, size: tuple[int, int] = (48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(24):
        save(tmp_path / "data" / ("ants", "bees", "wasps")[number % 3] / f"{number}.png", number, (48 + number, 40))
    return tmp_path / "data"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """Eight real photographs of 1800 x 1200 pixels, as they would come from a camera."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(1, 9):
        place = root / ("odd" if number % 2 else "even") / f"{number}.jpg"
        place.parent.mkdir(exist_ok=True)
        shutil.copy(shared_data / "nasty" / "exif" / f"Portrait_{number}.jpg", place)
    return root


def broken(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return path


# What a folder holds


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "9", "2", "b10", "b9"):
        save(tmp_path / name / "1.png")
    assert ImageFolder(tmp_path).classes == ["2", "9", "10", "b9", "b10"]
    assert ImageFolder(tmp_path).class_to_idx["10"] == 2
    assert sorted(["a", "B", "c"], key=natural) == sorted(["a", "B", "c"])


def test_what_is_no_image_is_left_out_and_told(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.PNG")
    save(tmp_path / "a" / "deeper" / "still" / "2.jpeg")
    save(tmp_path / "b" / "ümlaut 日本.jpg")
    save(tmp_path / "loose.jpg")
    save(tmp_path / "a" / "._1.png")
    save(tmp_path / ".hidden" / "3.png")
    save(tmp_path / "a" / ".ipynb_checkpoints" / "1.png")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "readme.md").write_text("x")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    ds = ImageFolder(tmp_path)
    assert ds.classes == ["a", "b"]
    assert [str(ds.path(i).relative_to(tmp_path)) for i in range(3)] == [
        "a/1.PNG",
        "a/deeper/still/2.jpeg",
        "b/ümlaut 日本.jpg",
    ]
    assert ds.targets is not None
    assert ds.targets.tolist() == [0, 0, 1]
    told = {kind: count for kind, (count, _) in ds.left_out.items()}
    assert told == {
        "hidden": 3,
        "not an image": 2,
        "outside of any class folder": 1,
        "broken link or special file": 2,
    }
    assert "1 outside of any class folder (loose.jpg)" in scan(tmp_path, IMAGES).told()
    assert torch.equal(ds[2][0], torch.from_numpy(decode_image(ds.path(2))).permute(2, 0, 1))


def test_symbolic_links_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "x" / "1.png")
    save(tmp_path / "data" / "a" / "2.png")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere" / "x")
    (tmp_path / "data" / "a" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "a" / "3.png").symlink_to(tmp_path / "elsewhere" / "x" / "1.png")
    ds = ImageFolder(tmp_path / "data")
    assert ds.counts["a"] >= 2
    assert any(kind == "folder linked twice" for kind in ds.left_out)
    assert ds.path(1).name == "3.png"


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    os.rename(os.fsencode(tmp_path / "a" / "1.png"), os.fsencode(tmp_path / "a") + b"/\xff\xfe.png")
    ds = ImageFolder(tmp_path, size=8)
    assert os.fsencode(ds.path(0).name) == b"\xff\xfe.png"
    assert ds[0][0].shape == (3, 8, 8)


def test_folders_that_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="does not exist"):
        ImageFolder(tmp_path / "nothing")
    with pytest.raises(DataNotFoundError, match="is a file, not a folder"):
        ImageFolder(save(tmp_path / "x" / "a.png"))
    flat = save(tmp_path / "flat" / "a.png").parent
    with pytest.raises(DataError, match=r"no class folders.*ImageFiles\(folder\).*1 outside of any class folder"):
        ImageFolder(flat)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="one folder per class"):
        ImageFolder(tmp_path / "empty")
    save(tmp_path / "half" / "a" / "1.png")
    (tmp_path / "half" / "b").mkdir()
    with pytest.raises(DataError, match=r"1 class folder without any image \(b\); .*classes="):
        ImageFolder(tmp_path / "half")
    assert ImageFolder(tmp_path / "half", classes=["a", "b", "c"]).classes == ["a", "b", "c"]
    with pytest.raises(DataError, match="holds no images"):
        ImageFiles(tmp_path / "empty")


def test_a_folder_beside_train_and_val_is_an_error_that_names_it(tmp_path: Path) -> None:
    for folder in ("train/a", "train/b", "val/a", "val/b", "extra/a"):
        save(tmp_path / folder / "1.png")
    with pytest.raises(DataError, match="has the folders train, val and beside them extra: are they parts"):
        ImageFolder(tmp_path)
    save(tmp_path / "twice" / "train" / "a" / "1.png")
    for folder in ("val", "valid"):
        save(tmp_path / "twice" / folder / "a" / "1.png")
    with pytest.raises(DataError, match="beside them val"):
        ImageFolder(tmp_path / "twice")
    for folder in ("train", "bus", "test"):  # things to be told apart, one of which is a train
        save(tmp_path / "vehicles" / folder / "1.png")
    assert ImageFolder(tmp_path / "vehicles").classes == ["bus", "test", "train"]


def test_class_folders_in_two_spellings_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    save(tmp_path / "train" / composed / "1.png", 1)
    save(tmp_path / "train" / decomposed / "2.png", 2)
    save(tmp_path / "train" / "bar" / "3.png", 3)
    save(tmp_path / "val" / decomposed / "4.png", 4)
    ds = ImageFolder(tmp_path, size=8)
    assert ds.classes == ["bar", composed]
    assert ds.targets is not None
    assert sorted(ds.targets.tolist()) == [0, 1, 1, 1]
    assert sorted(path.name for path in map(ds.path, range(4))) == ["1.png", "2.png", "3.png", "4.png"]
    assert all(ds[i][0].shape == (3, 8, 8) for i in range(4))


def test_a_layout_of_train_val_test_is_recognised(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("Valid", 2), ("test", 1)):
        for label in ("10", "9") if part != "test" else ("10",):
            for number in range(count):
                save(tmp_path / part / label / f"{number}.png", number)
    (tmp_path / "readme.txt").touch()
    ds = ImageFolder(tmp_path, size=8, augment=Augment())
    assert (ds.classes, ds.parts, len(ds)) == (["9", "10"], ["train", "val", "test"], 13)
    train, val, test = ds.split()
    assert [len(part) for part in (train, val, test)] == [8, 4, 1]
    assert (train.draws_random, val.draws_random) == (True, False)
    assert test.targets is not None
    assert test.targets.tolist() == [1]
    assert "Valid" in str(val.path(0))
    assert len(ImageFolder(tmp_path, part="val")) == 4
    assert len(train.split(0.75)[0]) == 6
    with pytest.raises(ArgumentError, match="is laid out in train, val, test"):
        ds.split(0.8)
    with pytest.raises(ArgumentError, match="part='dev'"):
        ImageFolder(tmp_path, part="dev")
    assert [len(part) for part in ImageFolder(tmp_path / "train").split(dedupe=False)] == [6, 1, 1]


def test_classes_in_a_stated_order(folder: Path) -> None:
    given = ImageFolder(folder, classes={"wasps": 0, "hornets": 1, "bees": 2, "ants": 3})
    assert given.classes == ["wasps", "hornets", "bees", "ants"]
    assert given.counts == {"wasps": 8, "hornets": 0, "bees": 8, "ants": 8}
    assert all(given.path(i).parent.name == given.classes[int(given[i][1])] for i in range(0, 24, 5))
    assert ImageFolder(folder, classes=["wasps", "bees", "ants"]).class_to_idx == {
        "wasps": 0,
        "bees": 1,
        "ants": 2,
    }
    with pytest.raises(DataError, match="has classes that classes= has not: wasps"):
        ImageFolder(folder, classes=["ants", "bees"])
    with pytest.raises(ArgumentError, match="from 0 to 2"):
        ImageFolder(folder, classes={"ants": 1, "bees": 2, "wasps": 3})
    with pytest.raises(ArgumentError, match="names a class twice: ants"):
        ImageFolder(folder, classes=["ants", "bees", "wasps", "ants"])


def test_class_names_match_in_either_unicode_form(tmp_path: Path) -> None:
    save(tmp_path / "Käfer" / "1.png")
    assert ImageFolder(tmp_path, classes=["Ka\u0308fer"]).counts == {"Ka\u0308fer": 1}


def test_classes_are_checked_against_a_models(folder: Path) -> None:
    ds = ImageFolder(folder)
    ds.check_classes(["ants", "bees", "wasps"])
    model = torch.nn.Linear(1, 1)
    model.classes = ["bees", "ants", "wasps"]  # type: ignore[assignment]
    with pytest.raises(DataError, match="same 3 classes in another order"):
        ds.check_classes(model)
    with pytest.raises(DataError, match=r"only the model has \['fly'\], only the data has \['wasps'\]"):
        ds.check_classes(["ants", "bees", "fly"])


def test_unlabelled_images(tmp_path: Path, folder: Path) -> None:
    for name in ("10.png", "9.png", "sub/2.png"):
        save(tmp_path / "flat" / name)
    ds = ImageFiles(tmp_path / "flat", size=8)
    assert [ds.path(i).name for i in range(3)] == ["9.png", "10.png", "2.png"]
    assert ds[0].shape == (3, 8, 8)
    batch = next(iter(StockLoader(ds, 3)))
    assert batch.shape == (3, 3, 8, 8)
    assert torch.equal(batch[1], ds[1])
    listed = ImageFiles([tmp_path / "flat" / "10.png", folder / "ants" / "0.png"], size=8)
    assert torch.equal(listed[0], ds[1])
    assert len(listed) == 2
    assert ds.targets is None
    with pytest.raises(DataError, match="list of image files is empty"):
        ImageFiles([])


# Kept scans


def test_a_kept_scan_is_used_until_a_folder_changes(
    folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "KEEP_FROM", 1)
    monkeypatch.setattr(listing, "_TICK_NS", 0)
    os.utime(folder / "ants", ns=(1, 1))
    first = scan(folder, IMAGES)
    assert first.kept is not None
    assert own_cache in first.kept.path.parents
    unlabelled = ImageFiles(folder, size=8)

    def no_walk(*_: Any, **__: Any) -> Any:
        raise AssertionError("scanned again")

    with monkeypatch.context() as patch:
        patch.setattr(listing, "_Walk", no_walk)
        again = scan(folder, IMAGES)
        assert list(again.names) == list(first.names)
        assert torch.equal(again.targets, first.targets)
        assert again.classes == first.classes
        assert len(pickle.dumps(again)) < 500
        parts = ImageFolder(folder, size=8), unlabelled
        assert all(len(pickle.dumps(part)) < 5000 for part in parts)
        assert pickle.loads(pickle.dumps(parts[1])).targets is None
        copied = pickle.loads(pickle.dumps(parts[0]))
        assert parts[0].targets is not None
        assert torch.equal(copied.targets, parts[0].targets)
        assert list(pickle.loads(pickle.dumps(again)).names) == list(first.names)
        ds = ImageFolder(folder, size=8)
        assert torch.equal(pickle.loads(pickle.dumps(ds))[5][0], ds[5][0])
    save(folder / "ants" / "new.png")
    assert len(scan(folder, IMAGES)) == 25
    (folder / "ants" / "new.png").unlink()
    assert len(scan(folder, IMAGES)) == 24
    kept = scan(folder, IMAGES).kept
    assert kept is not None
    kept.path.write_bytes(b"damaged")
    assert len(scan(folder, IMAGES)) == 24


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_kept_scan_is_mapped_so_that_workers_share_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "KEEP_FROM", 1)
    monkeypatch.setattr(listing, "_TICK_NS", 0)
    os.utime(folder / "ants", ns=(1, 1))
    scan(folder, IMAGES)
    ds = ImageFolder(folder)
    assert ds._listing is not None
    assert ds._targets is not None
    for array in (ds._names._blob.array, ds._names._ends, ds._targets.numpy()):
        assert str(ds._listing.kept.path) in mapping_at(array.ctypes.data)


def mapping_at(address: int) -> str:
    """The line of /proc/self/maps that an address falls into: it ends in the file, if it is one's."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        start, end = (int(edge, 16) for edge in line.split()[0].split("-"))
        if start <= address < end:
            return line
    return ""


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_read_is_named(folder: Path) -> None:  # pragma: no cover
    (folder / "bees").chmod(0)
    try:
        with pytest.raises(DataError, match=r"bees cannot be read: Permission denied; grant read permission"):
            ImageFolder(folder)
    finally:
        (folder / "bees").chmod(0o755)


def test_one_class_alone_and_what_was_not_taken_are_told(tmp_path: Path) -> None:
    save(tmp_path / "only" / "1.png")
    (tmp_path / "only" / "notes.txt").touch()
    ds = ImageFolder(tmp_path, size=8)
    assert ds.classes == ["only"]
    assert "1 images, 1 classes; not taken: 1 not an image;" in repr(ds)


def test_scanning_a_large_folder_shows_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        save(tmp_path / "a" / f"{number}.png", number, (4, 4))
    screen = new_screen(monkeypatch)
    monkeypatch.setattr(listing, "Bar", functools.partial(Bar, delay=0))  # two seconds of scanning take a large folder
    ImageFolder(tmp_path, progress=False)
    assert screen.shown == ""
    ImageFolder(tmp_path)
    assert f"scanning {tmp_path.name}" in screen.shown


def test_a_folder_that_changed_just_now_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "KEEP_FROM", 1)
    monkeypatch.setattr(listing, "_TICK_NS", 10**12)
    assert scan(folder, IMAGES).kept is None


# Samples and batches


def test_batches_are_the_samples(folder: Path) -> None:
    ds = ImageFolder(folder, size=16)
    images, targets = next(iter(StockLoader(ds, 24)))
    assert images.shape == (24, 3, 16, 16)
    for index in range(24):
        sample, target = ds[index]
        assert torch.equal(images[index], sample)
        assert targets[index] == target
        assert torch.equal(sample, transforms.for_evaluation(16)(decode_image(ds.path(index))))
    assert ds[-1][1] == ds[23][1]
    with pytest.raises(IndexError):
        ds[24]


def test_a_users_own_collate_function_gets_ordinary_samples(folder: Path) -> None:
    ds = ImageFolder(folder, size=16)
    got = next(iter(StockLoader(ds, 4, collate_fn=list)))
    assert torch.equal(got[2][0], ds[2][0])


@pytest.mark.parametrize(
    "settings",
    [
        {"transform": transforms.for_training(16, brightness=0.2, erase=0.5)},
        {"transform": transforms.for_training(16), "batch_transform": MixUp(num_classes=3)},
        {"transform": transforms.for_training(16), "cache": "memory", "cache_side": 20},
        {
            "transform": v2.Compose(
                [v2.RandomResizedCrop(16, antialias=True), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
            )
        },
    ],
)
def test_same_batches_for_any_number_of_workers_and_threads(folder: Path, settings: Any) -> None:
    def batches(threads: int, workers: int) -> list[Any]:
        ds = ImageFolder(folder, threads=threads, **settings)
        loader = DataLoader(ds, 5, shuffle=True, seed=4, num_workers=workers)
        return [batch for epoch in range(2) for batch in loader.batches(epoch)]

    expected = batches(1, 0)
    assert not torch.equal(expected[0][0], expected[5][0])
    for threads, workers in ((4, 0), (3, 1), (1, 2)):
        for (x, y), (images, targets) in zip(batches(threads, workers), expected, strict=True):
            assert torch.equal(x, images)
            assert torch.equal(y, targets)


def test_any_batch_can_be_sought(folder: Path) -> None:
    loader = DataLoader(ImageFolder(folder, transform=transforms.for_training(16)), 5, shuffle=True, seed=1)
    whole = list(loader.batches(3))
    for (x, _), (images, _) in zip(loader.batches(3, 2), whole[2:], strict=True):
        assert torch.equal(x, images)


def test_threads_never_draw(folder: Path) -> None:
    ds = ImageFolder(folder, transform=transforms.for_training(16, erase=0.5), threads=4)
    torch.manual_seed(0)
    torch.rand(8, 32, dtype=torch.float64)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    python = random.getstate()
    ds.__getitems__(list(range(8)))
    assert torch.equal(torch.get_rng_state(), after)
    assert random.getstate() == python


def test_any_torchvision_transform_and_helpful_words(folder: Path) -> None:
    steps = [v2.Resize((8, 8)), v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    x, _ = next(iter(StockLoader(ImageFolder(folder, transform=v2.Compose(steps)), 4)))
    assert x.shape == (4, 3, 8, 8)
    assert type(x) is torch.Tensor
    with pytest.raises(
        DataError, match=r"must return a tensor, but returned Image for .*0\.png; end it with v2.ToImage"
    ):
        ImageFolder(folder, transform=v2.Resize(8))[0]
    with pytest.raises(DataError, match=r"different shapes.*give size=224"):
        next(iter(StockLoader(ImageFolder(folder), 4)))
    single = ImageFolder(folder)[0][0]
    assert single.dtype == torch.uint8
    assert single.shape == (3, 40, 48)

    def fails(_: Any) -> Any:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as info:
        ImageFolder(folder, transform=fails)[0]
    assert any("0.png" in note for note in info.value.__notes__)


def test_grey_on_request(folder: Path) -> None:
    assert ImageFolder(folder, size=8, color="L")[0][0].shape == (1, 8, 8)
    assert ImageFolder(folder, color="L")[0][0].shape == (1, 40, 48)


def test_augmentation_in_other_words(folder: Path) -> None:
    default = ImageFolder(folder, size=16, augment=Augment()).transform
    assert ImageFolder(folder, size=16, augment=True).transform == default
    assert ImageFolder(folder, size=16, augment=False).transform == transforms.for_evaluation(16)
    spec = transforms.for_training(16, flip=0.25)
    assert ImageFolder(folder, augment=spec).transform == spec
    own = ImageFolder(folder, size=16, augment=spec).transform
    assert isinstance(own, transforms.Preprocessing)
    assert own.augment == spec.augment
    for wrong in (v2.RandomHorizontalFlip(), "default", transforms.for_evaluation(16)):
        with pytest.raises(ArgumentError, match=r"augment= takes transforms.Augment"):
            ImageFolder(folder, size=16, augment=wrong)  # type: ignore[arg-type]


def test_a_random_transform_in_every_part_is_said(folder: Path) -> None:
    steps = v2.Compose([v2.RandomResizedCrop(8), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    ds = ImageFolder(folder, transform=steps)
    with pytest.warns(UserWarning, match=r"transform=\[for_training, for_evaluation\]"):
        ds.split(0.5)
    ds.split(0.5, transform=[steps, transforms.for_evaluation(8)])


def test_augmentation_by_name(folder: Path) -> None:
    ds = ImageFolder(folder, size=16, augment=Augment(flip=1.0, scale=None))
    assert torch.equal(ds[0][0].flip(2), ImageFolder(folder, size=16)[0][0])
    assert ds.draws_random
    with pytest.raises(ArgumentError, match="needs size="):
        ImageFolder(folder, augment=Augment())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 8, "transform": transforms.for_evaluation(8)}, "give one of them"),
        ({"on_error": "ignore"}, "on_error must be"),
        ({"max_errors": 2}, "max_errors is a share"),
        ({"threads": 0}, "threads must be"),
        ({"transform": "resize"}, "must be callable"),
        ({"color": "BGR"}, "color must be"),
        ({"cache": "memory", "cache_bytes": 0}, "cache_bytes"),
    ],
)
def test_arguments_are_checked(folder: Path, wrong: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ImageFolder(folder, **wrong)


# The fast path and the reference


@pytest.fixture(scope="module")
def decoded(shared_data: Path) -> dict[Path, Any]:
    """Real photographs, turned ones among them, with all of their pixels."""
    folders = (shared_data / "nasty" / "exif", shared_data / "images" / "hymenoptera" / "val" / "bees")
    return {file: decode_image(file) for folder in folders for file in sorted(folder.glob("*.jpg"))[:20]}


@pytest.mark.parametrize("size", [32, 48, 96, 160])
def test_the_fast_path_stays_within_its_bound(decoded: dict[Path, Any], size: int) -> None:
    """What is stated: on photographs less than 3 grey levels in the mean, 99 % of the values within 12."""
    files = list(decoded)
    for spec in (
        transforms.for_training(size),
        transforms.for_evaluation(size),
        transforms.for_evaluation(size, fit="pad"),
    ):
        ds = ImageFiles(files, transform=spec)
        torch.manual_seed(1)
        images = list(ds.__getitems__(list(range(len(files)))))
        torch.manual_seed(1)
        table = spec.draw(len(files))
        reduced = 0
        for index, file in enumerate(files):
            pixels = decoded[file]
            plan = spec.plan(*pixels.shape[:2], None if table is None else table[index])
            reference = np.empty(spec.shape, np.float32)
            spec.write(pixels, plan, reference)
            levels = np.abs(images[index].numpy() - reference) * np.array(spec.std)[:, None, None] * 255
            assert levels.mean() < 3
            assert np.quantile(levels, 0.99) < 12
            if plan.reduce == 1:
                assert levels.max() == 0
            reduced += plan.reduce > 1
        assert reduced >= 4


def test_images_that_are_not_reduced_are_those_of_the_reference(folder: Path) -> None:
    spec = transforms.for_training(16)
    ds = ImageFolder(folder, transform=spec)
    torch.manual_seed(1)
    x = ds[3][0]
    torch.manual_seed(1)
    assert torch.equal(x, spec(decode_image(ds.path(3))))


def test_every_nasty_file_through_a_dataset_decodes_or_is_left_out(shared_data: Path, tmp_path: Path) -> None:
    """In a process of its own with limits; the names alone decide that two text files are not even tried."""
    run = warm.run(["-c", NASTY, shared_data / "nasty", tmp_path])
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    with open(shared_data / "nasty" / "images_manifest.csv", encoding="utf-8") as file:
        manifest = {row["file"]: row["pillow13_result"] == "ok" for row in csv.DictReader(file)}
    taken = [name for name in manifest if name not in found["left_out"]]
    assert found["left_out"] == [name for name in manifest if Path(name).suffix.lower() not in EXTENSIONS]
    assert sorted(found["errors"]) == sorted(name for name in taken if not manifest[name])
    assert found["batches"] == sum(manifest[name] for name in taken)


NASTY = """
import json, os, psutil, resource, sys, warnings
from pathlib import Path
limit = psutil.Process().memory_info().vms + (3 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
warnings.simplefilter("ignore")
from torch.utils.data import DataLoader
from dlkit.datasets import ImageFolder
root = Path(sys.argv[2])
(root / "nasty").symlink_to(Path(sys.argv[1]) / "images")
ds = ImageFolder(root, size=32, on_error="skip", max_errors=1.0)
taken = {ds.path(row).name for row in range(len(ds))}
read = sum(len(x) for x, _ in DataLoader(ds, 50))
left_out = sorted(name for name in os.listdir(root / "nasty") if name not in taken)
print(json.dumps({"errors": [Path(error.file).name for error in ds.skipped], "batches": read, "left_out": left_out}))
"""


def test_nasty_and_turned_files_in_a_batch(photos: Path) -> None:
    images, _ = next(iter(StockLoader(ImageFolder(photos, size=64), 8)))
    assert (images - images[:1]).abs().mean() < 0.2  # all eight upright: they show the same


# Bad files


def test_raise_names_the_file(folder: Path) -> None:
    path = broken(folder / "bees" / "bad.png")
    for workers in (0, 1):
        with pytest.raises(DataError, match=rf"{path}: is not an image.*on_error='skip'"):
            list(StockLoader(ImageFolder(folder, size=8), 25, num_workers=workers))


def test_skip_leaves_samples_out_for_good(folder: Path) -> None:
    paths = [broken(folder / "bees" / "bad.png"), broken(folder / "ants" / "0.png")]
    ds = ImageFolder(folder, size=8, on_error="skip", max_errors=0.1)
    good = ImageFolder(folder, size=8)
    expected = torch.stack([good[i][0] for i in range(25) if good.path(i) not in paths])
    with pytest.warns(UserWarning, match="left out permanently"):
        batches = list(StockLoader(ds, 6))
    assert torch.equal(torch.cat([x for x, _ in batches]), expected)
    assert sorted(len(x) for x, _ in batches) == [1, 5, 5, 6, 6]
    assert sorted(error.file for error in ds.skipped) == sorted(map(str, paths))
    assert ds.skipped_by_class() == {"ants": (1, 8), "bees": (1, 9)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(torch.cat([x for x, _ in StockLoader(ds, 6)]), expected)
    assert "2 left out" in repr(ds)
    clean = ds.without_errors()
    assert len(clean) == 23
    assert [len(x) for x, _ in StockLoader(clean, 6)] == [6, 6, 6, 5]


def test_errors_found_in_workers_are_known_everywhere(folder: Path) -> None:
    broken(folder / "bees" / "bad.png")
    ds = ImageFolder(folder, transform=transforms.for_training(8), on_error="skip", max_errors=0.1)
    for workers in (1, 2):
        loader = DataLoader(ds, 5, shuffle=True, seed=2, num_workers=workers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said in the worker
            batches = list(loader.batches(0))
        fresh = ImageFolder(folder, transform=transforms.for_training(8), on_error="skip", max_errors=0.1)
        with pytest.warns(UserWarning, match="left out"):
            alone = list(DataLoader(fresh, 5, shuffle=True, seed=2).batches(0))
        for (x, _), (y, _) in zip(batches, alone, strict=True):
            assert torch.equal(x, y)
    assert [Path(error.file).name for error in ds.skipped] == ["bad.png"]


def test_too_many_bad_files_stop(folder: Path) -> None:
    for number in range(11):  # ten are always allowed
        broken(folder / "bees" / f"bad{number}.png")
    ds = ImageFolder(folder, size=8, on_error="skip", max_errors=0.1)
    message = r"11 of 35 images cannot be read, more than max_errors=0.1 allows \(by class: bees 11 of 19\); the first:"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TooManyErrorsError, match=message):
            list(StockLoader(ds, 9))
    with pytest.raises(TooManyErrorsError, match=message):
        ImageFolder(folder, size=8, on_error="skip", max_errors=0.1).verify()


def test_a_batch_of_bad_files_only_is_an_error(folder: Path) -> None:
    broken(folder / "ants" / "0.png")
    ds = ImageFolder(folder, size=8, on_error="skip", max_errors=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"all 1 samples of a batch.*without_errors"):
            next(iter(StockLoader(ds, 1)))


def test_verify_lists_every_bad_file(folder: Path) -> None:
    path = broken(folder / "bees" / "bad.png")
    (error,) = ImageFolder(folder).verify()
    assert (error.file, error.row) == (str(path), None)
    ds = ImageFolder(folder, on_error="skip", max_errors=0.1)
    assert ds.verify() == ds.skipped
    assert len(ds.without_errors()) == 24


def test_skipping_with_a_transform_of_ones_own(folder: Path) -> None:
    broken(folder / "ants" / "0.png")
    steps = v2.Compose([v2.Resize((8, 8)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    ds = ImageFolder(folder, transform=steps, on_error="skip", max_errors=0.1)
    with pytest.warns(UserWarning, match="left out"):
        x, y = next(iter(StockLoader(ds, 24)))
    assert (len(x), len(y)) == (23, 23)


def test_the_journal_goes_with_its_process(folder: Path) -> None:
    ds = ImageFolder(folder, on_error="skip")
    assert ds._journal is not None
    path = ds._journal.path
    copied = pickle.loads(pickle.dumps(ds))
    del copied
    assert path.exists()
    del ds
    assert not path.exists()


# Parts


def test_splits_are_stratified_and_only_the_first_is_augmented(folder: Path) -> None:
    ds = ImageFolder(folder, size=8, augment=Augment(), batch_transform=MixUp(num_classes=3))
    train, val = ds.split(0.75, seed=1)
    assert train.counts == {"ants": 6, "bees": 6, "wasps": 6}
    assert val.counts == {"ants": 2, "bees": 2, "wasps": 2}
    assert not set(train.indices.tolist()) & set(val.indices.tolist())
    assert (train.draws_random, val.draws_random) == (True, False)
    assert val[0][1] == val.classes.index(val.path(0).parent.name)
    other = ds.split([0.5, 0.25, 0.25], transform=[None, transforms.for_evaluation(8), transforms.for_training(16)])
    assert [part.transform for part in other] == [None, transforms.for_evaluation(8), transforms.for_training(16)]
    with pytest.raises(ArgumentError, match="for each of its 2 parts"):
        ds.split(0.5, transform=[None])
    assert ds.with_transform(None)[0][0].dtype == torch.uint8


def test_equal_files_and_groups_stay_together(folder: Path) -> None:
    for number in range(0, 24, 2):
        label = ("ants", "bees", "wasps")[number % 3]
        shutil.copy(folder / label / f"{number}.png", folder / label / f"copy_of_{number}.png")
    ds = ImageFolder(folder)
    for seed in range(3):
        train, val = ds.split(0.5, seed=seed)
        contents = [{part.path(i).read_bytes() for i in range(len(part))} for part in (train, val)]
        assert not contents[0] & contents[1]
    by_name = ds.split(0.5, group=lambda path: path.stem.rpartition("_")[2][0], dedupe=False)
    keys = [{part.path(i).stem.rpartition("_")[2][0] for i in range(len(part))} for part in by_name]
    assert not keys[0] & keys[1]


# Threads and memory


def test_every_number_is_worked_on_once_and_errors_come_back() -> None:
    for threads in (1, 2, 7):
        done: list[int] = []
        for_each(done.append, 100, threads)
        assert sorted(done) == list(range(100))

        def fails(number: int) -> None:
            if number == 5:
                raise KeyError(number)

        with pytest.raises(KeyError):
            for_each(fails, 50, threads)
    assert default_threads() >= 1


def test_batch_memory_is_used_again_only_when_nothing_refers_to_it() -> None:
    memory = BatchMemory()
    first = memory.take((4, 3))
    place = first.data_ptr()
    first.fill_(7)
    row, array = first[1:2], first.numpy()[3]
    del first
    assert memory.take((4, 3)).data_ptr() != place
    assert float(row[0, 0]) == 7
    del row
    assert memory.take((4, 3)).data_ptr() != place
    assert array[0] == 7
    del array
    taken = {memory.take((4, 3)).data_ptr() for _ in range(4)}
    assert len(taken) == 1
    assert memory.take((2, 3)).shape == (2, 3)


def test_batches_that_are_kept_are_not_overwritten(folder: Path) -> None:
    loader = StockLoader(ImageFolder(folder, size=16), 4)
    kept = list(loader)
    copies = [x.clone() for x, _ in loader]
    assert all(torch.equal(x, y) for (x, _), y in zip(kept, copies, strict=True))


def test_a_workers_batches_use_their_memory_again_once_they_are_let_go(folder: Path) -> None:
    loader = StockLoader(ImageFolder(folder, size=16), 4, num_workers=1, persistent_workers=True)
    expected = [x for x, _ in StockLoader(ImageFolder(folder, size=16), 4)]
    places = set[int]()
    for _ in range(3):
        for (x, _), whole in zip(loader, expected, strict=True):
            assert type(x) is torch.Tensor
            assert torch.equal(x, whole)
            x.add_(1)  # the batch is the consumer's own
            places.add(x.data_ptr())
    assert len(places) <= 6  # of 18 batches
    (pieces,) = [pieces for token, pieces in handover._mapped.items() if token[0] == loader._iterator._workers[0].pid]  # type: ignore[union-attr]
    assert len(pieces) <= 6


def test_a_workers_batches_that_are_kept_are_not_overwritten(folder: Path) -> None:
    expected = [x for x, _ in StockLoader(ImageFolder(folder, size=16), 2)]
    kept, rows = [], []
    for x, _ in StockLoader(ImageFolder(folder, size=16), 2, num_workers=1):
        kept.append(x)
        rows.append(x.view(2, -1)[1:])
    assert all(torch.equal(x, whole) for x, whole in zip(kept, expected, strict=True))
    del kept, x
    list(StockLoader(ImageFolder(folder, size=16), 2, num_workers=1))
    assert all(torch.equal(row[0], whole[1].flatten()) for row, whole in zip(rows, expected, strict=True))


def sliced(samples: Any) -> Any:
    x, _ = default_collate(samples)
    return x, x[:, :1]


def test_parts_of_a_workers_batch_that_are_sent_beside_it_stay_whole(folder: Path) -> None:
    expected = [x for x, _ in StockLoader(ImageFolder(folder, size=16), 2)]
    parts = [part for _, part in StockLoader(ImageFolder(folder, size=16), 2, num_workers=1, collate_fn=sliced)]
    assert all(torch.equal(part, whole[:, :1]) for part, whole in zip(parts, expected, strict=True))


def test_the_memory_of_a_worker_that_has_ended_is_let_go(folder: Path) -> None:
    for _ in range(2):
        x = next(iter(StockLoader(ImageFolder(folder, size=16), 4, num_workers=1)))
        gc.collect()  # the loader, and with it the worker
        del x
    assert not any(not handover._is_alive(process) for process, _ in handover._mapped)


def test_a_loader_in_a_new_process(folder: Path) -> None:
    """The first batch comes from this process meanwhile, unless a transform of one's own may count on a worker."""
    ds = ImageFolder(folder, transform=transforms.for_training(8))
    here = list(DataLoader(ds, 8, shuffle=True))
    loader = DataLoader(ds, 8, shuffle=True, num_workers=1, multiprocessing_context="forkserver")
    for (x, _), (y, _) in zip(loader, here, strict=True):
        assert torch.equal(x, y)
    assert ds.needs_no_worker
    assert ImageFolder(folder).needs_no_worker
    assert not ds.with_transform(v2.ToImage()).needs_no_worker
