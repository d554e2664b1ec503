"""`parallel="shard"`: each process holds a share of the run, and the bits are those of one process."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn
from worlds import ends, results, start

from dlkit import Trainer
from dlkit.callbacks import BackToBest
from dlkit.errors import ArgumentError
from dlkit.training.sharding import units

CASES = {
    "blocks with skips, clipping, schedule, average": (
        2,
        {"model": "resnet", "clip": True, "schedule": True, "ema": True},
    ),
    "transformer, ignored targets, a second fit": (
        3,
        {"model": "transformer", "ignored": True, "weights": True, "epochs": 1, "longer": 2},
    ),
    "stored features, then thawed in stages, average, in three": (
        3,
        {
            "model": "resnet",
            "frozen": "head",
            "stages": {"1": "2.conv2", "2": "all"},
            "reuse": True,
            "ema": True,
            "epochs": 4,
        },
    ),
}
LONG = {
    "frozen up to a block, clipping": (2, {"model": "resnet", "frozen": "2.conv2", "clip": True}),
    "cnn with batchnorm and workers, rehearsed": (3, {"model": "cnn", "workers": 1, "ema": True, "rehearsed": True}),
    "frozen, two fits, in four": (4, {"model": "cnn", "frozen": "5", "ignored": True, "epochs": 1, "longer": 3}),
}


@pytest.mark.parametrize(("size", "case"), CASES.values(), ids=CASES)
def test_shares_give_the_bits_of_one_process(size, case, tmp_path):
    """Weights, optimizer and history, all whole again in every process; the last step has 3 batches for 2 to 4."""
    assert results(size, case | {"parallel": "shard"}, tmp_path) == results(1, case, tmp_path) * size


@pytest.mark.proof
def test_stored_features_in_shares_go_on_where_they_were(tmp_path):
    """Stopped by a signal to one process, among stored features and after them."""
    case = {"model": "resnet", "frozen": "head", "stages": {"1": "2.conv2"}, "reuse": True, "ema": True}
    (whole,) = results(1, case, tmp_path)
    case |= {"parallel": "shard", "folder": str(tmp_path / "run")}
    for size, step in ((3, 2), (2, 7)):
        found = ends(start(size, case | {"stop at": step, "stop in": 1}, tmp_path))
        assert [code for code, _, _ in found] == [143] * size, found
    assert [each["weights"] for each in results(2, case, tmp_path)] == [whole["weights"]] * 2


@pytest.mark.proof
@pytest.mark.parametrize(("size", "case"), LONG.values(), ids=LONG)
def test_shares_give_the_bits_of_one_process_in_more_cases(size, case, tmp_path):
    assert results(size, case | {"parallel": "shard"}, tmp_path) == results(1, case, tmp_path) * size


def test_a_run_on_shares_goes_on_with_any_number_of_processes(tmp_path):
    """Stopped by a signal to one process of four, gone on with on shares by three, two, then by one with all of it.

    What one of the four has saved last is damaged, so that the checkpoint before is taken.
    """
    whole = results(1, {"model": "resnet", "clip": True, "folder": str(tmp_path / "whole")}, tmp_path)
    case = {"model": "resnet", "clip": True, "folder": str(tmp_path / "run")}
    for size, step in ((4, 2), (3, 4), (2, 7)):
        found = ends(start(size, case | {"parallel": "shard", "stop at": step, "stop in": 1}, tmp_path))
        assert [code for code, _, _ in found] == [143] * size, found
        if size == 4:
            *_, newest = sorted((tmp_path / "run").glob("*.rows-2-of-4.safetensors"))
            newest.write_bytes(newest.read_bytes()[:-1] + b"?")
        elif size == 3:
            assert "its checksum is wrong); trying the previous one" in found[0][2]
    assert results(1, case, tmp_path)[0]["weights"] == whole[0]["weights"]
    assert not [*(tmp_path / "run").glob("*.rows-*")], "rows whose checkpoints are gone"


def test_a_full_disk_of_one_process_is_told_by_the_first(tmp_path):
    """Its rows are missing in both checkpoints, so nothing of these is left; training continues to the same end."""
    case = {"model": "wide", "epochs": 1, "parallel": "shard", "folder": str(tmp_path / "run")}
    (first, second) = ends(start(2, case | {"no room": 1}, tmp_path))
    assert [first[0], second[0]] == [0, 0], (first, second)
    assert re.search(r"could not save a checkpoint in .*: process 1: .*too large; .*; training continues", first[2])
    assert "could not save" not in second[2]
    assert not [*(tmp_path / "run").glob("*.safetensors")]
    (whole,) = results(1, {"model": "wide", "epochs": 1}, tmp_path)
    assert json.loads(first[1].splitlines()[-1])["weights"] == whole["weights"]


def test_parameters_gradients_and_optimizer_of_a_process_are_a_share(tmp_path):
    """All tensors that the process holds, at the step's end and before the optimizer: of 0.3 MB of weights."""
    case = {"model": "wide", "epochs": 1, "memory": True}
    (alone,) = (each["memory"] for each in results(1, case, tmp_path))
    for gradients, step in (each["memory"] for each in results(2, case | {"parallel": "shard"}, tmp_path)):
        assert gradients < 0.6 * alone[0]
        assert step < 0.6 * alone[1]


def trainer(model, optimizer, **settings):
    return Trainer(model, nn.MSELoss(), optimizer, parallel="shard", progress=False, device="cpu", **settings)


WRONG = {
    "the optimizer Muon": {"optimizer": lambda p: torch.optim.Muon([each for each in p if each.dim() == 2])},
    "channels-last order": {"model": nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)},
    "fp16": {"precision": "fp16"},
    "compiled or wrapped": {"compile": True},
    "a custom step": {"step": lambda run: None},
    "needs the whole model": {"callbacks": [BackToBest()]},
}


@pytest.mark.parametrize(("what", "given"), WRONG.items(), ids=WRONG)
def test_what_shares_cannot_do_is_refused(what, given):
    given = dict(given)
    model = given.pop("model", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)))
    optimizer = given.pop("optimizer", torch.optim.SGD)
    with pytest.raises(ArgumentError, match=what):
        trainer(model, optimizer([each for each in model.parameters() if each.requires_grad]), **given)


def test_another_way_to_hold_a_model_is_refused():
    model = nn.Linear(2, 1)
    with pytest.raises(ArgumentError, match="'replicate' or 'shard', not 'fsdp'"):
        Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters()), parallel="fsdp")


def test_units_are_blocks_that_repeat_and_share_nothing():
    blocks = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(3)])
    assert units(nn.Sequential(nn.Embedding(4, 2), blocks)) == list(blocks)
    blocks[1][0].weight = blocks[0][0].weight
    assert units(blocks)[-1] is blocks[2]
    assert blocks[0] not in units(blocks)
