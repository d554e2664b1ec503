"""State that a run has beside its model: a loss with parameters or buffers, metrics, and buffers nobody saves.

One registry (`run.parts`) names what was handed to the Trainer and has a state: it is moved to the device, saved,
compared and restored when a run continues, put back after a rehearsal, and brought back with the best weights.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlkit._language import Message
from dlkit._showing import few
from dlkit.runs.checking import restoring
from dlkit.runs.snapshot import Snapshot
from dlkit.runs.state import Run

__all__ = [
    "buffers_of",
    "elsewhere",
    "find_parts",
    "hold_tensors",
    "learning_parameters",
    "load_buffers",
    "load_parts",
    "parts_state",
    "remember",
    "tell_unsaved",
    "watch_tensors",
]

_DEPTH = 3


def find_parts(handed: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """What has a state among the objects that were handed over, by name.

    An object with `state_dict` and `load_state_dict` is such a part. Of a function, a `partial`, a bound method or a
    plain object it is the modules in them, as `lambda output, target: margin(output, target)` has one, whether `margin`
    is in the function around it or in the script.

    Args:
        handed: Objects by the name of their argument.
        model: Whose own modules are not parts.

    >>> margin = nn.CrossEntropyLoss(weight=torch.ones(2))
    >>> list(find_parts({"loss": lambda output, target: margin(output, target)}, nn.Linear(1, 2)))
    ['loss.margin']
    """
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())} | {id(part) for part in model.modules()}
    parts: dict[str, Any] = {}
    for name, value in handed.items():
        for place, part in _stateful(value, name):
            tensors = _tensors(part)
            known = id(part) in own or any(part is other for other in parts.values())
            if not known and not (tensors and all(id(tensor) in own for tensor in tensors)):
                parts[place] = part
    return parts


def hold_tensors(part: nn.Module, model: nn.Module) -> None:
    """Make buffers of the tensors that a module holds as plain attributes, so that they are moved and saved as it is.

    They are not persistent: the module's own `state_dict` stays as it was. What learns, and what moves its tensors
    itself (a metric of torchmetrics), is left alone.

    Args:
        part: A loss, for example.
        model: Whose own modules are left alone, too.

    >>> loss = nn.CrossEntropyLoss(); loss.margin = torch.ones(2)
    >>> hold_tensors(loss, nn.Linear(1, 2)); dict(loss.named_buffers())
    {'margin': tensor([1., 1.])}
    """
    own = {id(module) for module in model.modules()}
    for module in part.modules():
        if id(module) not in own and type(module)._apply is nn.Module._apply:
            for name, value in list(vars(module).items()):
                if isinstance(value, Tensor) and not value.requires_grad:
                    delattr(module, name)
                    module.register_buffer(name, value, persistent=False)


def elsewhere(value: Any, name: str, device: torch.device) -> list[str]:
    """The names of tensors that an object, its modules, lists and closures hold on another device.

    Args:
        value: A loss, for example, when its parts are on the device.
        name: Its own.
        device: Where they should be. A single number may be anywhere.
    """
    found = list[str]()
    for place, held in _found(value, name, _DEPTH, nn.Module | Tensor):
        tensors = [(place, held)] if isinstance(held, Tensor) else []
        for prefix, module in held.named_modules() if isinstance(held, nn.Module) else ():
            own = {
                key: item for key, item in vars(module).items() if key not in ("_parameters", "_buffers", "_modules")
            }
            tensors += _found(own, f"{place}.{prefix}" if prefix else place, 2, Tensor)
        found += [each for each, tensor in tensors if tensor.dim() and tensor.device.type != device.type]
    return list(dict.fromkeys(found))


def watch_tensors(handed: Mapping[str, Any], model: nn.Module) -> Callable[[], list[str]]:
    """Watch the tensors that functions and plain objects hold, which have no `state_dict`.

    Args:
        handed: Objects by the name of their argument.
        model: Whose own tensors are left out.

    Returns:
        A function that names, once, those that have been changed or replaced, or have come, since then.

    >>> class Loss:
    ...     mean = torch.zeros(1)
    >>> loss = Loss(); changed = watch_tensors({"loss": loss}, nn.Linear(1, 1))
    >>> loss.mean = loss.mean + 1; changed()
    ['loss.mean']
    """
    own = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    plain = {name: value for name, value in handed.items() if not callable(getattr(value, "state_dict", None))}
    told: list[str] = []

    def held() -> dict[str, tuple[Tensor, int]]:
        found = [each for name, value in plain.items() for each in _found(value, name, _DEPTH, nn.Module | Tensor)]
        shortest: dict[int, tuple[str, Tensor]] = {}
        for place, value in sorted(found, key=lambda each: len(each[0])):
            if isinstance(value, Tensor) and id(value) not in own:
                shortest.setdefault(id(value), (place, value))
        return {place: (each, 0 if each.is_inference() else each._version) for place, each in shortest.values()}

    before = held()  # as in `own` the tensors themselves: the next one may be at the address of one that is gone

    def changed() -> list[str]:
        if told:
            return []
        was = ((place, now, before.get(place, (None, 0))) for place, now in held().items())
        told.extend(place for place, now, then in was if now[0] is not then[0] or now[1] != then[1])
        return list(told)

    return changed


def tell_unsaved(run: Run) -> None:
    """Tell which tensors of a loss or a step the run changes though nothing can save them or put them back.

    Args:
        run: After some steps.
    """
    if names := run.unsaved():
        told = Message(
            "{names}: changed while training, and not saved: a run that is resumed begins with what the script makes, "
            "and a rehearsal cannot put it back; let it be a buffer of a torch.nn.Module, or give the object that "
            "holds it state_dict and load_state_dict",
            names=few(names, 3),
        )
        run.tell(told)


def parts_state(run: Run) -> dict[str, Any]:
    """What a checkpoint holds of the parts, and of the buffers that no `state_dict` has.

    Args:
        run: At a safe point.
    """
    modules = {"model": run.model, **run.parts}
    if run.eval_model is not run.model:
        modules["eval_model"] = run.eval_model
    buffers = {name: buffers_of(part) for name, part in modules.items() if isinstance(part, nn.Module)}
    states = {name: part.state_dict() for name, part in run.parts.items()}
    return {
        "parts": {name: state for name, state in states.items() if state},
        "buffers": {name: held for name, held in buffers.items() if held},
    }


def load_parts(run: Run, state: Mapping[str, Any], *, eval_model: bool = False) -> None:
    """Put the parts back to what `parts_state` gave, and the buffers of model and parts.

    Args:
        run: The run.
        state: A checkpoint; one of an older release has no parts.
        eval_model: Whether the buffers of the model are those of the averaged one, whose weights it has got.

    Raises:
        DamagedCheckpointError: a part does not take its state; names it.
    """
    for name, part in run.parts.items():
        if name in state.get("parts", {}):
            with restoring(f"parts[{name!r}]"):
                part.load_state_dict(state["parts"][name])
    buffers = state.get("buffers", {})
    for name, part in {"model": run.model, **run.parts}.items():
        held = buffers.get("eval_model" if eval_model and name == "model" else name, {})
        with restoring(f"buffers[{name!r}]"):
            load_buffers(part, held)


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that are not persistent, by their full names: what a `state_dict` leaves out.

    Args:
        module: Any module.
    """
    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, owner in module.named_modules()
        for name in sorted(owner._non_persistent_buffers_set)
        if (buffer := owner._buffers.get(name)) is not None
    }


