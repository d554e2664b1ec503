"""What a model computes, found out by running it on tensors without data: nothing of the model is touched.

The model's parameters and buffers are replaced by tensors of the "meta" device for the time of one call, which have
shapes and an autograd graph but no numbers. That costs milliseconds for any size of model, moves no statistics and
draws no random numbers. A model that cannot run without numbers is run for real on one small batch, as a copy.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dlkit._modes import in_mode
from dlkit._nested import tensors_in
from dlkit.errors import ArgumentError
from dlkit.transforms import Preprocessing

__all__ = ["Call", "Trace", "example_for", "run_trace"]

_SHAPE_OF_ITS_INPUT = {F.batch_norm, F.gelu, F.hardsigmoid, F.hardswish, F.hardtanh, F.relu6, F.silu}

# Tried in this order for images, where nothing says what size a model was made for.
_SIZES = (224, 32, 28, 64, 96, 128, 256, 299, 384, 48, 16, 512)


@dataclasses.dataclass(frozen=True)
class Call:
    """The first call of a module.

    Attributes:
        name: The module's name.
        used_before: How many parameters had been used when it began.
        channels: The second dimension of its first argument, 0 where there is none.
        within: The modules whose calls were not over then.
    """

    name: str
    used_before: int
    channels: int
    within: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Trace:
    """One run of a model.

    Attributes:
        output: What it returned, with its autograd graph.
        example: The input, which requires a gradient where it has numbers with a fraction.
        tensors: The stand-ins of the parameters, by name; tied parameters have the same one under each name.
        used: The parameters' names in the order of their first use.
        calls: The modules' first calls, in order.
    """

    output: Any
    example: Any
    tensors: dict[str, Tensor]
    used: list[str]
    calls: dict[str, Call]


class _Uses(TorchFunctionMode):
    """Notes in which order parameters are used, whether or not their modules are called."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names, self.used = names, dict[str, None]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _only_looks(func):
            for value in tensors_in((args, kwargs or {})):
                if (name := self.names.get(id(value))) is not None:
                    self.used.setdefault(name)
        if func in _SHAPE_OF_ITS_INPUT and (tensors := list(tensors_in((args, kwargs or {}))))[0].is_meta:
            return _Like.apply(*tensors)
        return func(*args, **(kwargs or {}))


class _InMode(nn.Module):
    """Changes the mode while the stand-ins are in place, so an adapter that merges leaves the weights alone."""

    def __init__(self, model: nn.Module, training: bool, uses: _Uses) -> None:
        super().__init__()
        self.model, self.wanted, self.uses = model, training, uses

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with in_mode(self.model, training=self.wanted, held_too=True), self.uses:
            return self.model(*args, **kwargs)


