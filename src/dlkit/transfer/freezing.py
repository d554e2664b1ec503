"""Frozen means frozen: no gradient, no update, and eval mode, whatever is called on the whole model.

What is frozen is marked on the modules themselves, so that it survives copying; modules are never swapped and their
classes stay. A marked module answers `.train()` by staying in eval mode: BatchNorm statistics do not move, and neither
dropout nor drop-path is drawn, also in your own loop. A module that holds both frozen and trainable parts only
passes the call on, and stays in eval mode itself, because what its own `forward` does is part of the features.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedParameter

from dlkit._modes import HELD, put_back, state_of
from dlkit._near import nearest
from dlkit.errors import ArgumentError
from dlkit.transfer._adapters import adapters
from dlkit.transfer._trace import run_trace
from dlkit.transfer.heads import find_heads, remember_heads

__all__ = ["freeze", "frozen_modules", "frozen_tensors", "is_frozen", "unfreeze"]

_M = TypeVar("_M", bound=nn.Module)
_MARK = HELD


@dataclasses.dataclass
class _Mark:
    """What is frozen of a module.

    Attributes:
        parameters: Names of its own parameters that `freeze` switched off (not those that never learn by design).
        whole: All of the module is frozen, its children included.
        mode: What `.train()` was last asked for: what the module goes back to when it is unfrozen.
    """

    parameters: tuple[str, ...]
    whole: bool
    mode: bool


def freeze(model: _M, until: str | None = None, *, example: Any = None) -> _M:
    """Freeze everything in front of `until`, in place, and return the model.

    Frozen parameters have `requires_grad=False` and no `.grad`, so that no optimizer moves them, one made before
    included. Frozen modules stay in eval mode whatever `.train()` is called on. The frozen part therefore runs without
    a graph, and a sample's features depend on nothing but the sample. A dropout directly in front of the head is part
    of the head, and so is a weight that the head shares with another layer (an embedding, in language models). What is
    frozen already stays so. Without `until`, adapters (those of PEFT) stay as trainable as they are, wherever they lie.

    Args:
        model: Any module, or a part of one.
        until: The first module that stays trainable, by name ("layer4", "blocks.8"); everything that is computed
            before it is frozen. None is the head (see `find_heads`), "all" freezes the whole module.
        example: An input with a batch dimension, with which the order is found out; None guesses one.

    Raises:
        ArgumentError: no such module, no head, or a layer that cannot be frozen: its output for one sample depends
            on the others even in eval mode (BatchNorm without running statistics).

    >>> model = freeze(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)))
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ['3.weight', '3.bias']
    >>> model.train()[1].training
    False
    """
    parameters, modules = _before(model, until, example)
    _check(model, modules)
    _apply(model, parameters | _frozen_names(model), modules | set(frozen_modules(model)))
    return model


def unfreeze(model: _M, from_: str | None = None, *, example: Any = None) -> _M:
    """Make everything trainable again from a module on, in place, and return the model.

    Only what `freeze` has frozen comes back; parameters that never learn by design stay as they are. Unfrozen modules
    return to the mode that was last asked for. An optimizer made on the head alone does not know the others: see
    `dlkit.transfer.add_groups`, or use the callback `Unfreeze`.

    Args:
        model: A model that was frozen, or parts of it.
        from_: The first module to be trainable, by name; "head", or None and "all" for the whole model.
        example: See `freeze`.

    Raises:
        ArgumentError: no such module.

    >>> model = freeze(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)))
    >>> all(parameter.requires_grad for parameter in unfreeze(model).parameters())
    True
    """
    if from_ in (None, "all"):
        _apply(model, set(), set())
        return model
    parameters, modules = _before(model, None if from_ == "head" else from_, example)
    _apply(model, parameters & _frozen_names(model), modules & set(frozen_modules(model)))
    return model


def frozen_modules(model: nn.Module) -> list[str]:
    """The names of the modules that are frozen as a whole; "" is the model itself.

    Args:
        model: Any module.
    """
    marks = ((name, module.__dict__.get(_MARK)) for name, module in model.named_modules())
    return [name for name, mark in marks if mark is not None and mark.whole]


def frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that may not change, by name.

    Args:
        model: Any module.

    >>> list(frozen_tensors(freeze(nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2)))))
    ['0.weight']
    """
    whole = set(frozen_modules(model))
    names = _frozen_names(model)
    result: dict[str, Tensor] = {name: value for name, value in model.named_parameters() if name in names}
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[0] in whole:
            result[name] = parameter
    return result | {name: value for name, value in model.named_buffers() if name.rpartition(".")[0] in whole}


def is_frozen(model: nn.Module) -> bool:
    """Whether `freeze` has frozen anything in a model.

    Args:
        model: Any module.
    """
    return any(_MARK in module.__dict__ for module in model.modules())


def _frozen_names(model: nn.Module) -> set[str]:
    return {
        f"{name}.{own}" if name else own
        for name, module in model.named_modules()
        for own in getattr(module.__dict__.get(_MARK), "parameters", ())
    }


def _before(model: nn.Module, until: str | None, example: Any) -> tuple[set[str], set[str]]:
    """The parameters and the modules that are used before a module is reached."""
    if until == "all":
        return {name for name, _ in model.named_parameters()}, {name for name, _ in model.named_modules()}
    if until in (None, "head"):
        heads = find_heads(model, example)
        remember_heads(model, heads)
        return _all_but(model, {*heads.names, *heads.dropout})
    if until not in dict(model.named_modules()) or not until:
        raise ArgumentError(f"{type(model).__name__} has no module {until!r}; {_similar(model, until)}")
    return _earlier(model, until, example)


