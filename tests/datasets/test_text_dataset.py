"""Splits that leak nothing, specs that travel, targets in a stated order, and texts that are encoded only once."""

from __future__ import annotations

import json
import os
import pickle
from multiprocessing.context import set_spawning_popen
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cases import StopAt
from torch.utils.data import DataLoader as TorchDataLoader

from dlkit import DataLoader, Trainer
from dlkit.callbacks import Callback, Checkpoint
from dlkit.collate import PadCollate
from dlkit.datasets import TextDataset
from dlkit.datasets.texts import _encoding as encoding
from dlkit.errors import ArgumentError, DataError
from dlkit.models import TextClassifier
from dlkit.samplers import LengthBuckets
from dlkit.specs import TextSpec
from dlkit.splits import check_leaks
from dlkit.tokens import Cleaning, PretrainedTokenizer, Vocabulary, train_bpe

WORDS = ["sun", "rain", "snow", "wind", "fog", "hail", "storm", "heat"]


def rows(count: int, *, repeat: int = 1) -> list[dict[str, Any]]:
    """Texts of one to nine words, each text `repeat` times, whose class is their first word's."""
    random = np.random.default_rng(0)
    made = []
    for number in range(count):
        chosen = random.choice(WORDS, random.integers(1, 10)).tolist()
        text = " ".join([*chosen, f"n{number}"])
        made += [{"text": text, "label": "wet" if chosen[0] in WORDS[:4] else "dry", "by": number % 10}] * repeat
    return made


def split(count: int = 200, **options: Any) -> tuple[TextDataset, ...]:
    return TextDataset.split(rows(count), text="text", target="label", **options)


def test_the_vocabulary_knows_the_training_texts_and_nothing_else() -> None:
    train, val, test = split(min_freq=1)
    assert isinstance(train.vocabulary, Vocabulary)
    assert set(train.vocabulary.tokens) == {word for text in train.texts for word in text.split()}
    assert train.vocabulary == Vocabulary.fit(train.texts)
    own = {text.split()[-1] for part in (val, test) for text in part.texts}
    assert not own & set(train.vocabulary.tokens)
    assert train.spec is val.spec is test.spec
    assert val.vocabulary.decode(val[0][0]).endswith("<unknown>")
    with_rare = split(min_freq=2)[0]
    assert len(with_rare.vocabulary) == 4 + len(WORDS)


def test_parts_are_stratified_and_equal_texts_stay_together() -> None:
    data = rows(100, repeat=3)
    train, val, test = TextDataset.split(data, text="text", target="label")
    assert len(train) + len(val) + len(test) == 300
    assert not check_leaks(train.texts, val.texts)
    assert not check_leaks(train.texts, test.texts)
    shares = [float((part.targets == 1).float().mean()) for part in (train, val, test)]  # type: ignore[union-attr]
    assert max(shares) - min(shares) < 0.1
    loose = TextDataset.split(data, text="text", target="label", dedupe=False)
    assert check_leaks(loose[0].texts, loose[1].texts)
    again = TextDataset.split(data, text="text", target="label")[0]
    assert list(again.texts) == list(train.texts)
    other = TextDataset.split(data, text="text", target="label", seed=1)[0]
    assert list(other.texts) != list(train.texts)


def test_groups_stay_together() -> None:
    parts = split(fractions=(0.6, 0.4), group="by")
    by = [{int(text.rpartition("n")[2]) % 10 for text in part.texts} for part in parts]
    assert not by[0] & by[1]
    assert by[0] | by[1] == set(range(10))


def test_one_fraction_makes_two_parts_and_rows_know_where_they_came_from(tmp_path: Path) -> None:
    pd.DataFrame(rows(50)).to_csv(tmp_path / "t.csv", index=False)
    train, test = TextDataset.split(tmp_path / "t.csv", text="text", target="label", fractions=0.8)
    assert (len(train), len(test)) == (40, 10)
    lines = (tmp_path / "t.csv").read_text().split("\n")
    for part in (train, test):
        for index in range(len(part)):
            assert lines[int(part.where(index).split(" ")[1]) - 1].startswith(part.texts[index] + ",")


