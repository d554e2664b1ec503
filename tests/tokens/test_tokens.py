"""Cleaning, tokenizers and vocabularies: stated rules, every script, odd characters, and JSON that comes back."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlkit.errors import ArgumentError, DataError
from dlkit.specs import TextSpec
from dlkit.tokens import Cleaning, Vocabulary, jamo, ngrams, utf8_bytes, words
from dlkit.tokens._encoded import cut_longest
from dlkit.tokens.tokenizers import TOKENIZERS, join

NOTHING = Cleaning(nfc=False, whitespace=False)
# Text that UTF-8 can hold; half surrogate pairs are refused earlier.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
awkward = st.text(st.sampled_from("<>/!-ascriptyle&;#x \t\n\0wWhtp:.한\u1112é\u0301"), max_size=60)


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({}, "  a \t\n b\u3000c\0d ", "a b c d"),
        ({}, "cafe\u0301 \u1112\u1161\u11ab", "café 한"),
        ({"nfc": False}, "cafe\u0301", "cafe\u0301"),
        ({"whitespace": False}, " a  b ", " a  b "),
        ({"lower": True}, "ÄB İ", "äb i̇"),
        ({"html": True}, "x<script>alert('<b>')</script>y <!-- no -->&lt;z&gt;&nbsp;<br/>1", "x y <z> 1"),
        ({"html": True}, "a < b and c > d, x <3 you", "a < b and c > d, x <3 you"),
        ({"html": True}, "<style>never closed <i>text</i>", "never closed text"),
        ({"urls": True}, "see http://a.kr/b?c=1입니다 www.x.org.", "see httpurl입니다 httpurl."),
        ({"urls": True}, "www. is no address", "www. is no address"),
    ],
)
def test_each_step_does_what_it_says(options: dict[str, bool], text: str, expected: str) -> None:
    assert Cleaning(**options)(text) == expected


@given(awkward)
def test_cleaning_is_total_and_done_once(text: str) -> None:
    plain = Cleaning(lower=True)
    assert plain(plain(text)) == plain(text)
    assert "\0" not in Cleaning(html=True, urls=True)(text)


def test_cleaning_a_hostile_megabyte_takes_time_in_proportion() -> None:
    everything = Cleaning(html=True, urls=True, lower=True)
    for piece in ("<script", "<!--", "<a ", "http://", "www.!", "&#", "<b>"):
        begin = time.process_time()
        everything(piece * (1_000_000 // len(piece)))
        assert time.process_time() - begin < 5


def test_cleaning_says_what_it_is_and_refuses_what_it_is_not() -> None:
    assert Cleaning.from_json(Cleaning(html=True, nfc=False).to_json()) == Cleaning(html=True, nfc=False)
    with pytest.raises(ArgumentError, match="this cleaning has no field 'stem'"):
        Cleaning.from_document({"stem": True})
    with pytest.raises(ArgumentError, match="lower of this cleaning must be true or false"):
        Cleaning.from_document({"lower": "yes"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't, O’Neill's 3.5!", ["Don't", ",", "O’Neill's", "3", ".", "5", "!"]),
        ("한국어도 'quoted'", ["한국어도", "'", "quoted", "'"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs and virama are no letters to Python's \\w
        ("שָׁלוֹם، مرحبًا!", ["שָׁלוֹם", "،", "مرحبًا", "!"]),  # right to left, with points
        ("می‌خواهم", ["می‌خواهم"]),  # a joiner inside a Persian word
        ("今日はカタカナ", ["今", "日", "は", "カタカナ"]),
        ("I❤️U👩🏽‍🚀🇰🇷🇫🇷1️⃣", ["I", "❤️", "U", "👩🏽‍🚀", "🇰🇷", "🇫🇷", "1️⃣"]),
        ("a\0b\u200b", ["a", "b", "\u200b"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_words_of_any_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(texts)
def test_tokenizers_lose_nothing_but_blanks(text: str) -> None:
    bare = "".join(text.replace("\0", "").split())
    for name in ("words", "whitespace"):
        assert "".join("".join(TOKENIZERS[name](text)).replace("\0", "").split()) == bare
    assert join(TOKENIZERS["characters"](text), "characters") == text
    assert join(utf8_bytes(text), "bytes") == text
    assert join(jamo(unicodedata.normalize("NFC", text)), "jamo") == unicodedata.normalize("NFC", text)
    assert len(ngrams(text)) == sum(max(0, len(text) - size) for size in range(3))
    assert all(gram in text for gram in ngrams(text))


@given(st.lists(texts, min_size=1, max_size=8), st.sampled_from(["characters", "jamo", "bytes"]))
def test_what_is_encoded_with_a_full_vocabulary_is_decoded(samples: list[str], tokenizer: str) -> None:
    vocabulary = Vocabulary.fit(samples, tokenizer=tokenizer, cleaning=NOTHING)
    for text in samples:
        expected = unicodedata.normalize("NFC", text) if tokenizer == "jamo" else text
        if expected:
            assert unicodedata.normalize("NFC", vocabulary.decode(vocabulary.encode(text))) == unicodedata.normalize(
                "NFC", expected
            )


def test_rare_words_fall_to_unknown_and_frequent_ones_come_first() -> None:
    vocabulary = Vocabulary.fit(["b b b a a c", "a b"], min_freq=2)
    assert vocabulary.tokens == ("b", "a")
    assert vocabulary.encode("c a b new").tolist() == [1, 5, 4, 1]
    assert Vocabulary.fit(["b b b a a c", "a b"], max_size=5).tokens == ("b",)
    assert Vocabulary.fit(["z y x"]).tokens == ("x", "y", "z")  # equal frequency: by alphabet, not by chance
    assert ("a" in vocabulary, "c" in vocabulary, vocabulary["a"], vocabulary["c"], len(vocabulary)) == (
        True,
        False,
        5,
        1,
        6,
    )


def test_text_that_looks_like_a_special_token_is_not_one() -> None:
    vocabulary = Vocabulary.fit(["<pad> <unknown>"], tokenizer="whitespace")
    assert vocabulary.encode("<pad> <end>").tolist() == [4, 1]


def test_start_end_pairs_and_cutting() -> None:
    vocabulary = Vocabulary.fit(["a b c d e"], add_start_end=True)
    assert vocabulary.encode("a b").tolist() == [2, 4, 5, 3]
    assert vocabulary.encode("a b c d e", max_length=4).tolist() == [2, 4, 5, 3]
    assert vocabulary.encode("a", "b c").tolist() == [2, 4, 3, 5, 6, 3]
    encoded = vocabulary.encode_batch(["a", "a b c d", ""], ["b c", "e", ""], max_length=6)
    assert encoded.lengths.tolist() == [6, 6, 3]
    assert encoded.ids.tolist() == [2, 4, 3, 5, 6, 3, 2, 4, 5, 3, 8, 3, 2, 3, 3]
    assert encoded.types is not None
    assert encoded.types.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1]
    assert vocabulary.decode([2, 4, 3, 0]) == "a"
    assert vocabulary.decode([2, 4, 3, 0], keep_special=True) == "<start> a <end> <pad>"
    with pytest.raises(ArgumentError, match="max_length=3 leaves no room for a token beside 3 special ones"):
        vocabulary.encode("a", "b", max_length=3)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 12))
def test_of_a_pair_the_longer_is_cut_first(a: int, b: int, budget: int) -> None:
    first, second = cut_longest([1] * a, [2] * b, budget)
    assert len(first) + len(second) == min(a + b, budget)
    if len(first) < a and len(second) < b:
        assert len(first) - len(second) in (0, 1)
    elif len(first) < a:
        assert len(first) >= len(second)
    elif len(second) < b:
        assert len(second) >= len(first) - 1


def test_an_empty_text_is_one_unknown() -> None:
    vocabulary = Vocabulary.fit(["a b"])
    assert vocabulary.encode("").tolist() == [1]
    assert vocabulary.encode_batch(["", "a", " \n"]).lengths.tolist() == [1, 1, 1]
    assert vocabulary.encode_batch([]).lengths.tolist() == []


def test_coverage_counts_tokens_and_names_what_is_missing() -> None:
    coverage = Vocabulary.fit(["a a b"], min_freq=2).coverage(["a b b c", "a"])
    assert (coverage.num_tokens, coverage.num_known, coverage.num_types, coverage.num_known_types) == (5, 2, 3, 1)
    assert coverage.unknown == (("b", 2), ("c", 1))
    assert coverage.share == 0.4
    assert Vocabulary.fit(["a"]).coverage([]).share == 1.0


def test_json_brings_everything_back() -> None:
    vocabulary = Vocabulary.fit(
        ['Ein \u2028 \\ " 한국 👍🏽'], tokenizer="ngrams", cleaning=Cleaning(lower=True), add_start_end=True
    )
    again = Vocabulary.from_json(vocabulary.to_json())
    assert again == vocabulary
    assert again.encode("한국어").tolist() == vocabulary.encode("한국어").tolist()
    assert again.fingerprint() == vocabulary.fingerprint() != Vocabulary.fit(["x"]).fingerprint()


def test_a_function_as_tokenizer_must_be_given_again() -> None:
    vocabulary = Vocabulary.fit(["a-b"], tokenizer=dashes)
    assert vocabulary.tokens == ("a", "b")
    with pytest.raises(ArgumentError, match=r"was made with the function .*dashes; give it as tokenizer="):
        Vocabulary.from_json(vocabulary.to_json())
    assert Vocabulary.from_json(vocabulary.to_json(), tokenizer=dashes) == vocabulary
    assert vocabulary.fingerprint() is None
    with pytest.raises(ArgumentError, match="a tokenizer gives a list of strings for a text, this one gave 'one text'"):
        Vocabulary.fit(["a"], tokenizer=str.lower)  # type: ignore[arg-type]


def dashes(text: str) -> list[str]:
    return text.split("-")


@pytest.mark.parametrize(
    ("json_text", "message"),
    [
        ("{", "this vocabulary must be JSON"),
        ("[]", "must be an object, not"),
        ("{}", "kind of this vocabulary must be 'vocabulary'"),
        ('{"kind": "vocabulary", "tokens": [1]}', "tokens of this vocabulary must be a list of texts"),
        ('{"kind": "vocabulary", "tokens": ["a", "a"], "tokenizer": "words"}', "'a' is there more than once"),
        ('{"kind": "vocabulary", "tokens": ["a"], "tokenizer": "magic"}', "tokenizer must be one of .* not 'magic'"),
        (
            '{"kind": "vocabulary", "tokens": ["a"], "tokenizer": "words", "cleaning": {"x": true}}',
            "this cleaning has no field 'x'",
        ),
    ],
)
def test_json_that_is_no_vocabulary_is_refused(json_text: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Vocabulary.from_json(json_text)


def test_a_spec_travels_as_json_with_its_classes() -> None:
    spec = TextSpec(encoder=Vocabulary.fit(["a b"], tokenizer="jamo"), max_length=7, classes=("ham", "spam"))
    assert TextSpec.from_json(spec.to_json()) == spec
    for wrong, message in [
        ("nonsense", "the text spec must be JSON"),
        ("[]", "the text spec must be an object"),
        (
            '{"encoder": {"kind": "oracle"}}',
            "encoder.kind of the text spec must be 'tokenizers' or 'vocabulary', not 'oracle'",
        ),
        (
            '{"encoder": {"kind": "vocabulary"}, "max_length": "x"}',
            "tokens of the text spec must be a list of texts, not None",
        ),
    ]:
        with pytest.raises(ArgumentError, match=message):
            TextSpec.from_json(wrong)


def test_mistakes_are_named() -> None:
    with pytest.raises(ArgumentError, match=r"texts must be a list of texts, not one text: \['hello'\]"):
        Vocabulary.fit("hello")
    with pytest.raises(ArgumentError, match="min_freq must be at least 1 and max_size more than 4, not 0 and None"):
        Vocabulary.fit(["a"], min_freq=0)
    with pytest.raises(DataError, match="99 is not an id of this vocabulary, which has 0 to 4"):
        Vocabulary.fit(["a"]).decode([99])
