"""`TextSpec`: everything that turns a text into a model's input, as one object that fits into JSON."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, ClassVar

from dlkit import _bounds
from dlkit._kinds import Spec, values
from dlkit.errors import ArgumentError
from dlkit.tokens._encoded import Encoder

# Imported so that a document finds them by their names.
from dlkit.tokens.pretrained import PretrainedTokenizer as PretrainedTokenizer
from dlkit.tokens.vocabulary import Vocabulary as Vocabulary

__all__ = ["TextSpec"]


@dataclass(frozen=True, kw_only=True)
class TextSpec(Spec):
    """How a dataset turned texts into numbers: give it to the next dataset, and put it into the model file.

    Attributes:
        encoder: `Vocabulary` or `PretrainedTokenizer`, cleaning included.
        max_length: Where longer texts are cut; None for nowhere.
        classes: The names of the classes in the order of their numbers; None for numbers as targets, or no targets.
        text: The names of the columns that were joined to a text; empty where they had none.
        pair: The same of the second texts of pairs.

    >>> spec = TextSpec(encoder=Vocabulary.fit(["ham", "spam spam"]), classes=("ham", "spam"))
    >>> TextSpec.from_json(spec.to_json()) == spec
    True
    """

    kind: ClassVar[str] = "text"
    noun: ClassVar[str] = "texts"
    way: ClassVar[str] = (
        "read it with the same spec: TextDataset(..., spec=train.spec), or cut one source into parts: TextDataset.split"
    )
    any_length: ClassVar[bool] = True
    _title: ClassVar[str] = "the text spec"

    encoder: Encoder
    max_length: int | None = None
    classes: tuple[str, ...] | None = None
    text: tuple[str, ...] = ()
    pair: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_length is not None:
            _bounds.whole(self.max_length, "max_length of the text spec", _bounds.LENGTH)

    def example(self, *, small: bool = False) -> Any:
        """Two texts of eight tokens.

        Args:
            small: Makes no difference.
        """
        return {
            "input_ids": values([2, 8], "int64", 0, len(self.encoder)),
            "attention_mask": values([2, 8], "bool", 1, 2),
        }

    def compared(self) -> dict[str, Any]:
        """Encoder and length; the classes are compared by themselves."""
        with contextlib.suppress(ArgumentError):  # a tokenizer that has no plain data is only equal to itself
            return {"encoder": self.encoder.document(), "max_length": self.max_length}
        return {"max_length": self.max_length}
