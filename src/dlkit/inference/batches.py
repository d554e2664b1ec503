"""What prediction goes through: prepared inputs in batches, each in its place, and what is wrong with bad ones."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dlkit.errors import ArgumentError

__all__ = ["Batch", "Inputs", "check_options", "in_batches", "index_of", "readable", "total_of"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Some inputs, one after the other.

    Attributes:
        size: How many there are, those included that cannot be used.
        inputs: The usable ones as the model takes them; None if there are none.
        good: Their places among the `size`.
        errors: Why the others cannot be used, by place.
        named: What is beside each prediction: a heading and a value for each input.
        told: The error at a place in a sentence that names where in the source it is.
    """

    size: int
    inputs: Any
    good: Sequence[int]
    errors: Mapping[int, str]
    named: Mapping[str, Sequence[Any]]
    told: Callable[[int], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that a prediction was asked for, prepared while it is iterated over.

    Attributes:
        batches: In order.
        headings: Those of every batch's `named`.
        total: How many inputs there are, where that is known beforehand.
        index: The caller's own labels of the inputs, such as a DataFrame's index; None for their numbers.
    """

    batches: Iterator[Batch]
    headings: Sequence[str] = ()
    total: int | None = None
    index: Any = None


def check_options(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Refuse what would be ignored.

    Args:
        given: The caller's options.
        known: Those that there are.
        what: Of what, in words.

    Raises:
        ArgumentError: an option that is not among them.
    """
    if unknown := sorted(set(given) - set(known)):
        there = f"there are {', '.join(known)}" if known else "there are none"
        raise ArgumentError(f"{what} take no option {unknown[0]!r}; {there}")


def in_batches(items: Iterable[Any], size: int) -> Iterator[tuple[int, list[Any]]]:
    """`items` in lists of `size`, the last one perhaps shorter, each with the number of its first item."""
    iterator, start = iter(items), 0
    while some := list(itertools.islice(iterator, size)):
        yield start, some
        start += len(some)


def total_of(given: Any) -> int | None:
    """How many inputs were `given`; None where only going through them tells."""
    return len(given) if hasattr(given, "__len__") else None


def index_of(given: Any) -> Any:
    """The labels of the rows of a DataFrame or Series that was `given`; None for anything else."""
    return given.index if hasattr(given, "iloc") else None


def readable(text: Any) -> str | None:
    """A text or a file's name as a table can hold it: bytes and half characters that are not text as escapes.

    Args:
        text: Anything; what is not a string gives None.

    >>> readable("half \\ud800")
    'half \\\\ud800'
    """
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else None
