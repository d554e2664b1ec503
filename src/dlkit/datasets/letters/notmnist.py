"""`NotMNIST`: the letters A to J in many fonts, 28x28 grey pixels each (Yaroslav Bulatov, 2011)."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urldefrag

import numpy as np

from dlkit._showing import public, safe
from dlkit.datasets.letters.files import CLASSES, changed, decode, files_of_archive, files_of_folder, remembered
from dlkit.datasets.letters.packed import PackedImages, Transform
from dlkit.datasets.letters.packfile import Pack, open_pack, write_pack
from dlkit.download.disk import disk_trouble
from dlkit.errors import (
    ArchiveError,
    ArgumentError,
    DataError,
    DataNotFoundError,
)
from dlkit.reading.cells import Skipped
from dlkit.reading.policy import RowPolicy
from dlkit.storage.files import FileLock, home_of

__all__ = ["NotMNIST"]

_MIRRORS = (
    "https://commondatastorage.googleapis.com/books1000/",
    "http://yaroslavvb.com/upload/notMNIST/",
    "http://cn-static.udacity.com/mlnd/",
)
# Bytes and SHA-256 of notMNIST_<subset>.tar.gz.
_ORIGINALS = {
    "small": (8_458_043, "76b2ef7ccc56452964780569db37b279c9cbe1bf442c3b38be784752683b3cec"),
    "large": (247_336_696, "1e8261b75484b520dc76027f5c22af50fe608e3bb16277caec086eb928f9b61c"),
}


class NotMNIST(PackedImages):
    """The letters A to J in thousands of fonts: a harder MNIST, 28x28 grey pixels, white on black.

    Samples are float32 [1, 28, 28] in [0, 1] with an int64 label 0 to 9. `"small"` has 18,724 readable images (about
    0.5 % wrong labels), `"large"` 529,114 (about 6.5 %); many images of one are in the other, too.

    The images are looked for under `root`, in this order: packed by an earlier call (`notMNIST_small.safetensors`), as
    the folder `notMNIST_small` with a folder per letter (or `root` is that folder itself), and as
    `notMNIST_small.tar.gz`. The first read packs them into one file, after which folder and archive may go. Where
    `root` cannot be written to, the packed file goes to the cache folder. The pack is built again when its folder or
    archive changed or when it is damaged.

    Args:
        root: The folder; by default `notmnist` in the cache folder (`DLKIT_HOME`, else the user's cache folder).
        subset: `"small"` or `"large"`.
        download: Fetch the archive (8 MB, or 247 MB) when nothing is there.
        transform: Called with each image as float32 [1, 28, 28]; returns a tensor. Batches are then made one by one.
        on_error: What to do about an unreadable image (the original has 2, large 5): `"skip"` leaves it out and lists
            it in `skipped`, `"raise"` stops.
        max_errors: The largest share of unreadable images that `"skip"` accepts; ten are always accepted.
        mirror: The address of the archive, or of its folder, ending in `/`; instead of the known ones. The environment
            variable `DLKIT_NOTMNIST_URL` does the same. `#sha256=...` may follow.
        sha256: The SHA-256 of the mirror's archive; without it, what the mirror gives is not checked, with a warning.

    Attributes:
        targets: int64 [N], the labels.
        classes: `["A", ..., "J"]`.
        class_to_idx: `{"A": 0, ..., "J": 9}`.
        skipped: Each unreadable image as a `Skipped`, with its name as `file` and the reason.
        path: The packed file.

    Raises:
        DataNotFoundError: There is no data and `download` is False; the message says what to do.
        DataError: An image is unreadable and `on_error="raise"`, or a class has no image.
        TooManyErrorsError: More than `max_errors` of the images are unreadable.
        DownloadError: No mirror gave the archive, or not the promised one; or the disk is full.
        ArchiveError: The archive is broken.
        ArgumentError: An invalid argument.

    >>> train, val = NotMNIST(download=True).split(0.9)  # doctest: +SKIP
    >>> image, label = train[0]  # doctest: +SKIP
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        subset: Literal["small", "large"] = "small",
        download: bool = False,
        transform: Transform | None = None,
        on_error: Literal["skip", "raise"] = "skip",
        max_errors: float = RowPolicy.max_errors,
        mirror: str | None = None,
        sha256: str | None = None,
    ) -> None:
        policy = RowPolicy(on_error=on_error, max_errors=max_errors)
        edition = _edition(subset, mirror, sha256)
        pack = _Home.of(root, edition).pack(download=download)
        super().__init__(pack, CLASSES, transform=transform)
        self.subset, self.path = subset, pack.path
        self.skipped = [Skipped(name, None, reason) for name, reason in pack.about["skipped"]]
        policy.judge(self.skipped, len(self) + len(self.skipped), str(self.path), "images")

    def file(self, index: int) -> str:
        """The name of the PNG that a sample was read from, as `"A/<name>.png"`.

        Args:
            index: The sample's position in this dataset.
        """
        return str(self._store.names[int(self.indices[self._checked(index)])])

    def font(self, index: int) -> str:
        """The name of the font file that a sample was rendered from; the images' names are its base64.

        Args:
            index: The sample's position in this dataset.
        """
        return _font(self.file(index))

    def _fonts(self) -> np.ndarray[Any, Any]:
        return np.array([self._store.names[index].partition("/")[2] for index in self.indices.tolist()])

    def __repr__(self) -> str:
        skipped = f", {len(self.skipped)} unreadable left out" if self.skipped else ""
        return f"NotMNIST({self.subset}: {self._described()}{skipped}; {self.path})"


