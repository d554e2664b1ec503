"""Objects as JSON, and back from JSON that may come from anywhere: every field is checked against its type."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

from dlkit import _bounds
from dlkit.errors import ArgumentError

__all__ = ["Document", "DocumentPart"]

_WORDS = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false"}


class DocumentPart(NamedTuple):
    """Which part of a document it is, for errors.

    Attributes:
        title: What the document is.
        path: From there to the part; empty for the whole.
    """

    title: str
    path: str = ""

    def __str__(self) -> str:
        return f"{self.path} of {self.title}" if self.path else self.title

    def field(self, name: str) -> DocumentPart:
        """A field of this part.

        Args:
            name: Its key.
        """
        return DocumentPart(self.title, f"{self.path}.{name}".lstrip(".")[-200:])

    def item(self, number: int, value: Any) -> DocumentPart:
        """An entry of this list, by its name if it has one.

        Args:
            number: Its position.
            value: The entry.
        """
        name = value.get("name") if isinstance(value, Mapping) else None
        return DocumentPart(self.title, f"{self.path}[{name if isinstance(name, str) else number!r}]"[-200:])


class Document:
    """What can be written down as JSON: a dataclass whose fields are numbers, texts, tuples of them, or documents.

    Nothing in a document runs code. Unknown fields, fields of another type and missing ones are refused by name; the
    class itself refuses values out of bounds when it is made.
    """

    # What a document of this class is called in errors, and what it says of itself beside its fields.
    _title: ClassVar[str] = "this document"
    _head: ClassVar[Mapping[str, Any]] = {}

    def document(self) -> dict[str, Any]:
        """As plain data: dicts, lists, texts, numbers."""
        fields = [field.name for field in dataclasses.fields(self) if field.init]  # type: ignore[arg-type]
        return {**self._head, **{name: _plain(getattr(self, name)) for name in fields}}

    def to_json(self) -> str:
        """As one line of JSON; `from_json` gives an equal object."""
        return json.dumps(self.document(), allow_nan=False)

    @classmethod
    def from_document(cls, document: Any, *, tokenizer: Any = None) -> Self:
        """The object that `document` described.

        Args:
            document: Plain data from anywhere.
            tokenizer: The function, for a vocabulary that was made with one: code does not travel in files.

        Raises:
            ArgumentError: it does not describe such an object; the message names the field.
        """
        place = DocumentPart(cls._title)
        return _class_of([cls], document, place)._read(document, place, tokenizer)  # type: ignore[return-value]

    @classmethod
    def from_json(cls, text: str | bytes, *, tokenizer: Any = None) -> Self:
        """The object that `to_json` wrote.

        Args:
            text: JSON from anywhere.
            tokenizer: See `from_document`.

        Raises:
            ArgumentError: it is not JSON of this form; the message names the field.
        """
        return cls.from_document(_bounds.parse(text, cls._title), tokenizer=tokenizer)

    @classmethod
    def _read(cls, document: Mapping[str, Any], place: DocumentPart, tokenizer: Any) -> Self:
        hints, required = _fields(cls)  # type: ignore[arg-type]
        if odd := [key for key in document if key not in hints and key not in cls._head]:
            raise ArgumentError(f"{place} has no field {odd[0]!r:.60}; it was written by a newer dlkit or by hand")
        if lacking := [name for name in required if name not in document]:
            raise ArgumentError(f"{place} lacks {', '.join(lacking)}")
        given = {name: document[name] for name in hints if name in document}
        return cls(**{name: _value(hints[name], value, place.field(name), tokenizer) for name, value in given.items()})


@functools.cache
def _fields(kind: type[Document]) -> tuple[dict[str, Any], list[str]]:
    """The type of each field that is stated, and those without a default."""
    hints = typing.get_type_hints(kind)
    stated = [field for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]
    return {field.name: hints[field.name] for field in stated}, [
        field.name
        for field in stated
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Document):
        return value.document()
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _class_of(kinds: Sequence[type[Document]], document: Any, place: DocumentPart) -> type[Document]:
    """Which of some classes, or of the classes derived from them, the head of a document names."""
    if not isinstance(document, Mapping):
        raise ArgumentError(f"{place} must be an object, not {document!r:.60}")
    known = [each for kind in kinds for each in (kind, *kind.__subclasses__()) if each._head] or list(kinds)
    for key in known[0]._head:
        found, allowed = document.get(key), list(dict.fromkeys(each._head[key] for each in known))
        if found not in allowed:
            raise ArgumentError(
                f"{place.field(key)} must be {' or '.join(map(repr, allowed))}, not {found!r:.60}; a newer dlkit may "
                "know it"
            )
        known = [each for each in known if each._head[key] == found]
    return known[0]


def _value(hint: Any, value: Any, place: DocumentPart, tokenizer: Any) -> Any:
    """A value of JSON as what a type hint says."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in inner:
            return None
        inner = tuple(each for each in inner if each is not types.NoneType)
        hint, origin = (inner[0], typing.get_origin(inner[0])) if len(inner) == 1 else (hint, None)
    documents = [each for each in inner or (hint,) if isinstance(each, type) and issubclass(each, Document)]
    if documents and origin is None:
        return _class_of(documents, value, place)._read(value, place, tokenizer)
    if origin is tuple:
        return _items(typing.get_args(hint), value, place, tokenizer)
    if origin is Literal:
        if value in (choices := typing.get_args(hint)):
            return value
        raise ArgumentError(f"{place} must be one of {', '.join(map(str, choices))}, not {value!r:.60}")
    if hint is float and type(value) in (int, float) and _is_finite(value):
        return float(value)
    if hint in (str, int, bool) and type(value) is hint:
        return value
    raise ArgumentError(f"{place} must be {_WORDS.get(hint, hint)}, not {value!r:.60}")


def _items(inner: tuple[Any, ...], value: Any, place: DocumentPart, tokenizer: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ArgumentError(f"{place} must be a list, not {value!r:.60}")
    if inner[-1] is not ... and len(value) != len(inner):
        raise ArgumentError(f"{place} must be a list of {len(inner)}, not {value!r:.60}")
    if isinstance(inner[0], type) and issubclass(inner[0], Document) and len(value) > _bounds.COLUMNS:
        raise ArgumentError(f"{place} must be a list of at most {_bounds.COLUMNS:,}, not of {len(value):,}")
    return tuple(_value(inner[0], item, place.item(number, item), tokenizer) for number, item in enumerate(value))


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON knows integers that no float holds
        return False
