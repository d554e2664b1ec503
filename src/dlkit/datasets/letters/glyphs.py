"""`Glyphs`: the letters A to J, rendered from the fonts found on the machine, in notMNIST's format. No download."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFont

from dlkit import rng
from dlkit._arguments import whole_number
from dlkit._opening import regular
from dlkit._optional import install_line
from dlkit.datasets.letters.packed import PackedImages, Transform
from dlkit.datasets.letters.packfile import ImageStore
from dlkit.errors import ArgumentError, MissingExtraError
from dlkit.splits import Fractions
from dlkit.storage.strings import PackedStrings

__all__ = ["Glyphs"]

_CLASSES = "ABCDEFGHIJ"
_SIDE = 28
_OVERSAMPLED = 3  # a letter is drawn on 84x84 pixels and averaged down, as the frame of 28 would alias
_POINTS = 128  # the size in which a letter is rendered once; a capital is then about 90 pixels high
_MOST_FILES = 400  # of the machine's fonts, to stay within seconds where thousands are installed
_ALIKE = 0.06  # mean difference of two fonts' letters; Condensed and plain differ by 0.03, Mono and plain by 0.1
_RECOGNISED = 5  # letters of ten that must look most like the same letter of the other fonts
# By their names, as some (the script capitals of TeX's cmsy10) have letters beside their symbols.
_SYMBOLS = re.compile(r"sym|cmsy|cmex|dingbat|wingding|webding|emoji|icon|ornament|music|braille|barcode|last ?resort")
_ENDINGS = (".ttf", ".otf", ".ttc")

Pixels = npt.NDArray[np.uint8]


class Glyphs(PackedImages):
    """The letters A to J in the fonts found on the machine, as 28x28 grey pixels, each a little distorted.

    Looks like `NotMNIST` and has its classes and methods, needs no download, and takes about a second. The letters come
    from the fonts that matplotlib ships and from the system's own. Left out are fonts that lack the letters, symbol
    fonts (by their name, or because their "letters" look unlike those of all others), and fonts that look the same
    once a letter fills the frame (a condensed cut; the same file in two places). The images are a pure function of
    the seed and the fonts: on another machine with other fonts they are others. `Glyphs(n)` are the first images of
    any larger one.

    `split` keeps fonts apart by default, so that a part tests on fonts that training has not seen; of a family, the
    bold may be on one side and the italic on the other.

    Args:
        num_samples: How many images; the classes and the fonts take turns.
        seed: Another seed gives other distortions.
        transform: Called with each image as float32 [1, 28, 28]; returns a tensor. Batches are then made one by one.
        jitter: How strong the distortion is: 1 turns by up to 7 degrees, slants by up to 0.1 and moves each edge by
            up to one pixel, in 0 all images of a letter and font are the same.
        fonts: Font files to use instead of those found, such as `["a.ttf", "b.otf"]`.

    Attributes:
        targets: int64 [N], the labels.
        classes: `["A", ..., "J"]`.
        class_to_idx: `{"A": 0, ..., "J": 9}`.
        fonts: The names of the fonts in use.
        font_ids: int64 [N], the place in `fonts` of each image's font.

    Raises:
        MissingExtraError: No usable font was found; the plots extra brings matplotlib, which has some.
        DataNotFoundError: One of `fonts` does not exist.
        ArgumentError: An invalid argument.

    >>> letters = Glyphs(100)
    >>> image, label = letters[3]
    >>> image.shape, letters.classes[label]
    (torch.Size([1, 28, 28]), 'D')
    """

    def __init__(
        self,
        num_samples: int = 10_000,
        *,
        seed: int = 0,
        transform: Transform | None = None,
        jitter: float = 1.0,
        fonts: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        num_samples, seed = whole_number("num_samples", num_samples, least=1), whole_number("seed", seed)
        if not 0 <= jitter <= 3:
            raise ArgumentError(f"jitter must lie between 0 and 3, not {jitter}")
        faces = _usable_faces(_files_found() if fonts is None else _files_given(fonts), given=fonts is not None)
        samples = torch.arange(num_samples)
        images = torch.from_numpy(_draw(faces, num_samples, seed, jitter))
        super().__init__(
            ImageStore(images, samples % len(_CLASSES), PackedStrings.of([])), _CLASSES, transform=transform
        )
        self.fonts = [face.name for face in faces]
        self.font_ids = samples // len(_CLASSES) % len(faces)

    def split(
        self,
        fractions: Fractions = None,
        *,
        stratify: bool = True,
        group: Any = "font",
        dedupe: bool | None = None,
        seed: int = 0,
        transform: Sequence[Transform | None] | None = None,
    ) -> tuple[Self, ...]:
        """Cut the dataset into parts over the same memory; where each lies is in its `indices`.

        Args:
            fractions: The share of the first part, the second one getting the rest; or all shares, which sum to 1;
                None for 0.8, 0.1 and 0.1.
            stratify: Every part has each class in the same share.
            seed: Another seed gives another split.
            dedupe: Identical images never fall into different parts, whatever their labels. None is True for images.
            group: `"font"`: letters of one font never fall into different parts; the sizes are then as near to the
                shares as whole fonts permit. None: every font is in every part, which is much easier to learn.
            transform: One transform (or None) for each part; the dataset's own one where this is left out.

        Raises:
            ArgumentError: see `dlkit.splits.split_indices`.
        """
        parts = super().split(fractions, stratify=stratify, group=group, dedupe=dedupe, seed=seed, transform=transform)
        return tuple(part._with(font_ids=self._font_ids_of(part)) for part in parts)

    def _font_ids_of(self, part: Self) -> torch.Tensor:
        return part.indices // len(_CLASSES) % len(self.fonts)

    def _fonts(self) -> npt.NDArray[Any]:
        return self.font_ids.numpy()

    def __repr__(self) -> str:
        return f"Glyphs({self._described()}, from {len(np.unique(self._fonts()))} fonts)"


@dataclass(frozen=True, eq=False)
class _Face:
    """The ten letters of one font: as large masks, as the points of their outlines, and as plain 28x28 images."""

    name: str
    masks: list[Image.Image]
    outlines: list[npt.NDArray[np.float64]]
    plain: Pixels


def _files_given(fonts: Sequence[str | os.PathLike[str]]) -> list[Path]:
    paths = [Path(font).expanduser() for font in fonts]
    for path in paths:
        regular(path, noun="font file")
    return paths


def _files_found() -> list[Path]:
    """The font files of matplotlib, then those of the system, in a stable order."""
    found = (path for folder in _font_folders() for path in sorted(_walk(folder)))
    return list(dict.fromkeys(found))[:_MOST_FILES]


def _walk(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names if name.lower().endswith(_ENDINGS))


def _font_folders() -> list[Path]:
    home = Path.home()
    folders = []
    if (spec := importlib.util.find_spec("matplotlib")) is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf")
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
        return [*folders, Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts", local / "Microsoft/Windows/Fonts"]
    if sys.platform == "darwin":
        return [*folders, Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    shared = [Path(place) for place in (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")]
    own = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return [*folders, *(place / "fonts" for place in shared), own / "fonts", home / ".fonts"]


def _usable_faces(files: Iterable[Path], *, given: bool) -> list[_Face]:
    """The fonts that have the letters, one of each look, in the order of their names."""
    faces = [face for file in files if (face := _read(file)) is not None]
    faces = _recognised(faces)
    faces.sort(key=lambda face: (face.name, hashlib.sha256(face.plain.tobytes()).digest()))
    kept: list[_Face] = []
    for face in faces:
        if all(_difference(face, other) > _ALIKE for other in kept):
            kept.append(face)
    if not kept:
        raise (_none_given if given else _none_found)()
    return kept


def _none_found() -> MissingExtraError:
    looked = ", ".join(str(folder) for folder in _font_folders())
    return MissingExtraError(
        f"no font with the letters A to J was found in {looked}; matplotlib brings some ({install_line('plots')}), "
        "or name font files with fonts="
    )


def _none_given() -> ArgumentError:
    return ArgumentError("none of the files in fonts= is a font with the letters A to J")


def _read(file: Path) -> _Face | None:
    """The letters of a font file, or None where it cannot be read or lacks them."""
    try:
        font = ImageFont.truetype(str(file), _POINTS, layout_engine=ImageFont.Layout.BASIC)
        name = " ".join(part for part in font.getname() if part) or file.stem
        if _SYMBOLS.search(name.lower()):
            return None
        masks = [_mask(font, letter) for letter in _CLASSES]
        missing = _mask(font, "\uf8ff").tobytes()  # private: what the font shows for a character that it lacks
    except (OSError, ValueError):
        return None
    if any(mask.size == (0, 0) for mask in masks) or len({mask.tobytes() for mask in masks} - {missing}) < len(
        _CLASSES
    ):
        return None
    plain = np.stack([np.asarray(mask.resize((_SIDE, _SIDE), Image.Resampling.BOX)) for mask in masks])
    return _Face(name, masks, [_outline(mask) for mask in masks], plain)


def _mask(font: ImageFont.FreeTypeFont, letter: str) -> Image.Image:
    """The letter in white on black, cut to its ink; of size (0, 0) where there is none."""
    drawn = font.getmask(letter, mode="L")
    mask = Image.frombytes("L", drawn.size, bytes(drawn))
    return mask.crop(mask.getbbox() or (0, 0, 0, 0))


def _outline(mask: Image.Image) -> npt.NDArray[np.float64]:
    """The outermost points of each row of pixels [P, 2], in a frame from -1 to 1: what decides how wide a letter is."""
    ink = np.asarray(mask) > 0
    rows = np.flatnonzero(ink.any(1))
    height, width = ink.shape
    left, right = ink[rows].argmax(1), width - ink[rows, ::-1].argmax(1)
    x = np.concatenate([left, left, right, right]) * (2 / width) - 1
    y = np.concatenate([rows, rows + 1] * 2) * (2 / height) - 1
    return np.stack([x, y], axis=1)


def _recognised(faces: list[_Face]) -> list[_Face]:
    """Without the symbol fonts: fonts whose letters look most like the same letters of the typical font."""
    if not faces:
        return []
    letters = np.stack([face.plain for face in faces]).reshape(len(faces), len(_CLASSES), -1).astype(np.float32)
    letters -= letters.mean(2, keepdims=True)  # compare shapes: a bold letter is not nearer to everything bold
    letters /= np.linalg.norm(letters, axis=2, keepdims=True) + 1
    likeness = letters @ np.median(letters, axis=0).T  # [fonts, letters, typical letters]
    right = (likeness.argmax(2) == np.arange(len(_CLASSES))).sum(1)
    return [face for face, count in zip(faces, right.tolist(), strict=True) if count >= _RECOGNISED]


def _difference(one: _Face, other: _Face) -> float:
    return float(np.abs(one.plain.astype(np.float32) - other.plain).mean()) / 255


def _draw(faces: Sequence[_Face], num_samples: int, seed: int, jitter: float) -> Pixels:
    """The images [N, 28, 28]: each letter turned and slanted within its frame, then stretched to fill it again."""
    draws = np.random.default_rng(rng.derive(seed, 0)).random((num_samples, 6)) * 2 - 1
    images = np.empty((num_samples, _SIDE, _SIDE), np.uint8)
    for index, draw in enumerate(draws * jitter):
        face = faces[index // len(_CLASSES) % len(faces)]
        letter = index % len(_CLASSES)
        images[index] = _distorted(face.masks[letter], face.outlines[letter], draw)
    return images


def _distorted(mask: Image.Image, outline: npt.NDArray[np.float64], draw: npt.NDArray[np.float64]) -> Pixels:
    angle, slant = draw[0] * np.deg2rad(7), draw[1] * 0.1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, slant], [0, 1]])
    points = outline @ matrix.T
    low, high = points.min(0), points.max(0)
    edges = draw[2:] / _SIDE * np.repeat(high - low, 2)  # left, right, top, bottom
    low, high = low + edges[[0, 2]], high + edges[[1, 3]]
    # From a pixel of the drawing to its place in the mask: what `Image.transform` wants.
    size = _SIDE * _OVERSAMPLED
    inverse = np.linalg.inv(matrix)
    half = np.array(mask.size) / 2
    scale = half[:, None] * inverse * ((high - low) / size)
    shift = half * (inverse @ low + 1)
    data = (*scale[0], shift[0], *scale[1], shift[1])
    drawn = mask.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.asarray(drawn.reduce(_OVERSAMPLED))
