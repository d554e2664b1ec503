"""From texts to numbers: cleaning, tokenizers, vocabularies. Names load when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_ROOMS = {
    "Cleaning": "dlkit.text.cleaning",
    "Coverage": "dlkit.text.vocabulary",
    "PretrainedTokenizer": "dlkit.text.pretrained",
    "TextSpec": "dlkit.specs.text",
    "Vocabulary": "dlkit.text.vocabulary",
    "characters": "dlkit.text.tokenizers",
    "jamo": "dlkit.text.tokenizers",
    "ngrams": "dlkit.text.tokenizers",
    "train_bpe": "dlkit.text.pretrained",
    "utf8_bytes": "dlkit.text.tokenizers",
    "words": "dlkit.text.tokenizers",
}

__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from dlkit.specs.text import TextSpec as TextSpec
    from dlkit.text.cleaning import Cleaning as Cleaning
    from dlkit.text.pretrained import PretrainedTokenizer as PretrainedTokenizer
    from dlkit.text.pretrained import train_bpe as train_bpe
    from dlkit.text.tokenizers import characters as characters
    from dlkit.text.tokenizers import jamo as jamo
    from dlkit.text.tokenizers import ngrams as ngrams
    from dlkit.text.tokenizers import utf8_bytes as utf8_bytes
    from dlkit.text.tokenizers import words as words
    from dlkit.text.vocabulary import Coverage as Coverage
    from dlkit.text.vocabulary import Vocabulary as Vocabulary


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'dlkit.text' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(importlib.import_module(_ROOMS[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
