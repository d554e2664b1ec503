"""The model file of what listens, and its exports: waveform in, the spectrogram inside, padding masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import dlkit
from dlkit.errors import DataError
from dlkit.models import AudioClassifier
from dlkit.transfer import create_model
from dlkit.transforms.audio import AudioAugment, AudioPreprocessing, LogMel

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


@pytest.mark.parametrize("model", [AudioClassifier(2, 16_000, width=4), "backbone"], ids=["small", "backbone"])
def test_a_model_and_data_of_another_rate_are_refused(model: Any, tmp_path: Path) -> None:
    if model == "backbone":
        mel = LogMel(sample_rate=16_000, num_mels=32)
        model = create_model("torchvision/squeezenet1_1", classes=2, log_mel=mel, pretrained=False)
    spec = AudioPreprocessing(sample_rate=8_000, seconds=0.5)
    words = "sample_rate is 16000 in the model and 8000 in the"
    with pytest.raises(DataError, match=words):
        dlkit.save(model, tmp_path / "a.safetensors", classes=CLASSES, preprocessing=spec)
    data = TensorDataset(torch.randn(4, 1, 4_000), torch.arange(4) % 2)
    data.spec = spec  # type: ignore[attr-defined]
    trainer = dlkit.Trainer(model, torch.nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters()), progress=False)
    with pytest.raises(DataError, match=words):
        trainer.fit(DataLoader(data, 2), epochs=1)
