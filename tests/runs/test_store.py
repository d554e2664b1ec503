"""Checkpoint files under hostile conditions: damage, full disks, lost rights, other processes, foreign pickles."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import warm
from disks import as_nobody, open_folder, small_disk
from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint
from dlkit.errors import CheckpointError, DamagedCheckpointError, ResumeError, RunLockedError
from dlkit.runs.checkpointfile import CheckpointWarning, load_checkpoint, plain, save_checkpoint
from dlkit.runs.snapshot import Snapshot
from dlkit.runs.store import CheckpointStore

STATE = {"weights": torch.arange(1000.0), "step": 7, "nested": {"rates": [0.1, (1, None)], "name": "a"}}


def save(store: CheckpointStore, step: int, value: float | None = None, **more) -> Path:
    return store.save({"step": step, "weights": torch.arange(1000.0)}, step=step, epoch=0, value=value, **more)


def test_what_is_saved_comes_back_and_torch_reads_it_too(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(STATE, path)
    for state in (load_checkpoint(path), torch.load(path, weights_only=True)):
        assert torch.equal(state["weights"], STATE["weights"])
        assert state["nested"] == STATE["nested"]


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -48, -49])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "a.pt"
    save_checkpoint(STATE, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedCheckpointError, match=r"a\.pt"):
        load_checkpoint(path)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("flip") / "a.pt"
    save_checkpoint(STATE, path)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(DamagedCheckpointError):
        load_checkpoint(path)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("sealed", [True, False], ids=["with a fitting checksum", "bare"])
def test_a_hostile_pickle_is_refused_and_not_executed(tmp_path, sealed):
    import hashlib

    path, trace = tmp_path / "a.pt", tmp_path / "executed"
    torch.save({"model": Hostile(trace)}, path)
    if sealed:
        data = path.read_bytes()
        path.write_bytes(data + b"dlkit-sha256-v1:" + hashlib.sha256(data).digest())
    with pytest.raises(DamagedCheckpointError):
        load_checkpoint(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the file would do harm: this test can fail
    assert trace.exists()


def test_only_plain_data_is_saved_and_the_error_names_the_key(tmp_path):
    with pytest.raises(CheckpointError, match=r"state\['callbacks'\]\['Mine'\]\[0\] is a .*Path|Hostile"):
        save_checkpoint({"callbacks": {"Mine": [Hostile(tmp_path)]}}, tmp_path / "a.pt")
    assert list(tmp_path.iterdir()) == []
    assert plain({"a": np.float64(2.5), "b": np.int64(3), "c": {1, 2}}) == {"a": 2.5, "b": 3, "c": {1, 2}}


def test_no_such_file(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint file at"):
        load_checkpoint(tmp_path / "a.pt")


def test_last_and_best_are_names_in_an_index(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=2)
    for step, value in enumerate([5.0, 1.0, 3.0, 2.0, float("nan"), 4.0], 1):
        save(store, step, value)
    assert load_checkpoint(store.best)["step"] == 2
    assert load_checkpoint(store.last)["step"] == 6
    kept = sorted(int(path.stem[-8:]) for path in tmp_path.glob("*.pt"))
    assert kept == [2, 4, 5, 6]
    again = CheckpointStore(tmp_path, keep_best=2)
    assert (again.best, again.last) == (store.best, store.last)


def test_the_direction_of_best(tmp_path):
    store = CheckpointStore(tmp_path, higher_is_better=True, keep_last=1)
    for step, value in enumerate([0.5, 0.9, 0.9, 0.1], 1):
        save(store, step, value)
    assert load_checkpoint(store.best)["step"] == 2, "the earliest of equals"


@settings(max_examples=25)  # each example writes and syncs a dozen files
@given(values=st.lists(st.one_of(st.none(), st.floats(allow_nan=True)), min_size=1, max_size=12), higher=st.booleans())
def test_the_best_is_never_thrown_away(tmp_path_factory, values, higher):
    store = CheckpointStore(tmp_path_factory.mktemp("best"), keep_last=1, higher_is_better=higher)
    for step, value in enumerate(values):
        store.save({"step": step}, step=step, epoch=0, value=value)
    numbers = [value for value in values if value is not None and value == value]
    if numbers:
        best = max(numbers) if higher else min(numbers)
        assert load_checkpoint(store.best)["step"] == values.index(best)
    assert load_checkpoint(store.last)["step"] == len(values) - 1


def test_a_damaged_newest_file_falls_back_to_the_one_before(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    newest = save(store, 2)
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(CheckpointWarning, match=f"{newest.name}.*trying the previous one"):
        entry, state = next(iter(store.loadable()))
    assert entry.step == state["step"] == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"checkpoints": [{"file": "../../secret"}]}', b"\xff\xfe"])
def test_a_damaged_index_is_rebuilt_from_the_names(tmp_path, content):
    save(CheckpointStore(tmp_path), 3)
    (tmp_path / "index.json").write_bytes(content)
    with pytest.warns(CheckpointWarning, match="index"):
        store = CheckpointStore(tmp_path)
    assert load_checkpoint(store.last)["step"] == 3


def test_a_hostile_index_cannot_reach_out_of_the_folder(tmp_path):
    victim = tmp_path / "victim.pt"
    victim.write_text("precious")
    folder = tmp_path / "run"
    store = CheckpointStore(folder, keep_last=1)
    save(store, 1)
    index = json.loads((folder / "index.json").read_text())
    index["checkpoints"][0]["file"] = "../victim.pt"
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.warns(CheckpointWarning):
        store = CheckpointStore(folder, keep_last=1)
    save(store, 2)
    save(store, 3)
    assert victim.read_text() == "precious"


def test_what_a_killed_process_left_is_cleaned_up_and_nothing_else(tmp_path):
    store = CheckpointStore(tmp_path)
    good = save(store, 1)
    (tmp_path / ".checkpoint-000002-step-00000002.pt.x.tmp").write_bytes(b"half")
    (tmp_path / "checkpoint-000002-step-00000002.pt").write_bytes(b"never acknowledged")
    (tmp_path / "notes.txt").write_text("mine")
    store.lock()
    store.unlock()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", good.name, "index.json", "notes.txt"]


def test_files_whose_index_is_gone_are_not_taken_for_rubbish(tmp_path):
    good = save(CheckpointStore(tmp_path), 4)
    (tmp_path / "index.json").unlink()
    store = CheckpointStore(tmp_path)
    store.lock()
    store.unlock()
    assert store.last == good
    assert good.exists()


def test_an_older_file_goes_only_after_the_newer_one_and_the_index_are_safe(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep_last=1)
    first = save(store, 1)
    monkeypatch.setattr(store, "_write_index", lambda entries: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        save(store, 2)
    assert first.exists()
    assert CheckpointStore(tmp_path).last == first


def test_starting_anew_moves_the_old_files(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    target = store.archive()
    assert target == tmp_path / "earlier-1"
    assert CheckpointStore(target).last is not None
    assert store.last is None
    save(store, 2)
    assert store.archive() == tmp_path / "earlier-2"
    assert store.archive() is None


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    until = tmp_path / "until"
    until.touch()
    holder = warm.Program(["-c", _HOLD, tmp_path, until])
    assert holder.stdout.readline() == "locked\n"
    store = CheckpointStore(tmp_path)
    with pytest.raises(RunLockedError, match="another process is training in"):
        store.lock()
    with pytest.raises(RunLockedError):
        trainer(tmp_path).fit(loader())
    holder.kill()
    holder.wait()
    store.lock()  # a killed process leaves no lock behind
    with pytest.raises(RunLockedError):
        CheckpointStore(tmp_path).lock()  # nor may two in one process
    store.unlock()
    until.unlink()
    holder.communicate()


_HOLD = """
import os, sys, time
from dlkit.runs.store import CheckpointStore
store = CheckpointStore(sys.argv[1])
store.lock()
parent = os.fork()  # the child is like a DataLoader worker that outlives its parent
if parent:
    print("locked", flush=True)
