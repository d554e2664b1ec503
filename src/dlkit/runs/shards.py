"""Tensors of which each process of a run holds some rows of the first dimension, and how they become whole again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlkit._nested import map_leaves
from dlkit.distributed import World

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

    def state_of(self, state: Mapping[str, Any], optimizers: Mapping[str, Any]) -> dict[str, Any]:
        """What a checkpoint holds, with whole tensors on the CPU of the leading process; all processes call this.

        Args:
            state: What `run.capture` gave, with shares in it.
            optimizers: Those of the run, which work on shares.
        """
        whole = dict(map_leaves(state, self._unsharded))
        for name, optimizer in optimizers.items():
            shares = [share for group in optimizer.param_groups for share in group["params"]]
            held = {
                number: {key: self._like(shares[number], value) for key, value in entry.items()}
                for number, entry in state["optimizers"][name]["state"].items()
            }
            whole["optimizers"][name] = {**whole["optimizers"][name], "state": held}
        return whole

    def _like(self, share: Tensor, value: Any) -> Any:
        """What an optimizer remembers for a share: number by number, or one for all of it."""
        known = id(share) in self._sizes and isinstance(value, Tensor) and value.dim() and value.shape == share.shape
        return self._kept(self.whole(share, value)) if known else value

    def _unsharded(self, leaf: Any) -> Any:
        if not hasattr(leaf, "to_local"):
            return leaf
        return self._kept(self.joined(leaf.to_local().detach(), leaf.shape))

    def _kept(self, whole: Tensor) -> Tensor | None:
        return whole.cpu() if self.world.leads else None

    def _rows(self, size: torch.Size) -> int:
        return -(-size[0] // self.world.size)
