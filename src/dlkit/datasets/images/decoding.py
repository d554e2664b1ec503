"""Image files to upright uint8 pixels: one rule for every format, whichever decoder does the work.

`open_image` reads only the header and says what there is; `.pixels(reduce)` decodes. JPEGs can be decoded at 1/2, 1/4
or 1/8 of their size, which skips most of the work, by Pillow (`draft`, always there) or by simplejpeg (the extra
`images`, faster and outside the interpreter's lock). Both run the same arithmetic of libjpeg-turbo: their pixels are
equal bit for bit, so which of them is installed changes no number.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from dlkit._filekinds import HEAD, kind_of
from dlkit._optional import require
from dlkit.datasets.files.decoder import Decoder, read_with_status
from dlkit.errors import ArgumentError, DataError, MissingExtraError
from dlkit.storage.strings import PackedStrings

__all__ = ["EXTENSIONS", "IMAGES", "MAX_PIXELS", "OpenImage", "check_formats", "decode_image", "open_image", "picture"]

Pixels = npt.NDArray[np.uint8]
Color = Literal["RGB", "L"]

#: Larger images are refused before a pixel is decoded: 13,377 x 13,377, where Pillow's own limit lies, too.
MAX_PIXELS = 178_956_970

# What Pillow may try on a file. Not here: formats that start other programs (EPS), that hold no photographs, and
# little-tested ones in which fuzzers still find endless loops (BLP, DDS, FLI, PSD, SGI).
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "AVIF", "PPM", "TGA", "ICO", "JPEG2000")
#: What a scan takes for an image, by its name.
EXTENSIONS = frozenset(
    f".{name}"
    for names in (
        "jpg jpeg jpe jfif mpo png apng gif webp tif tiff",
        "bmp dib avif heic heif hif pbm pgm ppm pnm tga ico jp2 j2k jpx",
    )
    for name in names.split()
)
_HEIF = (".heic", ".heif", ".hif")
# What `pillow-heif` reads, by the brands in the file's first box.
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}

_ORIENTATION = 0x0112
# EXIF orientation to (transposed, flipped up-down, flipped left-right), applied in this order.
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def decode_image(
    source: str | os.PathLike[str] | bytes, *, color: Color = "RGB", max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Decode an image file: upright (EXIF), in uint8 [H, W, C], the reference that every faster path is tested against.

    - CMYK, YCbCr, LAB, palette and black-and-white images become RGB (or grey); an embedded colour profile is ignored,
      as everywhere in the field.
    - Transparent pixels are laid over white.
    - 16-bit images are divided by 257, 32-bit integers with it where their values fit 16 bits. Floats in [0, 1] are
      multiplied by 255, in [0, 255] kept, in [0, 65535] divided by 257. Values beyond are stretched from their smallest
      to their largest: scaled, never clamped. NaN counts as 0.
    - Of animations and documents of several pages, the first one.

    Args:
        source: A path, or the content of a file.
        color: "RGB" (C = 3) or "L" (grey, C = 1: ITU-R 601-2 luma).
        max_pixels: An image that has more is refused before it is decoded.

    Raises:
        DataError: the file cannot be decoded; the message names it and says why.
        DataNotFoundError: there is no such file.

    >>> file = io.BytesIO(); Image.new("LA", (3, 2), (0, 0)).save(file, "PNG")
    >>> decode_image(file.getvalue()).shape, int(decode_image(file.getvalue()).min())
    ((2, 3, 3), 255)
    """
    return open_image(source, max_pixels=max_pixels).pixels(color=color)


