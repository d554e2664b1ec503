"""Batches of samples that differ in length: padded with masks, nested, or packed one after the other.

`PadCollate` takes samples of any nesting; `unpad` is its way back. Datasets of packed texts hand over their batch as
`Ragged` rows, which are padded by one copy for all instead of one for each sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dlkit.collate.padding import Ragged, concatenate, pad_tensors, rounded_up, stack
from dlkit.collate.structure import by_name, by_place, check_fixed_dims, inputs_and_targets, is_bare, read
from dlkit.errors import ArgumentError, DataError

__all__ = ["PadCollate", "unpad"]

Dims = int | tuple[int, ...]
_Extras = dict[str, Tensor]

# Parts of one text under their usual names: they share the length of `input_ids`, hence its mask.
_COMPANIONS = {"attention_mask": 0, "labels": -100, "position_ids": 0, "special_tokens_mask": 1, "token_type_ids": 0}
_NAMES = {"mask": "attention_mask", "lengths": "lengths", "offsets": "offsets"}


@dataclass(frozen=True)
class PadCollate:
    """Make a batch of samples that differ in length; a `collate_fn` for any `DataLoader` and any dataset.

    Samples may be tensors, arrays, numbers, strings, tuples, named tuples, dicts, lists of numbers (one sequence),
    lists of tensors (a varying number of sequences), and these inside each other. Each tensor is padded along `dim`:

    * Alone or in a tuple it becomes `(values, mask)`; `(values, lengths)`, `(values, mask, lengths)` or `values` alone
      as asked for.
    * In a dict the mask is beside it as `<name>_mask`, the lengths as `<name>_lengths`. For `input_ids` the names are
      `attention_mask` and `lengths`, and its companions `token_type_ids`, `labels`, `position_ids` and
      `special_tokens_mask` get none of their own.
    * A plain tuple of two is `(inputs, target)`, dlkit's contract. Targets are stacked; with `target_pad_value` they
      are padded too, without a mask.

    The mask is True where a value is, so a value that equals `pad_value` is not taken for padding. A list of tensors
    becomes [B, most tensors, L, ...]; in its lengths [B, most tensors] stands -1 where a sample has no such tensor.

    Args:
        pad_value: What stands where nothing is; a dict gives one per name of a dict sample, 0 for the rest.
        side: "right" puts padding behind the values, "left" before them (for models that continue a text).
        multiple_of: Round the padded length up, for hardware that likes multiples of 8 or 64.
        max_length: Cut what is longer, keeping the beginning.
        return_mask: Return masks, bool, [B, L] for one padded dimension.
        return_lengths: Return lengths, int64, [B]; [B, k] where k dimensions are padded.
        layout: "padded"; "nested" gives `torch.nested` tensors (jagged); "packed" gives the values of all samples one
            after the other and their offsets, int64 [B + 1], as `EmbeddingBag` and variable-length attention take them.
        dim: Which dimension of a *sample* varies: 0 for texts [L], frames [T, F] and boxes [N, 4], -1 for audio
            [C, T], (1, 2) for images [C, H, W]. A dict gives one per name. It is not guessed from the batch, since a
            batch whose samples happen to be equally long must look like any other.
        target_pad_value: Pad targets too, for example with -100, which `CrossEntropyLoss` ignores.
        input_name: Put inputs that are one bare tensor into a dict under this name.

    Raises:
        ArgumentError: invalid options, when it is made.
        DataError: samples that do not fit together, with their shapes.

    >>> collate = PadCollate()
    >>> (values, mask), targets = collate([(torch.tensor([1, 2, 3]), 0), (torch.tensor([4]), 1)])
    >>> values
    tensor([[1, 2, 3],
            [4, 0, 0]])
    >>> mask
    tensor([[ True,  True,  True],
            [ True, False, False]])
    >>> sorted(PadCollate(return_lengths=True)([{"input_ids": [5, 6]}, {"input_ids": [7]}]))
    ['attention_mask', 'input_ids', 'lengths']
    """

    pad_value: float | Mapping[str, float] = 0
    side: Literal["right", "left"] = "right"
    multiple_of: int | None = None
    max_length: int | None = None
    return_mask: bool = True
    return_lengths: bool = False
    layout: Literal["padded", "nested", "packed"] = "padded"
    dim: Dims | Mapping[str, Dims] = 0
    target_pad_value: float | None = None
    input_name: str | None = None

    def __post_init__(self) -> None:
        if self.side not in ("right", "left"):
            raise ArgumentError(f"side must be 'right' or 'left', not {self.side!r}")
        if self.layout not in ("padded", "nested", "packed"):
            raise ArgumentError(f"layout must be 'padded', 'nested' or 'packed', not {self.layout!r}")
        for name in ("multiple_of", "max_length"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ArgumentError(f"{name} must be a whole number of at least 1, or None, not {value!r}")
        if self.layout != "padded" and (self.dim != 0 or self.side != "right" or self.multiple_of):
            raise ArgumentError(f"layout={self.layout!r} has no padding: leave dim, side and multiple_of as they are")

    def __call__(self, samples: Any) -> Any:
        """The batch; see the class.

        Args:
            samples: A list of at least one sample.
        """
        inputs, targets = inputs_and_targets(samples)
        if self.input_name is not None and is_bare(inputs):
            inputs = {self.input_name: inputs}
        batch = self._combine(inputs, "the input")
        return batch if targets is None else (batch, self._combine(targets, "the target", target=True))

    def _combine(self, column: Any, path: str, *, target: bool = False) -> Any:
        """One place of the samples' structure as a batch; `column` has the value of each sample at that place."""
        if isinstance(column, list) and isinstance(column[0], Mapping):
            column = by_name(column, path)
        if isinstance(column, Mapping):
            return self._combine_dict(column, path, target)
        if isinstance(column, list) and isinstance(column[0], tuple):
            places = by_place(column, path)
            parts = [self._combine(part, f"{path}[{place}]", target=target) for place, part in enumerate(places)]
            return type(column[0])(*parts) if hasattr(column[0], "_fields") else tuple(parts)
        values, extras = self._leaf(column, None, path, target)
        return (values, *extras.values()) if extras else values

    def _combine_dict(self, columns: Mapping[str, Any], path: str, target: bool) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        for name, column in columns.items():
            where = f"{path}[{name!r}]"
            if not is_bare(column):
                batch[name] = self._combine(column, where, target=target)
                continue
            batch[name], extras = self._leaf(column, name, where, target)
            if name not in _COMPANIONS or "input_ids" not in columns:
                for kind, extra in extras.items():
                    beside = _NAMES[kind] if name == "input_ids" else f"{name}_{kind}"
                    if beside not in columns:  # the samples' own attention_mask wins
                        batch[beside] = extra
        return batch

    def _leaf(self, column: Any, name: str | None, path: str, target: bool) -> tuple[Any, _Extras]:
        """The values of one place, and mask, lengths or offsets as asked for."""
        if isinstance(column, Tensor):
            return column, {}  # a batch already
        pad_value = self._pad_value(name, target)
        if isinstance(column, Ragged):
            return self._lay_out_rows(column.cut(self.max_length), pad_value)
        kind, values = read(column, path)
        if kind in ("objects", "batch"):
            return values, {}
        tensors = [tensor for row in values for tensor in row] if kind == "lists" else values
        dims = self._dims(name, tensors, path)
        fixed = not dims or (target and self.target_pad_value is None)
        if fixed and kind == "tensors":
            hint = "target_pad_value= pads targets" if target else "dim= says which dimension varies"
            return stack(tensors, path, hint), {}
        if fixed:
            raise DataError(f"{path} is a list of tensors, which only target_pad_value= and a fitting dim= can pad")
        laid_out, extras = self._lay_out(tensors, dims, pad_value)
        if kind == "lists":
            laid_out, extras = self._spread(laid_out, extras, [len(row) for row in values], pad_value, path)
        return laid_out, {} if target else extras

    def _lay_out(self, tensors: list[Tensor], dims: tuple[int, ...], pad_value: float) -> tuple[Tensor, _Extras]:
        if self.layout == "packed":
            values, offsets = concatenate(tensors, self.max_length)
            return values, {"offsets": offsets}
        if self.layout == "nested":
            return torch.nested.nested_tensor([row[: self.max_length] for row in tensors], layout=torch.jagged), {}
        values, mask, lengths = pad_tensors(
            tensors,
            dims,
            pad_value=pad_value,
            side=self.side,
            multiple_of=self.multiple_of,
            max_length=self.max_length,
        )
        return values, self._wanted(mask, lengths)

    def _lay_out_rows(self, rows: Ragged, pad_value: float) -> tuple[Tensor, _Extras]:
        if self.layout == "padded":
            width = rounded_up(int(rows.lengths.max()) if len(rows) else 0, self.multiple_of)
            values, mask = rows.padded(width, pad_value=pad_value, side=self.side)
            return values, self._wanted(mask, torch.from_numpy(rows.lengths))
        values, offsets = rows.concatenated()
        if self.layout == "packed":
            return values, {"offsets": offsets}
        return torch.nested.nested_tensor_from_jagged(values, offsets), {}

    def _spread(
        self, values: Tensor, extras: _Extras, counts: list[int], pad_value: float, path: str
    ) -> tuple[Tensor, _Extras]:
        """From all tensors of all samples [total, ...] to [B, most tensors, ...]."""
        if self.layout != "padded":
            raise ArgumentError(f"{path} is a list of tensors, for which there is only layout='padded'")
        fill = {"values": pad_value, "mask": False, "lengths": -1}
        place = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        spread: _Extras = {}
        for kind, tensor in {"values": values, **extras}.items():
            spread[kind] = tensor.new_full((*place.shape, *tensor.shape[1:]), fill[kind])
            spread[kind][place] = tensor
        return spread.pop("values"), spread

    def _wanted(self, mask: Tensor, lengths: Tensor) -> _Extras:
        extras = {"mask": mask} if self.return_mask else {}
        return extras | {"lengths": lengths} if self.return_lengths else extras

    def _pad_value(self, name: str | None, target: bool) -> float:
        if target and self.target_pad_value is not None:
            return self.target_pad_value
        if not isinstance(self.pad_value, Mapping):
            return _COMPANIONS.get(name or "", self.pad_value)
        return self.pad_value.get(name or "", _COMPANIONS.get(name or "", 0))

    def _dims(self, name: str | None, tensors: list[Tensor], path: str) -> tuple[int, ...]:
        """The padded dimensions, counted from the front; none for tensors that do not have them."""
        dim = self.dim.get(name or "", 0) if isinstance(self.dim, Mapping) else self.dim
        asked, count = (dim if isinstance(dim, tuple) else (dim,)), tensors[0].dim()
        if any(not -count <= each < count for each in asked):
            return ()
        dims = tuple(sorted(each % count for each in asked))
        check_fixed_dims(tensors, dims, path)
        return dims


