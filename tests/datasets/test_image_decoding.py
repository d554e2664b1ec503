"""Decoding: upright, in 8 bits, over white; broken files by name; both JPEG decoders give equal pixels."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import warm
from dlkit.datasets.files import decoder as files
from dlkit.datasets.images import decoding
from dlkit.datasets.images.decoding import decode_image, open_image, turned_upright
from dlkit.errors import ArgumentError, DataError, DataNotFoundError

# Decodes every file of a folder and says what came out, in a process that may use 3 GB more and one minute.
SCRIPT = """
import json, psutil, resource, sys, warnings
from pathlib import Path
limit = psutil.Process().memory_info().vms + (3 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
warnings.simplefilter("ignore")
from dlkit.datasets.images.decoding import open_image
from dlkit.errors import DataError
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        image = open_image(path)
        pixels = image.pixels()
        assert pixels.flags.c_contiguous and pixels.flags.writeable and pixels.dtype == "uint8"
        result = {"shape": pixels.shape, "header": [image.height, image.width], "orientation": image.orientation}
    except DataError as error:
        result = {"error": str(error)}
    print(json.dumps({"file": path.name, **result}))
"""


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(height: int = 61, width: int = 83) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(x / (7 + c) + c) * np.cos(y / (9 - c)) for c in range(3)]
    return Image.fromarray(np.stack(waves, 2).astype(np.uint8))


def test_every_nasty_file_decodes_as_the_manifest_says_or_is_refused_with_its_name(shared_data: Path) -> None:
    folder = shared_data / "nasty" / "images"
    run = warm.run(["-c", SCRIPT, folder])
    assert run.returncode == 0, run.stderr
    found = {(line := json.loads(text))["file"]: line for text in run.stdout.splitlines()}
    with open(shared_data / "nasty" / "images_manifest.csv", encoding="utf-8") as file:
        manifest = {row["file"]: row for row in csv.DictReader(file)}
    assert set(found) == set(manifest)
    for name, row in manifest.items():
        if row["pillow13_result"] == "ok":
            width, height = int(row["width"]), int(row["height"])
            turned = row["exif_orientation"] in ("5", "6", "7", "8") and row["format"] != "TIFF"
            assert found[name].get("shape") == ([width, height, 3] if turned else [height, width, 3]), found[name]
            assert found[name]["header"] == found[name]["shape"][:2]
        else:
            assert name in found[name].get("error", ""), (row["pillow13_result"], found[name])


def test_bombs_are_refused_before_a_pixel_is_decoded(shared_data: Path) -> None:
    for name in ("decompression_bomb.gif", "bmp__b__badwidth.bmp"):
        with pytest.raises(DataError, match=f"{name}.*[Bb]omb"):
            decode_image(shared_data / "nasty" / "images" / name)
    with pytest.raises(DataError, match=r"80 x 50 pixels are more than the 3,999 accepted"):
        decode_image(encoded(photo(50, 80)), max_pixels=3999)


def test_photos_in_every_orientation_come_out_upright(shared_data: Path) -> None:
    reference = decode_image(shared_data / "nasty" / "exif" / "Portrait_1.jpg")
    assert reference.shape == (1800, 1200, 3)
    small = reference[::8, ::8].astype(int)
    for number in range(2, 9):
        path = shared_data / "nasty" / "exif" / f"Portrait_{number}.jpg"
        pixels = decode_image(path)
        assert pixels.shape == (1800, 1200, 3)
        # Its author printed the number on each photo and compressed it anew, so only nearly all is the same.
        assert np.abs(pixels[::8, ::8].astype(int) - small).mean() < 6
        image = open_image(path)
        assert (image.height, image.width, image.orientation) == (1800, 1200, number)
        assert image.pixels(4).shape == (450, 300, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_that_of_pillow(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    image = open_image(data)
    assert np.array_equal(image.pixels(), expected)
    assert (image.height, image.width) == expected.shape[:2]


def test_turning_is_a_view() -> None:
    array = np.zeros((2, 3, 3), np.uint8)
    assert all(np.shares_memory(turned_upright(array, number), array) for number in range(10))


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (4, 3), (0, 0, 0, 0))
    half = Image.new("LA", (4, 3), (0, 128))
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert (decode_image(encoded(clear)) == 255).all()
    assert (decode_image(encoded(half)) == 127).all()
    assert (decode_image(encoded(palette, transparency=1)) == 255).all()
    assert (decode_image(encoded(palette)) == [40, 50, 60]).all()
    grey = decode_image(encoded(half), color="L")
    assert grey.shape == (3, 4, 1)
    assert (grey == 127).all()


def test_16_bits_and_floats_are_scaled_not_clamped() -> None:
    ramp = np.linspace(0, 65535, 256).round().reshape(16, 16)
    wanted = np.arange(256).reshape(16, 16)

    def grey(values: Any, kind: str = "TIFF") -> Any:
        return decode_image(encoded(Image.fromarray(values), kind), color="L")[:, :, 0]

    assert np.array_equal(grey(ramp.astype(np.uint16), "PNG"), wanted)
    assert np.array_equal(grey(ramp.astype(np.uint16)), wanted)
    assert np.array_equal(grey(ramp.astype(np.int32)), wanted)
    assert np.array_equal(grey((ramp / 65535).astype(np.float32)), wanted)
    assert np.array_equal(grey((ramp / 257).astype(np.float32)), wanted)
    assert np.array_equal(grey(ramp.astype(np.float32)), wanted)
    assert np.array_equal(grey((ramp - 40_000).astype(np.float32)), wanted)
    assert np.array_equal(grey((ramp * 1000 - 1e6).astype(np.float32)), wanted)


def test_floats_that_are_no_numbers() -> None:
    values = np.array([[np.nan, 0.0, 1.0, np.inf, -np.inf]], np.float32)
    assert decode_image(encoded(Image.fromarray(values), "TIFF"), color="L")[0, :, 0].tolist() == [0, 0, 255, 255, 0]
    nothing = np.full((2, 2), np.nan, np.float32)
    assert (decode_image(encoded(Image.fromarray(nothing), "TIFF")) == 0).all()
    flat = np.full((2, 2), -7.0, np.float32)
    assert (decode_image(encoded(Image.fromarray(flat), "TIFF")) == 0).all()


def test_cmyk_lab_and_black_and_white() -> None:
    assert np.abs(decode_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")) - [255, 0, 0]).max() <= 2
    assert (decode_image(encoded(Image.new("1", (5, 5), 1))) == 255).all()
    white = decode_image(encoded(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF"))
    assert (white > 250).all()


def test_the_first_frame_of_an_animation() -> None:
    red, blue = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (6, 4), "blue")
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        pixels = decode_image(encoded(red, kind, save_all=True, append_images=[blue], **options))
        assert (pixels == [255, 0, 0]).all(), kind


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP"])
def test_formats(kind: str) -> None:
    data = encoded(photo(), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode_image(data), expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_both_jpeg_decoders_give_equal_pixels(mode: str, subsampling: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    for size in ((61, 83), (64, 64), (8, 9), (17, 3), (1, 1)):
        data = encoded(photo(*size).convert(mode), "JPEG", quality=80, subsampling=subsampling)
        for reduce in (1, 2, 4, 8):
            for color in ("RGB", "L"):
                if min(size) < reduce:
                    continue
                monkeypatch.undo()
                fast = open_image(data).pixels(reduce, color=color)  # type: ignore[arg-type]
                monkeypatch.setattr(decoding, "_simplejpeg", lambda: None)
                assert np.array_equal(open_image(data).pixels(reduce, color=color), fast)  # type: ignore[arg-type]
                assert fast.shape[:2] == tuple(-(-side // reduce) for side in size)


def test_both_jpeg_decoders_give_equal_pixels_on_photographs(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("simplejpeg")
    files = sorted((shared_data / "images" / "hymenoptera" / "val" / "ants").glob("*.jpg"))[:12]
    fast = [open_image(file).pixels(reduce) for file in files for reduce in (1, 2, 4, 8)]
    monkeypatch.setattr(decoding, "_simplejpeg", lambda: None)
    slow = [open_image(file).pixels(reduce) for file in files for reduce in (1, 2, 4, 8)]
    assert all(np.array_equal(first, second) for first, second in zip(fast, slow, strict=True))


def test_a_truncated_jpeg_is_an_error_with_both_decoders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(encoded(photo(300, 400), "JPEG")[:-4000])
    for decoder in (decoding._simplejpeg(), None):
        monkeypatch.setattr(decoding, "_simplejpeg", lambda found=decoder: found)
        with pytest.raises(DataError, match=r"cut\.jpg: cannot be decoded: OSError: image file is truncated"):
            decode_image(tmp_path / "cut.jpg")


def test_errors_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataNotFoundError, match=r"there is no file .*gone\.png"):
        decode_image(tmp_path / "gone.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"empty\.png: the file is empty"):
        decode_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match=r"text\.png: is not an image in a format dlkit reads"):
        decode_image(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"is a folder, not a file"):
        decode_image(tmp_path)
    monkeypatch.setattr(files, "MAX_BYTES", 4)
    with pytest.raises(DataError, match=r"text\.png: 5 bytes are more than the 4"):
        decode_image(tmp_path / "text.png")


def test_a_postscript_file_is_not_handed_to_ghostscript(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="is not an image"):
        decode_image(tmp_path / "page.jpg")


def test_arguments() -> None:
    png = open_image(encoded(photo()))
    with pytest.raises(ArgumentError, match="reduce"):
        png.pixels(2)
    with pytest.raises(ArgumentError, match="color"):
        png.pixels(color="BGR")  # type: ignore[arg-type]
