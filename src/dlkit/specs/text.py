"""`TextSpec`: everything that turns a text into a model's input, as one object that fits into JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlkit import _bounds
from dlkit.errors import ArgumentError
from dlkit.text._encoded import Encoder
from dlkit.text.pretrained import PretrainedTokenizer
from dlkit.text.tokenizers import Tokenizer
from dlkit.text.vocabulary import Vocabulary

__all__ = ["TextSpec"]


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """How a dataset turned texts into numbers: give it to the next dataset, and put it into the model file.

    Attributes:
        encoder: `Vocabulary` or `PretrainedTokenizer`, cleaning included.
        max_length: Where longer texts are cut; None for nowhere.
        classes: The names of the classes in the order of their numbers; None for numbers as targets, or no targets.

    >>> spec = TextSpec(encoder=Vocabulary.fit(["ham", "spam spam"]), classes=("ham", "spam"))
    >>> TextSpec.from_json(spec.to_json()) == spec
    True
    """

    encoder: Encoder
    max_length: int | None = None
    classes: Sequence[Any] | None = None

    def to_json(self) -> str:
        """The spec as JSON, for the model file."""
        return json.dumps(self.spec())

    def spec(self) -> dict[str, Any]:
        """The spec as plain data."""
        classes = None if self.classes is None else list(self.classes)
        return {"encoder": dict(self.encoder.spec()), "max_length": self.max_length, "classes": classes}

    @classmethod
    def from_json(cls, text: str, *, tokenizer: Tokenizer | None = None) -> TextSpec:
        """The spec that `to_json` wrote.

        Args:
            text: JSON.
            tokenizer: The function, where the vocabulary was made with one.

        Raises:
            ArgumentError: it is no such JSON.
        """
        spec = _bounds.parse(text, "this text spec")
        return cls.from_spec(spec, tokenizer=tokenizer)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], *, tokenizer: Tokenizer | None = None) -> TextSpec:
        """The spec that plain data describes.

        Args:
            spec: What `spec()` gave.
            tokenizer: See `from_json`.
        """
        encoder = spec.get("encoder") if isinstance(spec, Mapping) else None
        if not isinstance(encoder, Mapping):
            raise ArgumentError("this is no text spec: it has no encoder")
        kind, max_length, classes = encoder.get("kind"), spec.get("max_length"), spec.get("classes")
        if kind not in ("vocabulary", "tokenizers"):
            raise ArgumentError(f"this version of dlkit knows no encoder of the kind {kind!r}")
        if max_length is not None:
            _bounds.whole(max_length, "max_length of this text spec", _bounds.LENGTH)
        if not isinstance(classes, list | None):
            raise ArgumentError(f"classes of this text spec must be a list, not {classes!r:.80}")
        made: Encoder
        if kind == "vocabulary":
            made = Vocabulary.from_spec(encoder, tokenizer=tokenizer)
        else:
            made = PretrainedTokenizer.from_spec(encoder)
        return cls(encoder=made, max_length=max_length, classes=None if classes is None else tuple(classes))
