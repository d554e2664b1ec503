"""The sum of a step's leaves over all processes, with the bits that one process alone would get.

Each process has added the leaves of its own batches as far as the fixed tree of `dlkit.training.summing` allows, and is
left with a few partial sums (at most two for each level). Every process then gets a piece of the numbers of all of
them, adds these up in the tree's order, and the pieces are put together: as many bytes as a ring needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlkit.distributed import World
from dlkit.errors import TrainingError
from dlkit.training.summing import Leaf, Tree

__all__ = ["total_of"]

_PIECE = 4 << 20  # bytes that travel at once: larger messages leave the caches
_NODES = 64  # more partial sums than any step has


def total_of(world: World, tree: Tree, like: Sequence[Tensor], samples: int) -> tuple[Leaf, int]:
    """The sum over the leaves of all processes, of which one has a leaf; and that of their samples.

    Args:
        world: The processes; all call this.
        tree: The leaves of this one.
        like: Tensors with shape, type and device of each entry of a leaf.
        samples: How many this process has.

    Raises:
        TrainingError: a gradient is sparse.
    """
    if world.size == 1:
        return tree.total(), samples
    if any(value is not None and value.is_sparse for _, _, leaf in tree.nodes for value in leaf):
        raise TrainingError("sparse gradients cannot be shared by several processes; use Embedding(sparse=False)")
    said = world.numbers(_own(tree, len(like), samples))
    places, present = _read(said, len(like))
    wanted = [number for number, there in enumerate(present) if there]
    total: Leaf = [None] * len(like)
    for kind in dict.fromkeys((like[number].dtype, like[number].device) for number in wanted):
        slots = [number for number in wanted if (like[number].dtype, like[number].device) == kind]
        flat = _flat_total(world, tree, [like[number] for number in slots], slots, places)
        for number, values in zip(slots, flat.split([like[number].numel() for number in slots]), strict=True):
            total[number] = values.view_as(like[number])
    return total, sum(row[0] for row in said)


def _own(tree: Tree, entries: int, samples: int) -> list[int]:
    """What the others must know: how many samples, which entries there are, and where the partial sums belong."""
    nodes = [number for level, place, _ in tree.nodes for number in (level, place)]
    there = [int(any(leaf[entry] is not None for _, _, leaf in tree.nodes)) for entry in range(entries)]
    return [samples, *there, len(tree.nodes), *nodes, *[0] * (2 * _NODES - len(nodes))]


def _read(said: list[list[int]], entries: int) -> tuple[list[list[tuple[int, int]]], list[bool]]:
    """Level and place of each process's partial sums, and which entries anybody has.

    What no batch had a gradient for stays None, as in one process.
    """
    present = [any(flags) for flags in zip(*(row[1 : 1 + entries] for row in said), strict=True)]
    rest = [row[1 + entries :] for row in said]
    return [[(row[2 * n + 1], row[2 * n + 2]) for n in range(row[0])] for row in rest], present


def _flat_total(
    world: World, tree: Tree, like: Sequence[Tensor], slots: Sequence[int], places: Sequence[Sequence[tuple[int, int]]]
) -> Tensor:
    size = sum(tensor.numel() for tensor in like)
    rows = like[0].new_zeros(len(tree.nodes), size)
    for row, (_, _, leaf) in zip(rows, tree.nodes, strict=True):
        for part, slot in zip(row.split([tensor.numel() for tensor in like]), slots, strict=True):
            if (value := leaf[slot]) is not None:
                part.copy_(value.reshape(-1))
    width = max(_PIECE // like[0].element_size() // world.size, 1) * world.size
    return torch.cat([_piece(world, rows[:, start : start + width], places) for start in range(0, size, width)])


def _piece(world: World, rows: Tensor, places: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    width = -(-rows.shape[1] // world.size) * world.size
    padded = rows.new_zeros(len(rows), width)
    padded[:, : rows.shape[1]] = rows
    dealt = iter(world.deal(padded, [len(each) for each in places]))
    tree = Tree()
    for level, place in (node for each in places for node in each):
        tree.add(place, [next(dealt)], level)
    (summed,) = tree.total()
    if summed is None:
        raise AssertionError("a sum without leaves")
    return world.gathered(summed)[: rows.shape[1]]