def open_image(
    source: str | os.PathLike[str] | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> OpenImage:
    """Read an image's header: format, upright height and width. Nothing is decoded yet.

    Args:
        source: A path, or the content of a file.
        name: What errors call it; the path by default.
        max_pixels: An image that has more is refused.

    Raises:
        DataError: it is not an image of an accepted format, or too large.
        DataNotFoundError: there is no such file.
        MissingExtraError: a HEIC file, and `pillow-heif` is not installed.
    """
    data = source if isinstance(source, bytes) else read_with_status(source)[0]
    name = name or ("image" if isinstance(source, bytes) else _shown(source))
    return OpenImage(data, name, max_pixels)


class OpenImage:
    """An image whose header has been read; made by `open_image`.

    Args:
        data: The file's content.
        name: What errors call it.
        max_pixels: An image that has more is refused.

    Attributes:
        name: What errors call it.
        format: Pillow's name of the format, such as "JPEG".
        mode: Pillow's name of the pixel type in the file, such as "CMYK".
        height: Upright, in pixels.
        width: Upright, in pixels.
        orientation: The EXIF orientation 1 to 8; 1 is upright.
    """

    __slots__ = ("_data", "_image", "format", "height", "mode", "name", "orientation", "width")

    def __init__(self, data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> None:
        self.name, self._data = name, data
        if not data:
            raise DataError(f"{name}: the file is empty (0 bytes)")
        self._read_header(self._guarded(lambda: _opened(data, name)), max_pixels)

    @classmethod
    def of_picture(cls, picture: Image.Image, name: str, max_pixels: int = MAX_PIXELS) -> OpenImage:
        """A picture of PIL as if it came from a file: turned upright, over white, in 8 bits.

        Args:
            picture: Of PIL.
            name: What errors call it.
            max_pixels: A picture that has more is refused.
        """
        image = cls.__new__(cls)
        image.name, image._data = name, b""
        image._read_header(picture, max_pixels)
        return image

    def _read_header(self, image: Any, max_pixels: int) -> None:
        name, self._image = self.name, image
        self.format, self.mode = str(self._image.format), str(self._image.mode)
        width, height = self._image.size
        if width * height > max_pixels:
            raise DataError(
                f"{name}: {width:,} x {height:,} pixels are more than the {max_pixels:,} accepted: "
                "a decompression bomb, or a scan that must be downsized first"
            )
        self.orientation = self._guarded(self._read_orientation)
        # A TIFF's pixels are turned by Pillow, whose header already gives the sides as they will be.
        turned = self.format != "TIFF" and self.orientation in _TURNS and _TURNS[self.orientation][0]
        self.height, self.width = (width, height) if turned else (height, width)

    def _read_orientation(self) -> int:
        info = self._image.info
        if self.format in ("JPEG", "MPO") and "exif" not in info and "xmp" not in info:
            return 1  # saves most photographs of the web the parsing
        value = self._image.getexif().get(_ORIENTATION, 1)
        return int(value) if value in _TURNS else 1

    @property
    def reducible(self) -> bool:
        """Whether it can be decoded at 1/2, 1/4 and 1/8 for less work."""
        return bool(self._data) and self.format in ("JPEG", "MPO") and self.mode in ("RGB", "L")

    def pixels(self, reduce: int = 1, *, color: Color = "RGB") -> Pixels:
        """Decode it, once: uint8 [ceil(height / reduce), ceil(width / reduce), C], upright, contiguous and writable.

        Args:
            reduce: 1, 2, 4 or 8; for an image that is not `reducible`, only 1.
            color: "RGB" (C = 3) or "L" (C = 1).
        """
        if color not in ("RGB", "L"):
            raise ArgumentError(f"color must be 'RGB' or 'L', not {color!r}")
        if reduce not in (1, 2, 4, 8) or (reduce > 1 and not self.reducible):
            raise ArgumentError(f"reduce must be 1, or for a JPEG in colour or grey 2, 4 or 8, not {reduce!r}")
        array = self._fast_jpeg(reduce, color) if self.reducible else None
        if array is None:
            array = self._guarded(lambda: self._by_pillow(reduce, color))
        turn = 1 if self.format == "TIFF" else self.orientation
        return np.ascontiguousarray(turned_upright(array, turn))

    def _fast_jpeg(self, reduce: int, color: Color) -> Pixels | None:
        """By simplejpeg, where it is installed and finds nothing odd in the file; else Pillow decides."""
        decode = _simplejpeg()
        if decode is None or (color == "L" and self.mode == "RGB"):
            return None
        width, height = (-(-side // reduce) for side in self._image.size)
        try:
            array: Pixels = decode(
                self._data, "RGB" if color == "RGB" else "GRAY", min_height=height, min_width=width, strict=True
            )
        except ValueError:
            return None
        return array if array.shape[:2] == (height, width) else None

    def _by_pillow(self, reduce: int, color: Color) -> Pixels:
        image = self._image
        if reduce > 1:
            image.draft(image.mode, (max(1, image.size[0] // reduce), max(1, image.size[1] // reduce)))
        image.load()
        if image.mode in ("F", "I") or image.mode.startswith("I;"):
            image = Image.fromarray(_to_8_bit(np.asarray(image), image.mode))
        image = _over_white(image)
        array = np.array(image if image.mode == color else image.convert(color))
        return array[:, :, None] if array.ndim == 2 else array

    def _guarded(self, work: Callable[[], Any]) -> Any:
        """Run code of the decoder; whatever it raises on a broken file becomes a DataError that names the file."""
        try:
            return work()
        except (DataError, ArgumentError, MissingExtraError, MemoryError):
            raise
        except UnidentifiedImageError as error:
            told = kind_of(self._data[:HEAD])
            raise DataError(
                f"{self.name}: is not an image in a format dlkit reads ({', '.join(_formats())})"
                + (f", but {told.name}" + (f"; {told.advice}" if told.advice else "") if told else "")
            ) from error
        except Exception as error:  # Pillow's plug-ins raise whatever a broken file leads to, KeyError and all
            raise DataError(f"{self.name}: cannot be decoded: {type(error).__name__}: {error}") from error


def turned_upright(array: Pixels, orientation: int) -> Pixels:
    """A view of [H, W, C] pixels as the EXIF orientation wants them seen.

    Args:
        array: As they are in the file.
        orientation: 1 to 8.

    >>> turned_upright(np.arange(6, dtype=np.uint8).reshape(2, 3, 1), 6)[:, :, 0].tolist()
    [[3, 0], [4, 1], [5, 2]]
    """
    if orientation not in _TURNS:
        return array
    transposed, up_down, left_right = _TURNS[orientation]
    if transposed:
        array = array.transpose(1, 0, 2)
    return array[:: -1 if up_down else 1, :: -1 if left_right else 1]


def _over_white(image: Any) -> Any:
    """Without transparency: the image laid over white where it has some."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")  # premultiplied (RGBa) and palette images as well
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _to_8_bit(values: npt.NDArray[Any], mode: str) -> Pixels:
    """Integers of 16 or 32 bits and floats as uint8, scaled as `decode_image` says."""
    if mode.startswith("I;16") or (mode == "I;12"):
        return np.rint(values.astype(np.float32) / 257).astype(np.uint8)
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=min(max(0.0, low), high), posinf=high, neginf=low)
    if mode == "F" and low >= 0 and high <= 1:
        values = values * 255
    elif low >= 0 and high <= 65535:
        values = values if mode == "F" and high <= 255 else values / 257
    else:
        values = (values - low) * (255 / ((high - low) or 1.0))
    return np.rint(values).astype(np.uint8)


#: What images are to datasets of files: `ImageSettings` opens them itself where it need not decode all of one.
IMAGES = Decoder(
    suffixes=EXTENSIONS,
    decode=decode_image,
    noun="image",
    rule="2",
    advice="for images without labels use ImageFiles(folder), for labels in a table ImageTable(csv, root=folder)",
)


def picture(value: Any, name: str) -> Image.Image:
    """What a decoder of the user's own gives, as a picture.

    Args:
        value: A picture of PIL, or an array: uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; uint16, int32 or float32
            [H, W], which become 8 bits as `decode_image` says.
        name: What errors call the file.

    Raises:
        DataError: something else.
    """
    if isinstance(value, Image.Image):
        return value
    array = np.asarray(value)
    array = array[:, :, 0] if array.shape[2:] == (1,) else array
    colored = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in (3, 4)
    if not array.size or not (
        colored or (array.ndim == 2 and array.dtype in (np.uint8, np.uint16, np.int32, np.float32))
    ):
        raise DataError(
            f"{name}: decode= must give a PIL image, uint8 [H, W] or [H, W, 3], or uint16, int32 or float32 "
            f"[H, W]; not {array.dtype} {list(array.shape)}"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def check_formats(names: PackedStrings) -> None:
    """Say at once, and not in the middle of a training, that images need a package that is not installed.

    Args:
        names: Of all files.

    Raises:
        MissingExtraError: there are HEIC images, and `pillow-heif` is not installed.
    """
    if importlib.util.find_spec("pillow_heif") is not None:
        return
    together = names.arrays()[0].tobytes().lower()
    if any(suffix.encode() in together for suffix in _HEIF):
        _heif("HEIC images")


def _opened(data: bytes, name: str) -> Any:
    """The picture of Pillow, its header read."""
    brands = {data[at : at + 4] for at in range(8, min(int.from_bytes(data[:4], "big"), 256), 4)}
    if data[4:8] == b"ftyp" and brands & _HEIF_BRANDS:
        return _heif(name).HeifImageFile(io.BytesIO(data))  # upright already: rotation is part of the format
    return Image.open(io.BytesIO(data), formats=_formats())


def _heif(what: str) -> Any:
    try:
        return require("pillow_heif", extra="heic")
    except MissingExtraError as error:
        raise MissingExtraError(f"{what}: {error}") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def _simplejpeg() -> Callable[..., Any] | None:
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    return decode_jpeg  # type: ignore[no-any-return]


def _shown(path: str | os.PathLike[str]) -> str:
    return str(Path(path))
