"""The tokenizers that need nothing but Python: words, characters, bytes and the like."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence

from dlkit.errors import ArgumentError

__all__ = [
    "TOKENIZERS",
    "Tokenizer",
    "characters",
    "jamo",
    "ngrams",
    "runs",
    "utf8_bytes",
    "words",
    "words_and_pairs",
    "words_and_runs",
]

Tokenizer = Callable[[str], Sequence[str]]

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HIRAGANA = "\u3040-\u3098\u309b-\u309f"
_SYLLABLES = re.compile("[\uac00-\ud7a3]+")


def words(text: str) -> list[str]:
    """Words and numbers of any script; every punctuation mark, symbol and emoji apart.

    A word is letters, digits and their combining marks (so vowel signs of Indic scripts stay with their letters), with
    apostrophes inside it. Han and Hiragana, which are written without blanks, are cut into single characters, as BERT
    does. Thai, Lao and Khmer would need a dictionary: there a run of letters is one word; use `characters` or a trained
    BPE. Emoji that are joined or coloured, and flags, are one token. Zero bytes are blanks.

    Args:
        text: Any text.

    >>> words("Don't stop: 3 cafés! 한국어도 👍🏽")
    ["Don't", 'stop', ':', '3', 'cafés', '!', '한국어도', '👍🏽']
    """
    if "\0" in text:
        text = text.replace("\0", " ")
    if not text.isascii():
        text = _single().sub(r" \g<0> ", text)
    return _words().findall(text)


@functools.cache
def _single() -> re.Pattern[str]:
    return re.compile(f"[{_HAN}{_HIRAGANA}]")


@functools.cache
def _words() -> re.Pattern[str]:
    letter = f"[\\w\u200c\u200d{_marks()}]"
    flag = "[\U0001f1e6-\U0001f1ff]{2}"
    decorated = f"[^\\w\\s](?:[{_marks()}\U0001f3fb-\U0001f3ff]|\u200d[^\\w\\s])*"
    return re.compile(f"{letter}+(?:['\u2019]{letter}+)*|{flag}|{decorated}")


def _marks() -> str:
    """All combining marks as the inside of a character class; `\\w` of Python's `re` has none of them."""
    where_marks_are = itertools.chain(range(0x20000), range(0xE0100, 0xE0200))  # beyond are ideographs and nothing
    marks = [code for code in where_marks_are if unicodedata.category(chr(code))[0] == "M"]
    starts = [code for place, code in enumerate(marks) if not place or marks[place - 1] != code - 1]
    ends = [code for place, code in enumerate(marks) if place + 1 == len(marks) or marks[place + 1] != code + 1]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


def characters(text: str) -> list[str]:
    """Every character (Unicode code point), blanks included.

    Args:
        text: Any text.

    >>> characters("a 한")
    ['a', ' ', '한']
    """
    return list(text)


def ngrams(text: str) -> list[str]:
    """Every run of one to three characters, blanks included, in the order in which they begin.

    In a bag of embeddings they stand for stems and endings, which makes the bag strong in languages whose words have
    many forms, such as Korean or Finnish (Bojanowski et al. 2017, arXiv:1607.04606, take longer ones inside words).

    Args:
        text: Any text.

    >>> ngrams("a bc")
    ['a', 'a ', 'a b', ' ', ' b', ' bc', 'b', 'bc', 'c']
    """
    ends = range(1, len(text) + 1)
    return [text[start:stop] for start in range(len(text)) for stop in ends[start : start + 3]]


def words_and_pairs(text: str) -> list[str]:
    """Words as `words` finds them, and after each the pair that it makes with the next one.

    What a linear model of texts looks at: "not good" is a token beside "not" and "good".

    Args:
        text: Any text.

    >>> words_and_pairs("not so good")
    ['not', 'not so', 'so', 'so good', 'good']
    """
    single = words(text)
    return [token for word, after in itertools.zip_longest(single, single[1:]) for token in _with_next(word, after)]


def _with_next(word: str, after: str | None) -> tuple[str, ...]:
    return (word,) if after is None else (word, f"{word} {after}")


def runs(text: str) -> list[str]:
    """Every run of two to five characters, blanks included, in the order in which they begin.

    For a linear model of short or noisy texts and of languages with many endings: more and longer ones than `ngrams`.

    Args:
        text: Any text.

    >>> runs("a bc")
    ['a ', 'a b', 'a bc', ' b', ' bc', 'bc']
    """
    ends = range(len(text) + 1)
    return [text[start:stop] for start in range(len(text)) for stop in ends[start + 2 : start + 6]]


def words_and_runs(text: str) -> list[str]:
    """What `words_and_pairs` and `runs` find, together; a line end marks the words, so that none is treated as a run.

    Args:
        text: Any text.

    >>> words_and_runs("a bc")
    ['a\\n', 'a bc\\n', 'bc\\n', 'a ', 'a b', 'a bc', ' b', ' bc', 'bc']
    """
    return [f"{token}\n" for token in words_and_pairs(text)] + runs(text)


def jamo(text: str) -> list[str]:
    """Every character, Hangul syllables taken apart into their letters (Unicode's conjoining jamo).

    Args:
        text: Any text.

    >>> len(jamo("한국")), join(jamo("한국!"), "jamo")
    (6, '한국!')
    """
    return list(_SYLLABLES.sub(lambda found: unicodedata.normalize("NFD", found[0]), text))


def utf8_bytes(text: str) -> list[str]:
    """Every byte of the text as UTF-8, written `<0x41>`.

    Args:
        text: Any text.

    >>> utf8_bytes("é")
    ['<0xC3>', '<0xA9>']
    """
    return [BYTES[byte] for byte in text.encode("utf-8", "surrogatepass")]


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

TOKENIZERS: dict[str, Tokenizer] = {
    "bytes": utf8_bytes,
    "characters": characters,
    "jamo": jamo,
    "ngrams": ngrams,
    "runs": runs,
    "whitespace": str.split,
    "words": words,
    "words-and-pairs": words_and_pairs,
    "words-and-runs": words_and_runs,
}


def tokenizer_of(tokenizer: str | Tokenizer) -> Tokenizer:
    """The function that a name stands for; a function is tried on one text and returned as it is."""
    if callable(tokenizer):
        tokens: object = tokenizer("one text")
        if not isinstance(tokens, Sequence) or isinstance(tokens, str) or not all(isinstance(t, str) for t in tokens):
            raise ArgumentError(f"a tokenizer gives a list of strings for a text, this one gave {tokens!r:.80}")
        return tokenizer
    if tokenizer not in TOKENIZERS:
        raise ArgumentError(
            f"tokenizer must be one of {sorted(TOKENIZERS)}, a function from text to a list of strings, or a tokenizer "
            f"object of tokenizers or transformers, not {tokenizer!r}"
        )
    return TOKENIZERS[tokenizer]


def join(tokens: Sequence[str], tokenizer: str | Tokenizer) -> str:
    """Tokens as a text again: exact for `characters`, `jamo` and `bytes`, with single blanks for all others."""
    if tokenizer == "bytes":
        codes = (int(token[1:-1], 16) for token in tokens if token in _BYTES)
        return bytes(codes).decode("utf-8", "replace")
    if tokenizer == "jamo":
        return unicodedata.normalize("NFC", "".join(tokens))
    return ("" if tokenizer == "characters" else " ").join(tokens)


_BYTES = frozenset(BYTES)
