"""How often: `"epoch"`, `"2 epochs"`, `"500 steps"`, `"10 min"`, parsed once into a unit and a number."""

from __future__ import annotations

import dataclasses
import re

from dlkit.errors import ArgumentError

__all__ = ["Every", "seconds"]

_SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "day": 86400, "d": 86400}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Every:
    """An interval in epochs, optimizer steps or seconds.

    Attributes:
        unit: "epochs", "steps" or "seconds".
        number: How many; whole for epochs and steps.

    >>> Every.parse("500 steps"), Every.parse("10 min")
    (Every(unit='steps', number=500), Every(unit='seconds', number=600))
    """

    unit: str
    number: float

    @classmethod
    def parse(cls, text: str | Every) -> Every:
        """Read `"epoch"`, `"n epochs"`, `"n steps"`, or a time such as `"10 min"`, `"2 h"`.

        Args:
            text: As above; an `Every` is returned as it is.

        Raises:
            ArgumentError: anything else.
        """
        if isinstance(text, Every):
            return text
        match = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)\s*)?([a-z]+?)s?\s*", text) if isinstance(text, str) else None
        if match is None:
            raise _unreadable(text)
        number, unit = float(match[1] or 1), match[2]
        if unit in ("epoch", "step") and number == int(number) >= 1:
            return cls(unit=f"{unit}s", number=int(number))
        if unit in _SECONDS and number > 0:
            span = number * _SECONDS[unit]
            return cls(unit="seconds", number=int(span) if span == int(span) else span)
        raise _unreadable(text)


def seconds(text: str | float) -> float:
    """A span of time in seconds: a number, or `"90 s"`, `"10 min"`, `"2 h"`.

    Args:
        text: As above; more than nothing.

    Raises:
        ArgumentError: anything else.

    >>> seconds("2 h")
    7200.0
    """
    if isinstance(text, int | float) and 0 < text < float("inf"):
        return float(text)
    if not isinstance(text, str):
        raise _unreadable(text)
    every = Every.parse(text)
    if every.unit != "seconds":
        raise ArgumentError(f"{text!r} is not a duration; write seconds as a number, '90 s', '10 min' or '2 h'")
    return float(every.number)


def _unreadable(text: object) -> ArgumentError:
    return ArgumentError(f"{text!r} is not an interval; write 'epoch', '2 epochs', '500 steps', '10 min' or '2 h'")
