"""Another sample rate: against the exact answer, against soxr, and the same bits alone and beside others."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch

from dlkit.errors import ArgumentError
from dlkit.transforms.audio import resample
from dlkit.transforms.audio.resampling import resample_all

# Whole ratios, the usual ones, and two without a common factor.
RATES = [(48_000, 16_000), (44_100, 16_000), (22_050, 16_000), (8_000, 16_000), (16_000, 44_100), (44_100, 16_001)]
RATES += [(192_000, 16_000), (16_000, 11_025), (9_997, 1_000)]
SPEECH = (44_100, 16_000)


def noise(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, (channels, samples)).astype(np.float32)


@pytest.mark.parametrize(("rate", "to"), RATES)
def test_tones_that_both_rates_can_hold_are_exact(rate: int, to: int) -> None:
    tones = np.linspace(0.01, 0.91, 7) * min(rate, to) / 2
    given, wanted = (sum(np.sin(2 * np.pi * f * np.arange(2 * own) / own + f) for f in tones) / 7 for own in (rate, to))
    found = resample(given[None].astype(np.float32), rate, to)[0]
    inner = slice(to // 2, -to // 2)  # before and behind the tones there are zeros
    np.testing.assert_allclose(found[inner], wanted[inner], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("rate", "to"), RATES)
def test_it_is_what_soxr_makes_of_noise_up_to_the_edge_of_the_band(rate: int, to: int) -> None:
    given = noise(2 * rate)
    found, wanted = resample(given, rate, to)[0], soxr.resample(given[0], rate, to)
    assert np.std(found - wanted) < 4e-3 * np.std(wanted)


@pytest.mark.parametrize(("rate", "to"), [each for each in RATES if each[0] > each[1]])
def test_what_the_lower_rate_cannot_hold_is_120_db_below(rate: int, to: int) -> None:
    time = np.arange(32_000 * rate // to) / rate
    high = np.hanning(len(time)) * np.sin(2 * np.pi * 0.52 * to * time)
    assert np.abs(resample(high[None].astype(np.float32), rate, to)).max() < 10 ** (-120 / 20)


@pytest.mark.parametrize(("rate", "to"), RATES)
@pytest.mark.parametrize("samples", [0, 1, 2, 50])
def test_short_ones_have_the_length_that_is_promised(rate: int, to: int, samples: int) -> None:
    found = resample(np.ones((2, samples), np.float32), rate, to)
    assert found.shape == (2, max(1, (2 * samples * to + rate) // (2 * rate)))
    assert np.isfinite(found).all()
    assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize(("rate", "to"), RATES)
def test_the_bits_are_the_same_alone_and_beside_others(rate: int, to: int) -> None:
    given = [noise(length, 1 + length % 2, length) for length in (rate, 3, 3 * rate, rate // 3)]
    together = resample_all(given, rate, to)
    for one, found in zip(given, together, strict=True):
        np.testing.assert_array_equal(resample_all([one, one[:, :5]], rate, to)[0], found)
        np.testing.assert_array_equal(found[:1], resample(one[:1], rate, to))


def test_an_hour_takes_little_memory_beside_it_and_its_parts_are_right() -> None:
    impulse = np.zeros((1, 44_100 * 600), np.float32)
    impulse[0, 44_100 * 300] = 1
    found = resample(impulse, *SPEECH)[0]
    assert found.argmax() == 16_000 * 300
    assert not found[: 16_000 * 299].any()
    np.testing.assert_allclose(found.sum(), 16_000 / 44_100, rtol=1e-4)


def test_the_same_rate_changes_nothing_and_a_rate_of_zero_is_refused() -> None:
    given = noise(100)
    assert resample(given, 8_000, 8_000) is given
    with pytest.raises(ArgumentError, match="to must be"):
        resample(given, 8_000, 0)


def test_gradients_and_other_modes_of_torch_do_not_matter() -> None:
    with torch.inference_mode():
        first = resample(noise(4_410), *SPEECH)
    np.testing.assert_array_equal(resample(noise(4_410), *SPEECH), first)
