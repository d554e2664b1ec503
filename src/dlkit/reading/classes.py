"""The order of classes: stated by the user, or checked against a model's."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlkit.errors import ArgumentError, DataError

__all__ = ["check_same", "few", "numbered", "stated_order"]


def stated_order(given: Mapping[str, int] | Sequence[Any]) -> list[str]:
    """The class names in the order of their numbers, checked.

    Args:
        given: The argument `classes`: names in the order of their numbers, or a mapping to the numbers 0 to K-1.

    Raises:
        ArgumentError: numbers that are no such order, or names given twice.

    >>> stated_order({"b": 0, "a": 1})
    ['b', 'a']
    """
    if isinstance(given, str):
        raise ArgumentError(f"classes must be a list of names or a mapping to numbers, not the text {given!r}")
    names = [str(name) for name in (sorted(given, key=given.__getitem__) if isinstance(given, Mapping) else given)]
    if isinstance(given, Mapping) and sorted(given.values()) != list(range(len(given))):
        raise ArgumentError(f"classes must number {len(given)} names from 0 to {len(given) - 1}: {given!r}")
    if len(names) != len({_key(name) for name in names}):
        twice = ", ".join(name for name, count in Counter(names).items() if count > 1)
        raise ArgumentError(f"classes= names a class twice: {twice}")
    return names


def numbered(found: Iterable[str], given: Mapping[str, int] | Sequence[str], where: str) -> dict[str, int]:
    """The number of each class that was found, in a stated order; names match in either Unicode form.

    Args:
        found: The class names of the data.
        given: See `stated_order`.
        where: What has these classes, for the error.

    Raises:
        ArgumentError: see `stated_order`.
        DataError: the data has classes that are not in it.
    """
    places = {_key(name): place for place, name in enumerate(stated_order(given))}
    found = list(found)
    if odd := [name for name in found if _key(name) not in places]:
        raise DataError(f"{where} has classes that classes= has not: {few(odd)}; it has {few(list(places))}")
    return {name: places[_key(name)] for name in found}


def check_same(theirs: Sequence[str], own: Sequence[str]) -> None:
    """Make sure that a model's outputs mean what the data's targets mean.

    Args:
        theirs: The model's classes in the order of its outputs.
        own: The data's classes in the order of the targets.

    Raises:
        DataError: another order, or other classes; each difference is named.
    """
    theirs, own = list(theirs), list(own)
    if theirs == own:
        return
    missing, extra = [n for n in theirs if n not in own], [n for n in own if n not in theirs]
    if not missing and not extra:
        raise DataError(
            f"the model has the same {len(theirs)} classes in another order, so its outputs would be read wrongly; "
            f"open the data with classes={theirs[:5]!r}{'...' if len(theirs) > 5 else ''}"
        )
    raise DataError(
        f"the model and the data have different classes: only the model has {missing or 'none'}, "
        f"only the data has {extra or 'none'}; classes=model.classes takes the model's order"
    )


def few(names: Sequence[str], most: int = 10) -> str:
    """The first names of a list, and how many more there are.

    Args:
        names: All of them.
        most: How many are shown.
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name)
