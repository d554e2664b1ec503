"""Spectrograms against librosa's numbers; what is random about recordings; all of it as plain data."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlkit import _bounds
from dlkit.errors import ArgumentError
from dlkit.specs.builtin import KINDS
from dlkit.transforms.audio import MFCC, AudioAugment, AudioPreprocessing, LogMel, SpectrogramMask, mel, resample

GOLDEN = json.loads((Path(__file__).parent / "golden" / "librosa-0.11.json").read_text(encoding="utf-8"))
sound = importlib.import_module("golden.make_librosa").sound


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda each: str(each["settings"]["sample_rate"]))
def test_log_mel_and_mfcc_are_librosas(golden: dict[str, Any]) -> None:
    mel = LogMel(**golden["settings"])
    waveform = torch.from_numpy(sound(mel.sample_rate))
    batch = mel(torch.stack([waveform, 0.5 * waveform])[:, None])
    assert batch.shape == (2, 1, mel.num_mels, mel.frames(2000))
    # Three decimals of a dB were kept; where nothing but rounding is heard, -100 dB are the floor of both.
    torch.testing.assert_close(batch[0, 0], torch.tensor(golden["log_mel"]), atol=0.02, rtol=0)
    torch.testing.assert_close(
        MFCC(mel=mel, num_coefficients=8)(waveform), torch.tensor(golden["mfcc"]), atol=0.05, rtol=0
    )


def test_zeros_behind_a_recording_change_none_of_its_frames() -> None:
    mel, waveform = LogMel(sample_rate=8_000), torch.randn(1, 3_001)
    alone, padded = mel(waveform), mel(torch.nn.functional.pad(waveform, (0, 2_000)))
    torch.testing.assert_close(padded[..., : mel.frames(3_001)], alone, atol=1e-4, rtol=0)


def test_half_precision_around_it_changes_nothing() -> None:
    mel, waveform = LogMel(sample_rate=8_000), torch.randn(2, 2_000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = MFCC(mel=mel)(waveform)
    assert torch.equal(halved, MFCC(mel=mel)(waveform))


@pytest.mark.parametrize(
    "document",
    [
        LogMel(sample_rate=8_000, num_mels=40, top_db=None),
        MFCC(mel=LogMel(sample_rate=16_000)),
        SpectrogramMask(time=0.2, frequency=0.1, stripes=2),
        AudioPreprocessing(sample_rate=8_000, seconds=0.5, normalize="rms", augment=AudioAugment(noise=(5, 20))),
    ],
    ids=lambda each: type(each).__name__,
)
def test_all_of_it_is_plain_data(document: Any) -> None:
    assert type(document).from_json(document.to_json()) == document


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        (AudioPreprocessing, {"sample_rate": 0}, "sample_rate"),
        (AudioPreprocessing, {"sample_rate": 1 << 40}, "sample_rate"),
        (AudioPreprocessing, {"channels": 10**9}, "channels"),
        (AudioPreprocessing, {"seconds": 1e300}, "seconds"),
        (AudioPreprocessing, {"seconds": 80_000.0, "sample_rate": 192_000}, "seconds"),
        (AudioPreprocessing, {"normalize": "loud"}, "normalize"),
        (AudioPreprocessing, {"augment": {"kind": "AudioAugment", "noise": [1e9, 0]}}, "noise"),
        (AudioPreprocessing, {"augment": {"kind": "AudioAugment", "gain": -1}}, "gain"),
        (LogMel, {"sample_rate": 8_000, "num_mels": 1 << 30}, "num_mels"),
        (LogMel, {"sample_rate": 8_000, "window": 1 << 30}, "window"),
        (LogMel, {"sample_rate": 8_000, "hop": 0}, "hop"),
        (LogMel, {"sample_rate": 8_000, "hop": 7}, "hop must be at least 1 ms"),
        (LogMel, {"sample_rate": 8_000, "window": 1 << 15}, "hop must be at least 1 ms and 1/32 of the window"),
        (LogMel, {"sample_rate": 8_000, "high": 5_000.0}, "high"),
        (LogMel, {"sample_rate": 8_000, "low": 4_000.0}, "low"),
        (MFCC, {"mel": {"kind": "LogMel", "sample_rate": 8_000}, "num_coefficients": 65}, "num_coefficients"),
        (SpectrogramMask, {"stripes": 10**9}, "stripes"),
        (SpectrogramMask, {"time": 2.0}, "time"),
    ],
)
def test_a_hostile_document_is_refused_by_the_name_of_the_field(kind: Any, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ArgumentError, match=field):
        kind.from_document({**kind._head, **changes})


def test_the_spec_is_a_kind_of_input() -> None:
    assert KINDS["audio"] is AudioPreprocessing
    assert AudioPreprocessing(seconds=2.0).example(small=True)["shape"] == [2, 1, 16_000]
    assert [each["shape"] for each in AudioPreprocessing().example()] == [[2, 1, 16_000], [2, 16_000]]


def test_random_things_are_drawn_first_and_hang_on_their_row_alone() -> None:
    augment = AudioAugment(shift=0.05, gain=6, noise=(5, 20), noise_chance=1.0)
    spec = AudioPreprocessing(sample_rate=8_000, seconds=0.5, augment=augment)
    torch.manual_seed(1)
    table, batch = spec.draw(4), torch.randn(4, 1, 4_000)
    assert table is not None
    state = torch.get_rng_state()
    whole = spec.apply(batch.clone(), table)
    halves = [spec.apply(batch[part].clone(), table[part]) for part in (slice(0, 1), slice(1, 4))]
    assert torch.equal(whole, torch.cat(halves))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(whole, batch)


def test_noise_is_as_loud_as_was_asked_and_gain_stays_in_its_bounds() -> None:
    quiet = torch.sin(torch.arange(16_000) / 10)[None, None] * 0.01
    noisy = AudioAugment(noise=(10, 10), noise_chance=1.0)
    added = noisy.moved_and_noisy(quiet.clone(), noisy.draw(1), 16_000) - quiet
    assert float(10 * (quiet.square().mean() / added.square().mean()).log10()) == pytest.approx(10, abs=0.2)
    louder = AudioAugment(gain=6).louder(torch.ones(50, 1, 1), AudioAugment(gain=6).draw(50))
    assert 0.5 < float(louder.min()) < 0.7
    assert 1.5 < float(louder.max()) < 2.0


def test_a_shift_leaves_silence_behind() -> None:
    augment, wave = AudioAugment(shift=1.0), torch.arange(1.0, 9.0)[None, None]
    late, early = augment.draw(2)
    late[0], early[0] = 0.75, 0.25  # half a second later, and earlier
    assert augment.moved_and_noisy(wave.clone(), late[None], 4).flatten().tolist() == [0, 0, 1, 2, 3, 4, 5, 6]
    assert augment.moved_and_noisy(wave.clone(), early[None], 4).flatten().tolist() == [3, 4, 5, 6, 7, 8, 0, 0]


def test_masks_are_stripes_within_the_recording() -> None:
    torch.manual_seed(0)
    spectrograms = torch.arange(8.0 * 10 * 20).reshape(8, 1, 10, 20)
    frames = torch.full((8,), 10)
    masked = SpectrogramMask(time=0.5, stripes=2)(spectrograms, frames=frames)
    changed = (masked != spectrograms)[:, 0].any(1)
    assert changed.any()
    assert not changed[:, 10:].any()
    assert SpectrogramMask()(spectrograms).equal(spectrograms)


@pytest.mark.parametrize(("normalize", "level"), [("none", 0.02), ("peak", 1.0), ("rms", 0.1)])
def test_normalisation_of_a_batch_is_that_of_each(normalize: Any, level: float) -> None:
    spec, batch = AudioPreprocessing(sample_rate=8_000, normalize=normalize), 0.02 * torch.sign(torch.randn(3, 1, 500))
    batch[2] = 0
    alone = [spec.apply(waveform.clone()) for waveform in batch]
    found = spec.apply(batch)
    assert torch.equal(found, torch.stack(alone))
    torch.testing.assert_close(found[:2].abs(), torch.full((2, 1, 500), level))
    assert not found[2].any()


@pytest.mark.parametrize(("window", "hop"), [(200, 80), (201, 80), (7, 3)])
def test_power_in_bands_and_its_gradient_are_those_of_torchs_own_transform(window: int, hop: int) -> None:
    look, waves = LogMel(sample_rate=2_000, window=window, hop=hop, num_mels=4), torch.randn(3, 301, requires_grad=True)
    spectra = torch.stft(
        waves, window, hop, window=torch.hann_window(window), center=True, pad_mode="constant", return_complex=True
    )
    filters = mel._filters(2_000, window, 4, 0.0, 1_000.0)
    wanted, found = torch.from_numpy(filters) @ torch.view_as_real(spectra).square().sum(-1), look.power(waves)
    weights = torch.randn_like(wanted)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, waves, weights), torch.autograd.grad(wanted, waves, weights), rtol=1e-4, atol=1e-6
    )


def test_one_recording_is_resampled_mixed_cut_and_padded() -> None:
    stereo = np.stack([np.ones(8_820, np.float32), np.zeros(8_820, np.float32)])
    spec = AudioPreprocessing(sample_rate=16_000, seconds=0.4)
    found = spec(stereo, sample_rate=44_100)
    assert found.shape == (1, 6_400)
    assert float(found[0, 1_600]) == pytest.approx(0.5, abs=1e-2)
    assert not found[0, 3_200:].any()
    cut = AudioPreprocessing(sample_rate=100, seconds=0.04)(torch.arange(10.0) / 10)
    torch.testing.assert_close(cut[0], torch.tensor([0.3, 0.4, 0.5, 0.6]))
    assert torch.equal(spec(np.array([-32768], np.int16))[0, :1], torch.tensor([-1.0]))
    assert resample(np.zeros((1, 441), np.float32), 44_100, 16_000).shape == (1, 160)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((16_000, 2), np.float32), "array.T"),
        (np.array([np.nan, 0.0]), "NaN or infinity"),
        (np.zeros((0,), np.float32), r"\[1, 0\]"),
        (np.zeros(4, np.uint8), "uint8"),
        (np.zeros((3, 4), np.float32), "2 channels, and this one has 3"),
    ],
)
def test_what_is_no_recording_is_told(given: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        AudioPreprocessing(channels=2)(given)


def test_a_waveform_that_is_too_large_is_refused_before_it_is_made() -> None:
    assert _bounds.WAVEFORM < 1 << 27
    with pytest.raises(ArgumentError, match="samples"):
        AudioPreprocessing(sample_rate=48_000, channels=64, seconds=3_600.0)
