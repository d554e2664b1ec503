"""The head of a model: found by what the model computes, not by what it is called.

The autograd graph of the outputs is walked backwards. The first linear layers or convolutions on every way back are
the head: one for most models, two for distilled ones whose outputs are averaged. Outputs that a model has only in
training mode have auxiliary heads, found the same way.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from dlkit._nested import tensors_in
from dlkit.declared import classes_in
from dlkit.errors import ArgumentError
from dlkit.transfer._adapters import adapted_layer
from dlkit.transfer._trace import Trace, run_trace

__all__ = ["Heads", "find_heads", "head_parameters", "replace_head"]

_MARK = "_dlkit_heads"
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heads:
    """Where a model's heads are.

    Attributes:
        main: Names of the layers that make the output: usually one, several where outputs are averaged.
        auxiliary: Names of those behind outputs that exist only while training.
        dropout: Names of dropout layers directly in front of the main head, which belong to it.
        num_classes: The number of outputs.
    """

    main: tuple[str, ...]
    auxiliary: tuple[str, ...]
    dropout: tuple[str, ...]
    num_classes: int

    @property
    def names(self) -> tuple[str, ...]:
        """All layers with weights."""
        return (*self.main, *self.auxiliary)


def find_heads(model: nn.Module, example: Any = None) -> Heads:
    """Find the layers that turn features into outputs.

    Args:
        model: Any module whose output, or the first tensor of it, has one number per class in its second (or only
            other) dimension.
        example: An input with a batch dimension; None guesses one from the first layer.

    Raises:
        ArgumentError: the model cannot be run, or no linear layer or convolution makes its output.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))
    >>> find_heads(model)
    Heads(main=('3',), auxiliary=(), dropout=('2',), num_classes=3)
    """
    if (known := model.__dict__.get(_MARK)) is not None and example is None:
        return known  # type: ignore[no-any-return]
    trace = run_trace(model, example)
    outputs = _outputs(trace.output)
    if not outputs:
        raise ArgumentError(
            f"{type(model).__name__} returned no tensor with classes, but {type(trace.output).__name__}"
        )
    num_classes = int(outputs[0].shape[-1] if outputs[0].dim() != 4 else outputs[0].shape[1])
    main = _heads_of(model, trace, outputs, num_classes)
    if not main:
        raise ArgumentError(
            f"{type(model).__name__} has no head: no linear layer or convolution makes its {num_classes} outputs out "
            "of features; give it one as its last layer"
        )
    return Heads(
        main=main,
        auxiliary=_auxiliary(model, example, main, num_classes),
        dropout=_dropout_before(model, trace, main),
        num_classes=num_classes,
    )


def _outputs(output: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(output) if tensor.dim() >= 2 and tensor.grad_fn is not None]


def _auxiliary(model: nn.Module, example: Any, main: tuple[str, ...], num_classes: int) -> tuple[str, ...]:
    if not any(_width(module) == num_classes and name not in main for name, module in model.named_modules()):
        return ()
    try:
        trace = run_trace(model, example, training=True)
    except ArgumentError:
        return ()
    found = _heads_of(model, trace, _outputs(trace.output), num_classes)
    return tuple(name for name in found if name not in main)


def _heads_of(model: nn.Module, trace: Trace, outputs: Iterable[Tensor], num_classes: int) -> tuple[str, ...]:
    modules = dict(model.named_modules())
    found: dict[str, None] = {}
    owners: dict[int, list[str]] = {}  # several of a tied weight, of which one may be the head
    for name, tensor in trace.tensors.items():
        owners.setdefault(id(tensor), []).append(name.rpartition(".")[0])
    walk = _Walk(owners, {id(tensor) for tensor in tensors_in(trace.example)})
    for output in outputs:
        for owner in walk.frontier(output.grad_fn, lambda name: _width(modules[name]) is not None):
            if _width(modules[owner]) == num_classes:
                found.setdefault(adapted_layer(model, owner))
    order = {name: place for place, name in enumerate(modules)}
    return tuple(sorted(found, key=order.__getitem__))


def _width(module: nn.Module) -> int | None:
    """The number of outputs of a layer that could be a head."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.out_channels
    if isinstance(module, nn.Linear) or (isinstance(weight, Tensor) and hasattr(module, "out_features")):
        return int(module.out_features)  # type: ignore[arg-type]
    return None