while os.path.exists(sys.argv[2]):
    time.sleep(0.01)
os._exit(0)
"""


def loader() -> DataLoader:
    torch.manual_seed(5)
    return DataLoader(TensorDataset(torch.randn(32, 4), torch.randint(0, 2, (32,))), 8, shuffle=True)


def trainer(folder: Path, width: int = 4, lr: float = 0.1, seed: int = 0, **saving) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))
    saver = Checkpoint(folder, **saving)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    loss = nn.CrossEntropyLoss()
    return Trainer(model, loss, optimizer, callbacks=[saver], seed=seed, progress=False, device="cpu")


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_is_said_loudly_and_training_goes_on(tmp_path, background):
    folder = tmp_path / "disk"
    with small_disk(folder, "96k"):
        wide = trainer(folder / "run", width=500, background=background, keep_last=3)
        with pytest.warns(
            CheckpointWarning, match=r"could not save .*No space left.*is still good; training continues"
        ):
            history = wide.fit(loader(), epochs=6)
        assert history["epoch"] == [1, 2, 3, 4, 5, 6]
        store = CheckpointStore(folder / "run")
        assert store.entries
        for entry in store.entries:
            load_checkpoint(store.folder / entry.file)
        assert not list((folder / "run").glob(".*.tmp"))


def test_a_disk_that_is_too_small_for_any_checkpoint(tmp_path):
    """What `torch.save` makes of it is a RuntimeError, which ended the training."""
    folder = tmp_path / "disk"
    with small_disk(folder, "96k"):
        wide = trainer(folder / "run", width=20_000)
        full = r"could not save .*No space left.*there is no older one; training continues"
        with pytest.warns(CheckpointWarning, match=full):
            assert wide.fit(loader(), epochs=2)["epoch"] == [1, 2]
        assert not list((folder / "run").glob("*.tmp"))


def test_a_quota_is_said_loudly_and_training_goes_on(tmp_path, monkeypatch):
    """What a file system with quotas answers, often only when a file is synced; few kernels let a test have one."""
    real, full = os.fsync, False

    def fsync(descriptor):
        if full:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        real(descriptor)

    class Fill(Callback):
        def on_epoch_start(self, run):
            nonlocal full
            full = run.epoch in (1, 2)

    monkeypatch.setattr(os, "fsync", fsync)
    made = trainer(tmp_path / "run", background=False)
    made.callbacks.append(Fill())
    quota = r"could not save .*[Qq]uota exceeded.* is still good; training continues"
    with pytest.warns(CheckpointWarning, match=quota):
        assert made.fit(loader(), epochs=4)["epoch"] == [1, 2, 3, 4]
    assert not list((tmp_path / "run").glob(".*.tmp"))
    store = CheckpointStore(tmp_path / "run")
    assert [load_checkpoint(store.folder / entry.file)["cursor"]["step"] for entry in store.entries] == [4, 16]


def test_rights_that_are_taken_away_in_the_middle():
    class TakeAway(Callback):
        def on_epoch_start(self, run):
            if run.epoch == 1:
                made.callbacks[0].dir.chmod(0o500)

    with open_folder() as folder:
        folder.chmod(0o777)
        with as_nobody():
            made = trainer(folder / "run", background=False)
            made.callbacks.append(TakeAway())
            denied = r"could not save .*Permission denied.* is still good; training continues"
            with pytest.warns(CheckpointWarning, match=denied):
                assert made.fit(loader(), epochs=3)["epoch"] == [1, 2, 3]
            (folder / "run").chmod(0o700)
            assert trainer(folder / "run").fit(loader(), epochs=3)["epoch"] == [1, 2, 3]


def test_a_lost_permission_is_said_loudly_and_training_goes_on(tmp_path):
    blocked = tmp_path / "file"
    run = trainer(tmp_path / "run")
    run.fit(loader(), loader(), epochs=1)
    kept = run.callbacks[0].last
    (tmp_path / "run").rename(blocked)
    run = trainer(tmp_path / "run")

    class Block(type(run.callbacks[0]).__base__):
        def on_epoch_start(self, _):
            (tmp_path / "run").rename(tmp_path / "gone")
            (tmp_path / "run").write_text("a file where the folder was")

    run.callbacks.append(Block())
    with pytest.warns(CheckpointWarning, match="could not save a checkpoint"):
        run.fit(loader(), epochs=1)
    assert (blocked / kept.name).exists()


FILES = {
    "PDF": (b"%PDF-1.7 ...", r"is a PDF document, not a checkpoint of dlkit; export"),
    "page": (b"<!doctype html><html>", r"is an HTML page, not a checkpoint of dlkit; perhaps the answer of a server"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", r"is a Git LFS pointer, .*'git lfs pull'"),
    "safetensors": (b"\x02" + bytes(7) + b"{}" + bytes(50), r"is a safetensors file, not a checkpoint of dlkit"),
    "pickle": (b"\x80\x04" + bytes(60), r"is a Python pickle, not a checkpoint of dlkit; dlkit reads none"),
    "PyTorch": (None, r"is truncated, or was not written by dlkit: .*dlkit\.transfer\.load_weights"),
    "text": (b"epoch,loss\n", r"is truncated, or was not written by dlkit"),
}


@pytest.mark.parametrize("kind", FILES)
def test_another_kind_of_file_is_said_to_be_what_it_is(tmp_path, kind):
    path, (content, message) = tmp_path / "checkpoint.pt", FILES[kind]
    if content is None:
        torch.save({"a": torch.ones(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=rf"checkpoint\.pt {message}"):
        load_checkpoint(path)


def test_a_run_that_no_longer_fits_is_refused_with_each_difference(tmp_path):
    trainer(tmp_path).fit(loader(), epochs=1)
    with pytest.raises(ResumeError, match=r"model, 0\.weight: saved \[4, 4\], now \[5, 4\]"):
        trainer(tmp_path, width=5).fit(loader(), epochs=2)
    data = TensorDataset(torch.randn(40, 4), torch.randint(0, 2, (40,)))
    with pytest.raises(ResumeError, match="data, samples: saved 32, now 40") as caught:
        trainer(tmp_path).fit(DataLoader(data, 5), epochs=2)
    assert "data, batch size: saved 8, now 5" in str(caught.value)
    other = trainer(tmp_path)
    other.run.optimizers = {"optimizer": torch.optim.Adam(other.model.parameters())}
    with pytest.raises(ResumeError, match="optimizer: saved SGD, now Adam"):
        other.fit(loader(), epochs=2)


def test_settings_that_may_differ_are_told_with_both_values(tmp_path, capsys):
    trainer(tmp_path).fit(loader(), epochs=1)
    other = trainer(tmp_path, lr=0.7, seed=9)
    other.run.verbose = True
    other.fit(loader(), epochs=2, resume=CheckpointStore(tmp_path).last)
    told = capsys.readouterr().err
    assert "resumed from" in told
    assert "lr: saved 0.1, this script says 0.7; the saved one holds" in told
    assert "seed: saved 0, this script says 9; the saved one holds" in told
    assert other.run.optimizer.param_groups[0]["lr"] == 0.1
    assert other.run.seed == 0


def test_a_finished_run_trains_no_epoch_and_says_how_to_start_anew(tmp_path, capsys):
    first = trainer(tmp_path)
    first.fit(loader(), epochs=2)
    again = trainer(tmp_path)
    again.run.verbose = True
    assert again.fit(loader(), epochs=2).rows == first.history.rows
    assert again.run.step == first.run.step
    assert "resume=False" in capsys.readouterr().err
    assert again.fit(loader(), epochs=3)["epoch"] == [1, 2, 3]
    fresh = trainer(tmp_path)
    assert fresh.fit(loader(), epochs=1, resume=False)["epoch"] == [1]
    assert CheckpointStore(tmp_path / "earlier-1").last is not None


def test_the_best_weights_come_back(tmp_path):
    class Spoil(Checkpoint.__mro__[1]):
        def on_step_end(self, run):
            if run.epoch == 2:
                with torch.no_grad():
                    for parameter in run.model.parameters():
                        parameter.mul_(30)

    run = trainer(tmp_path)
    run.callbacks.insert(0, Spoil())
    history = run.fit(loader(), loader(), epochs=3)
    best = min(history["val_loss"])
    assert history["val_loss"].index(best) < 2
    assert run.evaluate(loader())["loss"] == pytest.approx(best, rel=1e-6)


def test_a_copy_in_the_background_is_not_reached_by_training(tmp_path):
    snapshot, weight = Snapshot(), torch.zeros(3)
    tied = {"a": weight, "b": weight, "c": torch.zeros(3), "d": [weight[1:]]}
    copied = snapshot.take(tied)
    weight.add_(1)
    assert copied["a"].tolist() == [0, 0, 0]
    assert copied["a"] is copied["b"]
    assert copied["a"] is not copied["c"]
    first = copied["a"].data_ptr()
    assert snapshot.take(tied)["a"].data_ptr() == first, "its memory is used again"


# Read what the processes of a run send each other, in memory or in a temporary folder of the user's alone.
FROM_OURSELVES = {"launching.py", "training/dealing.py"}


def test_pickle_is_never_a_way_in():
    """`torch.load` without `weights_only=True`, and pickle itself, read nothing but what a run's own processes send."""
    source = Path(load_checkpoint.__code__.co_filename).parents[1]
    for path in source.rglob("*.py"):
        text = "\n".join(line for line in path.read_text().splitlines() if ">>>" not in line)
        assert "weights_only=False" not in text, path
        assert "pickle.load" not in text or path.relative_to(source).as_posix() in FROM_OURSELVES, path
        for call in text.split("torch.load(")[1:]:
            assert "weights_only=True" in call[:120] or call.startswith(("...", "`")), path
