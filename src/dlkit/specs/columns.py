"""One column of a table: its kind, and what of it was fitted on the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dlkit._documents import Document
from dlkit.errors import ArgumentError

__all__ = ["CategoryColumn", "Column", "FIRST", "KINDS", "MISSING", "NumberColumn", "PADDING", "Part", "UNSEEN"]

#: The codes before the vocabulary of every category.
PADDING, MISSING, UNSEEN, FIRST = 0, 1, 2, 3

_USED = ("number", "boolean", "date", "category", "text", "image")
_LEFT_OUT = ("identifier", "constant", "free text", "dropped")
KINDS = _USED + _LEFT_OUT


@dataclass(frozen=True, kw_only=True)
class Column(Document):
    """One column of the table; this class itself where nothing is fitted (text, images, and what is left out).

    Attributes:
        name: As in the header.
        kind: number, boolean, date, category, text, image; or identifier, constant, free text, dropped: left out.
        why: Why it has this kind, in words.
        rows: Training rows.
        missing: How many of them had nothing here.
    """

    _head: ClassVar[Mapping[str, Any]] = {"type": "Column"}

    name: str
    kind: str
    why: str
    rows: int = 0
    missing: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArgumentError(f"column {self.name!r} has the unknown kind {self.kind!r}")

    @property
    def used(self) -> bool:
        """Whether the model gets to see it."""
        return self.kind in _USED

    def becomes(self) -> str:
        """What samples hold in its place, in words."""
        return {"text": "a string", "image": "an image"}.get(self.kind, "left out")


@dataclass(frozen=True, kw_only=True)
class Part(Document):
    """One number of a sample: `(value - center) / scale`, with `fill` as the value where it is missing.

    Attributes:
        name: Of the part of a date; empty where the column is a number itself.
        center: In the column's own units, as the next ones.
        scale: More than 0.
        fill: The training rows' median.
    """

    name: str
    center: float
    scale: float
    fill: float


@dataclass(frozen=True, kw_only=True)
class NumberColumn(Column):
    """A number, a boolean (0 and 1) or the parts of a date.

    Attributes:
        form: How text is read as it, see `dlkit.reading.parsing`.
        parts: The numbers it becomes.
        indicator: Whether one more number tells that it was missing: where it sometimes was in the training rows.
    """

    _head: ClassVar[Mapping[str, Any]] = {"type": "NumberColumn"}

    form: str
    parts: tuple[Part, ...]
    indicator: bool = False

    def features(self) -> list[str]:
        """The names of the numbers it becomes."""
        names = [f"{self.name} {part.name}".rstrip() for part in self.parts]
        return [*names, f"{self.name} is missing"] if self.indicator else names

    def becomes(self) -> str:
        """What samples hold in its place, in words."""
        if self.kind == "date":
            shown = ", ".join(part.name for part in self.parts)
        else:
            part = self.parts[0]
            shown = f"(x - {part.center:.4g}) / {part.scale:.4g}" if (part.center, part.scale) != (0, 1) else "x"
        shown += f", {self.form}" if self.form not in ("plain", "boolean", "ISO8601") else ""
        return shown + (f"; missing: {self.parts[0].fill:.4g} and a flag" if self.indicator else "")


@dataclass(frozen=True, kw_only=True)
class CategoryColumn(Column):
    """A category: code 0 is padding, 1 missing, 2 unseen, then the vocabulary, most frequent first.

    Attributes:
        vocabulary: The values seen at least `min_freq` times in the training rows.
    """

    _head: ClassVar[Mapping[str, Any]] = {"type": "CategoryColumn"}

    vocabulary: tuple[str, ...]

    @property
    def num_codes(self) -> int:
        """How many codes there are, the three special ones included."""
        return FIRST + len(self.vocabulary)

    def becomes(self) -> str:
        """What samples hold in its place, in words."""
        shown = ", ".join(self.vocabulary[:3]) + (", ..." if len(self.vocabulary) > 3 else "")
        return f"code of {len(self.vocabulary)}: {shown}"
