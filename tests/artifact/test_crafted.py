"""Model files that are signed and whole, and say what nobody should do: refused before it is done, the field named.

They are opened in this process, one after the other: within the memory and the time that any of them may take.
"""

from __future__ import annotations

import json
import resource
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rewriting import at, rewritten
from torch import nn

import dlkit
from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError, DataError, DlkitError, ModelFileError
from dlkit.models import AudioClassifier, SmallConvNet, TabularMLP, TextClassifier
from dlkit.specs import TextSpec
from dlkit.tokens import PretrainedTokenizer, Vocabulary, train_bpe
from dlkit.transfer import create_model
from dlkit.transforms import for_evaluation
from dlkit.transforms.audio import AudioPreprocessing

GREY = for_evaluation(28, color="L", mean=0.0, std=1.0)
HEARD = AudioPreprocessing(sample_rate=8_000, seconds=0.5)
ENCODER = ("meaning", "spec", "encoder")


@pytest.fixture(autouse=True)
def within_its_limits() -> Iterator[None]:
    """Processor time, and the process's largest memory so far, which only grows."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - began < 10
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 1 << 30


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good model file of each sort."""
    folder = tmp_path_factory.mktemp("models")
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "c": list("abab"), "y": list("pqpq")})
    table = CSVDataset(frame, target="y")
    words = TextSpec(encoder=Vocabulary.fit(["good film", "bad film"], min_freq=1), classes=("neg", "pos"))
    bpe = TextSpec(encoder=PretrainedTokenizer(train_bpe(["low lower"] * 9, vocab_size=270)), classes=("neg", "pos"))
    torch.manual_seed(0)
    return {
        "image": dlkit.save(SmallConvNet(3), folder / "image", classes=list("ABC"), preprocessing=GREY),
        "table": dlkit.save(TabularMLP(table.spec, hidden=(8,)), folder / "table", preprocessing=table),
        "text": dlkit.save(TextClassifier(len(words.encoder), 2, width=8), folder / "text", preprocessing=words),
        "gru": dlkit.save(
            TextClassifier(len(words.encoder), 2, width=8, encoder="gru"), folder / "gru", preprocessing=words
        ),
        "layers": dlkit.save(
            TextClassifier(len(words.encoder), 2, width=8, encoder="transformer"),
            folder / "layers",
            preprocessing=words,
        ),
        "bpe": dlkit.save(TextClassifier(len(bpe.encoder), 2, width=8), folder / "bpe", preprocessing=bpe),
        "sound": dlkit.save(
            AudioClassifier(2, 8_000, width=2), folder / "sound", classes=["a", "b"], preprocessing=HEARD
        ),
        "tensor": dlkit.save(Wide(), folder / "tensor", task="regression", example=torch.zeros(2, 1, 8, 8)),
    }


