"""Tokenizer objects of Hugging Face give the numbers that they give by themselves, and are left as they were."""

from __future__ import annotations

from typing import Any

import pytest

from dlkit.errors import ArgumentError
from dlkit.tokens import Cleaning, PretrainedTokenizer, train_bpe

tokenizers = pytest.importorskip("tokenizers")

TEXTS = ["the cat sat on the mat", "", "고양이가 앉았다 👍🏽", "the the the the the the the the", "x"]


@pytest.fixture(scope="module")
def bpe() -> Any:
    return train_bpe(TEXTS * 4, vocab_size=300, add_start_end=True)


def rows(encoded: Any) -> list[list[int]]:
    ends = encoded.lengths.cumsum()
    return [encoded.ids[end - size : end].tolist() for end, size in zip(ends, encoded.lengths, strict=True)]


def test_batches_equal_what_the_tokenizer_gives(bpe: Any) -> None:
    wrapped = PretrainedTokenizer(bpe)
    assert rows(wrapped.encode_batch(TEXTS)) == [bpe.encode(text).ids for text in TEXTS]
    assert (wrapped.pad_id, wrapped.padding_side, len(wrapped)) == (0, "right", 298)
    assert [wrapped.decode(row) for row in rows(wrapped.encode_batch(TEXTS))] == TEXTS


def test_pairs_have_types_and_are_cut_longest_first(bpe: Any) -> None:
    encoded = PretrainedTokenizer(bpe).encode_batch(["the cat", "x"], ["on", "the the the the the the"], max_length=7)
    assert encoded.lengths.max() == 7
    assert encoded.types is not None
    first = encoded.types[: encoded.lengths[0]].tolist()
    assert first == sorted(first)
    assert set(first) == {0, 1}


def test_settings_of_the_object_are_put_back(bpe: Any) -> None:
    bpe.enable_padding(pad_id=0, pad_token="<pad>", length=9, direction="left")
    bpe.enable_truncation(5, stride=2)
    before = (bpe.padding, bpe.truncation)
    wrapped = PretrainedTokenizer(bpe)
    assert wrapped.padding_side == "left"
    assert wrapped.encode_batch(["the cat sat on the mat"] * 2, max_length=4).lengths.tolist() == [4, 4]
    assert wrapped.encode_batch(["the cat sat on the mat"]).lengths[0] > 5
    assert (bpe.padding, bpe.truncation) == before
    bpe.no_padding()
    bpe.no_truncation()


def test_no_row_is_empty() -> None:
    plain = train_bpe(["a b"], vocab_size=260)
    assert plain.encode("").ids == []
    encoded = PretrainedTokenizer(plain).encode_batch(["", "a", ""])
    assert rows(encoded) == [[1], plain.encode("a").ids, [1]]


def test_it_travels_as_json(bpe: Any) -> None:
    wrapped = PretrainedTokenizer(bpe, cleaning=Cleaning(lower=True))
    again = PretrainedTokenizer.from_json(wrapped.to_json())
    assert rows(again.encode_batch(["THE cat"])) == rows(wrapped.encode_batch(["the CAT"]))
    assert again.fingerprint() == wrapped.fingerprint() != PretrainedTokenizer(bpe).fingerprint()
    with pytest.raises(ArgumentError, match="this tokenizer must be JSON"):
        PretrainedTokenizer.from_document({"kind": "tokenizers", "json": "{"})


def test_training_is_repeatable_and_knows_every_byte() -> None:
    first, second = (train_bpe(TEXTS, vocab_size=280, lower=True) for _ in range(2))
    assert first.to_str() == second.to_str()
    odd = "\0 ﷽ 🏴‍☠️ ñ"
    assert first.decode(first.encode(odd).ids) == odd
    assert first.encode("THE").ids == first.encode("the").ids
    with pytest.raises(ArgumentError, match="vocab_size must be at least 260"):
        train_bpe(TEXTS, vocab_size=100)


def test_other_objects_are_refused() -> None:
    with pytest.raises(ArgumentError, match="not a tokenizer object of tokenizers or transformers"):
        PretrainedTokenizer(str.split)


@pytest.mark.filterwarnings("ignore")
def test_tokenizers_of_transformers_fast_and_slow(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]))
    tokenizer = transformers.BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    wrapped = PretrainedTokenizer(tokenizer)
    expected = tokenizer(TEXTS, TEXTS[::-1], max_length=8, truncation=True)
    encoded = wrapped.encode_batch(TEXTS, TEXTS[::-1], max_length=8)
    assert rows(encoded) == expected["input_ids"]
    assert encoded.types is not None
    assert encoded.types.tolist() == [kind for row in expected["token_type_ids"] for kind in row]
    assert rows(wrapped.encode_batch(TEXTS)) == tokenizer(TEXTS)["input_ids"]
    assert wrapped.decode([2, 5, 6, 3]) == "the cat"

    class Slow:
        """What is called like a tokenizer of transformers and has nothing in Rust."""

        pad_token_id, unk_token_id, padding_side = 3, 1, "left"

        def get_vocab(self) -> dict[str, int]:
            return {"a": 7}

        def __call__(self, texts: list[str], pairs: Any, **options: Any) -> dict[str, Any]:
            return {"input_ids": [[7] * min(len(text), options["max_length"] or 99) for text in texts]}

    Slow.__module__ = "transformers.models.slow"
    slow = PretrainedTokenizer(Slow())
    assert rows(slow.encode_batch(["aa", ""], max_length=1)) == [[7], [1]]
    assert (slow.pad_id, slow.padding_side, len(slow), slow.fingerprint()) == (3, "left", 8, None)
    with pytest.raises(ArgumentError, match="Slow is a slow tokenizer, which has no JSON"):
        slow.document()