def _all_but(model: nn.Module, kept: set[str]) -> tuple[set[str], set[str]]:
    """Everything but what is in `kept`, what is tied to it, and what an adapter trains."""
    around, beside = adapters(model)
    named = dict(model.named_parameters(remove_duplicate=False))
    free = {id(parameter) for name, parameter in named.items() if _is_within(_owner(name), kept | beside)}
    moving = {_owner(name) for name, parameter in named.items() if id(parameter) in free}
    holders = around | {holder for name in kept | beside | moving for holder in _holders(name)}
    still = {name for name, _ in model.named_modules() if name not in holders | moving}
    modules = {name for name in still if not _is_within(name, kept | beside)}
    return {name for name, parameter in model.named_parameters() if id(parameter) not in free}, modules


def _earlier(model: nn.Module, until: str, example: Any) -> tuple[set[str], set[str]]:
    trace = run_trace(model, example)
    reached = trace.calls.get(until)
    if reached is None:
        raise ArgumentError(f"the forward of {type(model).__name__} never calls {until!r}, so nothing comes before it")
    used = set(trace.used[: reached.used_before])
    order = {name: place for place, name in enumerate(trace.calls)}
    still_open = {*reached.within, *_holders(until)}
    modules: set[str] = set()
    for name, module in model.named_modules():
        if name in still_open or _is_within(name, {until}):
            continue
        if name in order:
            whole = order[name] < order[until]
        else:  # a list of modules, or one whose weights are used without calling it
            own = {f"{name}.{key}" for key, _ in module.named_parameters()}
            whole = _owner(name) in modules or (bool(own) and own <= used)
        if whole:
            modules.add(name)
    unused = {name for name, _ in model.named_parameters() if name not in trace.used}
    return used | {name for name in unused if _owner(name) in modules}, modules


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _holders(name: str) -> set[str]:
    """The names of all modules that a module or parameter is in."""
    return {"", *(name[:place] for place, sign in enumerate(name) if sign == ".")}


def _is_within(name: str, others: set[str]) -> bool:
    return name in others or not others.isdisjoint(_holders(name) - {""})


def _apply(model: nn.Module, parameters: set[str], modules: set[str]) -> None:
    """Make exactly these the frozen ones; parameters that are shared go by their first name."""
    frozen = {id(parameter) for name, parameter in model.named_parameters() if name in parameters}
    holders = {holder for name in parameters | modules for holder in _holders(name)}
    marked = modules | (holders - adapters(model).around)  # an adapter's own forward is part of what is trained
    before = state_of(model)
    asked = {id(module): mode for module, mode, _ in before}
    ours = _released(model)
    for name, module in model.named_modules():
        if name in marked:
            own = tuple(
                key
                for key, parameter in module._parameters.items()
                if parameter is not None
                and id(parameter) in frozen
                and (parameter.requires_grad or id(parameter) in ours)
            )
            ours |= {id(module._parameters[key]) for key in own}
            _mark(module, own, whole=name in modules, asked=asked[id(module)])
    put_back([(module, mode, mode and _MARK not in vars(module)) for module, mode, _ in before])


def _released(model: nn.Module) -> set[int]:
    """Take all marks off; returns which parameters were switched off by them."""
    ours: set[int] = set()
    for module in model.modules():
        mark: _Mark | None = module.__dict__.pop(_MARK, None)
        if mark is None:
            continue
        del module.__dict__["train"]
        for key in mark.parameters:
            if (parameter := module._parameters.get(key)) is not None:
                parameter.requires_grad_(True)
                ours.add(id(parameter))
    return ours


def _mark(module: nn.Module, own: tuple[str, ...], *, whole: bool, asked: bool) -> None:
    module.__dict__[_MARK] = _Mark(own, whole, asked)
    # An attribute of the object, found before the class's method. Unlike a bound method it can also be pickled.
    module.__dict__["train"] = functools.partial(_train, module)
    for key in own:
        parameter = module._parameters[key]
        assert parameter is not None
        parameter.requires_grad_(False)
        parameter.grad = None


def _train(module: nn.Module, mode: bool = True) -> nn.Module:
    """In the place of `module.train`: stays in eval mode, and passes the call on where any part can train."""
    parts = list(module.modules())
    whole = all(mark is not None and mark.whole for mark in (vars(part).get(_MARK) for part in parts))
    type(module).train(module, mode and not whole)  # a frozen adapter or cache must not act as in training either
    module.training = False
    for part in parts if whole else (module,):
        vars(part)[_MARK].mode = mode
    return module


def _check(model: nn.Module, names: set[str]) -> None:
    for name in sorted(names):
        module = model.get_submodule(name)
        if any(isinstance(parameter, UninitializedParameter) for parameter in module._parameters.values()):
            raise ArgumentError(f"{name or type(module).__name__} has no weights yet; run one batch through it first")
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise ArgumentError(
                f"{name or 'the module'} is a {type(module).__name__} with track_running_stats=False: its output for "
                "a sample depends on the rest of the batch even in eval mode, so it cannot be frozen; use GroupNorm, "
                "or running statistics"
            )


def _similar(model: nn.Module, name: str) -> str:
    names = [each for each, _ in model.named_modules() if each]
    close = nearest(name, names, most=5, cutoff=0.4) or [each for each in names if "." not in each]
    return f"there are {', '.join(close)}"
