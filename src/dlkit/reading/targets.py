"""What a column of targets is: its task, its classes and their order; one rule for tables, images, texts and sounds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dlkit._kinds import Task
from dlkit._language import Message
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.cells import Array, ranks_of
from dlkit.reading.parsing import (
    boolean_words,
    mostly_numbers,
    number_format,
    parse_number,
    spelled,
    whole_numbers,
    without_marks,
)

__all__ = [
    "ClassNumbers",
    "check_count",
    "check_same_classes",
    "class_names",
    "class_order",
    "class_spelling",
    "few_integers",
    "label_rows",
    "natural",
    "numbered",
    "shown_names",
    "split_labels",
    "stated_order",
    "target_text",
    "task_of",
    "task_of_numbers",
]

# So many different whole numbers or words are never too many for classes; more numbers are quantities.
_MOST_CLASSES = 20


def task_of(values: Sequence[str], counts: Sequence[int], decimal: str = "") -> tuple[Task, str, str]:
    """What a column of text is, why, and how its numbers are written.

    Words and truth values are classes, and so are at most 20 different whole numbers that occur twice on average or
    count from 0 on; all other numbers are quantities. A few cells that are not numbers do not make a column of numbers
    one of words.

    Args:
        values: The different texts, missing marks left out.
        counts: Rows of each.
        decimal: The decimal mark of their file; "" where nothing tells.

    >>> task_of(["cat", "dog"], [1, 1])[0], task_of(["0.5", "1"], [1, 1])[0], task_of(["0", "1"], [9, 9])[0]
    ('classification', 'regression', 'classification')
    """
    form = number_format(values, decimal)
    if boolean_words(values) or form is None:
        form = None if boolean_words(values) else mostly_numbers(dict(zip(values, counts, strict=True)), decimal)
        if form is None:
            return "classification", Message("text in the target column"), "plain"
        return "regression", Message("numbers in the target column"), form
    numbers = np.array([parse_number(value, form) for value in values], dtype=np.float64)
    return *task_of_numbers(numbers, sum(counts)), form


def task_of_numbers(values: Array, rows: int) -> tuple[Task, str]:
    """What a column of numbers is, and why; see `task_of`.

    Args:
        values: All of them, or each different one once; finite.
        rows: How many rows there are.
    """
    whole = few_integers(values)
    if whole is not None and (2 * len(whole) <= rows or (whole[0] >= 0 and whole[-1] <= len(whole))):
        return "classification", Message(
            "{count} different integers; task='regression' if they are quantities", count=len(whole)
        )
    return "regression", Message("numbers in the target column")


def few_integers(values: Array) -> Array | None:
    """The distinct values in ascending order if they are few enough for classes, and integers.

    Args:
        values: Finite.

    >>> few_integers(np.array([2.0, 1.0, 2.0])), few_integers(np.array([0.5]))
    (array([1., 2.]), None)
    """
    if not len(values) or not whole_numbers(values[:1000]) or len(np.unique(values[:1000])) > _MOST_CLASSES:
        return None
    distinct = ranks_of(values)[0]
    return distinct if len(distinct) <= _MOST_CLASSES and whole_numbers(distinct) else None


def target_text(value: Any, missing: Collection[str]) -> str | None:
    """A target of any type as text, None where it is missing.

    Args:
        value: A cell, a number or a truth value.
        missing: Marks that mean "no target" where they are text.

    >>> target_text(" 1 ", ()), target_text(1.0, ()), target_text(True, ()), target_text("NA", ["NA"])
    ('1', '1', 'True', None)
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        value = int(value)
    return without_marks([str(value)], missing if isinstance(value, str) else ())[0]


def class_spelling(text: str) -> str:
    """One name for the ways in which programs write the same whole number or truth value.

    Args:
        text: A cell without blanks around it.

    >>> class_spelling("1.0"), class_spelling("+2"), class_spelling("01"), class_spelling("1.5"), class_spelling("TRUE")
    ('1', '2', '01', '1.5', 'True')
    """
    if text.lower() in ("true", "false"):
        return text.capitalize()
    number = parse_number(text, "plain") if text[:1].isdigit() or text[:1] in "+-." else None
    if number is None or number in (float("inf"), float("-inf")) or number != number or number != int(number):
        return text
    return text if text.lstrip("+-").startswith("0") and int(number) else str(int(number))


