"""Packed strings are the strings, whichever of them are chosen and wherever they travel."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from torch import multiprocessing  # noqa: F401  (teaches ForkingPickler tensors)

from dlkit.storage.strings import PackedStrings, StringsWriter

texts = st.text(max_size=8)


@given(st.lists(texts, max_size=12), st.randoms(use_true_random=False))
def test_packed_strings_are_the_strings(samples: list[str], random: Any) -> None:
    packed = PackedStrings.of(samples)
    assert list(packed) == packed.tolist() == packed[:] == samples == [packed[place] for place in range(len(samples))]
    assert packed[1::2] == samples[1::2]
    order = np.array(random.sample(range(len(samples)), len(samples) // 2), dtype=np.int64)
    chosen = packed.select(order)
    assert list(chosen) == [samples[place] for place in order]
    assert chosen.digest() == PackedStrings.of(list(chosen)).digest()
    blob, offsets = chosen.arrays()
    assert PackedStrings(blob, offsets)[:] == pickle.loads(pickle.dumps(chosen))[:] == chosen[:]
    assert len(blob) == chosen.num_bytes
    assert PackedStrings.of_arrow(pa.array(samples, pa.string())[1:])[:] == samples[1:]
    if samples:
        assert packed[-1] == samples[-1]


def test_strings_that_differ_only_in_where_they_are_cut_have_other_digests() -> None:
    assert PackedStrings.of(["ab", "c"]).digest() != PackedStrings.of(["a", "bc"]).digest()


def test_names_with_bytes_that_are_not_utf_8_survive() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert PackedStrings.of([name, "\ud83d"])[:] == [name, "\ud83d"]


def test_beyond_the_budget_strings_lie_in_a_file_and_travel_as_its_path(tmp_path: Path) -> None:
    for budget, size in ((100, 0), (1, 1)):
        writer = StringsWriter(budget=budget, folder=tmp_path)
        writer.append(b"one")
        writer.extend(np.frombuffer(b"twothree", dtype=np.uint8), np.array([3, 5]))
        writer.append(b"")
        strings = writer.finish()
        assert strings[:] == ["one", "two", "three", ""]
        assert len(list(tmp_path.glob("*.texts"))) == size
        assert pickle.loads(pickle.dumps(strings.select(np.array([2]))))[:] == ["three"]


def test_workers_share_the_bytes_of_many_strings() -> None:
    strings = PackedStrings.of(["x" * 1000] * 2000)
    received = [pickle.loads(bytes(ForkingPickler.dumps(strings))) for _ in range(2)]
    assert all(each[1999] == "x" * 1000 for each in received)
    assert len(bytes(ForkingPickler.dumps(strings))) < 10_000
