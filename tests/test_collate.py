"""Padding is undone by unpad, for every kind of sample; and what cannot be padded is refused with its shapes."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from dlkit.collate import PadCollate, unpad
from dlkit.collate.padding import Ragged
from dlkit.errors import ArgumentError, DataError

sizes = st.integers(0, 7)
sides = st.sampled_from(["right", "left"])
multiples = st.sampled_from([None, 1, 4, 8])


def filled(*shape: int) -> Tensor:
    return torch.randint(-5, 5, shape)


def same(got: list[Tensor], expected: list[Tensor]) -> bool:
    return len(got) == len(expected) and all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@given(st.lists(sizes, min_size=1, max_size=6), sides, multiples, st.integers(-3, 3))
def test_sequences_come_back(lengths: list[int], side: Any, multiple_of: int | None, pad_value: int) -> None:
    samples = [filled(length) for length in lengths]
    values, mask, given_lengths = PadCollate(pad_value, side, multiple_of, return_lengths=True)(samples)
    assert values.shape == mask.shape
    assert values.shape[1] % (multiple_of or 1) == 0
    assert values.shape[1] < max(lengths) + (multiple_of or 1)
    assert (values[~mask] == pad_value).all()
    assert given_lengths.tolist() == lengths
    assert same(unpad(values, mask, side=side), samples)
    assert same(unpad(values, lengths=given_lengths, side=side), samples)


@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=5), sides, multiples, st.sampled_from([(1, 2), (-1, -2)]))
def test_several_dimensions_come_back(
    shapes: list[tuple[int, int]], side: Any, multiple_of: int | None, dim: tuple[int, int]
) -> None:
    samples = [filled(2, *shape) for shape in shapes]
    collate = PadCollate(9, side, multiple_of, return_lengths=True, dim=dim)
    values, mask, lengths = collate(samples)
    assert mask.shape == (len(samples), *values.shape[2:])
    assert mask.sum() == sum(a * b for a, b in shapes)
    assert (values.movedim(1, -1)[~mask] == 9).all()
    assert same(unpad(values, lengths=lengths, dim=dim, side=side), samples)


@given(st.lists(sizes, min_size=1, max_size=5), sides, st.sampled_from([0, -1]))
def test_audio_and_boxes_come_back(lengths: list[int], side: Any, dim: int) -> None:
    samples = [filled(length, 4) if dim == 0 else filled(2, length) for length in lengths]
    values, mask, given_lengths = PadCollate(7, side, return_lengths=True, dim=dim)(samples)
    assert mask.shape == (len(samples), max(lengths))
    assert same(unpad(values, mask, dim=dim, side=side), samples)
    assert same(unpad(values, lengths=given_lengths, dim=dim, side=side), samples)


@given(st.lists(st.lists(sizes, max_size=4), min_size=1, max_size=4), sides)
def test_lists_of_tensors_come_back(shape: list[list[int]], side: Any) -> None:
    samples = [[filled(length) for length in lengths] for lengths in shape]
    result = PadCollate(7, side, return_lengths=True)([{"sentences": sample} for sample in samples])
    if not any(shape):
        return
    values, lengths = result["sentences"], result["sentences_lengths"]
    assert result["sentences_mask"].sum() == sum(map(sum, shape))
    assert all(same(a, b) for a, b in zip(unpad(values, lengths=lengths, side=side), samples, strict=True))


@given(st.lists(sizes, min_size=1, max_size=6), st.sampled_from([None, 3]))
def test_nested_and_packed_come_back(lengths: list[int], max_length: int | None) -> None:
    samples = [filled(length) for length in lengths]
    cut = [sample[:max_length] for sample in samples]
    values, offsets = PadCollate(layout="packed", max_length=max_length)(samples)
    assert same(unpad(values, offsets=offsets), cut)
    assert same(unpad(PadCollate(layout="nested", max_length=max_length)(samples)), cut)


@given(
    st.lists(sizes, min_size=1, max_size=6),
    sides,
    multiples,
    st.sampled_from([None, 2, 5]),
    st.sampled_from(["padded", "nested", "packed"]),
)
def test_rows_of_a_flat_array_give_the_same_batch(
    lengths: list[int], side: Any, multiple_of: int | None, max_length: int | None, layout: Any
) -> None:
    flat = np.arange(1, sum(lengths) + 1, dtype=np.int32)
    starts = np.cumsum([0, *lengths[:-1]])
    order = np.random.default_rng(0).permutation(len(lengths))

    class Rows(list[Any]):
        def columns(self) -> tuple[Any, None]:
            return Ragged(flat, starts[order], np.array(lengths)[order]), None

    options: dict[str, Any] = {"max_length": max_length, "layout": layout, "return_lengths": True}
    if layout == "padded":
        options |= {"side": side, "multiple_of": multiple_of, "pad_value": -1}
    samples = [torch.arange(starts[i] + 1, starts[i] + lengths[i] + 1) for i in order]
    slow, fast = PadCollate(**options)(samples), PadCollate(**options)(Rows())
    if layout == "nested":
        assert same(unpad(fast), unpad(slow))
    else:
        assert same(list(fast), list(slow))


def test_structure_is_kept_and_names_follow_the_usual_ones() -> None:
    Sample = namedtuple("Sample", "audio text note")
    samples = [
        ({"input_ids": [1, 2], "token_type_ids": [0, 1], "parts": Sample(torch.ones(3), (1.5, "a"), None)}, 4),
        ({"input_ids": [3], "token_type_ids": [1], "parts": Sample(torch.ones(1), (2.5, "b"), None)}, 5),
    ]
    inputs, targets = PadCollate(pad_value=9)(samples)
    assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids", "parts"}
    assert inputs["input_ids"].tolist() == [[1, 2], [3, 9]]
    assert inputs["token_type_ids"].tolist() == [[0, 1], [1, 0]]
    assert inputs["attention_mask"].tolist() == [[True, True], [True, False]]
    assert type(inputs["parts"]) is Sample
    assert inputs["parts"].audio[0].tolist() == [[1, 1, 1], [1, 9, 9]]
    numbers, strings = inputs["parts"].text
    assert numbers.dtype == torch.float32
    assert strings == ["a", "b"]
    assert targets.tolist() == [4, 5]


def test_own_attention_mask_wins_and_is_padded_with_zero() -> None:
    samples = [{"input_ids": [1, 2, 3], "attention_mask": [1, 1, 0]}, {"input_ids": [1], "attention_mask": [1]}]
    for ordered in (samples, [dict(reversed(sample.items())) for sample in samples]):
        batch = PadCollate(pad_value=5)(ordered)
        assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0]]
        assert batch["input_ids"].tolist() == [[1, 2, 3], [1, 5, 5]]


def test_a_batch_of_equal_lengths_looks_like_any_other() -> None:
    equal = PadCollate()([(filled(3), 0), (filled(3), 1)])
    assert equal[0][1].all()
    assert equal[0][1].shape == (2, 3)


def test_targets_are_stacked_or_padded_as_asked() -> None:
    samples = [(torch.tensor([1, 2, 3]), torch.tensor([0, 1, 0])), (torch.tensor([1]), torch.tensor([1]))]
    with pytest.raises(DataError, match=r"the target differs in shape.*\[1\], \[3\]; target_pad_value= pads targets"):
        PadCollate()(samples)
    _, targets = PadCollate(target_pad_value=-100, return_lengths=True)(samples)
    assert targets.tolist() == [[0, 1, 0], [1, -100, -100]]
    multi_hot = [(torch.tensor([1, 2, 3]), torch.tensor([0.0, 1.0])), (torch.tensor([1]), torch.tensor([1.0, 0.0]))]
    assert PadCollate(max_length=1)(multi_hot)[1].tolist() == [[0, 1], [1, 0]]


def test_pad_values_and_dimensions_by_name() -> None:
    collate = PadCollate({"audio": -1.0}, dim={"audio": -1})
    batch = collate([{"audio": torch.ones(2, 3), "ids": [1]}, {"audio": torch.ones(2, 1), "ids": [1, 2]}])
    assert batch["audio"][1].tolist() == [[1, -1, -1], [1, -1, -1]]
    assert batch["ids"].tolist() == [[1, 0], [1, 2]]


def test_a_bare_input_gets_the_name_that_was_asked_for() -> None:
    batch, targets = PadCollate(input_name="input_ids")([(torch.tensor([1, 2]), 0), (torch.tensor([3]), 1)])
    assert sorted(batch) == ["attention_mask", "input_ids"]
    assert targets.tolist() == [0, 1]


def test_it_is_a_collate_fn_for_a_stock_loader_with_workers() -> None:
    samples = [(torch.arange(length), length) for length in (3, 1, 2, 5)]
    collate: Any = PadCollate()
    (values, mask), targets = next(iter(DataLoader(samples, 4, collate_fn=collate, num_workers=1)))  # type: ignore[arg-type]
    assert same(unpad(values, mask), [sample for sample, _ in samples])
    assert targets.tolist() == [3, 1, 2, 5]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no sample to make a batch of"),
        ([torch.ones(2, 3), torch.ones(2, 4)], r"may differ in dimension \(0,\) only, but the batch has \[2, 3\]"),
        ([{"a": 1}, {"b": 1}], r"the input has \['a'\] in the batch's first sample, \['b'\] in no. 1"),
        ([(1, 2, 3), (1, 2)], r"the input is a tuple of 3 in the batch's first sample, a tuple of 2 in no. 1"),
        ([{"x": torch.ones(2)}, {"x": torch.ones(2, dtype=torch.int64)}], r"the input\['x'\] differs in type"),
        ([torch.ones(2), torch.ones(2, 2)], "differs in type within the batch: torch.float32 with 1 dimensions"),
        ([object(), object()], "the input is object, which cannot become a tensor"),
        ([(torch.ones(1), [torch.ones(2)])], "list of tensors, which only target_pad_value="),
        ([[torch.ones(1)], torch.ones(1)], "list of tensors in some samples of the batch, Tensor in others"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_its_place(samples: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PadCollate()(samples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": "top"}, "side must be 'right' or 'left', not 'top'"),
        ({"layout": "flat"}, "layout must be"),
        ({"multiple_of": 0}, "multiple_of must be a whole number of at least 1, or None, not 0"),
        ({"max_length": 2.5}, "max_length must be"),
        ({"layout": "packed", "side": "left"}, "layout='packed' has no padding"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        PadCollate(**options)


def test_unpad_says_what_it_needs() -> None:
    with pytest.raises(ArgumentError, match="unpad needs the mask"):
        unpad(torch.ones(2, 3))
