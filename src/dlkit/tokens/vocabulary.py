"""`Vocabulary`: the tokens of the training texts and their numbers."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from dlkit._documents import DocumentPart
from dlkit.errors import ArgumentError, DataError
from dlkit.tokens._encoded import EncodedTexts, Encoder, cut_longest
from dlkit.tokens.cleaning import Cleaning
from dlkit.tokens.tokenizers import BYTES, Tokenizer, join, tokenizer_of

__all__ = ["Coverage", "Vocabulary"]

_SPECIALS = ("<pad>", "<unknown>", "<start>", "<end>")
_PAD, _UNKNOWN, _START, _END = range(4)


class _Ids(dict[str, int]):
    """Token to number; what is not there is unknown, without being stored."""

    def __missing__(self, token: str) -> int:
        return _UNKNOWN


@dataclass(frozen=True)
class Coverage:
    """How much of some texts a vocabulary knows.

    Attributes:
        num_tokens: Tokens in the texts.
        num_known: Those that are in the vocabulary.
        num_types: Different tokens in the texts.
        num_known_types: Those that are in the vocabulary.
        unknown: The most frequent tokens that are not, with their counts.
    """

    num_tokens: int
    num_known: int
    num_types: int
    num_known_types: int
    unknown: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """The share of tokens that are known, 0 to 1; 1 for no tokens at all."""
        return self.num_known / self.num_tokens if self.num_tokens else 1.0

    def __str__(self) -> str:
        most = ", ".join(f"{token!r} ({count:,})" for token, count in self.unknown)
        return (
            f"{self.num_known:,} of {self.num_tokens:,} tokens known ({self.share:.1%}), "
            f"{self.num_known_types:,} of {self.num_types:,} different ones"
            + (f"; the most frequent unknown: {most}" if most else "")
        )


class Vocabulary(Encoder):
    """Tokens and their numbers, together with how a text is cleaned and cut into tokens.

    Number 0 is padding, 1 unknown, 2 the start and 3 the end of a text; then come the tokens. Usually made by `fit`, on
    the training texts only; `TextDataset` does that by itself. Goes into the model file as JSON.

    Args:
        tokens: The tokens in the order of their numbers, the first one getting number 4.
        tokenizer: "words", "whitespace", "characters", "jamo", "ngrams", "bytes", or a function from a text to strings.
        cleaning: What is done to a text first; None for `Cleaning()`, normal form C and single blanks.
        add_start_end: Whether encoding puts start and end around each text.

    Raises:
        ArgumentError: a token twice, or an unknown name of a tokenizer.

    >>> vocabulary = Vocabulary.fit(["a rose is a rose", "a tulip is no rose"], min_freq=2)
    >>> vocabulary.tokens
    ('a', 'rose', 'is')
    >>> vocabulary.encode("a tulip is a rose")
    tensor([4, 1, 6, 4, 5])
    >>> vocabulary.decode([4, 1, 6])
    'a <unknown> is'
    """

    _title: ClassVar[str] = "this vocabulary"
    _head: ClassVar[Mapping[str, Any]] = {"kind": "vocabulary"}

    pad_id, unknown_id, start_id, end_id = _PAD, _UNKNOWN, _START, _END
    padding_side = "right"

    def __init__(
        self,
        tokens: Iterable[str],
        *,
        tokenizer: str | Tokenizer = "words",
        cleaning: Cleaning | None = None,
        add_start_end: bool = False,
    ) -> None:
        self.tokens = tuple(tokens)
        self.tokenizer, self.cleaning, self.add_start_end = tokenizer, cleaning or Cleaning(), add_start_end
        self._cut = tokenizer_of(tokenizer)
        # Words are the same however wide the blanks between them are.
        self._clean = replace(self.cleaning, whitespace=False) if tokenizer == "words" else self.cleaning
        self._ids = _Ids(zip(self.tokens, itertools.count(len(_SPECIALS))))
        if len(self._ids) < len(self.tokens):
            twice = next(token for token, count in Counter(self.tokens).items() if count > 1)
            raise ArgumentError(f"a vocabulary has each token once, but {twice!r} is there more than once")

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        *,
        tokenizer: str | Tokenizer = "words",
        cleaning: Cleaning | None = None,
        min_freq: int = 1,
        max_size: int | None = None,
        add_start_end: bool = False,
    ) -> Vocabulary:
        """The vocabulary of some texts, most frequent tokens first; those of equal frequency in alphabetical order.

        Args:
            texts: The training texts, and only those: `train.texts`.
            tokenizer: See the class.
            cleaning: See the class.
            min_freq: Tokens that occur less often fall to unknown. With 1, no token of the training texts is unknown,
                and the model never learns what to do with one: 2 is a better choice for real training.
            max_size: At most so many numbers, the four special ones included.
            add_start_end: See the class.

        Raises:
            ArgumentError: `min_freq` below 1, or `max_size` too small for any token.
        """
        if min_freq < 1 or (max_size is not None and max_size <= len(_SPECIALS)):
            raise ArgumentError(
                f"min_freq must be at least 1 and max_size more than {len(_SPECIALS)}, not {min_freq} and {max_size}"
            )
        options: dict[str, Any] = {"tokenizer": tokenizer, "cleaning": cleaning, "add_start_end": add_start_end}
        if tokenizer == "bytes":
            return cls(BYTES, **options)  # all there can be, seen in training or not
        counts = cls((), **options)._count(texts)
        kept = sorted((-count, token) for token, count in counts.items() if count >= min_freq)
        return cls((token for _, token in kept[: None if max_size is None else max_size - len(_SPECIALS)]), **options)

    def _count(self, texts: Iterable[str]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for text in _texts(texts):
            counts.update(self._cut(self._clean(text)))
        return counts

    def __len__(self) -> int:
        return len(_SPECIALS) + len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __getitem__(self, token: str) -> int:
        """The token's number; that of unknown for one that is not in the vocabulary."""
        return self._ids[token]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._state() == other._state()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        name = self.tokenizer if isinstance(self.tokenizer, str) else _name(self.tokenizer)
        return f"Vocabulary({len(self):,} numbers, tokenizer={name!r}, {self.cleaning})"

    def tokenize(self, text: str) -> list[str]:
        """The text's tokens, cleaned and cut, whether the vocabulary knows them or not.

        Args:
            text: Any text.

        >>> Vocabulary([]).tokenize("So  it goes.")
        ['So', 'it', 'goes', '.']
        """
        return list(self._cut(self._clean(text)))

    def encode(self, text: str, pair: str | None = None, *, max_length: int | None = None) -> Tensor:
        """One text as numbers, int64 [L]; a text without tokens is one unknown.

        Args:
            text: Any text.
            pair: A second text; the number of the end is between them.
            max_length: Cut to so many numbers, start and end included; of a pair the longer text is cut first.
        """
        pairs = None if pair is None else [pair]
        return torch.from_numpy(self.encode_batch([text], pairs, max_length=max_length).ids.astype(np.int64))

    def encode_batch(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int | None = None
    ) -> EncodedTexts:
        """Many texts as numbers, one after the other in one array.

        Args:
            texts: The texts.
            pairs: The second text of each.
            max_length: See `encode`.
        """
        around = 2 * self.add_start_end + (pairs is not None)
        if max_length is not None and max_length <= around:
            raise ArgumentError(f"max_length={max_length} leaves no room for a token beside {around} special ones")
        budget = None if max_length is None else max_length - around
        firsts = map(self._numbers, _texts(texts))
        if pairs is None:
            rows = [self._framed(first[:budget]) for first in firsts]
            return EncodedTexts.of(rows)
        seconds = map(self._numbers, _texts(pairs))
        cut = [cut_longest(first, second, budget) for first, second in zip(firsts, seconds, strict=True)]
        rows = [self._framed([*first, _END, *second]) for first, second in cut]
        return EncodedTexts.of(rows, heads=[len(first) + 1 + self.add_start_end for first, _ in cut])

    def decode(self, ids: Sequence[int] | Tensor, *, keep_special: bool = False) -> str:
        """Numbers as a text; blanks are between tokens that are not characters, jamo or bytes.

        Args:
            ids: Numbers of this vocabulary.
            keep_special: Show padding, start and end too; unknown is always shown.
        """
        names = (*_SPECIALS, *self.tokens)
        numbers = [int(number) for number in ids]
        if wrong := [number for number in numbers if not 0 <= number < len(names)]:
            raise DataError(f"{wrong[0]} is not an id of this vocabulary, which has 0 to {len(names) - 1}")
        hidden = () if keep_special else (_PAD, _START, _END)
        return join([names[number] for number in numbers if number not in hidden], self.tokenizer)

    def coverage(self, texts: Iterable[str]) -> Coverage:
        """How much of some texts the vocabulary knows; for validation and test texts.

        Args:
            texts: Any texts.

        >>> print(Vocabulary.fit(["a rose is a rose"]).coverage(["a tulip is a tulip"]))
        3 of 5 tokens known (60.0%), 2 of 3 different ones; the most frequent unknown: 'tulip' (2)
        """
        counts = self._count(texts)
        unknown = Counter({token: count for token, count in counts.items() if token not in self._ids})
        tokens, missing = counts.total(), unknown.total()
        most = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))[:10]
        return Coverage(tokens, tokens - missing, len(counts), len(counts) - len(unknown), tuple(most))

    def document(self) -> dict[str, Any]:
        """Everything in it as plain data."""
        tokenizer: Any = self.tokenizer if isinstance(self.tokenizer, str) else {"function": _name(self.tokenizer)}
        return {
            **self._head,
            "tokenizer": tokenizer,
            "cleaning": self.cleaning.document(),
            "add_start_end": self.add_start_end,
            "tokens": list(self.tokens),
        }

    @classmethod
    def _read(cls, document: Mapping[str, Any], place: DocumentPart, tokenizer: Any) -> Self:
        tokens, name = document.get("tokens"), document.get("tokenizer")
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ArgumentError(f"{place.field('tokens')} must be a list of texts, not {tokens!r:.60}")
        if tokenizer is None and not isinstance(name, str):
            function = name.get("function") if isinstance(name, Mapping) else name
            raise ArgumentError(f"{place} was made with the function {function}; give it as tokenizer=")
        chosen: Any = tokenizer or name
        cleaning = Cleaning.from_document(document.get("cleaning", {}))
        framed = document.get("add_start_end", False)
        if type(framed) is not bool:
            raise ArgumentError(f"{place.field('add_start_end')} must be true or false, not {framed!r:.60}")
        return cls(tokens, tokenizer=chosen, cleaning=cleaning, add_start_end=framed)

    def fingerprint(self) -> str | None:
        """64 hexadecimal digits, equal for equal vocabularies; None where a function does the cutting."""
        return hashlib.sha256(self.to_json().encode()).hexdigest() if isinstance(self.tokenizer, str) else None

    def _numbers(self, text: str) -> list[int]:
        cleaned = self._clean(text)
        if self.tokenizer == "bytes":
            return [byte + len(_SPECIALS) for byte in cleaned.encode("utf-8", "surrogatepass")]
        return list(map(self._ids.__getitem__, self._cut(cleaned)))

    def _framed(self, numbers: list[int]) -> list[int]:
        if self.add_start_end:
            return [_START, *numbers, _END]
        return numbers or [_UNKNOWN]  # no row of a batch may be empty: models cannot take an average over nothing

    def _state(self) -> tuple[Any, ...]:
        return self.tokens, self.tokenizer, self.cleaning, self.add_start_end


def _texts(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str):
        raise ArgumentError(f"texts must be a list of texts, not one text: [{texts[:40]!r}]")
    return texts


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
