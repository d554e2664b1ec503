"""Tokenizers of Hugging Face's `tokenizers` and `transformers` as encoders, and training one of them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from dlkit import _bounds
from dlkit._documents import DocumentPart
from dlkit._optional import require
from dlkit.errors import ArgumentError, DataError, DlkitError
from dlkit.tokens._encoded import EncodedTexts, Encoder
from dlkit.tokens._patterns import check_patterns
from dlkit.tokens.cleaning import Cleaning

__all__ = ["PretrainedTokenizer", "is_pretrained", "train_bpe"]

_MOST_JSON = 64 << 20
_CHUNK = 10_000  # texts per call: enough to keep all cores busy, few enough to keep the results small
_PAD_TOKENS = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>")
_UNKNOWN_TOKENS = ("<unk>", "<unknown>", "[UNK]", "<|endoftext|>", "</s>")


def is_pretrained(tokenizer: object) -> bool:
    """Whether it is a tokenizer object of `tokenizers` or `transformers`; neither package is imported to find out."""
    packages = {kind.__module__.partition(".")[0] for kind in type(tokenizer).__mro__}
    return bool(packages & {"tokenizers", "transformers"}) and not isinstance(tokenizer, type)


class PretrainedTokenizer(Encoder):
    """A tokenizer object of `tokenizers` or `transformers`, encoding whole batches in parallel.

    `TextDataset(..., tokenizer=tokenizer)` makes one by itself. The object is left as it is: padding and truncation
    that were set on it are put back after each call.

    Args:
        tokenizer: `tokenizers.Tokenizer`, or a tokenizer of `transformers`, fast or slow.
        cleaning: What is done to a text first; None for nothing, since such a tokenizer has its own normalisation.

    Raises:
        ArgumentError: `tokenizer` is no such object.

    >>> tokenizer = PretrainedTokenizer(train_bpe(["low lower lowest"] * 9, vocab_size=300))
    >>> tokenizer.decode(tokenizer.encode_batch(["lower"]).ids)
    'lower'
    """

    _title: ClassVar[str] = "this tokenizer"
    _head: ClassVar[Mapping[str, Any]] = {"kind": "tokenizers"}

    def __init__(self, tokenizer: Any, *, cleaning: Cleaning | None = None) -> None:
        if not is_pretrained(tokenizer):
            raise ArgumentError(f"this is not a tokenizer object of tokenizers or transformers: {tokenizer!r:.80}")
        self.tokenizer, self.cleaning = tokenizer, cleaning
        # The object in Rust that does the work; only slow tokenizers of transformers have none.
        self._rust: Any = tokenizer if hasattr(tokenizer, "to_str") else getattr(tokenizer, "backend_tokenizer", None)
        self.pad_id = self._find_pad_id()
        self.padding_side = self._find_padding_side()
        self._size = 1 + max(tokenizer.get_vocab().values(), default=0)

    def _find_pad_id(self) -> int:
        if hasattr(self.tokenizer, "pad_token_id"):
            return int(self.tokenizer.pad_token_id or 0)
        if self.tokenizer.padding is not None:
            return int(self.tokenizer.padding["pad_id"])
        return self._first_known(_PAD_TOKENS) or 0  # any number will do: the mask says that it is not to be read

    def _find_padding_side(self) -> str:
        side = getattr(self.tokenizer, "padding_side", None)
        if side is None and self.tokenizer.padding is not None:
            side = self.tokenizer.padding["direction"]
        return side if side in ("left", "right") else "right"

    def _first_known(self, tokens: Iterable[str]) -> int | None:
        vocabulary = self.tokenizer.get_vocab()
        return next((int(vocabulary[token]) for token in tokens if token in vocabulary), None)

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"PretrainedTokenizer({type(self.tokenizer).__name__}, {len(self):,} numbers)"

    def encode_batch(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int | None = None
    ) -> EncodedTexts:
        """Many texts as numbers, special tokens included, one after the other in one array.

        Args:
            texts: The texts.
            pairs: The second text of each.
            max_length: Cut to so many numbers; of a pair the longer text is cut first.
        """
        parts = []
        for begin in range(0, len(texts), _CHUNK):
            chunk, second = self._cleaned(texts[begin : begin + _CHUNK]), None
            if pairs is not None:
                second = self._cleaned(pairs[begin : begin + _CHUNK])
            encode = self._by_calls if self._rust is None else self._by_rust
            parts.append(self._without_empty_rows(encode(chunk, second, max_length)))
        if not parts:
            return EncodedTexts.of([])
        types = [part.types for part in parts if part.types is not None]
        ids, lengths = np.concatenate([part.ids for part in parts]), np.concatenate([part.lengths for part in parts])
        # Models that know no types give zeros throughout, and want none.
        return EncodedTexts(ids, lengths, np.concatenate(types) if any(each.any() for each in types) else None)

    def _cleaned(self, texts: Sequence[str]) -> list[str]:
        return list(texts) if self.cleaning is None else [self.cleaning(text) for text in texts]

    def _by_rust(self, texts: list[str], pairs: list[str] | None, max_length: int | None) -> EncodedTexts:
        rows: Any = texts if pairs is None else list(zip(texts, pairs, strict=True))
        with _plain(self._rust, max_length), _rust("cannot take these texts", DataError):
            # Where each token stood in the text is not asked for, which saves a fifth of the time.
            encodings = getattr(self._rust, "encode_batch_fast", self._rust.encode_batch)(rows)
        encoded = EncodedTexts.of([encoding.ids for encoding in encodings])
        if pairs is None:
            return encoded
        return encoded._replace(
            types=EncodedTexts.of([encoding.type_ids for encoding in encodings]).ids.astype(np.int8)
        )

    def _by_calls(self, texts: list[str], pairs: list[str] | None, max_length: int | None) -> EncodedTexts:
        output = self.tokenizer(
            texts, pairs, padding=False, truncation=max_length is not None, max_length=max_length, verbose=False
        )
        encoded = EncodedTexts.of(output["input_ids"])
        if pairs is None or "token_type_ids" not in output:
            return encoded
        return encoded._replace(types=EncodedTexts.of(output["token_type_ids"]).ids.astype(np.int8))

    def _without_empty_rows(self, encoded: EncodedTexts) -> EncodedTexts:
        """No row of a batch may be empty: a text without tokens becomes one unknown (or else padding) that is read."""
        empty = np.flatnonzero(encoded.lengths == 0)
        if not len(empty):
            return encoded
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        if unknown is None:
            unknown = self._first_known(_UNKNOWN_TOKENS)
        places = np.cumsum(encoded.lengths)[empty]
        lengths = encoded.lengths.copy()
        lengths[empty] = 1
        types = None if encoded.types is None else np.insert(encoded.types, places, 0)
        return EncodedTexts(np.insert(encoded.ids, places, self.pad_id if unknown is None else unknown), lengths, types)

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """Numbers as a text, without special tokens.

        Args:
            ids: Numbers of this tokenizer.
        """
        return str(self.tokenizer.decode([int(number) for number in ids], skip_special_tokens=True))

    def document(self) -> dict[str, Any]:
        """Everything in it as plain data.

        Raises:
            ArgumentError: a slow tokenizer, whose code would have to travel.
        """
        if self._rust is None:
            raise ArgumentError(
                f"{type(self.tokenizer).__name__} is a slow tokenizer, which has no JSON; use its fast version"
            )
        return {
            **self._head,
            "json": self._rust.to_str(),
            "pad_id": self.pad_id,
            "padding_side": self.padding_side,
            "cleaning": None if self.cleaning is None else self.cleaning.document(),
        }

    @classmethod
    def _read(cls, document: Mapping[str, Any], place: DocumentPart, tokenizer: Any) -> Self:
        tokenizers = require("tokenizers", extra="text")
        content, cleaning = document.get("json"), document.get("cleaning")
        check_patterns(_bounds.parse(_bounds.text(content, "json of this tokenizer", _MOST_JSON), "this tokenizer"))
        with _rust("cannot be read", ArgumentError):
            found = tokenizers.Tokenizer.from_str(content)
        made = cls(found, cleaning=None if cleaning is None else Cleaning.from_document(cleaning))
        made.pad_id = _bounds.whole(document.get("pad_id", 0), "pad_id of this tokenizer", _bounds.TOKEN)
        made.padding_side = document.get("padding_side", "right")
        if made.padding_side not in ("left", "right"):
            raise ArgumentError(f"padding_side of this tokenizer must be left or right, not {made.padding_side!r:.40}")
        _bounds.whole(len(made), "the largest number of this tokenizer", _bounds.TOKEN)
        return made

    def fingerprint(self) -> str | None:
        """64 hexadecimal digits, equal for equal tokenizers; None for slow ones."""
        if self._rust is None:
            return None
        return hashlib.sha256(f"{self.cleaning}{self._rust.to_str()}".encode()).hexdigest()


@contextlib.contextmanager
def _rust(what: str, failure: type[DlkitError]) -> Iterator[None]:
    """Failures inside tokenizers as errors of dlkit: bare Exceptions, and panics, which are BaseExceptions."""
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise failure(f"this tokenizer {what}, by the installed package tokenizers: {error}") from error


@contextlib.contextmanager
def _plain(tokenizer: Any, max_length: int | None) -> Iterator[None]:
    """Without padding and cut to `max_length`, and afterwards as it was."""
    padding, truncation = tokenizer.padding, tokenizer.truncation
    tokenizer.no_padding()
    if max_length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_length)
    try:
        yield
    finally:
        if padding is not None:
            tokenizer.enable_padding(**padding)
        if truncation is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(**truncation)


def train_bpe(
    texts: Iterable[str], *, vocab_size: int = 8000, min_freq: int = 2, lower: bool = False, add_start_end: bool = False
) -> Any:
    """Train byte pair encoding on texts (Sennrich et al. 2016, arXiv:1508.07909), on bytes as GPT-2 does.

    Since every byte is a token, nothing is ever unknown, whatever the script. Needs the extra `text`.

    Args:
        texts: The training texts, and only those.
        vocab_size: Numbers in all: 256 bytes, 4 special ones and merged pieces. 8,000 suits some ten thousand texts.
        min_freq: Pieces that occur less often are not merged.
        lower: Lower case first.
        add_start_end: Put start and end around each text.

    Returns:
        A `tokenizers.Tokenizer` with `<pad>` as 0, `<unknown>` 1, `<start>` 2 and `<end>` 3.

    Raises:
        ArgumentError: `vocab_size` below 260.

    >>> tokenizer = train_bpe(["the cat sat on the mat"] * 3, vocab_size=270)
    >>> tokenizer.decode(tokenizer.encode("the mat").ids)
    'the mat'
    """
    if vocab_size < 260:
        raise ArgumentError(f"vocab_size must be at least 260 (256 bytes and 4 special ones), not {vocab_size}")
    tokenizers = require("tokenizers", extra="text")
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if lower else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_freq,
        special_tokens=["<pad>", "<unknown>", "<start>", "<end>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if add_start_end:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<start> $A <end>",
            pair="<start> $A <end> $B:1 <end>:1",
            special_tokens=[("<start>", 2), ("<end>", 3)],
        )
    return tokenizer
