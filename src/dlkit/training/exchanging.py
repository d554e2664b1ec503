"""The sum of a step's leaves over all processes, with the bits that one process alone would get.

Each process has added the leaves of its own batches as far as the fixed tree of `dlkit.training.summing` allows, and is
left with a few partial sums (at most two for each level). One message of each process to all others holds what they
must know of it (samples, wishes, the places of its partial sums) and, where they are small, the partial sums
themselves. Of larger ones every process gets a piece from all others, adds these up in the tree's order, and the pieces
are put together: as many bytes as a ring needs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dlkit.distributed import World
from dlkit.errors import TrainingError
from dlkit.training.summing import Leaf, Tree

__all__ = ["Exchange", "Notice"]

_AT_ONCE = 8 << 20  # bytes that all processes together send whole: up to here one message more costs more than they do
_PIECE = 4 << 20  # bytes of a piece: larger messages leave the caches
_NODES = 64  # more partial sums than any step has
_NUMBER = 8  # bytes of a number in the message's head


class Notice(NamedTuple):
    """What a process tells the others with its partial sums.

    Attributes:
        samples: How many its batches had.
        asked: See `Run`.
        parts: Into how many parts each batch must be cut for its memory; other than it was: its sums are missing.
    """

    samples: int = 0
    asked: int = 0
    parts: int = 1


class Exchange:
    """Adds up the leaves of all processes, in memory that it keeps from step to step.

    Args:
        world: The processes.
        accumulate: The batches of a step, of which each process has its share.
    """

    def __init__(self, world: World, accumulate: int) -> None:
        self._world, self._form = world, list[object]()
        others = [dataclasses.replace(world, rank=rank) for rank in range(world.size)]
        self._rows = max(len(_nodes_of(each.share(accumulate))) for each in others)

    def __call__(self, tree: Tree, like: Sequence[Tensor], notice: Notice) -> tuple[list[Notice], Leaf | None]:
        """What all processes say, by rank, and the sum over their leaves; no sum if nobody has any, or parts differ.

        The sum is in memory that the next call writes into. What no process has an entry for is None in it.

        Args:
            tree: The leaves of this process.
            like: Tensors with shape, type and device of each entry of a leaf; the same in all processes.
            notice: What this process says.

        Raises:
            TrainingError: a gradient is sparse.
        """
        if any(value is not None and value.is_sparse for _, _, leaf in tree.nodes for value in leaf):
            raise TrainingError("sparse gradients cannot be shared by several processes; use Embedding(sparse=False)")
        self._prepare(like)
        messages = self._world.exchanged(self._written(tree, notice), self._room)
        said, places, present = self._read(messages)
        if len({each.parts for each in said}) > 1 or not any(places):
            return said, None
        total: Leaf = [None] * len(like)
        fits = all(len(each) <= self._rows for each in places)
        for flat, kind in zip(self._summed(messages, places) if fits else (), self._small, strict=fits):
            kind.put(flat, present, total)
        for kind in self._large if fits else self._small + self._large:
            if any(present[slot] for slot in kind.slots):
                kind.put(kind.in_pieces(self._world, tree, places), present, total)
        return said, total

    def _prepare(self, like: Sequence[Tensor]) -> None:
        """Lay out the message, once for as long as entries keep their form."""
        form: list[object] = [(tensor.shape, tensor.dtype, tensor.device) for tensor in like]
        if form == self._form:
            return
        self._form, world = form, self._world
        slots: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        for number, tensor in enumerate(like):
            slots.setdefault((tensor.dtype, tensor.device), []).append(number)
        # wide types come first, so that each begins at a place that it can be read at
        ordered = sorted(slots, key=lambda key: -key[0].itemsize)
        kinds = [_Kind([like[slot] for slot in slots[key]], slots[key]) for key in ordered]
        self._small, self._large = list[_Kind](), list[_Kind]()
        for kind in kinds:
            small = kind.like.is_cpu and kind.bytes * self._rows * world.size <= _AT_ONCE
            (self._small if small else self._large).append(kind)
        self._head = len(Notice()) + 1 + 2 * _NODES + len(like)
        row = -(-sum(kind.bytes for kind in self._small) // _NUMBER) * _NUMBER
        self._message = torch.zeros(self._head * _NUMBER + self._rows * row, dtype=torch.uint8)
        self._room = torch.zeros((world.size - 1, len(self._message)), dtype=torch.uint8)
        self._views = [
            [view for kind, flat in zip(self._small, flats, strict=True) for view in kind.views(flat)]
            for flats in self._flats(self._message)
        ]
        self._slots = [slot for kind in self._small for slot in kind.slots]

    def _flats(self, message: Tensor) -> list[list[Tensor]]:
        """For each row of a message the numbers of each small kind."""
        rows = message[self._head * _NUMBER :].view(self._rows, -1)
        return [
            [part.view(kind.like.dtype) for part, kind in zip(parts, self._small, strict=False)]
            for row in rows
            for parts in [row.split([*(kind.bytes for kind in self._small), *_rest(row, self._small)])]
        ]

    def _written(self, tree: Tree, notice: Notice) -> Tensor:
        nodes = tree.nodes
        places = [number for level, place, _ in nodes for number in (level, place)]
        there = [int(any(leaf[entry] is not None for _, _, leaf in nodes)) for entry in range(len(self._form))]
        head = [*notice, len(nodes), *places, *[0] * (2 * _NODES - len(places)), *there]
        self._message[: self._head * _NUMBER].view(torch.int64).copy_(torch.tensor(head))
        if len(nodes) <= self._rows:
            for views, (_, _, leaf) in zip(self._views, nodes, strict=False):
                _fill(views, [leaf[slot] for slot in self._slots])
        return self._message

    def _read(self, messages: Sequence[Tensor]) -> tuple[list[Notice], list[list[tuple[int, int]]], list[bool]]:
        """What each process says, level and place of its partial sums, and which entries anybody has."""
        heads = [message[: self._head * _NUMBER].view(torch.int64).tolist() for message in messages]
        first = len(Notice()) + 1
        said = [Notice(*head[: first - 1]) for head in heads]
        places = [[(head[first + 2 * n], head[first + 2 * n + 1]) for n in range(head[first - 1])] for head in heads]
        present = [any(flags) for flags in zip(*(head[first + 2 * _NODES :] for head in heads), strict=True)]
        return said, places, present

    def _summed(self, messages: Sequence[Tensor], places: Sequence[Sequence[tuple[int, int]]]) -> Leaf:
        nodes = [
            (level, place, list[Tensor | None](flats))
            for message, each in zip(messages, places, strict=True)
            for (level, place), flats in zip(each, self._flats(message), strict=False)
        ]
        return _total(nodes)


def _rest(row: Tensor, kinds: Sequence[_Kind]) -> list[int]:
    """What a row has beyond its numbers, so that the next one begins at a place that any type can be read at."""
    return [len(row) - sum(kind.bytes for kind in kinds)]


def _fill(views: Sequence[Tensor], values: Leaf) -> None:
    there = [(view, value) for view, value in zip(views, values, strict=True) if value is not None]
    if there:
        torch._foreach_copy_([view for view, _ in there], [value for _, value in there])
    for view, value in zip(views, values, strict=True):
        if value is None:
            view.zero_()


def _nodes_of(places: Sequence[int]) -> list[tuple[int, int, Leaf]]:
    tree = Tree()
    for place in places:
        tree.add(place, [])
    return tree.nodes


def _total(nodes: list[tuple[int, int, Leaf]]) -> Leaf:
    """The sum of nodes that came from several processes, in the order of their first leaves."""
    tree = Tree()
    for level, place, leaf in sorted(nodes, key=lambda node: node[1] << node[0]):
        tree.add(place, leaf, level)
    return tree.total()


class _Kind:
    """The entries of a leaf that have one type and are on one device, one after the other.

    Args:
        tensors: With their shapes.
        slots: Their places in a leaf.
    """

    def __init__(self, tensors: Sequence[Tensor], slots: Sequence[int]) -> None:
        self.like, self.slots, self._shapes = tensors[0], slots, [tensor.shape for tensor in tensors]
        self._sizes = [tensor.numel() for tensor in tensors]
        self._size = sum(self._sizes)
        self._rows: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Of one row."""
        return self._size * self.like.dtype.itemsize

    def views(self, flat: Tensor) -> list[Tensor]:
        """The entries in their shapes.

        Args:
            flat: Their numbers, or more.
        """
        parts = flat[: self._size].split(self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def put(self, flat: Tensor | None, present: Sequence[bool], total: Leaf) -> None:
        """Write the entries that there are into a leaf.

        Args:
            flat: Their numbers.
            present: For each place of a leaf whether anybody had an entry.
            total: The leaf.
        """
        if flat is None:
            raise AssertionError("a sum without leaves")
        for slot, view in zip(self.slots, self.views(flat), strict=True):
            total[slot] = view if present[slot] else None

    def in_pieces(self, world: World, tree: Tree, places: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
        """The sum over the leaves of all processes, of which each adds up pieces.

        Args:
            world: The processes; all call this.
            tree: The leaves of this one.
            places: Level and place of each process's partial sums.
        """
        rows, counts = self._filled(world, tree), [len(each) for each in places]
        width = max(_PIECE // self.like.dtype.itemsize // world.size, 1) * world.size
        for start in range(0, rows.shape[1], width):
            dealt = world.deal(rows[1:, start : start + width], counts)
            nodes = (node for each in places for node in each)
            (summed,) = _total([(*node, [row]) for node, row in zip(nodes, dealt, strict=True)])
            if summed is None:
                raise AssertionError("a sum without leaves")
            world.gathered(summed, rows[0, start : start + width])
        return rows[0]

    def _filled(self, world: World, tree: Tree) -> Tensor:
        """Room for the sum, then the partial sums; as long as there are equal pieces for all processes."""
        length = math.ceil(self._size / world.size) * world.size
        if self._rows is None or len(self._rows) != len(tree.nodes) + 1:
            self._rows = self.like.new_zeros(len(tree.nodes) + 1, length)
        for row, (_, _, leaf) in zip(self._rows[1:], tree.nodes, strict=True):
            _fill(self.views(row), [leaf[slot] for slot in self.slots])
        return self._rows
