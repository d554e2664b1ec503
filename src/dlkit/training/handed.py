"""Objects that were handed to another Trainer before: what they remember of that run must not reach this one.

In a loop over folds, a scheduler that has come to its end or an early stopping that has lost its patience would spoil
every fold but the first, and no number would look wrong. Whatever remembers nothing may be used as often as one likes.
An optimizer belongs to its model's parameters and continues with them, as in any loop, which is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from dlkit._language import Message
from dlkit.callbacks.base import Callback
from dlkit.errors import ArgumentError
from dlkit.runs.parts import buffers_of
from dlkit.runs.state import Run
from dlkit.storage.identity import of_tensor

__all__ = ["refuse_used", "take"]

# By the object's id: the object, the run that it serves, and for parts of a run their content when that run began.
_users: dict[int, tuple[weakref.ref[Any], weakref.ref[Run], str]] = {}


def refuse_used(run: Run, callbacks: Sequence[Callback]) -> None:
    """Refuse what remembers another run, and note that all of this run's objects serve it from now on.

    Args:
        run: At the start of a fit; what a saved state has been put into is noted already.
        callbacks: All of them.

    Raises:
        ArgumentError: names the objects that were in another Trainer.
    """
    for name, optimizer in run.optimizers.items():
        if optimizer.state and _serves_another(run, optimizer, ""):
            told = Message("{name}: continues with its state from another Trainer's run, as the model does", name=name)
            run.tell(told)
        take(run, optimizer)
    handed = list(_handed(run, callbacks))
    used = [name for name, value, remembers, content in handed if remembers and _serves_another(run, value, content)]
    if used:
        raise ArgumentError(
            f"{', '.join(used)}: in another Trainer before, and still with what was remembered of that run; make new "
            "ones for each Trainer, in a loop over folds inside of the loop. If this is intended, pass a copy "
            "(copy.deepcopy), or continue in the same Trainer: fit(..., epochs=more)"
        )
    for _, value, _, content in handed:
        if _user(value) is not run:
            take(run, value, content)


def take(run: Run, value: Any, content: str = "") -> None:
    """Note that an object serves a run: whatever it remembers is of that run.

    Args:
        run: The run.
        value: The object.
        content: Of a part of the run before any training: what tells whether the run has changed it.
    """
    key = id(value)
    with contextlib.suppress(TypeError):  # a class with slots, of which nobody can note anything
        _users[key] = weakref.ref(value, lambda _: _users.pop(key, None)), weakref.ref(run), content


def _handed(run: Run, callbacks: Sequence[Callback]) -> Iterator[tuple[str, Any, bool, str]]:
    """What can remember a run: its name, itself, whether it remembers something, and the content of a part."""
    for callback in callbacks:
        yield type(callback).__name__, callback, bool(callback.state_dict()), ""
        if callback.scheduler is not None:
            yield type(callback.scheduler).__name__, callback.scheduler, True, ""
    for name, part in run.parts.items():
        content = _content(part)
        yield name, part, True, content


def _serves_another(run: Run, value: Any, content: str) -> bool:
    entry = _users.get(id(value))
    known = entry is not None and entry[0]() is value
    return known and entry is not None and entry[1]() is not run and (not content or entry[2] != content)


def _user(value: Any) -> Run | None:
    entry = _users.get(id(value))
    return entry[1]() if entry is not None and entry[0]() is value else None


def _content(part: Any) -> str:
    state = dict(part.state_dict())
    if isinstance(part, nn.Module):
        state = {name: of_tensor(value) if hasattr(value, "shape") else value for name, value in state.items()}
        state |= {name: of_tensor(value) for name, value in buffers_of(part).items()}
    return hashlib.sha256(repr(state).encode(errors="surrogatepass")).hexdigest()
