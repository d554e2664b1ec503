"""Features that are computed once: where they are kept, under which key, and when they are no longer good."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from dlkit import rng
from dlkit.distributed import ALONE, World
from dlkit.errors import DataError
from dlkit.storage.arrays import Arrays, Kind, kept_arrays, write_arrays
from dlkit.storage.files import FileLock, home_of, mapped, sync_file
from dlkit.storage.identity import of_files, of_parts, of_tensor, of_transform
from dlkit.transfer._cut import Cut
from dlkit.transfer.freezing import frozen_tensors

__all__ = ["FeatureStore", "Features", "features_key", "identity_of"]

_FORMAT = 3  # raised by one where features are computed or kept another way
_KIND = Kind("list of targets", _FORMAT)
_SAVE_EVERY = 5.0  # seconds between the moments up to which a killed computation continues
_TRANSFORMS = ("transform", "target_transform", "transforms", "loader")  # of torchvision's datasets


class Features(NamedTuple):
    """A batch of stored features instead of inputs.

    Attributes:
        values: [B, ...], what the first trainable module takes.
        half: `half(model)` gives the function that runs the model from there on.
    """

    values: Tensor
    half: Callable[[nn.Module], Callable[[Tensor], Any]]

    def through(self, model: nn.Module) -> Any:
        """What the model gives for these features, computed from the cut on.

        Args:
            model: The one that was cut, or a copy of it.
        """
        return self.half(model)(self.values)


def features_key(cut: Cut, identity: str, **settings: Any) -> str:
    """The name that features are stored under: another one as soon as anything differs that they depend on.

    Args:
        cut: The model and where it is cut: all frozen tensors count, parameters and buffers.
        identity: Which samples, prepared how: see `identity_of`.
        settings: What else counts: number of views, seed, precision, device (a GPU rounds differently).
    """
    digest = hashlib.sha256()
    tail = re.sub(r"\s+", " ", str(cut.model)) + str(getattr(cut.model, "log_mel", ""))
    digest.update(json.dumps([_FORMAT, identity, cut.boundary, list(cut.still), tail, settings], default=str).encode())
    for name, tensor in sorted(frozen_tensors(cut.model).items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()[:32]


def identity_of(dataset: Any) -> str | None:
    """What tells one dataset's samples from another's, preprocessing included; None where that cannot be known.

    Tensors count with their content; files with path, size and time; transforms with what they print and hold, unless
    that names an address in memory or a function made in place.

    Args:
        dataset: A dataset with an `identity` (a text, or a function giving one, or None), as dlkit's images have; a
            `TensorDataset`, a `Subset`, a `ConcatDataset`, or one like torchvision's `ImageFolder`, with `samples` of
            (path, target).

    >>> identity_of(TensorDataset(torch.zeros(2))) == identity_of(TensorDataset(torch.zeros(2)))
    True
    """
    own = getattr(dataset, "identity", None) if _knows_itself(type(dataset)) else None
    if callable(own):
        own = own()
    if own is not None:
        return f"{type(dataset).__name__}:{own}"
    if isinstance(dataset, Subset):
        inner = identity_of(dataset.dataset)
        return None if inner is None else of_parts("subset", inner, list(map(int, dataset.indices)))
    if isinstance(dataset, ConcatDataset):
        parts = [identity_of(part) for part in dataset.datasets]
        return None if None in parts else of_parts("joined", parts)
    if type(dataset) is TensorDataset:
        return of_parts("tensors", *(of_tensor(tensor) for tensor in dataset.tensors))
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, Sequence) and samples and _is_path_and_target(samples[0]):
        return _of_samples(dataset, samples)
    return None


def _knows_itself(kind: type) -> bool:
    """Not so a subclass that gives other samples, but inherits the `identity` of those it was made of."""
    for each in kind.__mro__:
        if "identity" in vars(each):
            return True
        if not {"take", "__getitem__", "__getitems__"}.isdisjoint(vars(each)):
            return "identity" not in dir(kind)
    return True


def _is_path_and_target(sample: Any) -> bool:
    return isinstance(sample, tuple) and len(sample) == 2 and isinstance(sample[0], str | os.PathLike)


def _of_samples(dataset: Any, samples: Sequence[Any]) -> str | None:
    transforms = [of_transform(getattr(dataset, name, None)) for name in _TRANSFORMS]
    files = of_files(path for path, _ in samples)
    if files is None or None in transforms:
        return None
    return of_parts(type(dataset).__qualname__, transforms, files, [str(target) for _, target in samples])


class FeatureStore:
    """Rows of features, `views` for each sample, in memory while they fit and in a mapped file beyond.

    Several views of a sample would be all that training ever sees of it. So each epoch draws another mixture of them,
    all mixtures alike in probability (interpolation between features of one class: DeVries and Taylor 2017, "Dataset
    augmentation in feature space"; here even of one sample). On photos a head learns more from four views so than from
    four in turn, and not less than from fresh ones in every epoch (`bench/views.py`). Features that are maps or tokens
    are taken in turn: what is at one place of a crop lies elsewhere in the next. So are those whose target differs
    between views.

    With a folder they are kept there, whole or not at all: a computation that was killed continues where it last saved,
    and a finished one is opened by the next process with the same key.

    Args:
        samples: Number of samples.
        views: Views of each.
        folder: Where to keep them, named by the key; None for this process only.
        memory_bytes: Bytes of features up to which they are held in memory.

    >>> store = FeatureStore(3, 1, None, memory_bytes=1000)
    >>> store.fill(lambda view, start: [(torch.eye(3), torch.arange(3))])
    >>> store.rows([2, 0], epoch=5, seed=0)
    (tensor([[0., 0., 1.],
            [1., 0., 0.]]), tensor([2, 0]))
    """

    def __init__(self, samples: int, views: int, folder: Path | None, *, memory_bytes: int) -> None:
        self.samples, self.views, self.folder, self.memory_bytes = samples, views, folder, memory_bytes
        self.values: Tensor | None = None
        self.targets: Any = None
        self.mixes = False
        self._weights: tuple[tuple[int, int], Tensor] | None = None
        self._scratch: Path | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all features."""
        return 0 if self.values is None else self.values.numel() * self.values.element_size()

    def open(self) -> bool:
        """Take what a process before has finished; False if there is nothing whole."""
        if self.folder is None or not (self.folder / "targets").is_file():
            return False
        if self._read("targets") != self.samples * self.views:
            self.discard()
            return False
        self._settle()
        self.mixes = self._can_mix()
        return True

    def discard(self) -> None:
        """Throw away what is stored."""
        self.values = self.targets = None
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def fill(self, batches: Callable[[int, int], Any], world: World = ALONE) -> None:
        """Compute all rows, view by view, from where an earlier computation was killed.

        Args:
            batches: `batches(view, start)` gives `(features, targets)` of a view in the dataset's order, from the
                sample `start` on.
            world: The processes that compute them together, and get all of them; each calls this.

        Raises:
            DataError: batches of different shapes, or fewer samples than promised.
        """
        if self.folder is None:
            self._fill(batches, None, 0, [])
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        if world.size == 1:
            with lock:
                if not self.open():  # else another process was faster
                    self._write_all(batches, *self._progress())
            return
        # One process of each folder writes. Those that find it locked do their share all the same, and open it after.
        writes = world.local_rank == 0 and lock.acquire(timeout=0)
        try:
            done, targets = self._progress() if writes else (0, [])
            least = min([row[1] for row in world.numbers([int(writes), done]) if row[0]], default=None)
            if writes:
                self._write_all(batches, least or 0, [_first(each, least or 0) for each in targets if least])
            elif least is not None:
                self._fill(batches, None, least, [], keep=False)
        finally:
            lock.release()
        with lock:
            opened = writes or self.open()
        if world.any(not opened):
            raise DataError(f"what another process was to store in {self.folder} is not there")

    def _write_all(self, batches: Callable[[int, int], Any], done: int, targets: list[Any]) -> None:
        assert self.folder is not None
        self._fill(batches, self.folder / "features.bin", done, targets)
        self._finish()

    def _fill(
        self, batches: Callable[[int, int], Any], file: Path | None, done: int, targets: list[Any], *, keep: bool = True
    ) -> None:
        saved, shape = time.monotonic(), None if self.values is None else self.values.shape[1:]
        for features, target in self._remaining(batches, done):
            shape = features.shape[1:] if shape is None else shape
            if features.shape[1:] != shape:
                whole = [self.samples * self.views, *shape]
                raise DataError(f"features of {list(features.shape)} among those of {whole}")
            if keep:
                if self.values is None:
                    self.values = self._room(file, features)
                self.values[done : done + len(features)] = features
                targets.append(target)
            done += len(features)
            if file is not None and time.monotonic() - saved > _SAVE_EVERY:
                self._write("progress", _joined(targets), done)
                saved = time.monotonic()
        if done != self.samples * self.views:
            raise DataError(f"{done} of {self.samples * self.views} samples came to be stored as features")
        if keep:
            self.targets = _joined(targets)
            self.mixes = self._can_mix()

    def _remaining(self, batches: Callable[[int, int], Any], done: int) -> Iterator[Any]:
        for view in range(done // self.samples if self.samples else 0, self.views):
            yield from batches(view, done % self.samples if view == done // self.samples else 0)

    def _room(self, file: Path | None, first: Tensor) -> Tensor:
        shape = (self.samples * self.views, *first.shape[1:])
        size = first[0].numel() * first.element_size() * shape[0]
        if file is None and size > self.memory_bytes:
            folder = home_of("features")
            folder.mkdir(parents=True, exist_ok=True)
            file = self._scratch = folder / f"scratch-{os.getpid()}-{id(self)}.bin"
        if file is None:
            return torch.empty(shape, dtype=first.dtype)
        mapped = _map(file, shape, first.dtype, shared=True)
        if self._scratch is not None:
            self._scratch.unlink()  # the mapping keeps it until this process ends, however it ends
        return mapped

    def _progress(self) -> tuple[int, list[Any]]:
        """How many rows a killed computation has left, and their targets."""
        done = self._read("progress", shared=True)
        return done, [self.targets] if done else []

    def _read(self, name: str, *, shared: bool = False) -> int:
        """Open the features as far as a file of targets says that they are good, and say how many rows that are."""
        assert self.folder is not None
        try:
            if (kept := kept_arrays(self.folder / name, _KIND)) is None:
                raise DataError(f"{self.folder} has no whole file of {name}")
            shape, dtype = tuple(kept.about["shape"]), getattr(torch, kept.about["dtype"])
            self.values = _map(self.folder / "features.bin", shape, dtype, shared=shared)
            self.targets = _named(kept)
            if shape[0] != self.samples * self.views:
                raise DataError(f"{self.folder} holds features of {shape[0]} rows")
            return int(kept.about["rows"])
        except (OSError, ValueError, KeyError, AttributeError, RuntimeError, DataError):
            self.values = self.targets = None
            return 0

    def _write(self, name: str, targets: Any, rows: int) -> None:
        """Put the features on the disk, and after that their targets, which say how far the features are good."""
        assert self.folder is not None
        assert self.values is not None
        sync_file(self.folder / "features.bin")
        named = targets if isinstance(targets, Mapping) else {} if targets is None else {"": targets}
        about = {"shape": list(self.values.shape), "dtype": str(self.values.dtype).removeprefix("torch."), "rows": rows}
        write_arrays(self.folder / name, _KIND, {f"target.{key}": value for key, value in named.items()}, about)

    def _finish(self) -> None:
        assert self.folder is not None
        self._write("targets", self.targets, self.samples * self.views)
        (self.folder / "progress").unlink(missing_ok=True)
        self._settle()

    def _settle(self) -> None:
        """Into memory, if it fits."""
        if self.values is not None and self.nbytes <= self.memory_bytes:
            self.values = self.values.clone()

    def rows(self, indices: Sequence[int], epoch: int, seed: int) -> tuple[Tensor, Any]:
        """The features and targets of samples; with several views, other features in every epoch.

        Args:
            indices: Which samples.
            epoch: The number of the epoch. Where views are taken in turn, sample i gets view (epoch + i) mod views.
            seed: With the epoch and the sample it decides how views are mixed, and nothing else does.
        """
        assert self.values is not None
        index = torch.as_tensor(indices, dtype=torch.int64)
        turn = (index + epoch) % self.views * self.samples + index
        values = self._mixed(index, epoch, seed) if self.mixes else self.values.index_select(0, turn)
        return values, _selected(self.targets, turn)

    def _can_mix(self) -> bool:
        assert self.values is not None
        targets = list(self.targets.values()) if isinstance(self.targets, Mapping) else [self.targets]
        return (
            self.views > 1
            and self.values.dim() == 2
            and self.values.is_floating_point()
            and all(each is None or _repeats(each, self.views) for each in targets)
        )

    def _mixed(self, index: Tensor, epoch: int, seed: int) -> Tensor:
        assert self.values is not None
        if self._weights is None or self._weights[0] != (seed, epoch):
            draw = np.random.default_rng(rng.derive(seed, rng.MIXTURE, epoch))
            weights = torch.from_numpy(draw.dirichlet(np.ones(self.views), self.samples))
            self._weights = (seed, epoch), weights.to(torch.promote_types(self.values.dtype, torch.float32))
        weights = self._weights[1].index_select(0, index)
        mixed = weights.new_zeros(len(index), self.values.shape[1])
        # A product and a sum at a time round alike everywhere; a matrix product or a fused operation need not.
        for view in range(self.views):
            mixed += weights[:, view : view + 1] * self.values.index_select(0, view * self.samples + index)
        return mixed.to(self.values.dtype)


def _repeats(targets: Tensor, views: int) -> bool:
    """Whether every view has the same targets."""
    parts = targets.chunk(views)
    return all(torch.equal(part, parts[0]) for part in parts[1:])


def _map(file: Path, shape: tuple[int, ...], dtype: torch.dtype, *, shared: bool = False) -> Tensor:
    size = int(torch.tensor(shape, dtype=torch.int64).prod()) * dtype.itemsize
    if not shared and file.stat().st_size != size:
        raise DataError(f"{file} has {file.stat().st_size} bytes, not {size}")
    if not shared:
        return torch.from_numpy(mapped(file, np.uint8, mode="c")).view(dtype).view(shape)
    return torch.from_file(str(file), shared=shared, size=size, dtype=torch.uint8).view(dtype).view(shape)


def _joined(targets: list[Any]) -> Any:
    if not targets or targets[0] is None:
        return None
    if isinstance(targets[0], Mapping):
        return {name: torch.cat([target[name] for target in targets]) for name in targets[0]}
    return torch.cat(targets)


def _first(targets: Any, rows: int) -> Any:
    if isinstance(targets, Mapping):
        return {name: value[:rows] for name, value in targets.items()}
    return None if targets is None else targets[:rows]


def _selected(targets: Any, index: Tensor) -> Any:
    if isinstance(targets, Mapping):
        return {name: value.index_select(0, index) for name, value in targets.items()}
    return None if targets is None else targets.index_select(0, index)


def _named(kept: Arrays) -> Any:
    """Targets as they were given: a tensor, several by name, or None."""
    found = {name.removeprefix("target."): value.clone() for name, value in kept.tensors.items()}
    if any(len(value) != kept.about["rows"] for value in found.values()):
        raise DataError(f"{kept.path} does not have {kept.about['rows']} targets")
    return found.get("") if set(found) <= {""} else found