def class_names(values: Iterable[str]) -> tuple[str, ...]:
    """The classes of a column with these texts, in their order.

    Args:
        values: Its texts, in any number.

    >>> class_names(["b10", "b2"]), class_names(["10", "9.0", "9"]), class_names(["yes", "no"])
    (('b2', 'b10'), ('9', '10'), ('no', 'yes'))
    """
    return class_order({class_spelling(value) for value in values})


def class_order(names: Collection[str]) -> tuple[str, ...]:
    """By number where all are numbers, else in natural order: 9 before 10, b2 before b10, no before yes.

    Args:
        names: Each once.
    """
    numbers = {name: parse_number(name, "plain") for name in names}
    if any(number is None for number in numbers.values()):
        return tuple(sorted(names, key=natural))
    return tuple(sorted(names, key=lambda name: (numbers[name], name)))


def natural(name: str) -> tuple[Any, ...]:
    """A sort key in which "2" comes before "10"; names without digits sort as Python sorts them.

    Args:
        name: Of a class or file.

    >>> sorted(["10", "9", "b2", "b10"], key=natural)
    ['9', '10', 'b2', 'b10']
    """
    pieces = re.split(r"(\d{1,18})", name)  # text and numbers in turn, so that only like is compared with like
    return (*(int(piece) if place % 2 else piece for place, piece in enumerate(pieces)), name)


def check_count(name: str, values: int, rows: int) -> None:
    """Refuse a column in which nearly every row would be its own class.

    Args:
        name: What errors call the column.
        values: How many different ones there are.
        rows: How many rows.

    Raises:
        DataError: there are more than 20, and more than half as many as rows; or none.
    """
    if values > _MOST_CLASSES and 2 * values > rows:
        raise DataError(
            f"target {name!r} has {values} different values in {rows} rows, too many for classes; "
            "task='regression' for quantities, classes=[...] if they are right, or another column"
        )
    if not values:
        raise DataError(f"target {name!r} has no value in any row")


class ClassNumbers(dict[str, int]):
    """Class numbers by name; "1.0" finds the class "1" and "TRUE" the class "True", as other programs write them.

    Args:
        classes: Their names, in order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__((name, number) for number, name in enumerate(classes))
        self._variants = {_variant(name): number for number, name in enumerate(classes)}

    def get(self, name: str, default: int = -2) -> int:  # type: ignore[override]
        """The number of the class `name`, however it is written, or `default`."""
        return self[name] if name in self else self._variants.get(_variant(name), default)


def split_labels(text: str, separator: str) -> list[str]:
    """The labels of one cell, without blanks around them; empty ones are none.

    Args:
        text: The cell.
        separator: Between labels.
    """
    return [label for part in text.split(separator) if (label := part.strip())]


def label_rows(texts: Sequence[str | None], classes: Sequence[str], separator: str) -> tuple[Array, Array]:
    """The labels of cells as zeros and ones, and which cells have a label that is not among the classes.

    Args:
        texts: The cells; None has no label.
        classes: The labels that there are, in order.
        separator: Between the labels of a cell.

    Returns:
        float32 [N + 1, classes] and bool [N + 1]; the last row is that of a cell without labels.
    """
    known = ClassNumbers(classes)
    rows, odd = np.zeros((len(texts) + 1, len(classes)), dtype=np.float32), np.zeros(len(texts) + 1, dtype=bool)
    for place, text in enumerate(texts):
        numbers = [known.get(label) for label in split_labels(text or "", separator)]
        rows[place, [number for number in numbers if number >= 0]] = 1
        odd[place] = any(number < 0 for number in numbers)
    return rows, odd


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
    if len(names) != len({spelled(name) for name in names}):
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
    places = {spelled(name): place for place, name in enumerate(stated_order(given))}
    found = list(found)
    if odd := [name for name in found if spelled(name) not in places]:
        raise DataError(
            f"{where} has classes that classes= has not: {shown_names(odd)}; it has {shown_names(list(places))}"
        )
    return {name: places[spelled(name)] for name in found}


def check_same_classes(theirs: Sequence[str], own: Sequence[str]) -> None:
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


def shown_names(names: Sequence[str], most: int = 10) -> str:
    """The first names of a list, and how many more there are.

    Args:
        names: All of them.
        most: How many are shown.
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _variant(text: str) -> str:
    return class_spelling(without_marks([text], ())[0] or "")
