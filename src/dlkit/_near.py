"""What was meant by a name that there is not: the same answer for modules, arguments, columns, layers and models."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["hint", "known_arguments", "nearest"]

_SHOWN = 20  # names that are listed where none comes near
_T = TypeVar("_T", bound=Callable[..., Any])


def nearest(name: str, names: Iterable[str], *, most: int = 3, cutoff: float = 0.6) -> list[str]:
    """The names that come nearest, best first; capital letters make no difference.

    Args:
        name: What was given.
        names: What there is.
        most: How many at most.
        cutoff: From 0 to 1: how alike they must be (Ratcliff and Metzener 1988, as Python's difflib has it).

    >>> nearest("smallconvnet", ["SmallConvNet", "TabularMLP"])
    ['SmallConvNet']
    """
    import difflib

    by_small: dict[str, list[str]] = {}
    for each in names:
        by_small.setdefault(each.lower(), []).append(each)
    close = difflib.get_close_matches(name.lower(), by_small, most, cutoff)
    return [each for small in close for each in by_small[small]][:most]


def hint(name: object, names: Iterable[str], *, has: str = "it has") -> str:
    """The end of a message on a name that there is not: the names that come near, or else what there is.

    Args:
        name: What was given.
        names: What there is.
        has: How the list of all begins.

    >>> hint("pirce", ["price", "area"]), hint("z", ["price", "area"], has="there are")
    ("do you mean 'price'?", "there are 'price', 'area'")
    """
    names = list(names)
    if close := nearest(str(name), names):
        return f"do you mean {' or '.join(map(repr, close))}?"
    if not names:
        return f"{has} none"
    return f"{has} {', '.join(map(repr, names[:_SHOWN]))}{', ...' if len(names) > _SHOWN else ''}"


def known_arguments(function: _T) -> _T:
    """Let a function answer an argument that it has not by the one that comes near, as Python does from 3.13 on.

    Args:
        function: With named arguments only.

    >>> @known_arguments
    ... def fit(data, *, epochs=1): pass
    >>> fit(1, epoch=3)
    Traceback (most recent call last):
    ...
    TypeError: fit() has no argument 'epoch'; do you mean 'epochs'?
    """
    names = [name for name in inspect.signature(function).parameters if name != "self"]

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.keys() <= set(names):
            odd = next(name for name in kwargs if name not in names)
            shown = function.__qualname__.removesuffix(".__init__")
            raise TypeError(f"{shown}() has no argument {odd!r}; {hint(odd, names)}")
        return function(*args, **kwargs)

    return called  # type: ignore[return-value]