def test_a_spec_reads_new_data_the_same_way(tmp_path: Path) -> None:
    train, _, test = split(cleaning=Cleaning(lower=True), max_length=6, add_start_end=True)
    spec = TextSpec.from_json(train.spec.to_json())
    again = TextDataset([{"T": text.upper(), "L": "dry"} for text in test.texts], text="T", target="L", spec=spec)
    assert again.classes == train.classes == ["dry", "wet"]  # although only one of them occurs
    assert again.targets is not None
    assert again.targets.tolist() == [0] * len(test)
    assert all(torch.equal(again[index][0], test[index][0]) for index in range(len(test)))
    assert again.lengths.max() == 6
    with pytest.raises(
        DataError, match=r"item 0 of the list has the target 'cold', which is not among the classes dry, wet"
    ):
        TextDataset(["x"], target=["cold"], spec=spec)
    unlabelled = TextDataset(["x"], spec=spec)
    assert (unlabelled.targets, unlabelled.classes, unlabelled[0].tolist()) == (None, [], [2, 1, 3])


@pytest.mark.parametrize(
    ("targets", "options", "classes", "expected"),
    [
        (["b", "a", "b"], {}, ["a", "b"], [1, 0, 1]),
        ([10, 9, 10], {"classes": ["9", "10"]}, ["9", "10"], [1, 0, 1]),
        (["10", "9", "10"], {"task": "classification"}, ["9", "10"], [1, 0, 1]),
        ([True, False, True], {}, ["False", "True"], [1, 0, 1]),
        (["b", "a", "b"], {"classes": ["b", "a", "c"]}, ["b", "a", "c"], [0, 1, 0]),
        ([0.5, 1.0, 2.0], {}, [], [0.5, 1.0, 2.0]),
        (["0.5", "1", "2"], {}, [], [0.5, 1.0, 2.0]),
        ([1, 2, 3], {"task": "regression"}, [], [1.0, 2.0, 3.0]),
        (["0.5", "1", "2"], {"task": "classification"}, ["0.5", "1", "2"], [0, 1, 2]),
        ([10, 9, 10], {"classes": [10, 9]}, ["10", "9"], [0, 1, 0]),
        (torch.tensor([1, 0, 1]), {}, ["0", "1"], [1, 0, 1]),
        (np.array([1.0, 2.0, 1.0]), {}, ["1", "2"], [0, 1, 0]),
    ],
)
def test_targets_are_classes_in_order_or_numbers(
    targets: Any, options: dict[str, Any], classes: list[str], expected: list[float]
) -> None:
    ds = TextDataset(["x", "y", "z"], target=targets, **options)
    assert ds.targets is not None
    assert (ds.classes, ds.targets.tolist()) == (classes, expected)
    assert ds.targets.dtype == (torch.int64 if classes else torch.float32)


def test_targets_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(DataError, match="target 'target' has 50 different values in 50 rows, too many for classes"):
        TextDataset(["x"] * 50, target=[f"id{number}" for number in range(50)])
    with pytest.raises(DataError, match="item 0 of the list has the target 'high', which is not a number"):
        TextDataset(["x"], target=["high"], task="regression")
    kept = TextDataset(["x", "y", "z"], target=["1", "high", "inf"], task="regression", on_error="skip")
    assert [skipped.row for skipped in kept.skipped] == [1, 2]
    assert kept[0][1] == 1
    with pytest.raises(ArgumentError, match="task must be"):
        TextDataset(["x"], target=[1], task="ranking")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="classes= names a class twice: a"):
        TextDataset(["x"], target=["a"], classes=["a", "a"])
    with pytest.raises(ArgumentError, match=r"TextDataset\.split has no argument 'max_len'; do you mean 'max_length'"):
        TextDataset.split(["x", "y"], max_len=3)  # type: ignore[call-arg]
    for missing in (None, float("nan"), "", pd.NA, np.nan):
        with pytest.raises(DataError, match="item 1 of the list has no target"):
            TextDataset(["x", "y"], target=["a", missing])