@dlkit.register("tests.Wide")
class Wide(nn.Module):
    """Few weights, and as much work as the input is large."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4096, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).mean((1, 2, 3))


@dlkit.register("tests.Table")
class Table(nn.Module):
    """A table that no state_dict has, so that no tensor of the file tells its size."""

    def __init__(self, length: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.register_buffer("places", torch.ones(length), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


STEP = {"kind": "LocalContrastNormalization", "window": 9, "sigma": None}

CRAFTED = [
    # layers and sizes of the architecture
    ("gru", at("architecture", "arguments", "depth", value=10**9), r"arguments\.depth=1000000000, takes more than"),
    ("layers", at("architecture", "arguments", "depth", value=10**9), r"arguments\.depth=1000000000, takes more than"),
    ("layers", at("architecture", "arguments", "num_heads", value=-4), "num_heads is a whole number of at least 1"),
    ("text", at("architecture", "arguments", "width", value=10**11), r"in the file and .* in the architecture|cannot"),
    ("text", at("architecture", "arguments", "width", value=10**30), r"arguments\.width must be a whole number from"),
    ("image", at("architecture", "arguments", "num_classes", value=-1), "num_classes is a whole number"),
    ("image", at("architecture", "arguments", "dropout", value=float("nan")), "NaN is not a number of JSON"),
    ("table", at("architecture", "arguments", "hidden", value=[1] * 3000), "hidden in numbers=3000|takes more than"),
    ("table", at("architecture", "arguments", "hidden", value=[1] * 10**6), r"arguments\.hidden has 1000000 entries"),
    # the example
    ("image", at("example", "input", "shape", value=[80000, 1, 28, 28]), r"example\.input\.shape=\[80000"),
    ("image", at("example", "input", "shape", value=[-2, 1, 28, 28]), r"example\.input is"),
    ("tensor", at("example", "input", "shape", value=[2, 1, 2000, 2000]), "computing example.input takes more than"),
    (
        "tensor",
        at("example", "input", value=[{"shape": [2], "dtype": "bool", "low": 0, "high": 1}] * 5000),
        "5000 parts",
    ),
    ("tensor", at("example", "input", "shape", value=[1] * 5000), r"example\.input is"),
    ("tensor", at("example", "input", "low", value=-(10**400)), "whole number|digits"),
    # what sounds are made into, and what hears them
    ("sound", at("meaning", "spec", "seconds", value=1e300), "seconds must be a number from 0.001 to 86400"),
    ("sound", at("meaning", "spec", "seconds", value=80_000.0), "at 8,000 Hz must make 1 to"),
    ("sound", at("meaning", "spec", "sample_rate", value=0), "sample_rate must be a whole number from 100"),
    ("sound", at("meaning", "spec", "channels", value=10**9), "channels must be a whole number from 1 to 64"),
    ("sound", at("architecture", "arguments", "num_mels", value=10**9), "num_mels must be a whole number from 1 to"),
    ("sound", at("architecture", "arguments", "sample_rate", value=10**9), "sample_rate must be a whole number from"),
    ("sound", at("architecture", "arguments", "time_mask", value=5), "time must be a number from 0 to 1"),
    ("sound", at("architecture", "arguments", "width", value=10**9), "takes more than|in the file and"),
    # what images are made into
    ("image", at("meaning", "spec", "resize", value=65535), "resize, .* to 4096, not 65535"),
    ("image", at("meaning", "spec", "size", value=[65535, 65535]), "size must be .* from 1 to 4096"),
    ("image", at("meaning", "spec", "then", value=[STEP] * 50_000), "the number of steps in then .* not 50000"),
    (
        "image",
        at("meaning", "spec", "then", value=[STEP | {"window": 10**9 + 1}]),
        "window must be a whole number from",
    ),
    ("image", at("meaning", "spec", "then", value=[STEP | {"sigma": 1e-300}]), "sigma must be a number from"),
    ("image", at("meaning", "spec", "std", value=[1e-300]), "std must be a number from 1e-06 to 1e"),
    ("image", at("meaning", "spec", "mean", value=[10**40]), "mean must be|whole number"),
    # classes
    ("image", at("meaning", "classes", value=["A", "B", "A"]), r"meaning\.classes must be names that differ"),
    ("image", at("meaning", "classes", value=["A", "B"]), r"meaning\.classes and example\.shape do not fit"),
    ("image", at("meaning", "classes", value=["A"] * 3 + ["x" * 10**7]), "a text of at most 4096 characters"),
    ("image", at("meaning", "classes", value=[["A"], "B", "C"]), r"meaning\.classes must be a list of names"),
    ("table", at("meaning", "spec", "target", "classes", value=["p", "p"]), "each of them once"),
    # texts
    ("text", at("meaning", "spec", "max_length", value=-5), "max_length .* from 1 to .* not -5"),
    ("text", at("meaning", "spec", "max_length", value=10**18), "max_length .* from 1 to"),
    ("text", at(*ENCODER, "tokens", value=["a", "a"]), "'a' is there more than once"),
    ("bpe", at(*ENCODER, "pad_id", value=-1), "pad_id of this tokenizer must be"),
    ("bpe", at(*ENCODER, "padding_side", value="up"), "padding_side"),
    ("bpe", at(*ENCODER, "json", value="[" * 10**6), "this tokenizer must be JSON"),
    ("bpe", at(*ENCODER, "json", value=7), "json of this tokenizer must be a text"),
    # tables
    ("table", at("meaning", "spec", "columns", value=[{"type": "Column"}] * 200_000), "a list of at most 131,072"),
    ("table", at("meaning", "spec", "version", value=-1), "version of the table spec must be 1, not -1"),
    # the document itself
    ("image", at("version", value=-3), "needs a version, a whole number of at least 1"),
    ("image", at("version", value=True), "needs a version"),
    ("image", at("example", "output", value=[float("inf")] * 6), "Infinity is not a number of JSON"),
    ("image", at("aliases", value={f"a{number}": "b" for number in range(10**5)}), "is declared to share b"),
]


@pytest.mark.parametrize(("sort", "change", "message"), CRAFTED, ids=[case[2][:40] for case in CRAFTED])
def test_it_is_refused_before_the_work(
    saved: dict[str, Path], tmp_path: Path, sort: str, change: Any, message: str
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(saved[sort].read_bytes())
    with pytest.raises(ModelFileError, match=message):
        dlkit.load(rewritten(path, change))


def test_every_good_file_of_these_opens(saved: dict[str, Path]) -> None:
    for path in saved.values():
        dlkit.load(path)


def test_a_table_that_is_in_no_tensor_of_the_file(tmp_path: Path) -> None:
    path = dlkit.save(Table(), tmp_path / "m", task="regression", example=torch.zeros(2, 3))
    dlkit.load(path)
    with pytest.raises(ModelFileError, match=r"arguments\.length=1000000000000, takes more than .* bytes of memory"):
        dlkit.load(rewritten(path, at("architecture", "arguments", value={"length": 10**12})))


def test_an_architecture_of_four_gigabytes_in_a_small_file(tmp_path: Path) -> None:
    model = create_model("timm/mobilenetv3_small_050", classes=2, pretrained=False)
    path = dlkit.save(model, tmp_path / "m", classes=["a", "b"])
    with pytest.raises(ModelFileError, match=r"name.*takes more than|in the architecture it names"):
        dlkit.load(rewritten(path, at("architecture", "name", value="vit_giant_patch14_224")))


def test_scaling_of_a_column(saved: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "m"
    for scale in (1e-320, 0, -1.0):

        def change(document: dict[str, Any], header: dict[str, Any], scale: float = scale) -> None:
            (column,) = (each for each in document["meaning"]["spec"]["columns"] if each["name"] == "x")
            column["parts"][0]["scale"] = scale

        path.write_bytes(saved["table"].read_bytes())
        with pytest.raises(ModelFileError, match="scale of column 'x' of the table spec must be a number from"):
            dlkit.load(rewritten(path, change))


def test_a_header_of_any_sort(tmp_path: Path) -> None:
    deep = '{"a":' * 100 + "1" + "}" * 100
    for raw, message in [
        ('{"__metadata__":{"dlkit":"' + "[" * 50_000 + '"}}', "must be JSON"),
        ('{"__metadata__":{"dlkit":' + json.dumps(deep) + "}}", "more than 64 levels deep"),
        ('{"__metadata__":{"dlkit":"{}","dlkit":"{}"}}', "'dlkit' is there twice"),
        ('{"a":' + "[" + "{}," * 4_100_000 + "1]}", "4,100,000 values"),
        ('{"__metadata__":{"dlkit":"' + "x" * (60 << 20) + '"}}', "must be JSON"),
        ('{"a":{"dtype":"F32","shape":[0,' + "9" * 30 + '],"data_offsets":[0,0]}}', "must be a whole number"),
        ('{"a":{"dtype":"F32","shape":[0,' + "9" * 5000 + '],"data_offsets":[0,0]}}', "must be JSON"),
        ('{"a":1e999}', "must be a finite number"),
        (
            "{" + ",".join(f'"t{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(10**5)) + "}",
            "hold",
        ),
    ]:
        (tmp_path / "m").write_bytes(struct.pack("<Q", len(raw)) + raw.encode())
        with pytest.raises(ModelFileError, match=message):
            dlkit.load(tmp_path / "m")


class TestTokenizers:
    """Of Rust, whose panics are BaseExceptions."""

    @pytest.fixture
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(train_bpe(["low lower"] * 9, vocab_size=270).to_str())
        return found

    @staticmethod
    def made(document: dict[str, Any]) -> PretrainedTokenizer:
        return PretrainedTokenizer.from_document({"kind": "tokenizers", "json": json.dumps(document)})

    @pytest.mark.parametrize(
        "pattern", ["(a+)+$", "(?:x+x+)+y", "(a|aa)+$", "((ab)*c?){3,}", "([^]]+)*x", r"(\w{9,}-)*", "x" * 5000, 7]
    )
    def test_a_pattern_that_can_take_for_ever(self, document: dict[str, Any], pattern: Any) -> None:
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split]}
        with pytest.raises(ArgumentError, match="a pattern of this tokenizer"):
            self.made(document)

    @pytest.mark.parametrize(
        "pattern",
        [  # GPT-2, GPT-4 (cl100k), GPT-4o (o200k), Llama 3, and what others use
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"(?i:'s|'t|'re|'ve|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{M}]*[\p{Ll}\p{Lo}\p{M}]+(?i:'s|'t|'re)?|\p{N}{1,3}|\s*[\r\n]+|\s+",
            r"[\s\[\](){}]+|\(+|[+*]+",
            r"(?:ab){2}|(cd)+",
        ],
    )
    def test_patterns_in_use_are_taken(self, document: dict[str, Any], pattern: str) -> None:
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        document["pre_tokenizer"] = split
        assert self.made(document).encode_batch(["It's (low) 12"]).ids.size

    def test_a_panic_while_it_is_read(self, document: dict[str, Any]) -> None:
        document["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
        with pytest.raises(ArgumentError, match=r"this tokenizer cannot be read.*charsmap"):
            self.made(document)

    def test_a_panic_while_it_cuts(self, document: dict[str, Any]) -> None:
        from tokenizers import Regex, Tokenizer, pre_tokenizers

        tokenizer = Tokenizer.from_str(json.dumps(document))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")  # by a way around the check
        with pytest.raises(DataError, match=r"this tokenizer cannot take these texts.*retry-limit"):
            PretrainedTokenizer(tokenizer).encode_batch(["a" * 60 + "b"])

    def test_other_exceptions_stay_what_they_are(self) -> None:
        from dlkit.tokens.pretrained import _rust

        with pytest.raises(KeyboardInterrupt), _rust("waits", DlkitError):
            raise KeyboardInterrupt
