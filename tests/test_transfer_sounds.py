"""Backbones for images that listen: a spectrogram in front, the same after a way through a file, features once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import dlkit
from dlkit import Trainer
from dlkit.errors import ArgumentError
from dlkit.training.reuse_settings import ReuseFeatures
from dlkit.transfer import create_model, freeze, rebuild
from dlkit.transforms.audio import AudioPreprocessing, LogMel

MEL = LogMel(sample_rate=8_000, num_mels=32)
NAME = "torchvision/squeezenet1_1"


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return create_model(NAME, classes=["low", "high"], log_mel=MEL, pretrained=False).eval()


def tones(count: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    targets = torch.arange(count) % 2
    pitch = torch.tensor([300.0, 2_000.0])[targets] * (1 + 0.1 * torch.randn(count))
    waves = torch.sin(2 * math.pi * pitch[:, None] * torch.arange(2_400) / 8_000)
    return waves[:, None] + 0.1 * torch.randn(count, 1, 2_400), targets


def test_it_takes_waveforms_of_any_length_and_no_notice_of_their_loudness(model: nn.Module) -> None:
    waves, _ = tones(3)
    with torch.no_grad():
        found = model(waves)
        torch.testing.assert_close(model(0.1 * waves), found, rtol=1e-3, atol=1e-3)
        assert model(waves[..., :500]).shape == found.shape == (3, 2)
    with pytest.raises(ArgumentError, match=r"takes waveforms \[B, 1, T\], not \[3, 1, 64, 64\]"):
        model(torch.zeros(3, 1, 64, 64))


def test_a_backbone_of_one_size_gets_a_spectrogram_of_that_size(caplog: pytest.LogCaptureFixture) -> None:
    vit = create_model("timm/vit_tiny_patch16_224", classes=2, log_mel=MEL, pretrained=False).eval()
    with torch.no_grad():
        assert vit(tones(2)[0]).shape == (2, 2)
    assert "enlarges images" not in caplog.text


def test_the_architecture_makes_it_anew_and_a_hostile_one_is_refused(model: nn.Module) -> None:
    waves, _ = tones(2)
    document = json.loads(json.dumps(model.architecture))
    again = rebuild(document).eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(waves), model(waves))
    for changes, field in [({"num_mels": 10**9}, "num_mels"), ({"window": -1}, "window")]:
        with pytest.raises(ArgumentError, match=field):
            rebuild({**document, "log_mel": {**document["log_mel"], **changes}})


def test_a_model_file_holds_the_spectrogram(model: nn.Module, tmp_path: Path) -> None:
    spec = AudioPreprocessing(sample_rate=8_000, seconds=0.3)
    file = dlkit.save(model, tmp_path / "a.safetensors", classes=["low", "high"], preprocessing=spec)
    waves, _ = tones(2)
    loaded = dlkit.load(file)
    assert loaded.preprocessing == spec
    with torch.no_grad():
        torch.testing.assert_close(loaded.logits(waves), model(waves))


def test_its_features_are_stored_and_its_head_learns(model: nn.Module) -> None:
    data = TensorDataset(*tones(32))
    frozen = freeze(create_model(NAME, classes=2, log_mel=MEL, pretrained=False))
    frozen.load_state_dict(model.state_dict())
    found, kept = [], dict[str, object]()
    for reuse in (ReuseFeatures(shared=kept), False):
        torch.manual_seed(0)
        nn.init.zeros_(next(iter(frozen.head_parameters())))
        optim = torch.optim.AdamW(frozen.head_parameters(), 1e-2)
        trainer = Trainer(frozen, nn.CrossEntropyLoss(), optim, reuse_features=reuse, progress=False, device="cpu")
        rows = trainer.fit(DataLoader(data, 16, shuffle=True), DataLoader(data, 32), epochs=2).rows
        found.append([row["val_loss"] for row in rows])
    assert kept
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
