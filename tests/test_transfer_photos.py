"""Real photos and real weights: the tutorial as it stands, and stored features against the slow way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from dlkit import Trainer
from dlkit.datasets import ImageFolder
from dlkit.transfer import create_model, freeze
from dlkit.transforms import from_model
from test_docs import ROOT, blocks


@pytest.fixture
def photos(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photos of each kind, in the tutorial's folders below the working folder."""
    for part in ("train", "val"):
        for name in ("ants", "bees"):
            folder = tmp_path / "hymenoptera" / part / name
            folder.mkdir(parents=True)
            for file in sorted((shared_data / "images" / "hymenoptera" / part / name).iterdir())[:4]:
                shutil.copy(file, folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tutorial_runs(photos: Path, shared_data: Path, capsys: Any) -> None:
    weights = shared_data / "weights" / "mobilenet_v2_imagenet.pth"
    code = "\n".join(block.code for block in blocks((ROOT / "docs/tutorials/ants-and-bees.md").read_text()))
    by_name, by_file = (
        'classes=["ants", "bees"])',
        f'classes=["ants", "bees"], weights={str(weights)!r}, image_size=96)',
    )
    assert code.count(by_name) == 1
    assert code.count("epochs=25") == 2
    assert code.count("epochs=5") == 1
    code = (
        code.replace(by_name, by_file).replace("epochs=25", "epochs=6").replace("epochs=5", "epochs=1, head_epochs=6")
    )
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)
    shown = capsys.readouterr()
    assert "runs once over 8 training samples and 8 validation samples; 80 forward passes saved" in shown.err
    assert (
        "runs once over 8 training samples (4 views of each, mixed again in every epoch) and 8 validation samples"
        in shown.err
    )
    assert names["found"].score >= 0.75
    assert names["model"].training is False
    with torch.no_grad():
        assert names["model"].cpu()(names["val"][0][0][None]).shape == (1, 2)


@pytest.mark.proof
def test_the_head_from_stored_features_is_that_of_the_slow_way(shared_data: Path) -> None:
    folder = shared_data / "images" / "hymenoptera"
    logits = []
    for stored in (False, True):
        torch.manual_seed(0)
        weights = shared_data / "weights" / "mobilenet_v2_imagenet.pth"
        model = freeze(create_model("torchvision/mobilenet_v2", classes=["ants", "bees"], weights=weights))
        train, val = ImageFolder(folder, transform=from_model(model)).split()
        train, val = Subset(train, range(0, 244, 4)), Subset(val, range(0, 153, 4))
        optim = torch.optim.AdamW(model.head_parameters(), 1e-3)
        trainer = Trainer(
            model, torch.nn.CrossEntropyLoss(), optim, reuse_features=stored, device="cpu",
            progress=False,
        )  # fmt: skip
        trainer.fit(DataLoader(train, 16, shuffle=True), DataLoader(val, 16), epochs=5)
        with torch.no_grad():
            logits.append(model.eval()(torch.stack([val[place][0] for place in range(len(val))])))
    assert torch.allclose(*logits, rtol=0, atol=1e-5)
