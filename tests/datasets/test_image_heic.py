"""HEIC, as telephones take photos, through the extra `heic`; and decoders of the user's own in image datasets."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dlkit import transforms
from dlkit.datasets import Decoder, ImageFiles, ImageFolder, decode_image, inspect
from dlkit.datasets.images.decoding import open_image
from dlkit.errors import ArgumentError, DataError, MissingExtraError
from dlkit.loader import DataLoader

pillow_heif = pytest.importorskip("pillow_heif")


def quarters(path: Path, orientation: int) -> Path:
    """64 x 32 pixels whose quarters are red, green, blue and white as they lie in the file."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32], pixels[:16, 32:], pixels[16:, :32], pixels[16:, 32:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if path.suffix == ".png":
        image.save(path, exif=exif)
    else:
        pillow_heif.from_pillow(image).save(path, quality=90, exif=exif.tobytes())
    return path


def test_turned_upright_as_every_other_format(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        path = quarters(tmp_path / f"{orientation}.heic", orientation)  # the encoder turns it into HEIC's own rotation
        expected = decode_image(quarters(tmp_path / f"{orientation}.png", orientation))
        opened = open_image(path)
        assert (opened.height, opened.width) == expected.shape[:2]
        assert np.abs(opened.pixels().astype(int) - expected)[4:-4:4, 4:-4:4].mean() < 12
        assert decode_image(path, color="L").shape == (*expected.shape[:2], 1)


def test_in_a_folder_beside_others(tmp_path: Path) -> None:
    quarters(tmp_path / "a" / "1.heic", 6)
    quarters(tmp_path / "a" / "2.HEIF", 1)
    quarters(tmp_path / "b" / "3.png", 6)
    quarters(tmp_path / "b" / "4.hif", 1)
    ds = ImageFolder(tmp_path, transform=transforms.for_training(16))
    assert (len(ds), ds.verify()) == (4, [])
    for workers in (1, 0):
        batches = list(DataLoader(ds, 2, shuffle=True, seed=1, num_workers=workers))
    assert all(x.isfinite().all() for x, _ in batches)
    kept = ImageFolder(tmp_path, size=16, cache="memory")
    assert torch.equal(kept[0][0], kept[0][0])
    assert "RGB HEIF" in inspect(tmp_path, progress=False).modes
    data = (tmp_path / "a" / "1.heic").read_bytes()
    (tmp_path / "a" / "1.heic").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"1\.heic: cannot be decoded"):
        decode_image(tmp_path / "a" / "1.heic")


def test_a_heic_under_another_name_is_decoded(tmp_path: Path) -> None:
    path = quarters(tmp_path / "1.heic", 1).rename(tmp_path / "1.jpg")
    assert decode_image(path).shape == (32, 64, 3)


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = quarters(tmp_path / "a" / "1.heic", 1)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingExtraError, match=r"HEIC images: .*pip install 'pillow-heif>="):
        ImageFolder(tmp_path, size=16, on_error="skip")  # before anything is trained
    with pytest.raises(MissingExtraError, match=r"1\.heic: .*pip install 'pillow-heif>="):
        decode_image(path)
    path.rename(path.with_suffix(".jpg"))
    with pytest.raises(MissingExtraError, match=r"1\.jpg: .*pip install 'pillow-heif>="):
        ImageFolder(tmp_path, size=16, on_error="skip")[0]


# A decoder of one's own


def read_raw(data: bytes) -> Any:
    """Four bytes with the sides, then grey pixels of 16 bits."""
    height, width = np.frombuffer(data[:4], "<u2")
    return np.frombuffer(data[4:], "<u2").reshape(height, width)


def read_boxed(data: bytes) -> Any:
    return Image.open(io.BytesIO(data[3:]))


RAW = Decoder(suffixes=[".raw"], decode=read_raw)


def raw(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 1 << 16, (24 + number, 40), dtype=np.uint16)
    path.write_bytes(np.array(pixels.shape, "<u2").tobytes() + pixels.astype("<u2").tobytes())
    return path


def test_files_of_another_kind_among_images(tmp_path: Path) -> None:
    for number in range(6):
        raw(tmp_path / "data" / "ab"[number % 2] / f"{number}.raw", number)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "data" / "a" / "9.png")
    ds = ImageFolder(tmp_path / "data", transform=transforms.for_training(16), decoder=RAW)
    assert len(ds) == 7
    expected = list(DataLoader(ds, 3, shuffle=True, seed=1))
    for workers in (1, 2):
        for (x, _), (y, _) in zip(DataLoader(ds, 3, shuffle=True, seed=1, num_workers=workers), expected, strict=True):
            assert torch.equal(x, y)
    plain = ImageFiles(tmp_path / "data", decoder=RAW)
    pixels = read_raw((tmp_path / "data" / "a" / "0.raw").read_bytes())
    assert torch.equal(plain[0][0], torch.from_numpy(np.rint(pixels / 257).astype(np.uint8)))
    assert plain.shapes()[0] == (24, 40, 3)
    kept = ImageFolder(tmp_path / "data", size=16, decoder=RAW, cache=tmp_path / "cache")
    first = torch.stack([kept[i][0] for i in range(7)])
    again = ImageFolder(tmp_path / "data", size=16, decoder=RAW, cache=tmp_path / "cache")
    assert torch.equal(torch.stack([again[i][0] for i in range(7)]), first)
    assert inspect(again, progress=False).sizes.shape == (7, 2)


def test_a_decoder_may_take_over_a_known_ending_and_give_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "1.png")
    (tmp_path / "1.png").write_bytes(b"box" + (tmp_path / "1.png").read_bytes())
    ds = ImageFiles(tmp_path, decoder=Decoder(suffixes=["png"], decode=read_boxed))
    assert ds[0].shape == (3, 30, 40)
    assert ds[0][:, 5, 5].tolist() == [255, 0, 0]


def test_what_is_said_of_a_decoder_that_gives_no_image(tmp_path: Path) -> None:
    raw(tmp_path / "1.raw", 1)
    wrong = Decoder(suffixes=[".raw"], decode=lambda data: np.zeros((3, 4, 5), np.float64))
    with pytest.raises(DataError, match=r"1\.raw: decode= must give a PIL image, uint8 .*not float64 \[3, 4, 5\]"):
        ImageFiles(tmp_path, decoder=wrong)[0]
    (tmp_path / "1.raw").write_bytes(b"xx")
    with pytest.raises(DataError, match=r"1\.raw: cannot be decoded: ValueError"):
        ImageFiles(tmp_path, decoder=RAW)[0]
    with pytest.raises(ArgumentError, match="decoder must be a Decoder"):
        ImageFiles(tmp_path, decoder=read_raw)  # type: ignore[arg-type]
