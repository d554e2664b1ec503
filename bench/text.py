"""How fast padded batches of texts come, how much of them is padding, and what encoding costs beside the tokenizer.

    python bench/text.py [--rounds 7] [--seconds 0.5] [--texts 200000]

The contenders take turns, `--rounds` times, each giving shuffled batches of 64 for `--seconds`. A speed is that of a
whole epoch: the time to the first batch, plus all texts at the pace of those after it. The table has the median of
each, its ratio to pad_sequence, the share of padding, and the correlation between a batch's position and its mean
length. Contenders of `transformers` take part where it is installed.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader as StockLoader

from dlkit import DataLoader
from dlkit.collate import PadCollate
from dlkit.datasets import PackedTextDataset, TextDataset
from dlkit.samplers import LengthBuckets
from dlkit.tokens import Vocabulary, train_bpe, words

BATCH = 64
#: Padded ids and mask of one batch.
Batch = tuple[torch.Tensor, torch.Tensor]
Contenders = dict[str, Callable[[], Iterator[Batch]]]


def lengths_of(count: int) -> np.ndarray[Any, Any]:
    """Lengths of 4 to 512 tokens, most of them short, as texts are: random batches of 64 are four fifths padding."""
    return np.random.default_rng(0).lognormal(4.2, 0.95, count).clip(4, 512).astype(np.int64)


def loaders(lengths: np.ndarray[Any, Any]) -> Contenders:
    """Everybody who makes padded batches out of encoded texts in memory."""
    ids = np.random.default_rng(1).integers(4, 30_000, lengths.sum(), dtype=np.int32)
    packed = PackedTextDataset(ids, lengths, torch.zeros(len(lengths), dtype=torch.int64))
    tensors = [(row, 0) for row in torch.from_numpy(ids).long().split(lengths.tolist())]
    buckets = LengthBuckets(lengths, BATCH)

    def pad(batch: list[Any]) -> Any:
        rows = [row for row, _ in batch]
        mask = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
        return pad_sequence(rows, batch_first=True), mask, torch.tensor([target for _, target in batch])

    def plain(batches: Iterable[Any]) -> Iterator[Batch]:
        return ((batch[0], batch[1]) for batch in batches)

    def named(batches: Iterable[Any]) -> Iterator[Batch]:
        for batch in batches:
            inputs = batch[0] if isinstance(batch, tuple | list) else batch
            yield inputs["input_ids"], inputs["attention_mask"]

    everyone: Contenders = {
        "pad_sequence, stock DataLoader": lambda: plain(StockLoader(tensors, BATCH, shuffle=True, collate_fn=pad)),  # type: ignore[arg-type]
        "PadCollate, stock DataLoader": lambda: (
            inputs
            for inputs, _ in StockLoader(tensors, BATCH, shuffle=True, collate_fn=PadCollate())  # type: ignore[arg-type]
        ),
        "PadCollate and LengthBuckets, stock": lambda: (
            inputs
            for inputs, _ in StockLoader(tensors, batch_sampler=buckets, collate_fn=PadCollate())  # type: ignore[arg-type]
        ),
        "dlkit dataset, stock DataLoader": lambda: named(
            StockLoader(packed, BATCH, shuffle=True, collate_fn=packed.collate)
        ),
        "dlkit dataset and LengthBuckets, stock": lambda: named(
            StockLoader(packed, batch_sampler=buckets, collate_fn=packed.collate)  # type: ignore[arg-type]
        ),
        "dlkit.DataLoader": lambda: named(DataLoader(packed, BATCH, shuffle=True)),
    }
    return everyone | _of_transformers(lengths, ids, named)


def _of_transformers(lengths: Any, ids: Any, named: Callable[[Iterable[Any]], Iterator[Batch]]) -> Contenders:
    try:
        transformers = importlib.import_module("transformers")
        grouped = importlib.import_module("transformers.trainer_pt_utils").LengthGroupedSampler
    except (ImportError, AttributeError):
        return {}
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(["a"], vocab_size=260), pad_token="<pad>", model_input_names=["input_ids"]
    )
    ends = np.cumsum(lengths)
    rows = [{"input_ids": ids[end - size : end].tolist()} for end, size in zip(ends, lengths, strict=True)]
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    collate = transformers.DataCollatorWithPadding(tokenizer)
    return {
        "transformers' collator": lambda: named(StockLoader(rows, BATCH, shuffle=True, collate_fn=collate)),  # type: ignore[arg-type]
        "transformers' collator, length-grouped": lambda: named(
            StockLoader(rows, BATCH, sampler=grouped(BATCH, lengths=lengths.tolist()), collate_fn=collate)  # type: ignore[arg-type]
        ),
    }


def texts_per_second(make: Callable[[], Iterator[Batch]], count: int, seconds: float) -> float:
    """Texts of an epoch over its time: what passes before the first batch, and the rest at the pace of what follows."""
    start = time.perf_counter()
    batches = make()
    next(batches)
    first = now = time.perf_counter()
    texts = 0
    for ids, _ in batches:
        texts, now = texts + len(ids), time.perf_counter()
        if now - first > seconds:
            break
    return count / (first - start + count * (now - first) / texts)


def padding_and_correlation(batches: Iterable[Batch], count: int) -> tuple[float, float]:
    """The share of padding, and how far a batch's place in the epoch tells the mean length of its texts."""
    sizes = [(mask.numel(), int(mask.sum()), len(mask)) for _, mask in itertools.islice(batches, count)]
    places, tokens, texts = (np.array(column, dtype=float) for column in zip(*sizes, strict=True))
    return 1 - tokens.sum() / places.sum(), float(np.corrcoef(np.arange(len(tokens)), tokens / texts)[0, 1])


