"""One run on any number of processes: the same bits, and ends that all processes know of."""

from __future__ import annotations

import re

import pytest
import torch
from worlds import REFUSED, ends, results, start

from dlkit import DataLoader
from dlkit._waiting import patience
from dlkit.distributed import World
from dlkit.errors import ArgumentError
from dlkit.samplers import Sequential, Share

CASES = {
    "mlp with schedule and clipping": (2, {"model": "mlp", "schedule": True, "clip": True}),
    "cnn with batchnorm and workers": (2, {"model": "cnn", "workers": 1}),
    "transformer with weights and ignored targets": (3, {"model": "transformer", "weights": True, "ignored": True}),
    "average and early stopping": (3, {"model": "mlp", "ema": True, "stopping": True, "epochs": 4}),
    "rehearsed before, and a second fit": (2, {"model": "cnn", "epochs": 1, "rehearsed": True, "longer": 2}),
    "a part that few batches use, in a list": (4, {"model": "sometimes", "list": True, "accumulate": 5}),
    "a memory that is full in one process": (2, {"model": "full"}),
    "blocks with skips, in four": (4, {"model": "resnet", "epochs": 1}),
    "a step of one's own with two losses": (3, {"model": "cnn", "own step": "two losses", "longer": 3}),
}


@pytest.mark.parametrize(("size", "case"), CASES.values(), ids=CASES)
def test_any_number_of_processes_trains_the_same_bits(size, case, tmp_path):
    """Weights, optimizer and history; 19 batches, of which the last step has 3 and the last batch 3 samples."""
    assert results(size, case, tmp_path) == results(1, case, tmp_path) * size


@pytest.mark.proof
@pytest.mark.parametrize("parallel", ["replicate", "shard"])
@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer", "resnet"])
def test_two_three_four_and_eight_processes_train_the_same_bits(model, parallel, tmp_path):
    """All at once: 19 batches in steps of 8, of which the last has 3; some of one, where all targets are ignored."""
    case = {"model": model, "epochs": 3, "accumulate": 8, "schedule": True, "clip": True, "ema": True}
    case |= {"stopping": True, "weights": True, "ignored": True}
    (whole,) = results(1, case, tmp_path)
    for size in (2, 3, 4, 8):
        assert results(size, case | {"parallel": parallel}, tmp_path) == [whole] * size


def test_a_step_is_one_message(tmp_path):
    """19 batches are 10 steps of 2 or 5 of 4; what is said beside steps is the same."""
    case = {"epochs": 1, "counted": True}
    many, few = (results(2, case | {"accumulate": together}, tmp_path)[0] for together in (2, 4))
    assert many["messages"] - few["messages"] == 5


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """Stopped in the middle of an epoch by a signal to one process of three, gone on with in two, then in one."""
    whole = results(1, {"model": "cnn", "epochs": 3, "folder": str(tmp_path / "whole")}, tmp_path)
    case = {"model": "cnn", "epochs": 3, "folder": str(tmp_path / "run")}
    stopped = ends(start(3, case | {"stop at": 3, "stop in": 1}, tmp_path))
    assert [code for code, _, _ in stopped] == [143] * 3, stopped
    again = ends(start(2, case | {"stop at": 9, "stop in": 0}, tmp_path))
    assert [code for code, _, _ in again] == [143] * 2, again
    assert "resumed from" in again[0][2]
    assert results(1, case, tmp_path)[0]["weights"] == whole[0]["weights"]


def test_only_the_leading_process_writes_and_speaks(tmp_path):
    case = {"epochs": 1, "folder": str(tmp_path / "run")}
    first, second = ends(start(2, case, tmp_path))
    assert "epoch 1/1" in first[2]
    assert second[2] == ""
    names = [path.name for path in (tmp_path / "run").iterdir() if path.suffix == ".pt"]
    assert len(names) == len({name.partition("-step")[0] for name in names})


