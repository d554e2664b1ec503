"""Tensors of which each process of a run holds some rows of the first dimension, and how they become whole again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlkit._nested import map_leaves
from dlkit.distributed import World
from dlkit.runs.rows import FIELD, mark

__all__ = ["Shards"]


class Shards:
    """The shares that this process holds while a model is trained with `parallel="shard"`.

    Args:
        world: The processes of the run.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._sizes: dict[int, tuple[Tensor, torch.Size]] = {}  # with the share, so that its id stays its own

    def add(self, share: Tensor, size: torch.Size) -> None:
        """Know a tensor as a share of a larger one.

        Args:
            share: What an optimizer works on.
            size: That of the whole.
        """
        self._sizes[id(share)] = (share, size)

    def forget(self) -> None:
        """Know no shares any more."""
        self._sizes.clear()

    def cut(self, whole: Tensor) -> Tensor:
        """A copy of this process's rows.

        Args:
            whole: At least one dimension.
        """
        rows = self._rows(whole.shape)
        return whole[rows * self.world.rank : rows * (self.world.rank + 1)].clone()

    def whole(self, share: Tensor, values: Tensor) -> Tensor:
        """All rows of what belongs to a share, such as its gradient; of any other tensor the values as they are.

        Args:
            share: A tensor that `add` was told of, or another one.
            values: As large as the share. All processes call this.
        """
        _, size = self._sizes.get(id(share), (share, None))
        return values if size is None else self.joined(values, size)

    def joined(self, values: Tensor, size: torch.Size) -> Tensor:
        """The rows of all processes; all call this.

        Args:
            values: The rows of this one.
            size: That of the whole.
        """
        rows = self._rows(size)
        own = values.new_zeros(rows, *size[1:])
        own[: len(values)] = values
        room = values.new_empty(own.numel() * self.world.size)
        self.world.gathered(own.view(-1), room)
        return room.view(-1, *size[1:])[: size[0]]

    def in_rows(self, state: Mapping[str, Any], optimizers: Mapping[str, Any]) -> dict[str, Any]:
        """What a checkpoint holds: marks instead of shares, which are listed under `rows.FIELD`.

        Args:
            state: What `run.capture` gave, with shares in it.
            optimizers: Those of the run, which work on shares.
        """
        held: dict[str, Tensor] = {}

        def listed(share: Tensor) -> dict[str, str]:
            held[str(len(held))] = share.detach().cpu()
            return mark(str(len(held) - 1))

        marked = dict(map_leaves(state, lambda leaf: listed(leaf.to_local()) if hasattr(leaf, "to_local") else leaf))
        for name, optimizer in optimizers.items():
            shares = [share for group in optimizer.param_groups for share in group["params"]]
            saved = marked["optimizers"][name]
            saved["state"] = {
                number: {
                    key: listed(value) if self._is_like(shares[number], value) else value
                    for key, value in entry.items()
                }
                for number, entry in saved["state"].items()
            }
        return {**marked, FIELD: held}

    def _is_like(self, share: Tensor, value: Any) -> bool:
        """Whether an optimizer remembers something for each number of a share, and not one thing for all of it."""
        known = id(share) in self._sizes and isinstance(value, Tensor)
        return known and value.dim() > 0 and value.shape == share.shape

    def _rows(self, size: torch.Size) -> int:
        return -(-size[0] // self.world.size)
