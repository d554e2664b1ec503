"""Arguments of a kind: whole numbers, switches, objects and not their classes; the same answer everywhere.

A bool is not a number here, although Python says so: `epochs=True` is a slip. Numbers of numpy are numbers.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from dlkit.errors import ArgumentError

__all__ = ["callable_object", "instance", "switch", "whole_number"]


def whole_number(name: str, value: Any, *, least: int | None = None, unit: str = "") -> int:
    """The value as an `int`.

    Args:
        name: Of the argument, for the message.
        value: A Python or numpy integer.
        least: The smallest value that can be meant; None for any.
        unit: What is counted, for the message.

    Raises:
        ArgumentError: a bool, a fraction, NaN, a string, or less than `least`.

    >>> whole_number("epochs", np.int64(3), least=1)
    3
    """
    wanted = f"a whole number{f' of at least {least}' if least is not None else ''}{f' {unit}' if unit else ''}"
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ArgumentError(f"{name} must be {wanted}, not {value!r} ({type(value).__name__})")
    if least is not None and number < least:
        raise ArgumentError(f"{name} must be {wanted}, not {number}")
    return number


def switch(name: str, value: Any) -> bool:
    """The value as a `bool`; a string such as "no" would count as true.

    Args:
        name: Of the argument, for the message.
        value: True or False.

    Raises:
        ArgumentError: anything else.

    >>> switch("shuffle", np.bool_(True))
    True
    """
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def callable_object(name: str, value: Any, expected: str) -> None:
    """Refuse what cannot be called, and a class whose objects are what is called.

    Args:
        name: Of the argument, for the message.
        value: A function, or an object with `__call__`. A class without it (`list`) is a function, too.
        expected: How it is called, for the message.

    Raises:
        ArgumentError: anything else.

    >>> callable_object("collate_fn", list, "collate_fn(samples)")
    """
    if isinstance(value, type) and any("__call__" in vars(each) for each in value.__mro__):
        raise ArgumentError(f"{name} is the class {value.__name__}; make an object of it: {name}={value.__name__}(...)")
    if not callable(value):
        raise ArgumentError(f"{name} must be something that is called as {expected}, not {value!r}")


def instance(name: str, value: Any, kinds: type | tuple[type, ...], expected: str) -> None:
    """Refuse what is not an object of a kind, and say so where it is the class itself.

    Args:
        name: Of the argument, for the message.
        value: What was given.
        kinds: As for `isinstance`.
        expected: What it must be, for the message.

    Raises:
        ArgumentError: anything else.

    >>> instance("limit", 3, int, "an int")
    """
    if isinstance(value, kinds):
        return
    if isinstance(value, type) and issubclass(value, kinds):
        raise ArgumentError(f"{name} is the class {value.__name__}; make an object of it: {value.__name__}(...)")
    given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    shown = f" {value!r}" if isinstance(value, str | int | float | None) else ""
    raise ArgumentError(f"{name} must be {expected}, not {given}{shown}")
