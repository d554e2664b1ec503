"""What listens: padding changes nothing, silence is no trouble, and what it hears decides."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dlkit.collate import PadCollate
from dlkit.errors import ArgumentError, TrainingError
from dlkit.models import AudioClassifier

RATE = 8_000


def recordings(*lengths: int) -> list[Tensor]:
    torch.manual_seed(3)
    return [torch.randn(1, length) * torch.linspace(0, 1, length) for length in lengths]


def model_of(**options: Any) -> AudioClassifier:
    torch.manual_seed(0)
    model = AudioClassifier(3, RATE, width=4, **options)
    for block in model.blocks:  # a fresh batch normalisation maps 0 to 0, which would hide what leaks out of padding
        torch.nn.init.uniform_(block.norm.bias, 0.2, 0.5)
        torch.nn.init.uniform_(block.norm.running_mean, -0.5, 0.5)
    return model.eval()


@pytest.mark.parametrize("garbage", [0.0, 5.0])
def test_logits_are_the_same_alone_and_in_a_padded_batch(garbage: float) -> None:
    model, rows = model_of(), recordings(1_000, 4_321, 1, 8_000, 81, 2_560)
    waveforms, mask = PadCollate(dim=-1, pad_value=garbage)(rows)
    with torch.no_grad():
        together = model(waveforms, mask)
        alone = torch.cat([model(row[None]) for row in rows])
    assert together.std() > 0.01
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_padding_changes_no_step_of_training() -> None:
    rows = recordings(1_600, 2_400, 3_200)
    waveforms, mask = PadCollate(dim=-1)(rows)
    found = []
    for more in (0, 4_000):
        model = model_of(time_mask=0.0, frequency_mask=0.0, dropout=0.0).train()
        padded = [torch.nn.functional.pad(each, (0, more)) for each in (waveforms, mask)]
        model(*padded).square().sum().backward()
        found.append([value.grad for value in model.parameters()] + [each.clone() for each in model.buffers()])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


def test_loudness_counts_for_nothing_and_silence_has_finite_logits() -> None:
    model, (row,) = model_of(), recordings(4_000)
    with torch.no_grad():
        torch.testing.assert_close(model(0.01 * row[None]), model(row[None]), rtol=1e-3, atol=1e-4)
        assert model(torch.zeros(2, 1, 4_000)).isfinite().all()


def test_it_computes_in_half_precision() -> None:
    model, (row,) = model_of(), recordings(4_000)
    with torch.no_grad():
        wanted = model(row[None])
        found = model.to(torch.bfloat16)(row[None].to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=0.1, atol=0.1)


def test_it_learns_to_tell_tones_apart() -> None:
    torch.manual_seed(0)
    times, targets = torch.arange(2_000) / RATE, torch.arange(48) % 3
    pitch = torch.tensor([400.0, 800.0, 1600.0])[targets] * (1 + 0.05 * torch.randn(48))
    tones = torch.sin(2 * math.pi * pitch[:, None] * times)[:, None] + 0.1 * torch.randn(48, 1, 2_000)
    model = AudioClassifier(3, RATE, width=4)
    optim = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(12):
        optim.zero_grad()
        torch.nn.functional.cross_entropy(model(tones), targets).backward()
        optim.step()
    assert (model.eval()(tones).argmax(1) == targets).float().mean() > 0.95


def test_it_refuses_what_cannot_be_meant() -> None:
    for options, message in [
        ({"num_classes": 0}, "num_classes is a whole number of at least 1; got 0"),
        ({"dropout": 1}, "dropout must be at least 0 and below 1; got 1"),
        ({"sample_rate": 0}, "sample_rate must be a whole number"),
        ({"time_mask": 2}, "time must be a number from 0 to 1"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            AudioClassifier(**{"num_classes": 2, **options})
    for given, message in [
        ((torch.zeros(2, 100),), r"floats \[B, 1, T\]; got torch.float32 \[2, 100\]; give one channel"),
        ((torch.zeros(2, 1, 0),), r"got torch.float32 \[2, 1, 0\]"),
        ((torch.zeros(2, 1, 9, dtype=torch.int16),), "got torch.int16"),
        ((torch.zeros(2, 1, 9), torch.ones(2, 8, dtype=torch.bool)), r"\[B, T\]; got \[2, 8\]"),
    ]:
        with pytest.raises(TrainingError, match=message):
            AudioClassifier(2)(*given)
