"""From texts to numbers: cleaning, tokenizers, vocabularies. Names load when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
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

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "Cleaning": "dlkit.text.cleaning",
        "Coverage": "dlkit.text.vocabulary",
        "PretrainedTokenizer": "dlkit.text.pretrained",
        "Vocabulary": "dlkit.text.vocabulary",
        "characters": "dlkit.text.tokenizers",
        "jamo": "dlkit.text.tokenizers",
        "ngrams": "dlkit.text.tokenizers",
        "train_bpe": "dlkit.text.pretrained",
        "utf8_bytes": "dlkit.text.tokenizers",
        "words": "dlkit.text.tokenizers",
    },
)
