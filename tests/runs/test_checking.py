"""A checkpoint whose seal is right and whose content is not: never used, never an error that nobody expects."""

from __future__ import annotations

import copy
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from disks import small_disk
from dlkit import Trainer
from dlkit.callbacks import EMA, Callback, Checkpoint, EarlyStopping
from dlkit.errors import CheckpointError, DamagedCheckpointError
from dlkit.runs.checkpointfile import CheckpointWarning, load_checkpoint, save_checkpoint
from dlkit.runs.store import CheckpointStore

NAN = math.nan


def loader() -> DataLoader:
    generator = torch.Generator().manual_seed(5)
    data = TensorDataset(torch.randn(32, 4, generator=generator), torch.arange(32) % 2)
    return DataLoader(data, 8, shuffle=True)


def trainer(folder: Path | None, model: nn.Module | None = None) -> Trainer:
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    callbacks: list[Callback] = [EMA(0.9), EarlyStopping(patience=9)]
    if folder is not None:
        callbacks.append(Checkpoint(folder, restore_best=False))
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, progress=False, device="cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two states of one run: after the first epoch and after the second."""
    folder = tmp_path_factory.mktemp("run")
    trainer(folder).fit(loader(), loader(), epochs=2)
    first, second = sorted(folder.glob("*.pt"))
    return load_checkpoint(first), load_checkpoint(second)


def put(folder: Path, *states: dict[str, Any]) -> None:
    store = CheckpointStore(folder)
    for number, state in enumerate(states, 1):
        store.save(state, step=4 * number, epoch=number)


# Path to a field, and what somebody wrote there.
CRAFTED: list[tuple[tuple[Any, ...], Any]] = [
    (("cursor", "step"), -1),
    (("cursor", "epoch"), 1.5),
    (("cursor", "batch"), -3),
    (("cursor", "batch"), 10**9),
    (("cursor", "samples"), True),
    (("cursor", "validated"), -2),
    (("cursor", "finished"), 7),
    (("cursor",), {"epoch": 1}),
    (("cursor",), [1, 2]),
    (("history",), {"epoch": 1}),
    (("history", 0), 3),
    (("history", 0), {"epoch": 1}),
    (("history", 0, "step"), "four"),
    (("history", 0, "val_loss"), [1.0]),
    (("logged",), 3),
    (("losses",), []),
    (("losses", "sums"), {"loss": "x"}),
    (("losses",), {}),
    (("rng",), None),
    (("rng", "numpy", "pos"), -5),
    (("rng", "numpy", "pos"), 10**9),
    (("rng", "numpy", "key"), torch.zeros(3, dtype=torch.int64)),
    (("rng", "numpy", "gauss"), "0"),
    (("rng", "python", "words"), torch.zeros(625)),
    (("rng", "python", "words"), torch.full((625,), 2**31, dtype=torch.int64)),
    (("rng", "python", "version"), 99),
    (("rng", "python"), 3),
    (("rng", "torch"), torch.zeros(16, dtype=torch.uint8)),
    (("rng", "torch"), torch.zeros(5056, dtype=torch.uint8)),
    (("rng", "cuda"), 1),
    (("optimizers",), {}),
    (("optimizers", "optimizer"), 3),
    (("optimizers", "optimizer", "state"), []),
    (("optimizers", "optimizer", "state", 0), 5),
    (("optimizers", "optimizer", "state", 0, "exp_avg"), "zeros"),
    (("optimizers", "optimizer", "state", 0, "exp_avg"), torch.full((4, 4), NAN)),
    (("optimizers", "optimizer", "param_groups"), {}),
    (("optimizers", "optimizer", "param_groups"), []),
    (("optimizers", "optimizer", "param_groups", 0, "lr"), "fast"),
    (("optimizers", "optimizer", "param_groups", 0, "lr"), NAN),
    (("optimizers", "optimizer", "param_groups", 0, "params"), [0]),
    (("callbacks",), [1]),
    (("callbacks", "EarlyStopping"), 3),
    (("callbacks", "EarlyStopping"), {"best": 1.0}),
    (("source",), 4),
    (("scaler",), 4),
    (("model",), 5),
    (("model", "0.weight"), torch.zeros(3, 3)),
    (("model", "0.weight"), 5),
    (("model", "0.weight"), torch.full((4, 4), NAN)),
    (("model", "2.bias"), torch.tensor([0.0, math.inf])),
    (("eval_model", "0.weight"), torch.full((4, 4), NAN)),
    (("settings", "must", "optimizer"), {"optimizer": 3}),
    (("settings", "may", "callbacks"), 3),
    (("identity",), 3),
    (("identity", "modules"), 3),
    (("identity", "code"), 3),
    (("identity", "data"), 3),
    (("epochs",), -1),
    (("threads",), 0),
    (("parts",), 3),
    (("buffers",), {"model": 3}),
    (("settings",), 1),
    (("settings", "must"), 1),
    (("settings", "must", "model"), 1),
    (("settings", "may"), {}),
    (("settings", "may", "seed"), "zero"),
]