class _Walk:
    """Walks an autograd graph from an output towards the input.

    Args:
        owners: The names of the modules for the `id` of each parameter's stand-in.
        inputs: The `id`s of the input tensors.
    """

    def __init__(self, owners: dict[int, list[str]], inputs: set[int]) -> None:
        self.owners, self.inputs = owners, inputs
        self._constant: dict[Any, bool] = {}

    def frontier(self, start: Any, stops: Any) -> list[str]:
        """The modules of the first parametrised operations that `stops` accepts, on every way back.

        Heads work beside each other. Where one depends on another, the output is a residual sum without a head.
        """
        found: dict[str, None] = {}
        ends: list[Any] = []
        waiting, seen = [start], {start}
        while waiting:
            node = waiting.pop()
            owners = {owner for child in _children(node) if self._is_constant(child) for owner in self._owners(child)}
            if heads := [owner for owner in owners if stops(owner)]:
                found |= dict.fromkeys(heads)
                ends.append(node)
                continue
            for child in _children(node):
                if child not in seen and not self._is_constant(child):
                    seen.add(child)
                    waiting.append(child)
        return [] if self._depend_on_each_other(ends) else list(found)

    def _depend_on_each_other(self, nodes: list[Any]) -> bool:
        if len(nodes) < 2:
            return False
        waiting = [child for node in nodes for child in _children(node) if not self._is_constant(child)]
        seen = set(waiting)
        while waiting:
            for child in _children(waiting.pop()):
                if child not in seen:
                    seen.add(child)
                    waiting.append(child)
        return any(node in seen for node in nodes)

    def _is_constant(self, start: Any) -> bool:
        """Whether a node depends on parameters only, such as a transposed weight."""
        stack = [start]
        while stack:
            node = stack[-1]
            if node in self._constant:
                stack.pop()
                continue
            if (variable := getattr(node, "variable", None)) is not None:
                self._constant[node] = id(variable) in self.owners
                continue
            children = _children(node)
            missing = [child for child in children if child not in self._constant]
            if missing:
                stack.extend(missing)
                continue
            # A node without children begins at a tensor that needs no gradient (integer inputs): it may be the input.
            # An embedding's weight is looked up with the input itself, which has no gradient and so no node.
            looked_up = node.name().startswith("Embedding")
            self._constant[node] = not looked_up and bool(children) and all(self._constant[c] for c in children)
        return self._constant[start]

    def _owners(self, start: Any) -> Iterator[str]:
        waiting, seen = [start], {start}
        while waiting:
            node = waiting.pop()
            if (variable := getattr(node, "variable", None)) is not None:
                yield from self.owners[id(variable)]
            for child in _children(node):
                if child not in seen:
                    seen.add(child)
                    waiting.append(child)


def _children(node: Any) -> list[Any]:
    return [child for child, _ in node.next_functions if child is not None]


def _dropout_before(model: nn.Module, trace: Trace, main: tuple[str, ...]) -> tuple[str, ...]:
    """Dropout layers that are called after the last weights of the backbone were used, and not within its blocks."""
    modules = dict(model.named_modules())
    holders = {name[:place] for name in main for place, sign in enumerate(name) if sign == "."} | {""}
    began = min((trace.calls[name].used_before for name in main if name in trace.calls), default=None)
    if began is None:
        return ()
    return tuple(
        call.name
        for call in trace.calls.values()
        if isinstance(modules[call.name], _DROPOUT)
        and call.used_before == began
        and call.name.rpartition(".")[0] in holders
    )


