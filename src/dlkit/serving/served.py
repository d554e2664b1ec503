"""A model under a name, its version, and the change to a newer file without a failed request."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlkit._opening import open_regular
from dlkit.errors import ArgumentError, DlkitError, ModelFileError
from dlkit.inference.predictor import Predictor, load
from dlkit.serving.logs import event
from dlkit.specs.table import TableSpec

__all__ = ["Loaded", "Served", "served"]


_DIGITS = 12  # of the SHA-256: enough that two versions of a model never share them
_ATTEMPTS = 3
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")

Stamp = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """One version of a model; it never changes, so a request keeps the one that it began with.

    Attributes:
        name: What the server calls the model.
        version: The first digits of the file's SHA-256.
        predictor: What computes.
    """

    name: str
    version: str
    predictor: Predictor


class Served:
    """A model that is served under a name, always in its newest version.

    Args:
        name: What the server calls it.
        source: A model file, or a loaded model.
        device: Where to compute, for a file.
        fuse: See `dlkit.load`.

    Attributes:
        name: What the server calls it.
        now: The version that new requests get.

    Raises:
        ModelFileError: the file cannot be used.
    """

    def __init__(
        self, name: str, source: str | os.PathLike[str] | Predictor, *, device: str = "cpu", fuse: bool = False
    ) -> None:
        self.name, self._device, self._fuse = name, device, fuse
        if isinstance(source, Predictor):
            self._path, self._stamp = None, None
            self.now = Loaded(name=name, version=_version(Path(source.info["file"])), predictor=_servable(name, source))
        else:
            self._path = Path(source).expanduser()
            self._stamp = _stamp(self._path)
            self.now = self._load()
        self._seen = self._stamp

    def _load(self) -> Loaded:
        """The file as it is now: the version is that of the bytes that were loaded, also while somebody writes."""
        assert self._path is not None
        for _ in range(_ATTEMPTS):
            version, fault = _version(self._path), None
            try:
                predictor = _servable(self.name, load(self._path, device=self._device, fuse=self._fuse))
            except ModelFileError as error:  # also of the head of one file and the weights of the next
                fault = error
            if _version(self._path) != version:
                continue
            if fault is not None:
                raise fault
            return Loaded(name=self.name, version=version, predictor=predictor)
        raise ModelFileError(f"{self._path.name} changes while it is read; move a finished file into its place")

    def renew(self) -> bool | None:
        """Load the file beside the version in use, if it has changed and is quiet again, and put it in its place.

        Returns:
            Whether there is a new version; None where the new file cannot be used and the old version stays.
        """
        if self._path is None:
            return False
        stamp = _stamp(self._path)
        if stamp in (None, self._stamp) or stamp != self._seen:  # gone, known, or still being written
            self._seen = stamp
            return False
        self._stamp = stamp
        try:
            made = self._load()
            if made.predictor.kind != self.now.predictor.kind:
                raise ModelFileError(
                    f"the new file takes inputs of the kind {made.predictor.kind}, and the model in use takes "
                    f"{self.now.predictor.kind}; serve it under another name"
                )
        except (DlkitError, OSError) as error:
            told = str(error).replace(str(self._path), self._path.name)
            event("reload failed", level=logging.ERROR, model=self.name, version=self.now.version, error=told)
            return None
        if made.version == self.now.version:
            return False
        event("reloaded", model=self.name, version=made.version, before=self.now.version)
        self.now = made
        return True


def served(models: Any, *, device: str = "cpu", fuse: bool = False) -> dict[str, Served]:
    """Models by the names under which they are served.

    Args:
        models: A file or a loaded model, a list of those, or a dict of names and those. Without names, a file
            `photos.safetensors` and a file `photos/model.safetensors` are both called "photos".
        device: Where to compute, for files.
        fuse: See `dlkit.load`; for files.

    Raises:
        ArgumentError: nothing to serve, a name that does not fit into an address, or one that two models have.
    """
    if isinstance(models, Mapping):
        named = [(str(name), source) for name, source in models.items()]
    else:
        sources: Sequence[Any] = models if isinstance(models, list | tuple) else [models]
        named = [(_name(source), source) for source in sources]
    if not named:
        raise ArgumentError("there is no model to serve; give a model file, or several")
    found = dict[str, Served]()
    for name, source in named:
        if not name or _UNFIT.search(name):
            raise ArgumentError(f"a model's name may have letters, digits, '.', '_' and '-', not {name!r}")
        if name in found:
            raise ArgumentError(
                f"two models are called {name!r}; rename a file, or give names: app({{'a': file, ...}})"
            )
        found[name] = Served(name, source, device=device, fuse=fuse)
    return found


def _servable(name: str, predictor: Predictor) -> Predictor:
    """A model that answers without opening what a client names.

    Raises:
        ArgumentError: it takes the names of files.
    """
    if isinstance(spec := predictor.preprocessing, TableSpec) and (columns := spec.of_kind("image")):
        raise ArgumentError(
            f"the model {name!r} takes tables whose column {columns[0].name!r} names image files, and a server opens "
            "no file that a client names; predict with it where the files are: dlkit predict, Predictor.predict_file"
        )
    return predictor


def _name(source: Any) -> str:
    file = Path(source.info["file"] if isinstance(source, Predictor) else source).expanduser()
    stem = file.absolute().parent.name if file.stem == "model" else file.stem
    return _UNFIT.sub("-", stem).strip("-") or "model"


def _version(path: Path) -> str:
    with open_regular(path, ModelFileError, noun="model file") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]  # type: ignore[arg-type]


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
