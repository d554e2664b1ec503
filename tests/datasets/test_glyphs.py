"""Glyphs: letters from the machine's fonts, in notMNIST's format, the same for the same seed and fonts."""

from __future__ import annotations

import shutil
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as StockLoader

import warm
from dlkit import DataLoader
from dlkit.datasets import Glyphs
from dlkit.datasets.letters import glyphs
from dlkit.errors import ArgumentError, DataNotFoundError, MissingExtraError
from dlkit.splits import check_leaks

matplotlib = pytest.importorskip("matplotlib")
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture(scope="module")
def letters() -> Glyphs:
    """2,000 letters of the fonts that matplotlib ships, so that every machine tests the same."""
    return Glyphs(2000, fonts=sorted(FONTS.glob("*.ttf")))


def test_format_and_classes_are_those_of_notmnist(letters: Glyphs) -> None:
    assert letters.images.shape == (2000, 28, 28)
    assert letters.images.dtype == torch.uint8
    assert letters.targets.dtype == torch.int64
    assert torch.bincount(letters.targets).tolist() == [200] * 10
    assert letters.classes == list("ABCDEFGHIJ")
    assert letters.class_to_idx["J"] == 9
    image, label = letters[13]
    assert (image.shape, image.dtype, int(label)) == ((1, 28, 28), torch.float32, 3)
    assert torch.equal(image[0], letters.images[13].float() * torch.tensor(1 / 255))
    batch, labels = next(iter(StockLoader(letters, 64)))
    assert torch.equal(batch, next(iter(DataLoader(letters, 64)))[0])
    assert torch.equal(batch[13], image)
    assert labels[13] == 3


def test_every_font_and_class_take_turns(letters: Glyphs) -> None:
    counts = torch.bincount(letters.font_ids * 10 + letters.targets, minlength=10 * len(letters.fonts))
    assert len(counts) == 10 * len(letters.fonts)
    assert counts.max() - counts.min() <= 1


def test_the_same_seed_and_fonts_give_the_same_images() -> None:
    files = [FONTS / "DejaVuSans.ttf", FONTS / "STIXGeneral.ttf"]
    first = Glyphs(120, seed=3, fonts=files)
    assert torch.equal(first.images, Glyphs(120, seed=3, fonts=files[::-1]).images)
    assert torch.equal(first.images[:50], Glyphs(50, seed=3, fonts=files).images)
    assert not torch.equal(first.images, Glyphs(120, seed=4, fonts=files).images)


def test_another_process_draws_the_same_without_matplotlib() -> None:
    files = [FONTS / "DejaVuSans.ttf", FONTS / "STIXGeneral.ttf"]
    code = """
import sys, zlib
for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
    del sys.modules[name]
from dlkit.datasets import Glyphs
print(zlib.crc32(Glyphs(120, seed=3, fonts=sys.argv[1:]).images.numpy()), len(Glyphs(10)), "matplotlib" in sys.modules)
"""
    run = warm.run(["-c", code, *files], check=True)
    expected = zlib.crc32(Glyphs(120, seed=3, fonts=files).images.numpy())
    assert run.stdout.split() == [str(expected), "10", "False"]


def test_it_draws_from_no_global_stream() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    Glyphs(20, fonts=[FONTS / "DejaVuSans.ttf"])
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_letters_fill_the_frame_white_on_black(letters: Glyphs) -> None:
    bright = letters.images > 64
    rows, columns = bright.any(2), bright.any(1)
    for edge in (rows[:, :2], rows[:, -2:], columns[:, :2], columns[:, -2:]):
        assert edge.any(1).float().mean() > 0.99  # at most a pixel of margin on each side
    assert 50 < letters.images.float().mean() < 140  # notMNIST: 109
    upright = Glyphs(10, jitter=0, fonts=[FONTS / "DejaVuSans.ttf"]).images
    assert (upright[8, :, 3:-3] > 200).all()  # an I without serifs is a white block, as in notMNIST
    assert upright[0, 0, 0] == 0
    assert upright[0, 0, 14] > 200
    assert (upright[4, :, 0] > 150).all()


def test_jitter_is_small_and_can_be_switched_off() -> None:
    files = [FONTS / "DejaVuSerif.ttf"]
    plain = Glyphs(20, jitter=0, fonts=files).images
    assert torch.equal(plain[:10], plain[10:])
    moved = Glyphs(200, fonts=files).images.float().view(20, 10, 28, 28)
    change = (moved - plain[:10].float()).abs().mean((2, 3)) / 255
    assert change.min() > 0.01
    assert change.max() < 0.4
    assert len(np.unique(moved.numpy().reshape(200, -1), axis=0)) == 200


def test_letters_can_be_told_apart_on_fonts_never_seen(letters: Glyphs) -> None:
    """A linear model does it, so labels and letters belong together and the task is neither trivial nor hopeless."""
    train, test = letters.split(0.75)
    x, y = train.take(torch.arange(len(train)))
    weights = torch.linalg.lstsq(
        torch.cat([x.flatten(1), 20 * torch.eye(784)]), torch.cat([torch.eye(10)[y], torch.zeros(784, 10)])
    ).solution
    x, y = test.take(torch.arange(len(test)))
    assert ((x.flatten(1) @ weights).argmax(1) == y).float().mean() > 0.85


def test_fonts_are_kept_apart_by_default(letters: Glyphs) -> None:
    train, test = letters.split(0.8)
    assert not set(train.font_ids.tolist()) & set(test.font_ids.tolist())
    assert sorted([*train.indices.tolist(), *test.indices.tolist()]) == list(range(2000))
    assert abs(len(test) - 400) <= 100
    assert torch.bincount(test.targets).min() == torch.bincount(test.targets).max()
    assert torch.equal(test.font_ids, letters.font_ids[test.indices])
    first, second = test.split(0.5)
    assert not set(first.font_ids.tolist()) & set(second.font_ids.tolist())
    assert torch.equal(second.font_ids, letters.font_ids[second.indices])
    mixed, rest = letters.split(0.8, group=None)
    assert (len(mixed), len(rest)) == (1600, 400)
    assert set(mixed.font_ids.tolist()) == set(rest.font_ids.tolist())
    assert not check_leaks(mixed.images, rest.images)