def unpad(
    values: Tensor,
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    offsets: Tensor | None = None,
    dim: Dims = 0,
    side: str = "right",
) -> list[Any]:
    """The samples of a padded, nested or packed tensor, one tensor each: the way back from `PadCollate`.

    Args:
        values: [B, ...] padded, or nested, or [total, ...] packed.
        mask: As `PadCollate` returned it; enough where one dimension is padded.
        lengths: As `PadCollate` returned it; needed for several dimensions and for lists of tensors.
        offsets: For packed values.
        dim: The padded dimensions of a sample, as given to `PadCollate`.
        side: As given to `PadCollate`.

    Returns:
        B tensors; for lists of tensors B lists of tensors.

    >>> values, mask = PadCollate()([torch.tensor([1, 2]), torch.tensor([3])])
    >>> unpad(values, mask)
    [tensor([1, 2]), tensor([3])]
    """
    if values.is_nested:
        return list(values.unbind(0))
    if offsets is not None:
        return list(torch.split(values, offsets.diff().tolist()))
    if lengths is None:
        if mask is None or mask.dim() != 2:
            raise ArgumentError("unpad needs the mask [B, L], or lengths= (return_lengths=True), or offsets=")
        lengths = mask.sum(1)
    dims, several = (dim, len(dim) > 1) if isinstance(dim, tuple) else ((dim,), False)
    in_lists = lengths.dim() == (3 if several else 2)
    count = values.dim() - (2 if in_lists else 1)
    dims = tuple(sorted(each % count for each in dims))
    sizes = lengths if several else lengths[..., None]
    if not in_lists:
        return _cut_all(values, sizes, dims, side)
    there = sizes[..., 0] >= 0
    return [_cut_all(row[keep], size[keep], dims, side) for row, size, keep in zip(values, sizes, there, strict=True)]


def _cut_all(values: Tensor, sizes: Tensor, dims: tuple[int, ...], side: str) -> list[Tensor]:
    cut = []
    for row, lengths in zip(values.unbind(0), sizes.tolist(), strict=True):
        for dim, length in zip(dims, lengths, strict=True):
            row = row.narrow(dim, row.shape[dim] - length if side == "left" else 0, length)
        cut.append(row)
    return cut