def crafted(state: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    state = copy.deepcopy(state)
    place: Any = state
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return state


@pytest.mark.parametrize(("path", "value"), CRAFTED, ids=[f"{'.'.join(map(str, p))}={v!r:.20}" for p, v in CRAFTED])
def test_a_crafted_field_is_named(saved, path, value, tmp_path):
    save_checkpoint(crafted(saved[1], path, value), tmp_path / "bad.pt")
    with pytest.raises(DamagedCheckpointError, match=rf"bad.pt cannot be used: the checkpoint's {path[0]}"):
        trainer(None).fit(loader(), loader(), epochs=2, resume=tmp_path / "bad.pt")


@pytest.mark.parametrize("number", [0, 18, 39, 46], ids=lambda number: ".".join(map(str, CRAFTED[number][0])))
def test_after_a_crafted_file_the_one_before_is_used(saved, number, tmp_path):
    good, newest = saved
    path, value = CRAFTED[number]
    put(tmp_path, good, crafted(newest, path, value))
    made = trainer(tmp_path)
    with pytest.warns(CheckpointWarning, match=rf"{path[0]}.*; trying the previous one"):
        made.fit(loader(), loader(), epochs=2)
    assert made.history.rows == newest["history"]  # trained anew from the first epoch on, and bit for bit the same
    for name, tensor in made.model.state_dict().items():
        assert torch.equal(tensor, newest["eval_model"][name])  # the average is what was judged, and what is left


def test_when_none_can_be_used_the_error_says_how_to_start_anew(saved, tmp_path):
    put(tmp_path, *(crafted(state, ("cursor", "step"), -1) for state in saved))
    with (
        pytest.warns(CheckpointWarning, match="not a whole number from 0 on"),
        pytest.raises(CheckpointError, match=r"none of the 2 checkpoints in .* can be used; fit\(..., resume=False\)"),
    ):
        trainer(tmp_path).fit(loader(), loader(), epochs=2)


def test_a_missing_field_is_named(saved, tmp_path):
    _, state = saved
    save_checkpoint({name: value for name, value in state.items() if name != "rng"}, tmp_path / "bad.pt")
    with pytest.raises(DamagedCheckpointError, match="the checkpoint has no field 'rng'"):
        trainer(None).fit(loader(), resume=tmp_path / "bad.pt")


def test_a_model_that_begins_with_nan_may_have_it_in_its_checkpoints(tmp_path):
    class Placeholder(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 2)
            self.later = nn.Parameter(torch.full((2,), NAN), requires_grad=False)

    trainer(tmp_path, Placeholder()).fit(loader(), loader(), epochs=1)
    again = trainer(tmp_path, Placeholder())
    assert again.fit(loader(), loader(), epochs=2)["epoch"] == [1, 2]


@pytest.mark.parametrize(
    "content",
    [
        b"5",
        b'{"checkpoints": 5}',
        b'{"checkpoints": [5]}',
        b'{"checkpoints": [{"file": 5}]}',
        b"[" * 100_000,
        {"step": "one"},
        {"number": -1},
        {"number": 1.5},
        {"epoch": None},
        {"regular": "yes"},
        {"value": "much"},
        {"value": 10**400},
        {"more": 1},
    ],
    ids=lambda content: str(content)[:30],
)
def test_an_index_of_other_content_is_rebuilt_from_the_names(content, saved, tmp_path):
    put(tmp_path, *saved)
    index = tmp_path / "index.json"
    if isinstance(content, dict):
        document = json.loads(index.read_text())
        document["checkpoints"][0] |= content
        content = json.dumps(document).encode()
    index.write_bytes(content)
    with pytest.warns(CheckpointWarning, match=r"index.json cannot be read .*; using the file names instead"):
        store = CheckpointStore(tmp_path)
    assert [entry.step for entry in store.entries] == [4, 8]


def test_folders_in_the_place_of_index_and_checkpoints(saved, tmp_path):
    put(tmp_path, *saved)
    (tmp_path / "index.json").unlink()
    (tmp_path / "index.json").mkdir()
    (tmp_path / "checkpoint-000009-step-00000099.pt").mkdir()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = trainer(tmp_path)
        made.fit(loader(), loader(), epochs=3)
    messages = [str(each.message) for each in told]
    assert any(
        "index.json is a folder, not a file; give a regular file); using the file names instead" in each
        for each in messages
    )
    assert any("could not save a checkpoint" in each and "training continues" in each for each in messages)
    assert made.history["epoch"] == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
        "checkpoint-000001-step-00000004.pt",
        "checkpoint-000002-step-00000008.pt",
        "checkpoint-000009-step-00000099.pt",
    ]


def test_a_file_in_the_folders_place_is_an_error_of_dlkits(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(CheckpointError, match=r"a run cannot be stored in .*; use a folder that you may write to"):
        trainer(tmp_path / "run").fit(loader())


@pytest.mark.parametrize("numbers", [10, 70_000, 2_000_000])
def test_a_disk_that_fills_while_a_file_is_written_is_an_oserror_that_says_so(numbers, tmp_path):
    """`torch.save` makes a RuntimeError about positions of it, which ended trainings."""
    with small_disk(tmp_path / "disk", "256k") as folder:
        with pytest.raises(OSError, match="No space left on device"):
            save_checkpoint({"a": torch.zeros(numbers), "b": [torch.zeros(30_000) for _ in range(5)]}, folder / "a.pt")
        assert list(folder.iterdir()) == []