def test_pairs_of_texts(tmp_path: Path) -> None:
    ds = TextDataset([("a b", "c"), ("c", "a b")], text=0, pair=1, target=[0, 1], min_freq=1)
    inputs, _ = ds[0]
    assert inputs["input_ids"].tolist() == [*ds.vocabulary.encode_batch(["a b"]).ids, 3, ds.vocabulary["c"]]  # type: ignore[index]
    assert inputs["token_type_ids"].tolist() == [0, 0, 0, 1]
    assert (list(ds.texts), list(ds.pairs or ())) == (["a b", "c"], ["c", "a b"])
    batch, _ = next(iter(DataLoader(ds, 2)))
    assert sorted(batch) == ["attention_mask", "input_ids", "token_type_ids"]
    frame = pd.DataFrame({"q": ["a", "b"] * 5, "d": ["b", "a"] * 5, "y": [0, 1] * 5})
    frame.to_csv(tmp_path / "t.csv", index=False)
    train, test = TextDataset.split(
        tmp_path / "t.csv", text="q", pair="d", target="y", fractions=0.5, dedupe=False, min_freq=1
    )
    assert len(train[0][0]["input_ids"]) == 3
    assert test.pairs is not None


@pytest.mark.parametrize("kind", ["bpe", "object", "function"])
def test_other_tokenizers(kind: str) -> None:
    if kind == "function":
        train, val, _ = split(tokenizer=lambda text: text.split(" ")[:2], min_freq=1)
        assert train.lengths.max() == 2
        return
    tokenizer: Any = "bpe" if kind == "bpe" else train_bpe(["sun rain"], vocab_size=270)
    train, val, _ = split(tokenizer=tokenizer, max_size=300)
    assert isinstance(train.vocabulary, PretrainedTokenizer)
    assert val.vocabulary.decode(val[3][0]) == val.texts[3]
    if kind == "object":
        assert val[3][0].tolist() == tokenizer.encode(val.texts[3]).ids
    again = TextDataset(["rain"], spec=TextSpec.from_json(train.spec.to_json()))
    assert again[0].tolist() == TextDataset(["rain"], spec=train.spec)[0].tolist()


class Counting:
    """A vocabulary that counts how many texts it encodes."""

    def __init__(self, vocabulary: Any) -> None:
        self.vocabulary, self.encoded = vocabulary, 0

    def encode_batch(self, texts: Any, *arguments: Any, **options: Any) -> Any:
        self.encoded += len(texts)
        return self.vocabulary.encode_batch(texts, *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vocabulary, name)


@pytest.fixture
def caches_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_CACHED_FROM", 0)


@pytest.mark.usefixtures("caches_anything")
def test_texts_are_encoded_once_and_found_again_by_content_and_tokenizer(own_cache: Path) -> None:
    texts, counting = [row["text"] for row in rows(50)], Counting(Vocabulary.fit(WORDS))
    spec = TextSpec(encoder=counting)
    first, again = TextDataset(texts, spec=spec), TextDataset(texts, spec=spec)
    assert counting.encoded == 50
    assert [row.tolist() for row in again] == [row.tolist() for row in first]
    TextDataset([*texts[:-1], "other"], spec=spec)
    assert counting.encoded == 100
    TextDataset(texts, spec=TextSpec(encoder=counting, max_length=3))
    assert counting.encoded == 150
    other = Counting(Vocabulary.fit(WORDS[1:]))
    assert TextDataset(texts, spec=TextSpec(encoder=other))[0].tolist() != first[0].tolist()
    assert other.encoded == 50
    TextDataset(texts, spec=spec, cache=None)
    assert counting.encoded == 200
    assert {path.suffix for path in (own_cache / "text").iterdir()} == {".ids", ".lengths", ".lock"}