def test_identical_images_stay_together_even_without_fonts() -> None:
    same = Glyphs(200, jitter=0, fonts=[FONTS / "DejaVuSans.ttf", FONTS / "STIXGeneral.ttf", FONTS / "cmr10.ttf"])
    train, test = same.split(0.5, group=None)
    assert not check_leaks(train.images, test.images)


@pytest.mark.parametrize(
    "file",
    ["cmex10.ttf", "cmsy10.ttf", "STIXSizOneSymReg.ttf", "STIXNonUni.ttf", "LastResortHE-Regular.ttf"],
)
def test_symbol_fonts_and_fonts_without_letters_are_left_out(file: str) -> None:
    if not (FONTS / file).exists():
        pytest.skip(f"this matplotlib has no {file}")
    letters = [FONTS / name for name in ("DejaVuSans.ttf", "STIXGeneral.ttf", "cmr10.ttf")]
    assert len(Glyphs(10, fonts=letters).fonts) == 3
    assert Glyphs(10, fonts=[*letters, FONTS / file]).fonts == Glyphs(10, fonts=letters).fonts


def test_symbols_are_recognised_by_their_shapes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A font of arrows need not be called so."""
    monkeypatch.setattr(glyphs, "_SYMBOLS", glyphs.re.compile("no such name"))
    fonts = Glyphs(10, fonts=sorted(FONTS.glob("*.ttf"))).fonts
    assert "cmex10 Regular" not in fonts
    assert {"cmsy10 Regular", "DejaVu Sans Book", "STIXGeneral Italic"} <= set(fonts)


def test_fonts_that_look_the_same_count_once(tmp_path: Path) -> None:
    shutil.copy(FONTS / "DejaVuSans.ttf", tmp_path / "another name.ttf")
    both = Glyphs(10, fonts=[FONTS / "DejaVuSans.ttf", tmp_path / "another name.ttf"])
    assert both.fonts == ["DejaVu Sans Book"]
    if (italic := FONTS / "cmti10.ttf").is_file():  # not in every matplotlib
        assert len(Glyphs(10, fonts=[italic, FONTS / "cmmi10.ttf"]).fonts) == 1


def test_files_that_are_no_fonts_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "empty.ttf").touch()
    (tmp_path / "text.otf").write_text("no font")
    (tmp_path / "cut.ttf").write_bytes((FONTS / "DejaVuSans.ttf").read_bytes()[:5000])
    broken = sorted(tmp_path.iterdir())
    assert len(Glyphs(10, fonts=[*broken, FONTS / "cmr10.ttf"]).fonts) == 1
    with pytest.raises(ArgumentError, match="none of the files in fonts= is a font with the letters A to J"):
        Glyphs(10, fonts=broken)


def test_arguments_that_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"no font file .*missing.ttf"):
        Glyphs(10, fonts=[tmp_path / "missing.ttf"])
    with pytest.raises(ArgumentError, match="num_samples must be a whole number of at least 1, not 0"):
        Glyphs(0)
    with pytest.raises(ArgumentError, match="jitter must lie between 0 and 3, not -1"):
        Glyphs(10, jitter=-1)
    with pytest.raises(ArgumentError, match="1 groups cannot be cut into 2 parts"):
        Glyphs(100, fonts=[FONTS / "cmr10.ttf"]).split(0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="the folders of Linux")
def test_fonts_are_found_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what Python does where it is not installed
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))
    with pytest.raises(MissingExtraError, match=r"no font .*pip install 'matplotlib>="):
        Glyphs(10)
    for number, (folder, file) in enumerate(
        [("share/fonts/a/b", "cmr10.ttf"), (".local/share/fonts", "STIXGeneral.ttf"), (".fonts", "DejaVuSans.ttf")], 1
    ):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(FONTS / file, tmp_path / folder / file.replace(".ttf", ".TTF"))
        assert len(Glyphs(10).fonts) == number


def test_repr_tells_what_it_holds(letters: Glyphs) -> None:
    count = len(letters.fonts)
    assert repr(letters) == (f"Glyphs(2,000 grey images of 28x28, 10 classes A to J with 200 each, from {count} fonts)")
    assert "of 2,000 grey images of 28x28, 10 classes A to J with" in repr(letters.split(0.8)[1])


def test_it_looks_like_notmnist(letters: Glyphs, shared_data: Path) -> None:
    """A linear model of the rendered letters reads most of the real ones: same frame, same polarity, same classes."""
    from dlkit.datasets.letters import files as letter_files

    with tarfile.open(shared_data / "notmnist" / "notMNIST_small_lookalike.tar.gz") as tar:
        members = [member for number, member in enumerate(tar) if number % 20 == 0 and member.size]
        files = [(member.name.split("/")[1], tar.extractfile(member).read()) for member in members]
    real = torch.tensor([list(letter_files.grey_pixels(content)) for _, content in files]) / 255
    labels = torch.tensor([letters.class_to_idx[name] for name, _ in files])
    x, y = letters.take(torch.arange(len(letters)))
    weights = torch.linalg.lstsq(
        torch.cat([x.flatten(1), 20 * torch.eye(784)]), torch.cat([torch.eye(10)[y], torch.zeros(784, 10)])
    ).solution
    assert ((real @ weights).argmax(1) == labels).float().mean() > 0.6
