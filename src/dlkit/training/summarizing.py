"""What a model is made of, layer by layer: output shapes, parameters, and which of these learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from dlkit._html import facts, table
from dlkit._shapes import shape_of
from dlkit._showing import Lines

__all__ = ["Layer", "Summary", "summarize"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One module of a model.

    Attributes:
        name: As in `named_modules`; empty for the model itself.
        kind: Its class.
        output: Shape and type of what it gave, "" where it was not called.
        parameters: Numbers in its parameters; those of its parts only where these are not listed. A parameter that
            several modules share counts once.
        trainable: How many of them learn.
    """

    name: str
    kind: str
    output: str
    parameters: int
    trainable: int

    @property
    def learns(self) -> str:
        """Whether its parameters learn, in a word."""
        if not self.parameters:
            return ""
        return "yes" if self.trainable == self.parameters else "in part" if self.trainable else "no"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a model is made of; `print` it, or let a notebook show it.

    Attributes:
        layers: Each module, in the order in which it was registered.
        parameters: Of the whole model.
        trainable: How many of them learn.
        size: Of parameters and buffers, in bytes.
    """

    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    size: int

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        for layer in self.layers:
            inner = layer.name.rpartition(".")[2]
            shown = f"{'  ' * layer.name.count('.')}{inner}: {layer.kind}" if layer.name else layer.kind
            yield shown, layer.output, f"{layer.parameters:,}" if layer.parameters else "", layer.learns

    def _total(self) -> str:
        frozen = self.parameters - self.trainable
        return f"{self.parameters:,} parameters, {self.trainable:,} learn, {frozen:,} do not; {self.size / 1e6:,.1f} MB"

    def __str__(self) -> str:
        rows = [_HEAD, *self._rows()]
        widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
        told = [
            f"{a.ljust(widths[0])}  {b.ljust(widths[1])}  {c.rjust(widths[2])}  {d}".rstrip() for a, b, c, d in rows
        ]
        return Lines.of(*told, self._total()).plain()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return facts(self._total(), {}) + table(_HEAD, [tuple(row) for row in self._rows()])


_HEAD = ("layer", "output", "parameters", "learns")


def summarize(model: nn.Module, run: Callable[[], Any] | None, *, depth: int) -> Summary:
    """Look at the modules of a model, and at what they give while it runs once.

    Args:
        model: Any module.
        run: Calls it; None to leave the outputs out.
        depth: Modules that lie deeper are counted to those they are in.
    """
    outputs = dict[str, str]()
    named = [(name, module) for name, module in model.named_modules() if name.count(".") < depth]
    handles = [module.register_forward_hook(_noting(outputs, name)) for name, module in named]
    try:
        if run is not None:
            run()
    finally:
        for handle in handles:
            handle.remove()
    seen, layers = set[int](), list[Layer]()
    for name, module in named:
        deep = name.count(".") == depth - 1 and name != ""
        own = [each for each in module.parameters(recurse=deep) if id(each) not in seen]
        seen.update(map(id, own))
        layers.append(
            Layer(
                name=name,
                kind=type(module).__name__,
                output=outputs.get(name, ""),
                parameters=sum(each.numel() for each in own),
                trainable=sum(each.numel() for each in own if each.requires_grad),
            )
        )
    return Summary(
        layers=tuple(layers),
        parameters=sum(layer.parameters for layer in layers),
        trainable=sum(layer.trainable for layer in layers),
        size=sum(each.numel() * each.element_size() for each in [*model.parameters(), *model.buffers()]),
    )


def _noting(outputs: dict[str, str], name: str) -> Callable[..., None]:
    def note(module: nn.Module, given: Any, output: Any) -> None:
        outputs.setdefault(name, shape_of(output))

    return note