@pytest.mark.usefixtures("caches_anything")
@pytest.mark.parametrize("damage", ["cut", "flip", "no ids", "nonsense"])
def test_a_damaged_cache_is_encoded_again(own_cache: Path, damage: str) -> None:
    texts, counting = [row["text"] for row in rows(50)], Counting(Vocabulary.fit(WORDS))
    first = TextDataset(texts, spec=TextSpec(encoder=counting))
    (ids,), (lengths,) = (list((own_cache / "text").glob(f"*.{suffix}")) for suffix in ("ids", "lengths"))
    if damage == "cut":
        ids.write_bytes(ids.read_bytes()[:-4])
    elif damage == "flip":
        ids.write_bytes(b"\x01" + ids.read_bytes()[1:])
    elif damage == "no ids":
        ids.unlink()
    else:
        lengths.write_bytes(b"no numbers at all")
    again = TextDataset(texts, spec=TextSpec(encoder=counting))
    assert counting.encoded == 100
    assert [row.tolist() for row in again] == [row.tolist() for row in first]
    TextDataset(texts, spec=TextSpec(encoder=counting))
    assert counting.encoded == 100


@pytest.mark.usefixtures("caches_anything")
@pytest.mark.parametrize("pairs", [False, True])
def test_beyond_the_budget_everything_is_mapped_from_files(own_cache: Path, pairs: bool) -> None:
    texts = [(row["text"], "rain") for row in rows(300)] if pairs else [row["text"] for row in rows(300)]
    options: dict[str, Any] = {"text": 0, "pair": 1} if pairs else {}
    ds = TextDataset(texts, memory_bytes=1000, **options)
    kept = TextDataset(texts, memory_bytes=1000, **options)
    small = TextDataset(texts, **options)
    assert list(ds.texts) == list(small.texts)
    for index in (0, 299):
        for other in (kept, small):
            assert str(ds[index]) == str(other[index])
    assert len(pickle.dumps(ds)) < 30_000
    assert str(pickle.loads(pickle.dumps(ds))[299]) == str(small[299])
    suffixes = {path.suffix for path in (own_cache / "text").iterdir()}
    assert suffixes == {".ids", ".lengths", ".lock", ".texts"} | ({".types"} if pairs else set())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a folder that may not be written to")
@pytest.mark.usefixtures("caches_anything")
def test_a_cache_that_cannot_be_written_is_said_and_does_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.warns(UserWarning, match="cannot be kept for the next time"):
        assert len(TextDataset(["a b"], cache=folder)) == 1


@pytest.mark.usefixtures("caches_anything")
def test_a_cache_folder_that_is_a_file_is_said_and_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be kept for the next time"):
        assert len(TextDataset(["a b"], cache=tmp_path / "file")) == 1


def test_loaders_of_both_kinds_and_workers_give_every_text_once() -> None:
    train = split()[0]
    expected = sorted((int(target), ids.tolist()) for ids, target in train)
    loaders: list[Any] = [
        DataLoader(train, 16, shuffle=True, seed=3),
        DataLoader(train, 16, shuffle=True, seed=3, num_workers=2),
        TorchDataLoader(train, 16, shuffle=True, collate_fn=train.collate),
        TorchDataLoader(train, 16, shuffle=True),
    ]
    batches = [list(loader) for loader in loaders]
    for epoch in batches:
        found = [
            (int(target), ids[mask].tolist())
            for inputs, targets in epoch
            for ids, mask, target in zip(inputs["input_ids"], inputs["attention_mask"], targets, strict=True)
        ]
        assert sorted(found) == expected
    for one, other in zip(batches[0], batches[1], strict=True):
        assert torch.equal(one[0]["input_ids"], other[0]["input_ids"])


def test_a_spawned_worker_gets_the_numbers_without_the_texts() -> None:
    train, _, _ = split(max_length=4)
    whole = pickle.dumps(train)
    set_spawning_popen(object())  # what multiprocessing does while it pickles for a new process
    try:
        sent = pickle.dumps(train)
    finally:
        set_spawning_popen(None)
    assert len(sent) < len(whole) - 2000
    copy = pickle.loads(sent)
    assert str(copy[3]) == str(train[3])
    with pytest.raises(ArgumentError, match="a worker process has the encoded texts alone"):
        copy.texts[0]
    assert list(pickle.loads(whole).texts) == list(train.texts)


