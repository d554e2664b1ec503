"""Dataclasses from JSON that may come from anywhere: every field is checked against its type."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any, Literal, TypeVar

from dlkit.errors import DataError

__all__ = ["decode", "value_of"]

_T = TypeVar("_T")


def decode(kind: type[_T], data: Any, where: str) -> _T:
    """A dataclass from JSON values, each checked against its type.

    Args:
        kind: The dataclass.
        data: What JSON gave.
        where: Which part of the schema it is, for errors.

    Raises:
        DataError: it is no such object; the message names the field.
    """
    hints = typing.get_type_hints(kind)
    if not isinstance(data, dict) or set(data) - set(hints):
        raise DataError(f"{where} of the table schema must be an object with {', '.join(hints)}")
    lacking = [
        field.name
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.name not in data
    ]
    if lacking:
        raise DataError(f"{where} of the table schema lacks {', '.join(lacking)}")
    return kind(**{name: value_of(hints[name], value, f"{name} of {where}") for name, value in data.items()})


def value_of(hint: Any, value: Any, where: str) -> Any:
    """A JSON value as what a type hint says: tuples, literals, dataclasses, finite floats, and plain values."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list):
        return tuple(value_of(inner[0], item, where) for item in value)
    if origin is Literal and value in inner:
        return value
    if hint == (str | None) and (value is None or isinstance(value, str)):
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return decode(hint, value, where)
    if hint is float and type(value) in (int, float) and _is_finite(value):
        return float(value)
    if hint in (str, int, bool) and type(value) is hint:
        return value
    raise DataError(f"{where} in the table schema must be {getattr(hint, '__name__', hint)}, not {value!r:.60}")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON knows integers that no float holds
        return False
