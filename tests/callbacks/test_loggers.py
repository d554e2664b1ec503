"""Logs, read back: whole after any number of restarts, without gaps and without doubles."""

from __future__ import annotations

import csv
import json
import math
import os
import resource
import shutil
import signal
import time
import warnings
from pathlib import Path

import pytest
from feeding import Feed
from hypothesis import given, settings
from hypothesis import strategies as st

import warm
from dlkit.callbacks import CSVLogger, JSONLinesLogger, MLflowLogger, TensorBoardLogger, WandbLogger
from dlkit.runs.checkpointfile import plain

NAN, INF = math.nan, math.inf


def read_csv(path: Path) -> list[dict[str, float]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def read_json_lines(path: Path) -> list[dict[str, float]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [{name: float(value) for name, value in json.loads(line).items()} for line in lines]


KINDS = {"csv": (CSVLogger, read_csv), "json": (JSONLinesLogger, read_json_lines)}


def same(rows, others) -> bool:
    return repr([dict(sorted(row.items())) for row in rows]) == repr(
        [dict(sorted((name, float(value)) for name, value in row.items())) for row in others]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_exactly(tmp_path, kind):
    make, read = KINDS[kind]
    path = tmp_path / "deep" / "in" / "log"
    feed = Feed(make(path)).start()([0.1 + 0.2, NAN, -INF, None, 1e-300])
    feed.step()
    feed.row(0.5, val_late=7.0)  # a column that comes up later
    feed([None, 2.0])
    assert same(read(path), feed.run.history.rows)
    assert len(read(path)) == 8


@settings(max_examples=40)
@given(
    values=st.lists(st.one_of(st.floats(allow_nan=True), st.none()), max_size=10),
    restarts=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10), st.booleans()), max_size=3),
    kind=st.sampled_from(sorted(KINDS)),
)
def test_killed_and_resumed_anywhere(tmp_path_factory, values, restarts, kind):
    """Each restart is killed at one place, perhaps inside a line, and goes on from an earlier save."""
    make, read = KINDS[kind]
    path = tmp_path_factory.mktemp("log") / "log"
    feed = Feed(make(path)).start()
    state = plain(feed.state())
    for killed, saved, torn in restarts:
        feed(values[feed.run.step : min(saved, killed)])
        state = plain({**feed.state(), "history": list(feed.run.history.rows)})
        feed(values[feed.run.step : killed])
        if torn:
            with open(path, "ab") as file:
                file.write(b'3,0.25,"')
        feed = Feed(make(path)).resume(state).start()
    feed(values[feed.run.step :])
    assert same(read(path), feed.run.history.rows)
    assert [row["step"] for row in read(path)] == list(range(1, len(values) + 1))
    shutil.rmtree(path.parent)


CHILD = """
import os, signal, sys
import torch
from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint, CSVLogger, JSONLinesLogger

class Kill(Callback):
    def on_log(self, run, row):
        if run.step == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)

folder = sys.argv[2]
torch.manual_seed(0)
model = torch.nn.Linear(2, 1)
batches = [(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(4)]
callbacks = [
    CSVLogger(folder + "/log.csv"), JSONLinesLogger(folder + "/log.jsonl"), Kill(),
    Checkpoint(folder, every="3 steps"),
]
optimizer = torch.optim.SGD(model.parameters(), 0.1)
trainer = Trainer(model, torch.nn.MSELoss(), optimizer, callbacks=callbacks, progress=False)
trainer.fit(batches, batches, epochs=3, validate_every="2 steps")
"""


def test_a_process_that_is_really_killed(tmp_path):
    for step in (8, 0):
        done = warm.run(["-c", CHILD, step, tmp_path])
        assert done.returncode == (-signal.SIGKILL if step else 0), done.stderr
        if step:
            assert read_csv(tmp_path / "log.csv")[-1]["step"] == step
    rows = read_csv(tmp_path / "log.csv")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert rows == read_json_lines(tmp_path / "log.jsonl")


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_that_cannot_be_written_is_told_and_made_good_later(tmp_path, kind):
    make, read = KINDS[kind]
    path = tmp_path / "log"
    feed = Feed(make(path)).start()([1, 2])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + 9, limits[1]))  # the kernel refuses more
    try:
        with pytest.warns(UserWarning, match=r"could not log to .*log: .*File too large; the next row includes"):
            feed([3])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    feed([4])
    assert same(read(path), feed.run.history.rows)
    path.unlink()
    with pytest.warns(UserWarning, match="No such file"):
        feed([5])
    feed([6])
    assert same(read(path), feed.run.history.rows)