def _font(file: str) -> str:
    name = file.partition("/")[2].removesuffix(".png")
    try:
        return base64.b64decode(name, validate=True).decode("utf-8", "replace")
    except binascii.Error:
        return name


@dataclass(frozen=True)
class _Edition:
    """Which data is meant: an original, or what a mirror calls so, under its own name."""

    subset: str
    name: str
    urls: tuple[str, ...]
    sha256: str | None
    size: int | None

    @property
    def original(self) -> bool:
        return self.name == f"notMNIST_{self.subset}"


def _edition(subset: str, mirror: str | None, sha256: str | None) -> _Edition:
    if subset not in _ORIGINALS:
        raise ArgumentError(f"subset must be 'small' or 'large', not {subset!r}")
    name = f"notMNIST_{subset}"
    size, original = _ORIGINALS[subset]
    mirror = mirror or os.environ.get("DLKIT_NOTMNIST_URL") or None
    urls = tuple(f"{url}{name}.tar.gz" for url in _MIRRORS)
    if mirror is not None:
        url, fragment = urldefrag(mirror)
        sha256 = sha256 or fragment.removeprefix("sha256=") or None
        url += f"{name}.tar.gz" if url.endswith("/") else ""
        _refuse_other_subset(url, subset)
        urls = (url,)
    elif sha256 is None:
        sha256 = original
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ArgumentError(f"sha256 must be 64 hexadecimal digits, not {sha256!r}")
    if sha256 is not None and sha256.lower() == original:
        return _Edition(subset, name, urls, original, size)
    # Other data must never be treated as the original later on, nor the data of one mirror for that of another.
    key = sha256.lower() if sha256 else hashlib.sha256(urls[0].encode()).hexdigest()
    return _Edition(subset, f"{name}-{key[:12]}", urls, sha256, None)


def _refuse_other_subset(url: str, subset: str) -> None:
    for other in set(_ORIGINALS) - {subset}:
        if f"notMNIST_{other}" in url:
            raise ArgumentError(
                f"subset is {subset!r}, but the mirror {url} (mirror= or DLKIT_NOTMNIST_URL) has {other!r}"
            )


