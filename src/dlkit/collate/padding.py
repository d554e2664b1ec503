"""The arithmetic of padding: rows inside one flat array, and lists of tensors that differ in some dimensions."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dlkit.errors import DataError

Array = np.ndarray[Any, Any]


class Ragged:
    """A batch of rows inside one flat array of integers; nothing is copied until tensors are requested.

    Args:
        values: The flat array of the whole dataset, 1-D, any integer type, may be memory-mapped.
        starts: int64 [B], where each row begins.
        lengths: int64 [B].

    >>> rows = Ragged(np.arange(10, dtype=np.int32), np.array([0, 4]), np.array([2, 3]))
    >>> rows[1], len(rows)
    (tensor([4, 5, 6]), 2)
    >>> rows.padded(4, pad_value=0)[0].tolist()
    [[0, 1, 0, 0], [4, 5, 6, 0]]
    """

    __slots__ = ("lengths", "starts", "values")

    def __init__(self, values: Array, starts: Array, lengths: Array) -> None:
        self.values, self.starts, self.lengths = values, starts, lengths

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Tensor:
        start = self.starts[index]
        return torch.from_numpy(self.values[start : start + self.lengths[index]].astype(np.int64))

    def unbind(self, dim: int = 0) -> list[Tensor]:
        """Each row as an int64 tensor, as `Tensor.unbind(0)` does it."""
        return [self[index] for index in range(len(self))]

    def cut(self, max_length: int | None) -> Ragged:
        """The same rows, the long ones without what is beyond `max_length`."""
        if max_length is None:
            return self
        return Ragged(self.values, self.starts, np.minimum(self.lengths, max_length))

    def padded(self, width: int, *, pad_value: float, side: str = "right") -> tuple[Tensor, Tensor]:
        """The rows, none longer than `width`, as int64 [B, width]; the mask, bool [B, width], True where values are."""
        lengths = self.lengths.astype(np.int32)[:, None]  # half the bytes to compare
        if side == "right":
            begins, mask = self.starts, _places(width) < lengths
        else:
            begins, mask = self.starts + (self.lengths - width), _places(width) >= width - lengths
        padded = self._windows(begins, width).astype(np.int64)
        np.copyto(padded, int(pad_value), where=~mask)
        return torch.from_numpy(padded), torch.from_numpy(mask)

    def concatenated(self) -> tuple[Tensor, Tensor]:
        """All rows one after the other, int64 [total], and their offsets, int64 [B + 1]."""
        offsets = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(self.lengths, out=offsets[1:])
        places = np.repeat(self.starts - offsets[:-1], self.lengths) + np.arange(offsets[-1])
        return torch.from_numpy(self.values[places].astype(np.int64)), torch.from_numpy(offsets)

    @staticmethod
    def joined(parts: Sequence[Ragged], order: Array) -> Ragged:
        """The rows of several flat arrays in one, in another order."""
        flat = [part.concatenated()[0].numpy() for part in parts]
        lengths = np.concatenate([part.lengths for part in parts])
        return Ragged(np.concatenate(flat), (np.cumsum(lengths) - lengths)[order], lengths[order])

    def _windows(self, begins: Array, width: int) -> Array:
        """`width` values from each of `begins` on; what lies outside the array is anything, to be masked."""
        size = len(self.values)
        if not width or not size:
            return np.zeros((len(begins), width), dtype=self.values.dtype)
        if width <= size and (begins is self.starts or begins.min(initial=0) >= 0):
            # A view of all windows of the array, of which whole ones are copied: half the time of gathering values.
            step = self.values.itemsize
            every = np.ndarray((size - width + 1, width), self.values.dtype, self.values, strides=(step, step))
            with contextlib.suppress(IndexError):  # a window that reaches beyond the end
                windows: Array = every[begins]
                return windows
        return self.values.take(begins[:, None] + np.arange(width), mode="clip")


@functools.lru_cache(maxsize=1024)
def _places(width: int) -> Array:
    return np.arange(width, dtype=np.int32)


class PaddedTensors(NamedTuple):
    """What `pad_tensors` makes: values [B, ...], mask [B, *padded sizes], lengths [B], or [B, k] for k dimensions."""

    values: Tensor
    mask: Tensor
    lengths: Tensor


def pad_tensors(
    tensors: Sequence[Tensor],
    dims: tuple[int, ...],
    *,
    pad_value: float,
    side: str = "right",
    multiple_of: int | None = None,
    max_length: int | None = None,
) -> PaddedTensors:
    """Tensors of one type that differ only in `dims` (none negative), as one tensor; what is longer is cut."""
    sizes = torch.tensor([[tensor.shape[dim] for dim in dims] for tensor in tensors])
    if max_length is not None and int(sizes.max()) > max_length:
        sizes = sizes.clamp(max=max_length)
        tensors = [_corner(tensor, dims, size) for tensor, size in zip(tensors, sizes.tolist(), strict=True)]
    widths = [rounded_up(width, multiple_of) for width in sizes.amax(0).tolist()]
    if dims == (0,) and multiple_of is None:
        values = pad_sequence(list(tensors), batch_first=True, padding_value=pad_value, padding_side=side)
    else:
        values = _copied(tensors, dims, sizes.tolist(), widths, pad_value, side)
    return PaddedTensors(values, _mask(sizes, widths, side), sizes[:, 0] if len(dims) == 1 else sizes)


def rounded_up(width: int, multiple_of: int | None) -> int:
    return width if multiple_of is None else -(-width // multiple_of) * multiple_of


def _corner(tensor: Tensor, dims: tuple[int, ...], sizes: list[int]) -> Tensor:
    for dim, size in zip(dims, sizes, strict=True):
        tensor = tensor.narrow(dim, 0, size)
    return tensor


def _copied(
    tensors: Sequence[Tensor], dims: tuple[int, ...], sizes: list[list[int]], widths: list[int], fill: float, side: str
) -> Tensor:
    shape = list(tensors[0].shape)
    for dim, width in zip(dims, widths, strict=True):
        shape[dim] = width
    values = tensors[0].new_full((len(tensors), *shape), fill)
    for row, tensor, size in zip(values.unbind(0), tensors, sizes, strict=True):
        for dim, length, width in zip(dims, size, widths, strict=True):
            row = row.narrow(dim, width - length if side == "left" else 0, length)
        row.copy_(tensor)
    return values


def _mask(sizes: Tensor, widths: list[int], side: str) -> Tensor:
    mask = torch.ones(len(sizes), dtype=torch.bool)
    for number, width in enumerate(widths):
        places = torch.arange(width - 1, -1, -1) if side == "left" else torch.arange(width)
        one = places < sizes[:, number, None]
        mask = mask[..., None] & one.view(len(sizes), *[1] * number, width) if number else one
    return mask


def stack(tensors: Sequence[Tensor], what: str, hint: str) -> Tensor:
    """Tensors of one shape as one tensor, or an error that shows the shapes."""
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        shown = ", ".join(str(list(shape)) for shape in sorted(shapes)[:5])
        raise DataError(f"{what} differs in shape within the batch: {shown}; {hint}")
    return torch.stack(list(tensors))


def concatenate(tensors: Sequence[Tensor], max_length: int | None) -> tuple[Tensor, Tensor]:
    """Tensors one after the other along dimension 0, and their offsets, int64 [B + 1]; what is longer is cut."""
    pieces = [tensor[:max_length] for tensor in tensors]
    offsets = torch.zeros(len(pieces) + 1, dtype=torch.int64)
    torch.cumsum(torch.tensor([len(piece) for piece in pieces]), 0, out=offsets[1:])
    return torch.cat(pieces), offsets
