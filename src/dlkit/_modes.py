"""Training and evaluation mode, changed by calling `train` and `eval`, because some modules act when theirs changes.

A merged adapter adds its weights in `train(False)`, a cache is dropped in `train(True)`: setting `training` would leave
them in the wrong state. `nn.Module.train` itself does nothing but set the attribute of the module and ask its parts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

__all__ = ["HELD", "in_mode", "put_back", "state_of"]

#: The attribute of a module that `freeze` holds in evaluation mode; its value knows, as `mode`, what was asked for.
HELD = "_dlkit_frozen"

State = list[tuple[nn.Module, bool, bool]]


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool, held_too: bool = False) -> Iterator[None]:
    """Put a model into a mode, and each of its modules back into its own afterwards.

    Args:
        model: Any module.
        training: The mode.
        held_too: Bring what `freeze` holds in evaluation mode into training mode as well.

    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with in_mode(model, training=False):
    ...     model[0].training
    False
    >>> model[0].training, model[1].training
    (True, False)
    """
    if not training and not _trains(model):
        yield  # as a model that predicts always is
        return
    before = state_of(model)
    try:
        if training:
            model.train()
        else:
            model.eval()
        if training and held_too:
            for module in model.modules():
                if HELD in vars(module):
                    type(module).train(module)
        yield
    finally:
        put_back(before)


def _trains(model: nn.Module) -> bool:
    """Whether any module is in training mode: what `modules()` would tell, at a fifth of its time, for each batch."""
    parts = [model]
    for part in parts:  # which grows meanwhile
        if part.training:
            return True
        parts += [inner for inner in part._modules.values() if inner is not None]
    return False


def state_of(model: nn.Module) -> State:
    """The mode of every module, in the order in which `train` reaches them: the last one asked for, and its own.

    Args:
        model: Any module.
    """
    # A module that is used in two places is there twice: whichever parent changes it last, it is put right after that.
    modules = (module for _, module in model.named_modules(remove_duplicate=False))
    return [(module, _asked(module), module.training) for module in modules]


def put_back(state: State) -> None:
    """Bring modules into the modes they had, or are to have.

    Args:
        state: See `state_of`.
    """
    for module, asked, training in state:
        if _asked(module) == asked and module.training == training:
            continue
        if not _acts(module):
            module.training = asked
        elif asked:
            module.train()  # what it does to its parts is put right when their turn comes
        else:
            module.eval()


def _asked(module: nn.Module) -> bool:
    held = vars(module).get(HELD)
    return module.training if held is None else bool(held.mode)


def _acts(module: nn.Module) -> bool:
    """Whether the module does more than to set its attribute and to ask its parts."""
    kind = type(module)
    return "train" in vars(module) or kind.train is not nn.Module.train or kind.eval is not nn.Module.eval
