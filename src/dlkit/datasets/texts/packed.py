"""Encoded texts in one flat array: whole batches by one gather, padded when they are collated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dlkit.collate import PadCollate
from dlkit.collate.padding import Ragged
from dlkit.datasets.base import InMemoryDataset, Samples, as_index_tensor
from dlkit.errors import ArgumentError
from dlkit.samplers.buckets import LengthBuckets
from dlkit.samplers.order import Planner, Sequential
from dlkit.storage.arrays import SharedArray

__all__ = ["PackedTextDataset"]

Array = np.ndarray[Any, Any]


class RaggedRows(Samples):
    """A batch of samples of different lengths: a list of ordinary samples, made when they are accessed.

    `PadCollate` asks for `columns()` and pads all rows at once; `default_collate` gets the batch padded as well.
    """

    __slots__ = ("_collate",)

    def __init__(self, inputs: Any, targets: Tensor | None, collate: PadCollate) -> None:
        super().__init__(inputs, targets)
        self._collate = collate
        if targets is None and isinstance(inputs, Ragged):
            # C code (`pad_sequence(batch)`) reads a list's own storage past every override, and here that is usual.
            self._fill()

    def _like(self, inputs: Any, targets: Any, others: Sequence[Any]) -> RaggedRows | None:
        alike = all(other._collate == self._collate for other in others)
        return RaggedRows(inputs, targets, self._collate) if alike else None

    def columns(self) -> tuple[Any, Any] | None:
        """Inputs and targets of all samples, or None when somebody has changed the list."""
        return None if self._changed else (self._inputs, self._targets)

    def whole(self) -> Any:
        """The batch as `collate` pads it."""
        return self._collate(self)


class PackedTextDataset(InMemoryDataset):
    """Encoded texts of different lengths; any `DataLoader` gets whole batches by one gather.

    `ds[i]` gives `(ids, target)`, ids int64 [L]; without targets the ids alone. A batch is
    `({"input_ids": int64 [B, L], "attention_mask": bool [B, L]}, targets)`, padded to the longest of the batch:
    `dlkit.DataLoader(ds, 64, shuffle=True)` also sorts texts of like length into the same batch (`LengthBuckets`),
    a stock `DataLoader(ds, 64, shuffle=True, collate_fn=ds.collate)` does the padding.

    Args:
        ids: The numbers of all texts, one after the other, integers [total]; or a list of texts, each a list, array or
            tensor of numbers. A memory-mapped array is left on the disk.
        lengths: How many of them each text has, [N]; not with a list of texts.
        targets: Tensor [N, ...], or None for unlabelled texts.
        types: For pairs of texts, 0 and 1 for each number: inputs are then dicts with `token_type_ids`.
        pad_id: The number that stands where no text is; the mask tells them apart.
        padding_side: "right", or "left" for models that continue a text.
        collate: How a batch is laid out, instead of the default: `PadCollate(..., input_name="input_ids")`.

    Raises:
        ArgumentError: lengths, targets and ids that do not fit together.

    >>> import torch
    >>> ds = PackedTextDataset([[5, 6, 7], [8]], targets=torch.tensor([0, 1]))
    >>> ds[0], ds.lengths
    ((tensor([5, 6, 7]), tensor(0)), array([3, 1]))
    >>> inputs, targets = ds.collate([ds[0], ds[1]])
    >>> inputs["input_ids"]
    tensor([[5, 6, 7],
            [8, 0, 0]])
    """

    def __init__(
        self,
        ids: Any,
        lengths: Any = None,
        targets: Tensor | None = None,
        *,
        types: Any = None,
        pad_id: int = 0,
        padding_side: str = "right",
        collate: PadCollate | None = None,
    ) -> None:
        self._ids, self._lengths = _packed(ids, lengths)
        self._types = (
            None if types is None else types if isinstance(types, SharedArray) else SharedArray(_flat(types, np.int8))
        )
        self._starts = np.cumsum(self._lengths) - self._lengths
        self.targets = targets
        if targets is not None and len(targets) != len(self):
            raise ArgumentError(f"there are {len(self)} texts but {len(targets)} targets")
        if self._types is not None and len(self._types.array) != len(self._ids.array):
            raise ArgumentError(f"there are {len(self._ids.array)} numbers but {len(self._types.array)} types")
        side = cast(Any, padding_side)
        self.collate = collate or PadCollate(pad_value=pad_id, side=side, input_name="input_ids")

    @property
    def ids(self) -> Array:
        """The numbers of all texts, one after the other, int32 [total]."""
        return self._ids.array

    @property
    def types(self) -> Array | None:
        """For pairs, 0 and 1 for each of `ids`, int8 [total]; else None."""
        return None if self._types is None else self._types.array

    @property
    def lengths(self) -> Array:
        """The number of tokens of each text, int64 [N]."""
        return self._lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def planner(self, batch_size: int, *, shuffle: bool, drop_last: bool) -> Planner:
        """How `dlkit.DataLoader` makes batches of this dataset: by length when it shuffles, else in order.

        Args:
            batch_size: Texts per batch.
            shuffle: A new order in every epoch.
            drop_last: Leave out what makes no full batch.
        """
        if shuffle:
            return LengthBuckets(self._lengths, batch_size, drop_last=drop_last)
        return Sequential(len(self), batch_size, drop_last=drop_last)

    def __getitems__(self, indices: Any) -> Samples:
        """The samples at `indices` as a list that `PadCollate` and `default_collate` take whole."""
        try:
            return self._rows(torch.as_tensor(indices))
        except (IndexError, RuntimeError):  # negative numbers, none at all, small types, or a mistake named there
            return self._rows(as_index_tensor(indices, len(self)))

    def _rows(self, indices: Tensor) -> RaggedRows:
        chosen = indices.numpy()
        starts, lengths = self._starts[chosen], self._lengths[chosen]
        inputs: Any = Ragged(self._ids.array, starts, lengths)
        if self._types is not None:
            inputs = {"input_ids": inputs, "token_type_ids": Ragged(self._types.array, starts, lengths)}
        targets = None if self.targets is None else self.targets.index_select(0, indices)
        return RaggedRows(inputs, targets, self.collate)


def _packed(ids: Any, lengths: Any) -> tuple[SharedArray, Array]:
    if lengths is None and not isinstance(ids, SharedArray | np.ndarray | Tensor):
        rows: Sequence[Any] = [np.asarray(row) for row in ids]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        ids = np.concatenate([np.zeros(0, dtype=np.int32), *(row for row in rows if len(row))])
    if lengths is None:
        raise ArgumentError("lengths is missing: numbers in one flat array need the length of each text")
    block = ids if isinstance(ids, SharedArray) else SharedArray(_flat(ids, np.int32))
    sizes = np.asarray(lengths).astype(np.int64)
    if sizes.ndim != 1 or (sizes < 0).any() or sizes.sum() != len(block.array):
        raise ArgumentError(f"lengths sum to {sizes.sum()}, but there are {len(block.array)} numbers")
    return block, sizes


def _flat(values: Any, dtype: Any) -> Array:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ArgumentError(f"ids must be whole numbers in one dimension, not {array.dtype} of shape {array.shape}")
    if array.size and not isinstance(array, np.memmap):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        if array.min() < low or array.max() > high:
            raise ArgumentError(f"numbers must be {low} to {high}, but there is {array.min()} or {array.max()}")
        array = array.astype(dtype, copy=False)
    return np.ascontiguousarray(array)
