"""The patterns of a tokenizer that comes in a file: none that takes longer and longer over a text of a few words.

`(a+)+b` tries every way to cut a run of a's into pieces: 2 ** n for n letters. The library gives up after some seconds,
by a panic; a pattern that does so is refused before any text meets it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dlkit.errors import ArgumentError

__all__ = ["check_patterns"]

_MOST = 4096
# What a pattern consists of: an escape, a set of characters (with an escape or a set inside), or one character.
_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|\[[^\]]*\]|[^\]\\])*\]|.", re.DOTALL)
_REPEATED = re.compile(r"[*+]|\{(\d*),?(\d*)\}")
_FEW = 8


def check_patterns(document: Any) -> None:
    """Every regular expression in a tokenizer's document, wherever it stands.

    Args:
        document: What its JSON gave.

    Raises:
        ArgumentError: a repeated group repeats or chooses inside, or a pattern is very long.

    >>> check_patterns({"pre_tokenizer": {"pattern": {"Regex": "(a+)+b"}}})
    Traceback (most recent call last):
    dlkit.errors.ArgumentError: a pattern of this tokenizer repeats a group that itself repeats or chooses, which can \
take forever: '(a+)+b'
    """
    for pattern in _patterns(document):
        if not isinstance(pattern, str) or len(pattern) > _MOST:
            raise ArgumentError(f"a pattern of this tokenizer must be a text of at most {_MOST} characters")
        if _is_nested(pattern):
            raise ArgumentError(
                "a pattern of this tokenizer repeats a group that itself repeats or chooses, which can take forever: "
                f"{pattern!r:.200}"
            )


def _patterns(document: Any) -> Iterator[Any]:
    if isinstance(document, Mapping):
        if "Regex" in document:
            yield document["Regex"]
        for value in document.values():
            yield from _patterns(value)
    elif isinstance(document, list) and document and not isinstance(document[0], str):
        for value in document:
            yield from _patterns(value)


def _is_nested(pattern: str) -> bool:
    """Whether a group with a choice or a repetition inside is repeated. Bounded repetitions of a few do not count."""
    inside = [False]  # for every open group: whether it has a choice or a repetition
    position = 0
    while position < len(pattern):
        part = _PARTS.match(pattern, position)
        assert part is not None
        position = part.end()
        if part[0] == "(":
            inside.append(False)
            continue
        closed = len(inside) > 1 and part[0] == ")"
        nested = inside.pop() if closed else False
        repeated = _is_repeated(pattern, position)
        if nested and repeated:
            return True
        inside[-1] = inside[-1] or nested or repeated or part[0] == "|"
    return False


def _is_repeated(pattern: str, position: int) -> bool:
    """Whether what ends here is repeated more than a few times."""
    found = _REPEATED.match(pattern, position)
    if found is None:
        return False
    if found[0] in "*+":
        return True
    counts = [int(number) for number in found.groups() if number]
    return found[0].endswith(",}") or max(counts, default=0) > _FEW
