"""Read notMNIST's PNG files from a folder or an archive; nothing about them is believed before it is checked."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from dlkit._opening import open_regular
from dlkit.datasets.letters.packfile import ImageStore
from dlkit.errors import DataError
from dlkit.storage.strings import PackedStrings

__all__ = ["CLASSES", "changed", "decode", "files_of_archive", "files_of_folder", "grey_pixels", "remembered"]

CLASSES = "ABCDEFGHIJ"
_SIDE = 28
_MOST_BYTES = 1 << 16  # no 28x28 PNG needs more; the real ones have under 1 kB


def files_of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The name `A/<name>.png` and the bytes of each image in a `folder` with a folder per letter."""
    for letter in CLASSES:
        if (folder / letter).is_dir():
            for entry in os.scandir(folder / letter):
                name = f"{letter}/{entry.name}"
                if _is_image(name):
                    yield name, _start_of(entry.path)


def _start_of(path: str) -> bytes:
    """As much of a file as `grey_pixels` looks at; nothing where it is not a file, or cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(_MOST_BYTES + 1)
    except (OSError, DataError):
        return b""


def files_of_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The same from an archive, without writing a file.

    Args:
        archive: A tar or zip file, whose last folder names are A to J.

    Raises:
        ArchiveError: It is broken.
    """
    from dlkit.download.members import members

    for member in members(archive):
        name = "/".join(PurePosixPath(member.name).parts[-2:])
        if member.kind == "file" and _is_image(name):
            content = b""
            for chunk in member.chunks:
                content += chunk
                if len(content) > _MOST_BYTES:
                    break
            yield name, content


def _is_image(name: str) -> bool:
    """`A/<name>.png`; names that start with a dot are what macOS leaves beside the files."""
    return re.fullmatch(r"[A-J]/[^./][^/]*\.png", name) is not None


def decode(files: Iterator[tuple[str, bytes]], source: Path) -> tuple[ImageStore, list[tuple[str, str]]]:
    """All readable images in the order of their names, and the name and reason of each that is not.

    Args:
        files: Name and bytes of each, in any order.
        source: Named in the error.

    Raises:
        DataError: A class has no readable image.
    """
    pixels: dict[str, bytes] = {}
    skipped: dict[str, str] = {}
    for name, content in files:
        try:
            pixels[name] = grey_pixels(content)
        except DataError as error:
            skipped[name] = str(error)
    names = sorted(pixels)
    labels = [CLASSES.index(name[0]) for name in names]
    if absent := sorted(set(CLASSES) - {name[0] for name in names}):
        found = f"{len(names)} readable and {len(skipped)} unreadable images in all"
        raise DataError(f"{source} has no readable image of {', '.join(absent)} ({found})")
    images = np.frombuffer(bytearray().join(pixels[name] for name in names), dtype=np.uint8)
    store = ImageStore(
        torch.from_numpy(images).view(-1, _SIDE, _SIDE),
        torch.tensor(labels, dtype=torch.int64),
        PackedStrings.of(names),
    )
    return store, sorted(skipped.items())


def grey_pixels(content: bytes) -> bytes:
    """The 784 bytes of a PNG. The header is checked first, so that no decoder ever sees a large image.

    Args:
        content: The bytes of the file.

    Raises:
        DataError: It is not a 28x28 PNG in 8-bit grey; the message is the reason only.
    """
    if len(content) > _MOST_BYTES:
        raise DataError(f"is larger than {_MOST_BYTES} bytes")
    if not content:
        raise DataError("is empty (0 bytes)")
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR" or len(content) < 33:
        raise DataError("is not a PNG file")
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    if (width, height) != (_SIDE, _SIDE):
        raise DataError(f"is {width}x{height} pixels large, not {_SIDE}x{_SIDE}")
    if content[24:26] != b"\x08\x00":
        raise DataError(f"has colour type {content[25]} with {content[24]} bits, not 8-bit grey")
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            return image.tobytes()
    except Exception as error:
        raise DataError(f"is a broken PNG ({error or type(error).__name__})") from error


def remembered(root: Path, source: Path, skipped: list[str]) -> dict[str, Any]:
    """What tells later whether the source is still the same: its times and, for files, their sizes.

    Args:
        root: The paths are noted relative to it.
        source: The folder with A to J, or the archive.
        skipped: The names of unreadable images, which may be repaired in place.
    """
    watched = [source / part for part in (*CLASSES, *skipped)] if source.is_dir() else [source]
    return {os.path.relpath(path, root): found for path in watched if (found := _stamp(path)) is not None}


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_mtime_ns, 0 if stat.S_ISDIR(status.st_mode) else status.st_size]


def changed(root: Path, source: dict[str, list[int]]) -> bool:
    """Whether what was packed is still there and another; a source that is gone leaves the pack as it was.

    Args:
        root: As then.
        source: What `remembered` returned.
    """
    return any((now := _stamp(root / name)) is not None and not _same(now, then) for name, then in source.items())


def _same(now: list[int], then: list[int]) -> bool:
    if now[1] != then[1]:
        return False
    second = 10**9  # copies often keep whole seconds only
    return now[0] == then[0] or (now[0] % second == 0 and now[0] // second == then[0] // second)
