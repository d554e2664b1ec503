"""Files of every release load for ever, and the numbers of a small run do not drift from release to release."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from dlkit.training import load_checkpoint

GOLDEN = Path(__file__).parent.parent / "golden"
CHECKPOINTS = sorted(GOLDEN.glob("checkpoint-*.pt"))
LOSSES = sorted(GOLDEN.glob("losses-*.json"))

specification = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
make = importlib.util.module_from_spec(specification)
specification.loader.exec_module(make)


def test_there_are_golden_files():
    assert CHECKPOINTS
    assert LOSSES


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_an_old_checkpoint_loads(path):
    state = load_checkpoint(path)
    assert state["cursor"]["step"] == 20
    model = make.trainer(Path("unused")).model
    model.load_state_dict(state["model"])
    plain = torch.load(path, weights_only=True)
    assert all(torch.equal(plain["model"][name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_an_old_run_goes_on(path, tmp_path):
    shutil.copyfile(path, tmp_path / "checkpoint-000001-step-00000020.pt")
    resumed = make.trainer(tmp_path)
    resumed.fit(*make.loaders(), epochs=3)
    whole = make.trainer(tmp_path / "whole")
    whole.fit(*make.loaders(), epochs=3)
    assert resumed.run.step == whole.run.step == 45
    for old, new in zip(resumed.history["val_loss"], whole.history["val_loss"], strict=True):
        assert old == pytest.approx(new, rel=1e-2)  # 25 steps of AdamW enlarge what another processor rounds


@pytest.mark.parametrize("path", LOSSES, ids=lambda path: path.stem)
def test_the_losses_have_not_moved(path, tmp_path):
    """Bit for bit with the torch that made the file; another torch or processor may round the last digits otherwise."""
    golden = json.loads(path.read_text())
    losses = make.Losses()
    make.trainer(tmp_path, losses).fit(*make.loaders(), epochs=2)
    expected = [float.fromhex(value) for value in golden["losses"]]
    assert [float.fromhex(value) for value in losses.values] == pytest.approx(expected, rel=1e-4)
