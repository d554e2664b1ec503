"""A few samples of the training data, as marks that tell them from those of another data set.

A mark is coarse (means over parts of a tensor), because decoders and processors round differently, and independent of
where files lie, of workers and of the process that fetches. Random augmentation does not matter: it starts from the
run's seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from dlkit import rng
from dlkit.declared import classes_in, spec_in
from dlkit.errors import ArgumentError
from dlkit.loader import DataLoader
from dlkit.training.sources import Source
from dlkit.wrappers import unwrap

__all__ = ["alike", "differing", "mark_of", "marks_of"]

_SAMPLES = 5
_PARTS = 8
_TOLERANCE = 0.02  # of a tensor's standard deviation
_DEPTH = 4


def marks_of(source: Source) -> dict[str, Any] | None:
    """The order of the first epoch and the marks of some of its samples; None for data that cannot be sought.

    Args:
        source: The training data; a stream is not touched, because it may be iterated only once.
    """
    source = getattr(source, "source", source)  # under stored features
    loader, batches = getattr(source, "loader", None), getattr(source, "ready", None)
    if batches is not None:
        places = _spread(len(batches))
        return {"samples": [_mark(batches[place]) for place in places], "order": places} if places else None
    if not isinstance(loader, DataLoader) or not len(loader):
        return None
    streams = rng.state_dict()
    try:
        keys = [next(iter(source.indices(0, number) or [])) for number in _spread(len(loader))]
        samples = _fetched(loader, keys, source.seed)
        marks = {"samples": [_mark(sample) for sample in samples], "order": _mark(keys)}
        return {**marks, **_subset(loader.dataset), **_said(unwrap(loader.dataset))}
    except Exception:  # noqa: BLE001  (whatever is wrong with a sample, the training will meet it, and say where)
        return None
    finally:
        rng.load_state_dict(streams)


def differing(saved: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str | None:
    """In words, what shows that the data is other data, or None; what is not known is not different.

    Args:
        saved: `marks_of` from a checkpoint.
        now: That of this script.
    """
    if saved is None or now is None:
        return None
    classes = saved.get("classes"), now.get("classes")
    if None not in classes and list(classes[0] or []) != list(classes[1] or []):
        return f"training data: other classes: saved {_listed(classes[0])}, this script says {_listed(classes[1])}"
    if None not in (saved.get("encoder"), now.get("encoder")) and saved["encoder"] != now["encoder"]:
        return "training data: another vocabulary"
    if saved.get("subset") != now.get("subset"):
        return "training data: another part of a dataset (other indices of a Subset)"
    if not _alike(saved.get("order"), now["order"]):
        return "training data: another order of the samples (another sampler, or shuffle)"
    if not _alike(saved.get("samples"), now["samples"]):
        return "training data: other samples (some of the first epoch were compared), or prepared differently"
    return None


def mark_of(value: Any) -> Any:
    """The mark of a sample or a batch, as plain data.

    Args:
        value: Any.
    """
    return _mark(value)


def alike(one: Any, other: Any) -> bool:
    """Whether two marks are those of one sample or batch.

    Args:
        one: From `mark_of`.
        other: From `mark_of`, in this process or another.
    """
    return _alike(one, other)


def _spread(count: int) -> list[int]:
    """Up to five numbers from 0 to `count` - 1, evenly spread."""
    return sorted({number * (count - 1) // (_SAMPLES - 1) for number in range(_SAMPLES)}) if count else []


def _fetched(loader: DataLoader, keys: list[Any], seed: int) -> list[Any]:
    """Samples as one batch of their own; by a worker where workers fetch, as a file may be open in one process only."""
    here = loader.num_workers == 0 or bool(getattr(loader.dataset, "needs_no_worker", False))
    names = ("timeout", "worker_init_fn", "multiprocessing_context")
    settings: dict[str, Any] = {} if here else {name: loader._settings.get(name) for name in names}
    settings = {name: value for name, value in settings.items() if value is not None}
    one = DataLoader(
        loader.dataset, batch_sampler=[keys], collate_fn=_as_list, num_workers=0 if here else 1, **settings
    )
    samples: list[Any] = next(one.batches(0, seed=seed))
    return samples


def _as_list(samples: Any) -> list[Any]:
    return list(samples)


def _subset(dataset: Any) -> dict[str, str]:
    if not isinstance(dataset, Subset):
        return {}
    return {"subset": _digest(np.asarray(list(map(int, dataset.indices)), dtype=np.int64).tobytes())}


def _said(data: Any) -> dict[str, Any]:
    """The names behind the numbers in the samples: those of the classes, and the vocabulary of texts."""
    said: dict[str, Any] = {"classes": classes_in(data)}
    with contextlib.suppress(ArgumentError, AttributeError):  # no texts, or a tokenizer that has no plain data
        said["encoder"] = _digest(json.dumps(spec_in(data).encoder.document(), default=str).encode())
    return said


def _listed(names: Any) -> str:
    shown = ", ".join(map(repr, list(names)[:6]))
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


def _mark(value: Any, depth: int = _DEPTH) -> Any:
    """Lists, dicts, numbers and texts that a checkpoint can hold, instead of a sample."""
    if isinstance(value, Mapping) and depth:
        return {str(name): _mark(item, depth - 1) for name, item in value.items()}
    if isinstance(value, list | tuple) and depth:
        return [_mark(item, depth - 1) for item in value[:64]]
    if isinstance(value, str | bytes):
        return _digest(value.encode(errors="surrogatepass") if isinstance(value, str) else value)
    if isinstance(value, bool | int | float):
        return float(value)
    numbers = _numbers(value)
    if numbers is None:
        return type(value).__name__
    finite = np.isfinite(numbers)
    known = np.where(finite, numbers, 0.0)
    parts = [part for part in np.array_split(known.reshape(-1), _PARTS) if part.size]
    means, spread = [float(part.mean()) for part in parts], float(known.std()) if known.size else 0.0
    return {"shape": list(known.shape), "means": means, "spread": spread, "odd": int((~finite).sum())}


def _numbers(value: Any) -> np.ndarray[Any, Any] | None:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.to(torch.float64) if value.layout == torch.strided and not value.is_complex() else value).numpy()
    elif not (hasattr(value, "__array_interface__") or isinstance(value, np.generic)):  # as arrays and PIL images have
        return None
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "biuf" else None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _alike(saved: Any, now: Any) -> bool:
    """Whether two marks are those of one sample."""
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        if saved.keys() != now.keys():
            return False
        if now.keys() == {"shape", "means", "spread", "odd"}:
            same = list(saved["shape"]) == list(now["shape"]) and saved["odd"] == now["odd"]
            return same and all(_near(saved, now))
        return all(_alike(saved[name], value) for name, value in now.items())
    if isinstance(saved, Sequence) and isinstance(now, Sequence) and not isinstance(now, str):
        return len(saved) == len(now) and all(map(_alike, saved, now))
    if isinstance(saved, float) and isinstance(now, float):
        return math.isclose(saved, now, rel_tol=1e-4) or (math.isnan(saved) and math.isnan(now))
    return type(saved) is type(now) and bool(saved == now)


def _near(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[bool]:
    within = _TOLERANCE * max(saved["spread"], now["spread"])
    for one, other in zip(saved["means"], now["means"], strict=True):
        yield math.isclose(one, other, rel_tol=1e-4, abs_tol=within)