@torch.no_grad()
def load_buffers(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Put buffers back; one that has grown since the module was made gets its saved size.

    Args:
        module: The module.
        saved: What `buffers_of` gave.
    """
    for place, value in saved.items():
        prefix, _, name = place.rpartition(".")
        owner = module.get_submodule(prefix)
        now = owner._buffers.get(name)
        if now is not None and now.shape == value.shape and now.dtype == value.dtype:
            now.copy_(value)
        else:
            near = now if now is not None else next(iter(_tensors(module)), value)
            owner.register_buffer(name, value.to(near.device, copy=True), persistent=False)


def learning_parameters(part: Any) -> dict[str, nn.Parameter]:
    """The parameters of a part that are meant to be trained.

    Args:
        part: One of `run.parts`.
    """
    named = part.named_parameters() if isinstance(part, nn.Module) else ()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def remember(part: Any) -> Callable[[], None]:
    """A function that puts a module or another part back to what it is now, buffers, modes and marks included.

    Args:
        part: A module, or an object with `state_dict` and `load_state_dict`.

    >>> norm = nn.BatchNorm1d(2); put_back = remember(norm)
    >>> _ = norm(torch.randn(8, 2)); put_back(); norm.running_mean
    tensor([0., 0.])
    """
    if not isinstance(part, nn.Module):
        state = copy.deepcopy(part.state_dict())
        return lambda: None if not state else part.load_state_dict(state)
    weights = Snapshot().take(part.state_dict())
    buffers = [(owner, dict(owner._buffers), Snapshot().take(dict(owner._buffers))) for owner in part.modules()]
    attributes = [(owner, _attributes(owner)) for owner in part.modules()]
    learning = [(parameter, parameter.requires_grad) for parameter in part.parameters()]

    @torch.no_grad()
    def put_back() -> None:
        for owner, before in attributes:
            vars(owner).clear()
            vars(owner).update(before)
        for owner, tensors, values in buffers:  # the tensors themselves: one may have been replaced by a larger one
            owner._buffers.clear()
            owner._buffers.update(tensors)
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensor.copy_(values[name])
        for parameter, learns in learning:
            parameter.requires_grad_(learns)
        part.load_state_dict(weights)

    return put_back


def _attributes(module: nn.Module) -> dict[str, Any]:
    """A module's modes and marks; what it holds in objects of its own (hooks, parameters) is shared."""
    return {
        name: copy.copy(value) if dataclasses.is_dataclass(value) else value for name, value in vars(module).items()
    }


def _tensors(part: Any) -> list[Tensor]:
    return [*part.parameters(), *part.buffers()] if isinstance(part, nn.Module) else []


def _stateful(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The object itself, or the modules in it."""
    if isinstance(value, type):
        return
    if callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
        yield name, value
    else:
        yield from _found(value, name, _DEPTH, nn.Module)


def _found(value: Any, name: str, depth: int, kind: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, kind):
        yield name, value
    elif depth > 0:
        for part, item in _held(value):
            yield from _found(item, f"{name}.{part}", depth - 1, kind)


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    """What a function, a `partial`, a method, a container or a plain object refers to, in a stable order."""
    if isinstance(value, functools.partial):
        yield "func", value.func
        yield from ((str(place), item) for place, item in enumerate(value.args))
        yield from value.keywords.items()
    elif inspect.ismethod(value):
        yield "self", value.__self__
    elif inspect.isfunction(value):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        yield from ((name, cell.cell_contents) for name, cell in cells if _is_filled(cell))
        yield from vars(value).items()
        used = {name: value.__globals__.get(name) for name in value.__code__.co_names}
        yield from ((name, item) for name, item in used.items() if isinstance(item, nn.Module | Tensor))
    elif isinstance(value, Mapping):
        yield from ((str(name), item) for name, item in list(value.items())[:100])
    elif isinstance(value, list | tuple):
        yield from ((str(place), item) for place, item in enumerate(value[:100]))
    elif hasattr(value, "__dict__") and not isinstance(value, type | Tensor) and not inspect.ismodule(value):
        yield from vars(value).items()


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name of the function around it that has no value yet
        return False
