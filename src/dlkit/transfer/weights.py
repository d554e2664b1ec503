"""Weights from a file or an address into a model: safely, whatever they are wrapped in, with a report."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urlparse

import torch
from torch import Tensor, nn

from dlkit import download
from dlkit._filekinds import HEAD, kind_of, told
from dlkit._html import Shown
from dlkit._opening import name_of, open_regular, regular
from dlkit._showing import Lines, few, public
from dlkit.errors import ArgumentError, IntegrityError, ModelFileError
from dlkit.storage.files import home_of, sha256_of

__all__ = ["LoadReport", "load_weights"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadReport(Shown):
    """What came of loading weights.

    Attributes:
        source: The file.
        loaded: Names in the model that got a value.
        missing: Names in the model that the file does not have; they stay as they were.
        unexpected: Names in the file that the model does not have; they were left out.
        mismatched: Names that both have in different shapes, as "fc.weight: file [1000, 512], model [2, 512]".
        unwrapped: What was taken off around the weights, such as "state_dict" or "module.".
    """

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    unwrapped: str = ""

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        told = [f"{len(self.loaded)} of {total} tensors loaded from {self.source}"]
        told[0] += f" (found under {self.unwrapped!r})" if self.unwrapped else ""
        for title, names in (
            ("not in the file", self.missing),
            ("not in the model", self.unexpected),
            ("of another shape", self.mismatched),
        ):
            if names:
                told.append(f"  {title}: {few(names, 5)}")
        return Lines.of(*told).plain()


def load_weights(
    model: nn.Module, weights: str | os.PathLike[str], *, sha256: str | None = None, progress: bool = True
) -> LoadReport:
    """Load weights into a model, in place: whatever fits by name and shape; the rest is reported.

    The file may be a safetensors file, or one of torch (opened with `weights_only=True`, so that it cannot run code),
    holding a state_dict or one nested in a checkpoint ("state_dict", "model", ...), with or without prefixes such as
    "module.". Addresses are downloaded once into the cache folder.

    Args:
        model: Any module.
        weights: A path or a URL. `#sha256=...` may follow. A name that ends in a hash, as torchvision's
            (`resnet18-f37072fd.pth`), is checked against it when it is downloaded.
        sha256: The file's SHA-256 as 64 hexadecimal digits.
        progress: Show a bar while downloading.

    Raises:
        DataNotFoundError: there is no such file.
        DownloadError: the address gave nothing.
        IntegrityError: the file has another hash.
        ModelFileError: the file is damaged, holds more than tensors and plain data, or nothing in it fits the model.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "weights.pth"
    >>> torch.save({"state_dict": {"module.weight": torch.ones(1, 2)}}, path)
    >>> layer = nn.Linear(2, 1)
    >>> load_weights(layer, path).missing, layer.weight.tolist()
    (('bias',), [[1.0, 1.0]])
    """
    path = _local(weights, sha256, progress=progress)
    own = model.state_dict()
    found = _best_fit(_read(path), own, path)
    fitting = {name: value for name, value in found.tensors.items() if name in own and value.shape == own[name].shape}
    mismatched = tuple(
        f"{name}: file {list(value.shape)}, model {list(own[name].shape)}"
        for name, value in found.tensors.items()
        if name in own and value.shape != own[name].shape
    )
    if not any(name in fitting for name, _ in model.named_parameters()):
        raise ModelFileError(_nothing_fits(model, path, found, mismatched))
    model.load_state_dict(fitting, strict=False)
    return LoadReport(
        source=str(path),
        loaded=tuple(fitting),
        missing=tuple(name for name in own if name not in found.tensors),
        unexpected=tuple(name for name in found.tensors if name not in own),
        mismatched=mismatched,
        unwrapped=found.unwrapped,
    )


def _local(weights: str | os.PathLike[str], sha256: str | None, *, progress: bool) -> Path:
    text, _, fragment = str(weights).partition("#sha256=")
    sha256 = (sha256 or fragment or "").lower() or None
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ArgumentError(f"sha256 must be 64 hexadecimal digits, not {sha256!r}")
    if urlparse(text).scheme in ("http", "https", "file"):
        return _downloaded(text, sha256, progress=progress)
    path = Path(text).expanduser()
    regular(path, ModelFileError, noun="file of weights")
    if sha256 is not None and (actual := sha256_of(path)) != sha256:
        raise IntegrityError(f"{path} has the SHA-256 {actual}, not {sha256}; it is not the expected file")
    return path


def is_here(url: str) -> bool:
    """Whether weights at an address were downloaded before, so that loading them needs no network.

    Args:
        url: As for `load_weights`.

    >>> is_here("https://example.org/nothing.pth")
    False
    """
    return _place(url).is_file()


def _place(url: str) -> Path:
    name = Path(urlparse(urldefrag(url)[0]).path).name or "weights"
    return home_of("weights") / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def _downloaded(url: str, sha256: str | None, *, progress: bool) -> Path:
    path = download.fetch(url, _place(url), sha256=sha256, progress=progress)
    start = re.search(r"-([0-9a-f]{8,64})\.", path.name)
    if sha256 is None and start is not None and not sha256_of(path).startswith(start[1]):
        actual = sha256_of(path)
        path.unlink()
        raise IntegrityError(
            f"{public(url)} gave a file with the SHA-256 {actual}, but its name promises {start[1]}..."
        )
    return path


def _read(path: Path) -> Any:
    with open_regular(path, ModelFileError) as file:
        start = file.read(HEAD)
        kind = kind_of(start)
        if kind is not None and kind.family not in ("weights", "archive"):
            raise ModelFileError(f"{path} {told(start, 'a file of weights')}")
        name = name_of(file, path)
        try:
            if not zipfile.is_zipfile(name) and start[8:9] == b"{":
                from safetensors.torch import load_file

                return load_file(name)
            return torch.load(name, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ModelFileError(
                f"{path} is not a weights file: {_first_line(error)}; expected a safetensors file, or a state_dict "
                "saved with torch.save that holds tensors and plain data only"
            ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no reason given'}"


@dataclasses.dataclass(frozen=True)
class _Found:
    """A state_dict inside a file, under the names of the model."""

    tensors: dict[str, Tensor]
    unwrapped: str


def _best_fit(content: Any, own: Mapping[str, Tensor], path: Path) -> _Found:
    """The mapping inside the file, and the prefix, under which most names fit; the outermost and shortest if equal."""
    best, score = None, -1
    for place, tensors in _mappings(content, ""):
        for prefix, added in _prefixes(tensors, own):
            names = {f"{added}{name[len(prefix) :]}": name for name in tensors if name.startswith(prefix)}
            fits = sum(1 for name, key in names.items() if name in own and own[name].shape == tensors[key].shape)
            if fits > score:
                wrapping = ".".join(part for part in (place, prefix) if part)
                best = _Found({name: tensors[key] for name, key in names.items()}, wrapping)
                score = fits
    if best is None:
        raise ModelFileError(f"{path} holds no tensors by name, but {type(content).__name__}; expected a state_dict")
    return best


def _mappings(content: Any, place: str, depth: int = 3) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(content, Mapping):
        return
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    if depth:
        for name, value in content.items():
            yield from _mappings(value, f"{place}.{name}" if place else str(name), depth - 1)


def _prefixes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """What to take off the file's names, or to put before them where the model wraps what the file has."""
    yield "", ""
    for prefix in _starts(tensors):
        yield prefix, ""
    for added in _starts(own):
        yield "", added


def _starts(names: Mapping[str, Any]) -> list[str]:
    starts = {".".join(parts[:depth]) + "." for name in names for parts in [name.split(".")] for depth in (1, 2, 3)}
    return sorted(start for start in starts if any(name.startswith(start) for name in names))[:200]


def _nothing_fits(model: nn.Module, path: Path, found: _Found, mismatched: tuple[str, ...]) -> str:
    if mismatched:
        return f"nothing in {path} fits {type(model).__name__}, all shapes differ: {few(mismatched, 5)}"
    return (
        f"nothing in {path} fits {type(model).__name__}: the file has {few(tuple(found.tensors), 5)}; the model has "
        f"{few(tuple(model.state_dict()), 5)}; do they belong to another model?"
    )