def replace_head(model: nn.Module, classes: int, *, example: Any = None) -> nn.Module:
    """Give a model new heads for other classes, in place, and return it.

    Every head is replaced by a fresh layer of its own kind (the auxiliary ones too), on the same device and with the
    same dtype; all other weights stay. The model gets a method `head_parameters()`.

    Args:
        model: Any module with a linear layer or a convolution as its head.
        classes: The number of classes, at least 1.
        example: An input with a batch dimension; None guesses one.

    Raises:
        ArgumentError: see `find_heads`.

    >>> model = replace_head(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1000)), 2)
    >>> model[2].out_features, len(list(model.head_parameters()))
    (2, 2)
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ArgumentError(f"classes must be a number of at least 1, not {classes!r}")
    heads = find_heads(model, example)
    for name in heads.names:
        parent, _, key = name.rpartition(".")
        layer = _resized(model.get_submodule(name), classes)
        setattr(model.get_submodule(parent), key, layer)
    _tell_class_count(model, heads.num_classes, classes)
    if classes_in(model) is not None:
        model.__dict__["classes"] = None  # the names of the old head's outputs
    return remember_heads(model, dataclasses.replace(heads, num_classes=classes))


def remember_heads(model: nn.Module, heads: Heads) -> nn.Module:
    """Keep what was found with the model.

    Args:
        model: The model.
        heads: Its heads.
    """
    model.__dict__[_MARK] = heads
    model.__dict__["head_parameters"] = functools.partial(head_parameters, model)
    return model


def _resized(layer: nn.Module, width: int) -> nn.Module:
    """A fresh layer of the same kind with another number of outputs."""
    if not _is_plain(layer):
        raise ArgumentError(
            f"the head is a {type(layer).__name__}, which dlkit cannot rebuild; replace it yourself before you pass "
            "the model"
        )
    weight: Tensor = layer.weight  # type: ignore[assignment]
    fresh = copy.copy(layer)
    fresh._parameters = dict(layer._parameters)
    for mark in ("train", "_dlkit_frozen"):  # of a layer that was frozen: the new one is not
        fresh.__dict__.pop(mark, None)
    shape = (width, *weight.shape[1:])
    fresh.weight = nn.Parameter(weight.detach().new_empty(shape))
    if isinstance(layer.bias, Tensor):
        fresh.bias = nn.Parameter(weight.detach().new_empty(width))
    for name in ("out_features", "out_channels"):
        if hasattr(fresh, name):
            setattr(fresh, name, width)
    _start(fresh.weight, fresh._parameters.get("bias"))
    return fresh


def _is_plain(layer: nn.Module) -> bool:
    if isinstance(layer, nn.modules.conv._ConvNd):
        return layer.groups == 1 and set(layer._parameters) <= {"weight", "bias"} and not layer.transposed
    return set(layer._parameters) == {"weight", "bias"} and getattr(layer.weight, "dim", int)() == 2


def _start(weight: Tensor, bias: Tensor | None) -> None:
    """torch's own start for linear layers and convolutions: uniform within 1/sqrt(fan in)."""
    if weight.is_meta:
        return
    bound = 1 / math.sqrt(weight[0].numel())
    nn.init.uniform_(weight, -bound, bound)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound)


def _tell_class_count(model: nn.Module, old: int, new: int) -> None:
    """Some models reshape their output with a number they keep beside the layer."""
    for module in model.modules():
        for name in ("num_classes", "n_classes", "num_labels"):
            if module.__dict__.get(name) == old and not isinstance(module.__dict__[name], bool):
                setattr(module, name, new)
    architecture = model.__dict__.get("architecture")
    if architecture is not None and old != new:  # of `create_model`; others do not say where their number of classes is
        known = architecture | {"num_classes": new} if "num_classes" in architecture else None
        model.__dict__.update(architecture=known, classes=None)


def head_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of a model's heads, auxiliary ones included: what is trained while the rest is frozen.

    Args:
        model: Any module; `create_model`, `replace_head` and `freeze` also give it this as a method.

    >>> len(list(head_parameters(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))))
    2
    """
    seen: set[int] = set()
    for name in find_heads(model).names:
        for parameter in model.get_submodule(name).parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter
