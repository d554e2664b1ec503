"""The model file of what listens, and its exports: waveform in, the spectrogram inside, padding masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dlkit
from dlkit.models import AudioClassifier
from dlkit.transforms.audio import AudioAugment, AudioPreprocessing

CLASSES = ["high", "low"]


def saved(path: Path, seconds: float | None, **options: Any) -> tuple[AudioClassifier, Path]:
    torch.manual_seed(0)
    spec = AudioPreprocessing(sample_rate=8_000, seconds=seconds, augment=AudioAugment(gain=6))
    model = AudioClassifier(2, 8_000, width=4).eval()
    return model, dlkit.save(model, path, classes=CLASSES, preprocessing=spec, **options)


@pytest.mark.parametrize("seconds", [None, 0.5])
def test_the_model_file_says_how_sounds_are_prepared(tmp_path: Path, seconds: float | None) -> None:
    model, file = saved(tmp_path / "a.safetensors", seconds)
    loaded = dlkit.load(file)
    assert loaded.preprocessing == AudioPreprocessing(sample_rate=8_000, seconds=seconds)
    assert (loaded.kind, loaded.classes) == ("audio", CLASSES)
    waveforms = torch.randn(2, 1, 4_000)
    with torch.no_grad():
        torch.testing.assert_close(loaded.logits(waveforms), model(waveforms))


@pytest.mark.parametrize("seconds", [None, 0.5])
def test_onnx_takes_waveforms_of_the_lengths_that_the_model_takes(tmp_path: Path, seconds: float | None) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, file = saved(tmp_path / "a.onnx", seconds, format="onnx")
    session = runtime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    length = 4_000 if seconds else 5_678
    given = {"waveforms": torch.randn(3, 1, length)}
    if seconds is None:
        given["mask"] = torch.arange(length) < torch.tensor([[length], [4_000], [900]])
    assert [each.name for each in session.get_inputs()] == list(given)
    (found,) = session.run(None, {name: value.numpy() for name, value in given.items()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), model(*given.values()), rtol=1e-3, atol=1e-3)
