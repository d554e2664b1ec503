"""From texts to numbers: cleaning, tokenizers, vocabularies. Names load when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
    from dlkit.tokens.cleaning import Cleaning as Cleaning
    from dlkit.tokens.pretrained import PretrainedTokenizer as PretrainedTokenizer
    from dlkit.tokens.pretrained import train_bpe as train_bpe
    from dlkit.tokens.tokenizers import characters as characters
    from dlkit.tokens.tokenizers import jamo as jamo
    from dlkit.tokens.tokenizers import ngrams as ngrams
    from dlkit.tokens.tokenizers import runs as runs
    from dlkit.tokens.tokenizers import utf8_bytes as utf8_bytes
    from dlkit.tokens.tokenizers import words as words
    from dlkit.tokens.tokenizers import words_and_pairs as words_and_pairs
    from dlkit.tokens.tokenizers import words_and_runs as words_and_runs
    from dlkit.tokens.vocabulary import Coverage as Coverage
    from dlkit.tokens.vocabulary import Vocabulary as Vocabulary

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "Cleaning": "dlkit.tokens.cleaning",
        "Coverage": "dlkit.tokens.vocabulary",
        "PretrainedTokenizer": "dlkit.tokens.pretrained",
        "Vocabulary": "dlkit.tokens.vocabulary",
        "characters": "dlkit.tokens.tokenizers",
        "jamo": "dlkit.tokens.tokenizers",
        "ngrams": "dlkit.tokens.tokenizers",
        "runs": "dlkit.tokens.tokenizers",
        "train_bpe": "dlkit.tokens.pretrained",
        "utf8_bytes": "dlkit.tokens.tokenizers",
        "words": "dlkit.tokens.tokenizers",
        "words_and_pairs": "dlkit.tokens.tokenizers",
        "words_and_runs": "dlkit.tokens.tokenizers",
    },
)
