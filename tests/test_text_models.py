"""Padding changes no result: each text has the same logits alone as in a padded batch, for every baseline model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dlkit import DataLoader
from dlkit.datasets.texts.packed import PackedTextDataset
from dlkit.errors import ArgumentError, TrainingError
from dlkit.models import TextClassifier

ENCODERS: list[Any] = ["bag", "gru", "transformer"]
ROWS = [[5], [6, 7, 8], [9] * 40, list(range(4, 29)), [3, 3]]


def model_of(encoder: Any, **options: Any) -> TextClassifier:
    torch.manual_seed(0)
    return TextClassifier(30, 3, encoder=encoder, width=16, **options).eval()


def batch_of(rows: list[list[int]], *, side: str = "right", pad_id: int = 0) -> dict[str, Tensor]:
    ds = PackedTextDataset(rows, pad_id=pad_id, padding_side=side)
    return next(iter(DataLoader(ds, len(rows))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("depth", [1, 2])
def test_logits_are_the_same_alone_and_in_a_padded_batch(encoder: Any, side: str, depth: int) -> None:
    model = model_of(encoder, depth=depth)
    with torch.no_grad():
        together = model(**batch_of(ROWS, side=side, pad_id=11))
        alone = torch.cat([model(torch.tensor([row])) for row in ROWS])
    assert together.std() > 0.01
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_stands_where_nothing_is_gets_no_gradient_and_has_no_influence(encoder: Any) -> None:
    model, batch = model_of(encoder), batch_of(ROWS, pad_id=11)
    logits = model(**batch)
    logits.sum().backward()
    weight = next(value for name, value in model.named_parameters() if "embedding" in name)
    assert weight.grad is not None
    assert weight.grad[11].abs().sum() > 0  # 11 is also a word of one text
    without = [row for row in ROWS if 11 not in row]
    model.zero_grad()
    model(**batch_of(without, pad_id=11)).sum().backward()
    assert weight.grad is not None
    assert weight.grad[11].abs().sum() == 0


@pytest.mark.parametrize("encoder", ["gru", "transformer"])
def test_order_matters_but_not_to_a_bag(encoder: Any) -> None:
    forwards, backwards = torch.tensor([[4, 5, 6, 7]]), torch.tensor([[7, 6, 5, 4]])
    model, bag = model_of(encoder), model_of("bag")
    assert not torch.allclose(model(forwards), model(backwards), atol=1e-4)
    torch.testing.assert_close(bag(forwards), bag(backwards))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_empty_texts_have_finite_logits_and_leave_their_neighbours_alone(encoder: Any) -> None:
    model = model_of(encoder)
    with torch.no_grad():
        mixed = model(**batch_of([[], [6, 7, 8]]))
        only = model(**batch_of([[], []]))
        alone = model(torch.tensor([[6, 7, 8]]))
    assert mixed.isfinite().all()
    torch.testing.assert_close(mixed[1:], alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(only[0], mixed[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_second_text_of_a_pair_is_told_from_the_first(encoder: Any) -> None:
    model = model_of(encoder, num_types=2)
    ids, types = torch.tensor([[4, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1]])
    assert not torch.allclose(model(ids, token_type_ids=types), model(ids, token_type_ids=1 - types), atol=1e-4)
    padded = {"input_ids": torch.tensor([[4, 5, 6, 7, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 1, 0]])}
    longer = model(**padded, token_type_ids=torch.tensor([[0, 0, 1, 1, 0]]))
    torch.testing.assert_close(longer, model(ids, token_type_ids=types), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_it_learns_which_word_decides(encoder: Any) -> None:
    torch.manual_seed(0)
    words = torch.randint(6, 30, (256, 8))
    targets = torch.randint(0, 2, (256,))
    words[torch.arange(256), torch.randint(0, 8, (256,))] = 4 + targets
    model = TextClassifier(30, 2, encoder=encoder, width=32, dropout=0.0)
    optim = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(40):
        optim.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(words), targets)
        loss.backward()
        optim.step()
    assert loss < 0.3 * math.log(2)


def test_it_refuses_what_cannot_be_meant() -> None:
    for options, message in [
        ({"encoder": "lstm"}, "encoder must be 'bag', 'gru' or 'transformer', not 'lstm'"),
        ({"width": 0}, "width is a whole number of at least 1; got 0"),
        ({"dropout": 1}, "dropout must be at least 0 and below 1; got 1"),
        ({"encoder": "transformer", "width": 30}, "width must be even and a multiple of num_heads=4; got 30"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            TextClassifier(30, 2, **options)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"a token number is outside 0 to 29 .*len\(train.vocabulary\)"):
        model_of("gru")(torch.tensor([[30]]))
    with pytest.raises(TrainingError, match=r"takes input_ids \[B, L\] and a mask of that shape; got \[3\] and \[3\]"):
        model_of("bag")(torch.tensor([1, 2, 3]))
