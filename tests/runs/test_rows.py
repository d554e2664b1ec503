"""A checkpoint whose tensors lie in rows beside it, one file for each process that saved it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from dlkit import Trainer
from dlkit.callbacks import Checkpoint
from dlkit.cli.app import app
from dlkit.errors import ArgumentError, CheckpointError, DamagedCheckpointError
from dlkit.runs import rows
from dlkit.runs.checkpointfile import load_checkpoint, save_checkpoint
from dlkit.runs.consolidating import consolidate
from dlkit.runs.store import CheckpointStore

WEIGHT = torch.arange(10.0).view(5, 2)


def saved(folder, save="abc", names=None):
    """A checkpoint of two processes, of which the first holds three rows."""
    stem = "checkpoint-000001-step-00000004"
    files = [rows.name_of(stem, rank, 2) for rank in range(2)]
    for name, part in zip(files, WEIGHT.split(3), strict=True):
        rows.write_rows(folder / name, {"0": part}, "abc")
    state = {
        "model": {"weight": rows.mark("0"), "step": (3, None)},
        rows.FIELD: {"files": names or files, "save": save},
    }
    save_checkpoint(state, folder / f"{stem}.pt")
    return folder / f"{stem}.pt", [folder / name for name in files]


def test_rows_are_put_together(tmp_path):
    path, _ = saved(tmp_path)
    state = load_checkpoint(path)
    assert state.keys() == {"model"}
    assert torch.equal(state["model"]["weight"], WEIGHT)
    assert state["model"]["step"] == (3, None)


def test_one_command_makes_one_file_of_it(tmp_path):
    path, _ = saved(tmp_path)
    asked = ["checkpoint", str(path), "--out", str(tmp_path / "whole.pt"), "--weights", str(tmp_path / "w.safetensors")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert torch.equal(load_checkpoint(tmp_path / "whole.pt")["model"]["weight"], WEIGHT)
    assert torch.equal(load_file(tmp_path / "w.safetensors")["weight"], WEIGHT)
    assert CliRunner().invoke(app, ["checkpoint", str(tmp_path / "none"), "--out", "x"]).exit_code == 1


def test_a_model_file_needs_to_know_the_model(tmp_path):
    """A checkpoint of a model that no file can hold says why; one by an older dlkit, or nothing to write, as well."""
    path, _ = saved(tmp_path)
    with pytest.raises(ArgumentError, match="say what to write"):
        consolidate(path)
    with pytest.raises(CheckpointError, match=r"an older dlkit has written it\. In the script .* --weights FILE"):
        consolidate(path, model=tmp_path / "m.safetensors")

    class Own(torch.nn.Linear):
        pass

    model = Own(2, 1)
    checkpoint = Checkpoint(tmp_path / "run")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(model, torch.nn.MSELoss(), optimizer, callbacks=[checkpoint], progress=False, device="cpu")
    trainer.fit([(WEIGHT, WEIGHT[:, :1])])
    with pytest.raises(CheckpointError, match=r"checkpoint-.*\.pt does not hold all .*: .*classes are not known"):
        consolidate(tmp_path / "run", model=tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_what_cannot_be_put_together_is_damaged(tmp_path):
    path, files = saved(tmp_path)
    files[1].unlink()
    with pytest.raises(DamagedCheckpointError, match=r"rows-2-of-2"):
        load_checkpoint(path)
    path, _ = saved(tmp_path, save="def")
    with pytest.raises(DamagedCheckpointError, match="is of another save"):
        load_checkpoint(path)
    path, _ = saved(tmp_path, names=["../elsewhere.safetensors"])
    with pytest.raises(DamagedCheckpointError, match=r"\.\./elsewhere.safetensors cannot be its files of rows"):
        load_checkpoint(path)


def test_a_store_removes_rows_with_their_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=1)
    for step in (1, 2):
        rows.write_rows(tmp_path / rows.name_of(store.next_stem(step), 0, 1), {"0": WEIGHT}, "a")
        store.save({"step": step}, step=step, epoch=0)
    left = tmp_path / rows.name_of("checkpoint-000003-step-00000003", 0, 1)  # of a save that was killed
    left.write_bytes(b"")
    store.lock()
    store.unlock()
    assert [path.name for path in tmp_path.glob("*.rows-*")] == [rows.name_of("checkpoint-000002-step-00000002", 0, 1)]