@dataclass(frozen=True)
class _Home:
    """The folders in which an edition is looked for and packed."""

    root: Path
    spare: Path
    edition: _Edition

    @classmethod
    def of(cls, root: str | os.PathLike[str] | None, edition: _Edition) -> _Home:
        cache = home_of("notmnist")
        folder = cache if root is None else Path(root).expanduser()
        if root is not None and not folder.is_dir() and folder.exists():
            raise ArgumentError(f"root must be a folder; {folder} is a file")
        own = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]
        return cls(folder, cache / f"read-only-{own}", edition)

    def pack(self, *, download: bool) -> Pack:
        """The packed data, made now if need be."""
        pack, damage = self._usable()
        if pack is not None:
            return pack
        home = self._writable(download)
        with FileLock(home / f".{self.edition.name}.lock"):
            pack, damage = self._usable()  # perhaps another process was faster
            if pack is not None:
                return pack
            self._sweep(home)
            path = home / f"{self.edition.name}.safetensors"
            self._build(path, download, damage)
        return open_pack(path, verify=False)

    def _usable(self) -> tuple[Pack | None, str]:
        damage = ""
        for folder in (self.root, self.spare):
            try:
                pack = open_pack(folder / f"{self.edition.name}.safetensors")
            except FileNotFoundError:
                continue
            except (DataError, OSError) as error:
                damage = f"{error}. "
                continue
            if not changed(self.root, pack.about["source"]):
                return pack, ""
        return None, damage

    def _writable(self, download: bool) -> Path:
        if not self.root.is_dir() and not download:
            raise self._missing("")
        for folder in (self.root, self.spare):
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):  # asking for rights would not tell of a read-only disk
                    return folder
        raise DataError(f"neither {self.root} nor {self.spare} can be written to; set DLKIT_HOME to a writable folder")

    def _sweep(self, home: Path) -> None:
        """Remove what a killed process left of a pack; the lock says that nobody is writing one."""
        for left in home.glob(f".{self.edition.name}.safetensors.*.tmp"):
            left.unlink(missing_ok=True)

    def _build(self, path: Path, download: bool, damage: str) -> None:
        archive = self.root / f"{self.edition.name}.tar.gz"
        source = self._folder()
        if source is None and download:
            archive = self._fetch(archive if archive.is_file() else path.with_name(archive.name))
        if source is None and not archive.exists():
            raise self._missing(damage)
        if damage:
            warnings.warn(safe(f"{damage}It is built again."), stacklevel=4)
        try:
            self._read(source or archive, path)
        except (ArchiveError, DataError):
            if download and self.edition.sha256 is None:
                archive.unlink(missing_ok=True)  # else the next attempt would find it and fail in the same way
            raise

    def _folder(self) -> Path | None:
        candidates = (self.root / self.edition.name, self.root) if self.edition.original else ()
        return next((folder for folder in candidates if any((folder / name).is_dir() for name in CLASSES)), None)

    def _fetch(self, archive: Path) -> Path:
        from dlkit.download import Patience, fetch  # brings requests, which who has the data does not need

        if self.edition.sha256 is None and not archive.is_file():
            warnings.warn(
                f"{public(self.edition.urls[0])} is not checked, because its hash is not known; give sha256= "
                f"(the original has {_ORIGINALS[self.edition.subset][1]})",
                stacklevel=5,
            )
        # Three mirrors: where packets vanish, the demo must not wait minutes before it continues without them.
        patience = Patience(connect=4.0, attempts=3)
        return fetch(self.edition.urls, archive, sha256=self.edition.sha256, size=self.edition.size, patience=patience)

    def _read(self, source: Path, path: Path) -> None:
        files = files_of_folder(source) if source.is_dir() else files_of_archive(source)
        store, skipped = decode(files, source)
        about = {
            "kind": "notmnist",
            "subset": self.edition.subset,
            "classes": CLASSES,
            "skipped": skipped,
            "source": remembered(self.root, source, [name for name, _ in skipped]),
        }
        with disk_trouble(path, "write"):
            write_pack(path, store, about)

    def _missing(self, damage: str) -> DataNotFoundError:
        name = self.edition.name
        wanted = f"{name}.safetensors, {name}.tar.gz" + (f", {name}/A ... J" if self.edition.original else "")
        megabytes = _ORIGINALS[self.edition.subset][0] / 1e6
        return DataNotFoundError(
            f"{damage}No notMNIST ({self.edition.subset}) in {self.root} (looked for {wanted}). Pass download=True to "
            f"fetch it ({megabytes:.0f} MB), root= to say where it is, or mirror= to fetch it from elsewhere"
        )