WRONG = {
    "fewer batches than processes": "2 processes share the batches of a step, and there is only 1",
    "other seeds": r"process 1 does not train the same run as process 0: .*seed \(7 instead of 0\)",
    "shared out": r"samples of the first batches \(leave out samplers",
    "ddp": "pass the model itself, without DistributedDataParallel",
    "fsdp": "pass the model itself, and parallel='shard' to the Trainer",
    "sparse": "the gradients of words are sparse, .* sparse=False",
    "code": r"process 1 does not train .*: code of loss criterion \(\w+ instead of \w+\)$",
    "folder": "process 1 does not see in .*run1 what process 0 writes into .*run0: give",
    "fewer samples": r"batches \(15 instead of 19\)",
    "other samples": r"process 1 does not train the same run as process 0: training data: other samples",
    "weights": r"process 1 .*: weights \(\w+ instead of \w+\)$",
    "modules": r"process 1 .*: module 1 \(Dropout\(p=0.1.* instead of Dropout\(p=0.0",
    "threads": r"process 1 .*: threads of torch \(2 instead of 1\)",
    "torch": rf"process 1 .*: torch \(2.9.0 instead of {re.escape(torch.__version__)}\)",
    "optimizer": r"process 1 .* process 0: lr \(1.1 instead of 0.1\)$",
    "own values": "^the step returns other values in each process: loss; return what run.backward gives",
    "calls": r"process \d is at call \d of run.backward in this step and process \d at call \d",
}


def test_processes_that_do_not_fit_are_refused(tmp_path):
    """Before the first step, as far as it can be known, and in all processes."""
    for found in results(2, {"folder": str(tmp_path)}, tmp_path, REFUSED):
        assert found.keys() == WRONG.keys()
        for name, message in WRONG.items():
            assert re.search(str(message), str(found[name])), (name, found[name])


def test_an_error_in_one_process_ends_all(tmp_path):
    found = ends(start(2, {"fail at": 2, "stop in": 1, "folder": str(tmp_path / "run")}, tmp_path), timeout=60)
    assert all(code != 0 for code, _, _ in found)
    assert "broken in one process" in found[1][2]
    assert "another process of the run has ended" in found[0][2]
    assert "process 1 has failed: RuntimeError: broken in one process" in found[0][2]


@pytest.mark.parametrize("hung", [1, 0], ids=["a follower", "the one that keeps the store"])
def test_a_process_that_hangs_ends_the_others(hung, tmp_path, monkeypatch):
    """After the time that processes wait for each other, which is said; a stopped process answers nobody."""
    monkeypatch.setenv("DLKIT_TIMEOUT", "1.5")
    programs = start(2, {"hang at": 2, "stop in": hung, "folder": str(tmp_path / "run")}, tmp_path)
    _, errors = programs[1 - hung].communicate(timeout=60)
    programs[hung].kill()
    programs[hung].communicate(timeout=10)
    assert programs[1 - hung].returncode == 1
    assert "nothing came from it for as long as processes wait for each other: it hangs" in errors
    assert "DLKIT_TIMEOUT=SECONDS in the environment of all processes makes the wait another one than 1.5 sec" in errors


def test_a_wait_that_is_no_time_is_refused(monkeypatch):
    for given in ("soon", "0", "-1", "nan", "1e9"):
        monkeypatch.setenv("DLKIT_TIMEOUT", given)
        with pytest.raises(ArgumentError, match=f"DLKIT_TIMEOUT must be a number of seconds .* not '{given}'"):
            patience()
    monkeypatch.setenv("DLKIT_TIMEOUT", " 90 ")
    assert patience() == 90


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"WORLD_SIZE": "2"}, "RANK, MASTER_ADDR, MASTER_PORT is not set; start the script with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "must be whole numbers"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK=2 of WORLD_SIZE=2 cannot be"),
    ],
)
def test_an_environment_that_cannot_be_meant(given, message, monkeypatch):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError, match=message):
        World.of_environment()


def test_shares_are_unbroken_and_all_of_it():
    for size in range(1, 7):
        for count in range(9):
            dealt = [place for rank in range(size) for place in World(rank, size).share(count)]
            assert dealt == list(range(count))


def test_alone_without_a_launcher():
    assert World.of_environment() == World(0, 1)


def test_a_loop_of_ones_own_is_told_where_all_processes_would_get_the_same(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.warns(UserWarning, match="each of the 2 processes gets all samples here"):
        assert len(list(DataLoader(range(8), 2))) == 4
    shared = DataLoader(range(8), batch_sampler=Share(Sequential(8, 2)))
    assert [batch.tolist() for batch in shared] == [[2, 3], [6, 7]]