def test_another_layout_goes_to_every_part() -> None:
    train, val, _ = split(collate=PadCollate(layout="packed", input_name="input_ids"))
    for part in (train, val):
        batch, _ = next(iter(DataLoader(part, 4)))
        assert sorted(batch) == ["input_ids", "offsets"]


def test_a_classifier_learns_with_the_trainer() -> None:
    train, val, _ = split(600, min_freq=2)
    model = TextClassifier(len(train.vocabulary), len(train.classes), encoder="gru", width=16, dropout=0.0)
    optim = torch.optim.AdamW(model.parameters(), 0.02)
    trainer = Trainer(model, torch.nn.CrossEntropyLoss(), optim, metrics=["accuracy"], seed=0, progress=False)
    history = trainer.fit(DataLoader(train, 32, shuffle=True), DataLoader(val, 64), epochs=6)
    assert history["val_accuracy"][-1] > 0.9


def test_repr_tells_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows(20), {"text": "no label"}])))
    text = repr(TextDataset(path, text="text", target="label", on_error="skip"))
    for part in ("TextDataset: 20 texts of", "t.jsonl: utf-8, JSON lines", "classes: dry, wet", "skipped: 1 row"):
        assert part in text


@pytest.mark.filterwarnings("ignore")
def test_batches_fit_a_model_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    ds = TextDataset([("a b", "c"), ("c d e f g", "a b")], text=0, pair=1, target=["x", "y"], min_freq=1)
    config = transformers.BertConfig(
        vocab_size=len(ds.vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    model = transformers.BertForSequenceClassification(config).eval()
    inputs, targets = next(iter(DataLoader(ds, 2)))
    assert inputs["attention_mask"].sum(1).tolist() == [4, 8]
    with torch.no_grad():
        together = model(**inputs, labels=targets)
        alone = torch.cat([model(**{name: part[None] for name, part in row.items()}).logits for row, _ in ds])
    assert together.loss.isfinite()
    torch.testing.assert_close(together.logits, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("buckets", [{"batch_size": 16}, {"tokens": 64}])
def test_a_broken_off_training_goes_on_with_the_same_batches(tmp_path: Path, buckets: dict[str, int]) -> None:
    train = split(300)[0]

    def weights(folder: str, *callbacks: Callback) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = TextClassifier(len(train.vocabulary), 2, encoder="gru", width=8)
        trainer = Trainer(
            model,
            torch.nn.CrossEntropyLoss(),
            torch.optim.AdamW(model.parameters(), 0.01),
            callbacks=[Checkpoint(tmp_path / folder, every="7 steps"), *callbacks],
            progress=False,
        )
        loader = DataLoader(train, batch_sampler=LengthBuckets(train.lengths, **buckets))  # type: ignore[arg-type]
        trainer.fit(loader, epochs=3)
        return [value.clone() for value in model.state_dict().values()]

    whole = weights("whole")
    with pytest.raises(RuntimeError, match="broken off"):
        weights("broken", StopAt(25, RuntimeError("broken off")))
    assert all(torch.equal(one, other) for one, other in zip(whole, weights("broken"), strict=True))


def test_all_parts_read_numbers_in_the_form_of_the_whole(tmp_path: Path) -> None:
    """A part with "1.234" alone must not take it for a number between one and two: the others have decimal commas."""
    path = tmp_path / "t.csv"
    rows = [f"text {number};{'1.234' if number % 2 else '0,5'}" for number in range(40)]
    path.write_text("text;y\n" + "\n".join(rows), encoding="utf-8")
    parts = TextDataset.split(path, text="text", target="y", dedupe=False, task="regression")
    assert {float(target) for part in parts for _, target in part} == {1234.0, 0.5}