@pytest.mark.parametrize("make", [CSVLogger, JSONLinesLogger, TensorBoardLogger])
def test_a_dry_run_writes_nothing(tmp_path, make):
    feed = Feed(make(tmp_path / "log"))
    feed.run.write_files = False
    feed.start()([1, 2]).end()
    assert list(tmp_path.iterdir()) == []


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard(tmp_path):
    feed = Feed(TensorBoardLogger(tmp_path)).start()([0.5, None, 0.25]).end()
    found = scalars(tmp_path)
    assert found["val_loss"] == [(1, 0.5), (3, 0.25)]
    assert sorted(found) == ["epoch", "lr", "train_loss", "val_loss"]
    assert [step for step, _ in found["train_loss"]] == [row["step"] for row in feed.run.history.rows]


@pytest.mark.parametrize("saved", [0, 2])
def test_tensorboard_killed_and_resumed(tmp_path, saved):
    """Also where the process was killed before it saved anything."""
    first = Feed(TensorBoardLogger(tmp_path)).start()([9, 8][:saved])
    state = plain({**first.state(), "history": list(first.run.history.rows)})
    first([7, 6, 5][: 5 - saved])
    Feed(TensorBoardLogger(tmp_path)).resume(state).start()([1, 2, 3]).end()
    kept = [(step, float(value)) for step, value in enumerate([9, 8][:saved], 1)]
    assert scalars(tmp_path)["val_loss"] == [*kept, *((saved + n, float(n)) for n in (1, 2, 3))]
    first.end()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """MLflow's own kind of place, which takes seconds to make."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("DO_NOT_TRACK", "true")
        patch.chdir(tmp_path_factory.mktemp("mlflow"))
        warnings.simplefilter("ignore")  # of its own dependencies
        pytest.importorskip("mlflow")
        pytest.importorskip("sqlalchemy")
        Feed(MLflowLogger("first", tracking_uri="sqlite:///mlflow.db")).start()
        yield Path("mlflow.db").absolute()


def test_mlflow(database):
    from mlflow import MlflowClient

    def logger() -> MLflowLogger:
        return MLflowLogger("ants", tracking_uri=f"sqlite:///{database}")

    first = Feed(logger()).start()([9, 8])
    state = plain({**first.state(), "history": list(first.run.history.rows)})
    first([7, NAN])  # lost in a kill
    second = Feed(logger()).resume(state).start()([7, NAN, 5])
    second.run.request_stop("completed 5 epochs", final=True)
    second.end()
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    ants = [client.get_experiment_by_name("ants").experiment_id]
    (run,) = client.search_runs(ants)
    assert run.info.status == "FINISHED"
    logged = sorted(
        (metric.step, str(metric.value)) for metric in client.get_metric_history(run.info.run_id, "val_loss")
    )
    assert logged == [(1, "9.0"), (2, "8.0"), (3, "7.0"), (4, "nan"), (5, "5.0")]
    assert {"train_loss", "epoch", "lr", "val_loss"} == set(run.data.metrics)
    Feed(logger()).start()([1]).end()  # a run of its own in the same experiment
    assert len(client.search_runs(ants)) == 2


def test_mlflow_that_is_away_is_told_and_gets_everything_later(database):
    from mlflow import MlflowClient

    feed = Feed(MLflowLogger("away", tracking_uri=f"sqlite:///{database}")).start()([1, 2])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # the kernel lets nobody write there
    try:
        with pytest.warns(UserWarning, match="could not log to MLflow"):
            feed([3])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    feed([4])
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    logged = client.get_metric_history(feed.state()["callbacks"][0]["run_id"], "val_loss")
    assert sorted((metric.step, metric.value) for metric in logged) == [(1, 1), (2, 2), (3, 3), (4, 4)]


def wandb_rows(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """The history in the offline files: LevelDB's log format after seven bytes, with a protocol buffer per record."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, place, part = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if (left := 32768 - place % 32768) < 7:
                place += left
                continue
            size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
            part += data[place + 7 : place + 7 + size]
            place += 7 + size
            if kind in (1, 4):
                record = Record.FromString(part)
                part = b""
                if record.HasField("history"):
                    items = {(i.key or i.nested_key[0]): float(i.value_json) for i in record.history.item}
                    rows.append((record.history.step.num, items))
    return rows


def test_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("wandb")
    first = Feed(WandbLogger("ants", dir=tmp_path)).start()([9, 8]).end()
    state = plain(first.state())
    time.sleep(1.1)  # wandb names folders by the second, and mixes up two of one name
    second = Feed(WandbLogger("ants", dir=tmp_path)).resume(state).start()([7, NAN]).end()
    assert second.state()["callbacks"] == state["callbacks"]
    rows = wandb_rows(tmp_path)
    assert [(step, str(row["val_loss"])) for step, row in rows] == [(1, "9.0"), (2, "8.0"), (3, "7.0"), (4, "nan")]
    assert all({"epoch", "lr", "train_loss"} <= set(row) for _, row in rows)
    names = {path.name.rpartition("-")[2] for path in tmp_path.glob("wandb/offline-run-*")}
    assert names == {state["callbacks"][0]["run_id"]}