class _Like(torch.autograd.Function):
    """What a norm or an activation is to shapes and to the graph.

    torch's own are written in Python for tensors without numbers: 32 of them take 0.1 seconds.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *held: Tensor) -> Tensor:
        for each in held:
            if each.shape != x.shape[1:2]:
                raise ValueError(f"batch_norm of {list(x.shape)} with statistics or weights of {list(each.shape)}")
        return torch.empty_like(x)


def _only_looks(func: Any) -> bool:
    """Reading `weight.shape`, `.dtype` or `.device` is not a use."""
    return getattr(func, "__name__", "") in ("__get__", "size", "dim", "numel", "is_floating_point", "is_complex")


def run_trace(model: nn.Module, example: Any = None, *, training: bool = False) -> Trace:
    """Run a model once and note what it does.

    Args:
        model: Any module.
        example: An input with a batch dimension, or a tuple of several; None guesses one, see `example_for`.
        training: In training mode, in which some models have further outputs.

    Raises:
        ArgumentError: it cannot be run on this input; pass an `example`.
    """
    first: Exception | None = None
    candidates = [example] if example is not None else list(example_for(model))
    for place, candidate in enumerate(candidates):
        for run in (_on_meta, _for_real) if place < 2 else (_on_meta,):
            try:
                return run(model, candidate, training)
            except Exception as error:  # noqa: BLE001  (any model, any input: what failed is told below)
                first = first or error
    shapes = [list(tensor.shape) for each in candidates for tensor in tensors_in(each)]
    raise ArgumentError(
        f"{type(model).__name__} could not be run on an input of {shapes or 'any guessed shape'}"
        + (f": {type(first).__name__}: {first}; " if first is not None else "; ")
        + "pass example=, a batch as the model takes it"
    ) from first


def example_for(model: nn.Module) -> Iterator[Tensor]:
    """Inputs that a model might take, judged by its own settings and its first layer with weights.

    Args:
        model: Any module.
    """
    prepared = getattr(model, "preprocessing", None)  # of create_model; a layer folded for grey does not tell
    if isinstance(prepared, Preprocessing):
        yield torch.zeros(2, *prepared.shape, device="meta")
    if (heard := getattr(model, "log_mel", None)) is not None:
        yield torch.zeros(2, 1, heard.sample_rate, device="meta")
    config = getattr(model, "pretrained_cfg", None) or {}
    if size := config.get("input_size"):
        yield torch.zeros(2, *size, device="meta")
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield torch.zeros(2, 8, dtype=torch.int64, device="meta")
            return
        if isinstance(module, nn.Linear):
            yield torch.zeros(2, module.in_features, device="meta")
            return
        if isinstance(module, nn.Conv1d):
            yield torch.zeros(2, module.in_channels, 1024, device="meta")
            return
        if isinstance(module, nn.Conv2d):
            own = getattr(model, "image_size", None)
            seen = {each.in_channels for each in model.modules() if isinstance(each, nn.Conv2d)}
            for channels in dict.fromkeys([module.in_channels, *(each for each in (3, 1) if each in seen)]):
                for size in (own, *_SIZES) if isinstance(own, int) else _SIZES:
                    yield torch.zeros(2, channels, size, size, device="meta")
            return


def _on_meta(model: nn.Module, example: Any, training: bool) -> Trace:
    def stand_in(tensor: Tensor) -> Tensor:
        trainable = isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
        return torch.empty_like(tensor, device="meta").requires_grad_(trainable)

    return _observe(model, _stand_ins(model, stand_in), _moved(example, torch.device("meta")), training)


def _for_real(model: nn.Module, example: Any, training: bool) -> Trace:
    """On a copy, because some models keep what they have seen."""
    copied = copy.deepcopy(model)

    def stand_in(tensor: Tensor) -> Tensor:
        trainable = isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
        return tensor.detach().clone().requires_grad_(trainable)

    values = _stand_ins(copied, stand_in)
    device = next((tensor.device for tensor in values.values()), torch.device("cpu"))
    return _observe(copied, values, _moved(example, device), training)


@contextlib.contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Put back what modules have noted for themselves: a cache of a stand-in's values would be of no use, or harm."""
    noted = [(vars(module), dict(vars(module))) for module in model.modules()]
    held = [(each, copy.copy(each)) for _, own in noted for each in own.values() if type(each) in (dict, list, set)]
    try:
        yield
    finally:
        for now, before in noted:
            now.clear()
            now.update(before)
        for container, content in held:
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(content)


def _stand_ins(model: nn.Module, make: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """What each place for a tensor is to hold meanwhile; tied tensors have one stand-in.

    A module that is there twice is named once: `functional_call` puts back what it finds, so under a second name it
    would take the stand-in for the original, and leave it there. (Its `tie_weights=True` adds such names by itself.)
    """
    made: dict[int, Tensor] = {}
    values: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                if id(tensor) not in made:
                    made[id(tensor)] = make(tensor)
                values[f"{prefix}.{key}" if prefix else key] = made[id(tensor)]
    return values


def _moved(example: Any, device: torch.device) -> Any:
    if isinstance(example, Tensor):
        moved = torch.zeros_like(example, device=device) if example.is_meta else example.detach().to(device).clone()
        return moved.requires_grad_(moved.is_floating_point())
    if isinstance(example, Mapping):
        return {name: _moved(value, device) for name, value in example.items()}
    if isinstance(example, tuple | list):
        return tuple(_moved(value, device) for value in example)
    return example


def _observe(model: nn.Module, values: dict[str, Tensor], example: Any, training: bool) -> Trace:
    names: dict[int, str] = {}
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, value in values.items():
        if name in parameters:
            names.setdefault(id(value), name)
    calls: dict[str, Call] = {}
    stack: list[str] = []
    uses = _Uses(names)

    def begins(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            first = next(tensors_in((args, kwargs)), None)
            channels = first.shape[1] if first is not None and first.dim() > 1 else 0
            calls.setdefault(name, Call(name, len(uses.used), channels, tuple(stack)))
            stack.append(name)

        return hook

    def ends(module: nn.Module, args: Any, output: Any) -> None:
        stack.pop()

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(begins(name), prepend=True, with_kwargs=True))
        handles.append(module.register_forward_hook(ends))
    args, kwargs = ((), example) if isinstance(example, Mapping) else (example, {})
    try:
        with _as_it_was(model), torch.random.fork_rng(devices=[]), torch.enable_grad():
            inner = {f"model.{name}": value for name, value in values.items()}
            output = torch.func.functional_call(
                _InMode(model, training, uses), inner, args, dict(kwargs), tie_weights=False
            )
    finally:
        for handle in handles:
            handle.remove()
    return Trace(output, example, {n: v for n, v in values.items() if n in parameters}, list(uses.used), calls)
