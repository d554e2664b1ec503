"""What a model file may make its reader do: in proportion to its size, and refused before it is done.

A file of a kilobyte can name an architecture of a thousand million layers, or an example whose computation takes all
memory. Bounds of single numbers do not tell: a width of 60,000 is large for one model and small for another.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from dlkit.errors import ModelFileError

__all__ = ["Budget"]

_aten = torch.ops.aten
_MATMULS = (_aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm)


class Budget(TorchDispatchMode):
    """While it is entered, torch's operators are counted, and one that would take too much raises instead of running.

    How much memory an operator's result takes is found by calling it on tensors without memory. The allowance is
    wide: the largest models of timm take a tenth of it.

    Args:
        doing: What is being done, in words, and which field of the file asks for it.
        size: Of the file's tensors in bytes.
        calls: How many operators may run.

    Raises:
        ModelFileError: inside, when the budget is spent.

    >>> with Budget("an example", size=1000, calls=10):
    ...     torch.ones(10).outer(torch.ones(10)).shape
    torch.Size([10, 10])
    >>> with Budget("an example", size=1000, calls=10):
    ...     torch.ones(100_000).outer(torch.ones(100_000))
    Traceback (most recent call last):
    dlkit.errors.ModelFileError: an example takes more than 537,126,912 bytes of memory, which is too much for \
1,000 bytes of tensors
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not to be kept from torch.compile, whose import would take longer than opening a model."""
        return False

    def __init__(self, doing: str, *, size: int, calls: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.doing, self.size = doing, size
        self.calls, self.memory, self.products = calls, (1 << 29) + 256 * size, 20e9 + 500 * size
        self._spent = dict.fromkeys(("calls", "memory", "products"), 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._spend("calls", 1, "{:,.0f} operations")
        if not _is_without_memory(args, kwargs):
            made = _foreseen(func, args, kwargs)
            self._spend("memory", 4 * sum(map(math.prod, made)), "{:,.0f} bytes of memory")
            self._spend("products", _products(func, args, made), "{:.1g} multiplications")
        return func(*args, **kwargs)

    def _spend(self, what: str, amount: int, words: str) -> None:
        self._spent[what] += amount
        if self._spent[what] > (most := getattr(self, what)):
            limit = words.format(most)
            raise ModelFileError(
                f"{self.doing} takes more than {limit}, which is too much for {self.size:,} bytes of tensors"
            )


def _is_without_memory(args: Any, kwargs: dict[str, Any]) -> bool:
    tensors = (value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor))
    return any(value.is_meta for value in tensors) or torch.device(kwargs.get("device") or "cpu").type == "meta"


def _foreseen(func: Any, args: Any, kwargs: dict[str, Any]) -> list[torch.Size]:
    """The shapes that an operator will make; none where they cannot be known before, as of `nonzero`."""
    if any(each.alias_info is not None for each in func._schema.returns):  # a view, or one in place
        return []
    name = func.name()
    if "norm" in name or "softmax" in name or "dot_product" in name:  # sorts that are quicker to see
        return [args[0].shape]
    if func.overloadpacket in _MATMULS:
        return [args[-2].shape[:-1] + args[-1].shape[-1:]]
    if torch.Tag.pointwise in func.tags:
        shapes = (reversed(value.shape) for value in args if isinstance(value, Tensor))
        return [torch.Size(map(max, itertools.zip_longest(*shapes, fillvalue=1)))]
    try:
        args, kwargs = tree_map(_bare, (args, kwargs))
        made = func(*args, **(kwargs | ({"device": "meta"} if "device" in kwargs else {})))
    except Exception:  # noqa: BLE001  (no way to call it without memory; such operators are few, and none grows)
        return []
    return [value.shape for value in tree_leaves(made) if isinstance(value, Tensor)]


def _bare(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _products(func: Any, args: Any, made: list[torch.Size]) -> int:
    """The multiplications of those operators that need many more of them than they read and write numbers."""
    kind = func.overloadpacket
    if kind in _MATMULS:
        return int(math.prod(args[-2].shape)) * int(args[-1].shape[-1])
    if kind is _aten.convolution and made:
        places = args[0].shape if args[6] else made[0]  # transposed: every input is spread over the kernel
        return int(math.prod(places)) // max(1, int(places[1])) * int(args[1].numel())
    if "scaled_dot_product" in func.name():
        return 2 * int(args[0].numel()) * int(args[1].shape[-2])
    return 0
