"""What tells one thing from another across processes: tensors by content, files by size and time, transforms by what
they say of themselves. Where something cannot be known the answer is None, never a guess."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from collections.abc import Iterable
from typing import Any

from torch import Tensor

__all__ = ["of_files", "of_parts", "of_tensor", "of_transform"]


def of_parts(*parts: Any) -> str:
    """One name for several `parts` that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def of_tensor(tensor: Tensor | None) -> str:
    """A `tensor`, or None, by its content."""
    if tensor is None:
        return "none"
    value = tensor.detach().cpu().contiguous()
    data = value.reshape(-1).numpy().view("uint8").data if value.numel() else b""
    return f"{value.dtype} {list(value.shape)} {hashlib.sha256(data).hexdigest()}"


def of_files(paths: Iterable[str | os.PathLike[str]]) -> str | None:
    """The files at `paths` by path, size and time, some microseconds each; None if one cannot be looked at."""
    digest = hashlib.sha256()
    try:
        for path in paths:
            found = os.stat(path)
            digest.update(f"{os.fspath(path)}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="surrogateescape"))
    except OSError:
        return None
    return digest.hexdigest()


def of_transform(transform: Any) -> str | None:
    """A transform by what it prints and by its state; None where something may hide, as in a function made in place.

    Args:
        transform: A function that has a name, an object, or None.
    """
    if transform is None:
        return "none"
    if _is_function(transform):
        return None if "<" in transform.__qualname__ else f"{transform.__module__}.{transform.__qualname__}"
    text = repr(transform)
    if re.search(r" at 0x[0-9a-f]+|<function|<lambda|Lambda\(", text):
        return None
    try:  # what `repr` leaves out, such as the attributes of a module
        state = pickle.dumps(transform, protocol=5)
    except Exception:  # noqa: BLE001  (an object may refuse in any way)
        return None
    return of_parts(text, hashlib.sha256(state).hexdigest())


def _is_function(value: Any) -> bool:
    return callable(value) and hasattr(value, "__qualname__") and hasattr(value, "__module__")