def measure(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each; they take turns, so that a busy moment of the machine meets all of them."""
    results: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            results[name].append(run())
    return {name: statistics.median(values) for name, values in results.items()}


def report_loaders(arguments: argparse.Namespace) -> None:
    """Print speed, padding and randomness of all loaders."""
    everyone = loaders(lengths_of(arguments.texts))
    runs = {
        name: lambda make=make: texts_per_second(make, arguments.texts, arguments.seconds)
        for name, make in everyone.items()
    }
    speeds = measure(runs, arguments.rounds)
    reference = next(iter(speeds.values()))
    print(f"\npadded batches of {BATCH}, {arguments.texts:,} encoded texts of 4-512 tokens")
    for name, make in everyone.items():
        padding, correlation = padding_and_correlation(make(), 10**9 if "dlkit.D" in name else 500)
        print(
            f"  {name:40} {speeds[name]:11,.0f} texts/s  x{speeds[name] / reference:6.2f}"
            f"  padding {padding:6.1%}  correlation {correlation:+.3f}"
        )


def report_windows(count: int) -> None:
    """Print what the window of LengthBuckets trades: padding against how random a batch is."""
    for title, lengths in {
        f"{count:,} texts as above": lengths_of(count),
        "50,000 texts of 8-512 tokens, sigma 0.8": np.random.default_rng(0).lognormal(3.8, 0.8, 50_000).clip(8, 512),
    }.items():
        lengths = lengths.astype(np.int64)
        print(f"\nLengthBuckets, batch {BATCH}, {title}: window, padding,")
        print("spread of lengths inside a batch (1: as in random batches), two of a batch together in the next epoch")
        starts = range(0, len(lengths) - BATCH, BATCH)
        spread = statistics.fmean(lengths[start : start + BATCH].std() for start in starts)
        for window in (1, 3, 10, 30, 64, 100, 300):
            buckets = LengthBuckets(lengths, BATCH, window=window)
            plan, following = ([batch.numpy() for batch in buckets.plan(0, epoch)] for epoch in (0, 1))
            padded = sum(int(lengths[batch].max()) * len(batch) for batch in plan)
            inside = statistics.fmean(float(lengths[batch].std()) for batch in plan)
            print(
                f"  {window:4}  {1 - lengths.sum() / padded:6.1%}  {inside / spread:5.2f}"
                f"  {together_again(plan, following):6.2%}"
            )


def together_again(plan: list[Any], following: list[Any]) -> float:
    """The share of pairs of one batch that are in one batch of the following epoch, too."""
    batch_of = np.repeat(np.arange(len(following)), [len(batch) for batch in following])
    batch_of[np.concatenate(following)] = batch_of.copy()
    counts = [np.bincount(batch_of[batch]) for batch in plan]
    return float(
        sum((each * (each - 1)).sum() for each in counts) / sum(len(batch) * (len(batch) - 1) for batch in plan)
    )


def report_encoding(rounds: int) -> None:
    """Print what encoding a dataset costs beside the tokenizer alone."""
    random = np.random.default_rng(2)
    letters = np.array(list("etaoinshrdlucmfw"))
    vocabulary = ["".join(random.choice(letters, random.integers(2, 9))) for _ in range(20_000)]
    ranks = random.zipf(1.3, 2_000_000) % len(vocabulary)
    texts = [" ".join(vocabulary[rank] for rank in part) for part in np.array_split(ranks, 30_000)]
    bpe, own = train_bpe(texts[:3000], vocab_size=8000), Vocabulary.fit(texts[:3000])
    table = {token: place for place, token in enumerate(own.tokens, 4)}

    def seconds(run: Callable[[], object]) -> Callable[[], float]:
        def timed() -> float:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start

        return timed

    results = measure(
        {
            "BPE, tokenizer.encode_batch(texts)": seconds(lambda: bpe.encode_batch(texts)),
            "BPE, [each.ids for each in encode_batch(texts)]": seconds(
                lambda: [each.ids for each in bpe.encode_batch(texts)]
            ),
            "BPE, TextDataset(texts, tokenizer=...)": seconds(lambda: TextDataset(texts, tokenizer=bpe, cache=None)),
            "words, [table.get(word, 1) for word in words(text)]": seconds(
                lambda: [[table.get(word, 1) for word in words(text)] for text in texts]
            ),
            "words, Vocabulary.encode_batch(texts)": seconds(lambda: own.encode_batch(texts)),
        },
        rounds,
    )
    print(f"\nencoding {len(texts):,} texts of {len(ranks) // len(texts)} words on average")
    for name, value in results.items():
        alone = next(other for first, other in results.items() if first.split(",")[0] == name.split(",")[0])
        print(f"  {name:52} {value:7.3f} s   {value / alone:5.2f}")


def main() -> None:
    """Run all of it and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--texts", type=int, default=200_000)
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, {threads} threads")
    report_loaders(arguments)
    report_windows(arguments.texts)
    report_encoding(max(3, arguments.rounds // 2))


if __name__ == "__main__":
    main()
