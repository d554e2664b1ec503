"""A model's state as tensors that a file can hold side by side, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dlkit.errors import ArgumentError, ModelFileError

__all__ = ["check_fit", "pack", "unpack"]


def pack(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a model's state_dict, each once, on the CPU; and the names that share another's tensor.

    Args:
        model: Any module.

    Raises:
        ArgumentError: the state holds something that is not a tensor.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[object, ...], str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ArgumentError(f"the model's state has {name}, which is a {type(value).__name__} not a tensor")
        place = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and place in seen:
            aliases[name] = seen[place]
            continue
        seen[place] = name
        # A copy of its own memory: parts of one big tensor would otherwise lie over each other in the file.
        tensors[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format).contiguous()
    return tensors, aliases


def check_fit(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], aliases: Mapping[str, str], path: str) -> None:
    """Whether the model has just the tensors that the file has.

    Args:
        model: The model, possibly on the meta device.
        shapes: Of the tensors in the file.
        aliases: Names that share another's tensor.
        path: For the message.

    Raises:
        ModelFileError: it has others; names the first.
    """
    if odd := [name for name, other in aliases.items() if name in shapes or other not in shapes]:
        raise ModelFileError(f"{path}: {odd[0]} is declared to share {aliases[odd[0]]}, which the file does not have")
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    given = {**shapes, **{name: shapes[other] for name, other in aliases.items()}}
    for name in sorted(set(wanted) | set(given)):
        if wanted.get(name) != given.get(name):
            raise ModelFileError(
                f"{path}: {name} is {_shown(given.get(name))} in the file and {_shown(wanted.get(name))} in the "
                "architecture it names; it was changed after saving, or made by another version of that model"
            )


def _shown(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))


def unpack(model: nn.Module, tensors: Mapping[str, Tensor], aliases: Mapping[str, str]) -> None:
    """Give `model` its `tensors`, each of which stands there once; `aliases` share another's, and become one again."""
    own = dict(model.named_parameters(remove_duplicate=False))
    tied = {name: other for name, other in aliases.items() if own.get(name) is not own.get(other) or name not in own}
    state = {**tensors, **{name: tensors[other] for name, other in aliases.items()}}
    for name, parameter in {**dict(model.named_buffers(remove_duplicate=False)), **own}.items():
        if name in state and parameter.dtype != state[name].dtype:
            parameter.data = parameter.data.to(state[name].dtype)
    model.load_state_dict(state)
    for name, other in tied.items():
        _tie(model, name, other)


def _tie(model: nn.Module, name: str, other: str) -> None:
    """Let two names be one tensor, as they were when the model was saved (a shared embedding, for example)."""
    owner, _, leaf = other.rpartition(".")
    shared = getattr(model.get_submodule(owner), leaf)
    place, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(place), leaf, shared)
