"""A copy of a run's state that a thread can write while training goes on changing the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Snapshot"]


class Snapshot:
    """Copies tensors into CPU memory that it keeps, because fresh memory costs more in page faults than the copy.

    A snapshot is valid until the next `take`.

    >>> snapshot, weight = Snapshot(), torch.zeros(2)
    >>> copy = snapshot.take({"weight": weight, "step": 1}); _ = weight.add_(1)
    >>> copy
    {'weight': tensor([0., 0.]), 'step': 1}
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, state: Any) -> Any:
        """Copy every tensor; tensors that share memory (tied weights) share it in the copy as well.

        Args:
            state: Nested dicts, lists and tuples.
        """
        used: dict[str, Tensor] = {}
        copied = self._copy(state, "", used, {})
        self._buffers = used  # what is no longer part of the state is let go
        return copied

    def _copy(self, value: Any, key: str, used: dict[str, Tensor], seen: dict[Any, Tensor]) -> Any:
        if isinstance(value, Tensor):
            identity = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
            if value.numel() == 0 or identity not in seen:
                seen[identity] = self._into_buffer(value.detach(), key, used)
            return seen[identity]
        if isinstance(value, Mapping):
            return {name: self._copy(item, f"{key}/{name}", used, seen) for name, item in value.items()}
        if isinstance(value, list | tuple):
            items = [self._copy(item, f"{key}/{number}", used, seen) for number, item in enumerate(value)]
            return items if isinstance(value, list) else tuple(items)
        return value

    def _into_buffer(self, value: Tensor, key: str, used: dict[str, Tensor]) -> Tensor:
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            buffer = torch.empty(value.shape, dtype=value.dtype, device="cpu")
        buffer.copy_(value)
        used[key] = buffer
        return buffer
