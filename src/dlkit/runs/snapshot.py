"""A copy of a run's state that a thread can write while training continues changing the original."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlkit._nested import map_leaves

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
        self._buffers: list[Tensor] = []

    def take(self, state: Any) -> Any:
        """Copy every tensor; tensors that share memory (tied weights) share it in the copy as well.

        Args:
            state: Nested dicts, lists and tuples.
        """
        used, seen = list[Tensor](), dict[Any, Tensor]()

        def copied(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            identity = (leaf.device, leaf.data_ptr(), leaf.shape, leaf.stride(), leaf.dtype)
            if leaf.numel() == 0 or identity not in seen:
                used.append(self._buffer(len(used), leaf).copy_(leaf.detach()))
                seen[identity] = used[-1]
            return seen[identity]

        copy = map_leaves(state, copied)
        self._buffers = used  # what is no longer part of the state is released
        return copy

    def _buffer(self, number: int, like: Tensor) -> Tensor:
        """That of the same tensor in the last snapshot, where the state has not changed its form."""
        buffer = self._buffers[number] if number < len(self._buffers) else None
        if buffer is not None and (buffer.shape, buffer.dtype) == (like.shape, like.dtype):
            return buffer
        return torch.empty(like.shape, dtype=like.dtype, device="cpu")
