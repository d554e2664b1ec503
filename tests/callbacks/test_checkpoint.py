"""Which files `Checkpoint` keeps, and that its best is everybody's best; fed with a plain list of values."""

from __future__ import annotations

import math
import resource
import shutil
from pathlib import Path

import pytest
import torch
from feeding import Feed, new_run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dlkit.callbacks import EMA, Checkpoint, EarlyStopping, LearningRate
from dlkit.errors import ArgumentError
from dlkit.runs.checkpointfile import CheckpointWarning, load_checkpoint

NAN = math.nan


@pytest.fixture(autouse=True)
def unlocked():
    """A test that fails in its middle must not leave a lock behind that shadows its message."""
    yield
    while LOCKED:
        LOCKED.pop().unlock()


LOCKED: list = []


def feed(folder: Path, *others, monitor="val_loss", rows_per_epoch=1, run=None, **options) -> Feed:
    """Checkpoint beside other callbacks, resumed from the folder where there is something in it."""
    checkpoint = Checkpoint(folder, monitor, **{"background": False, **options})
    checkpoint.store.lock()
    LOCKED.append(checkpoint.store)
    made = Feed(checkpoint, *others, run=run, monitor=monitor, rows_per_epoch=rows_per_epoch)
    state = next((state for _, state in checkpoint.store.loadable()), None)
    if state is not None:
        made.resume(state)
    return made.start()


def checkpoint_of(made: Feed) -> Checkpoint:
    return next(callback for callback in made.callbacks if isinstance(callback, Checkpoint))


def leave(made: Feed) -> Checkpoint:
    """The end of the process: the hooks and the lock."""
    made.end()
    checkpoint_of(made).store.unlock()
    return checkpoint_of(made)


def weight(path: Path | None) -> float:
    """The weights in a file, which the feed sets to the number of the step."""
    assert path is not None
    return float(load_checkpoint(path)["model"]["weight"][0, 0])


def weight_now(made: Feed) -> float:
    return float(made.run.model.weight.detach()[0, 0])


def files(folder: Path) -> list[int]:
    return sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("checkpoint-*.pt"))


@pytest.mark.parametrize("background", [True, False])
def test_the_newest_two_and_the_best_stay(tmp_path, background):
    made = feed(tmp_path, background=background)([3, 1, 2, 5, 4])
    checkpoint = checkpoint_of(made)
    assert weight(checkpoint.best) == 2
    assert weight(checkpoint.last) == 5
    assert files(tmp_path) == [2, 4, 5]
    assert weight_now(made) == 5
    leave(made)
    assert weight_now(made) == 2  # the best weights are back


def test_numbers_of_files(tmp_path):
    checkpoint = leave(feed(tmp_path / "a", keep_best=3, keep_last=1)([3, 1, 2, 5, 1, 4, 0.5]))
    assert [entry.value for entry in checkpoint.store.best_entries(9)] == [0.5, 1, 1]
    assert files(tmp_path / "a") == [2, 5, 7]
    made = feed(tmp_path / "b", keep_best=0, keep_last=1)([3, 1, 2])
    assert leave(made).best is None
    assert files(tmp_path / "b") == [3]
    assert weight_now(made) == 3


def test_the_best_of_equals_is_the_first(tmp_path):
    assert weight(leave(feed(tmp_path)([2, 1, 1, 1])).best) == 2


def test_higher_is_better_where_the_metric_says_so(tmp_path):
    assert weight(leave(feed(tmp_path / "a", monitor="val_accuracy")([0.1, 0.9, 0.5])).best) == 2
    assert weight(leave(feed(tmp_path / "b", monitor="val_odd", mode="max")([1, 3, 2])).best) == 2


def test_restore_best_can_be_left_out(tmp_path):
    made = feed(tmp_path, restore_best=False)([1, 2, 3])
    leave(made)
    assert weight_now(made) == 3


def test_no_number_is_never_the_best(tmp_path):
    made = feed(tmp_path)([NAN, NAN])
    assert checkpoint_of(made).best is None
    made([math.inf, 7.0, NAN, -math.inf, NAN])
    assert weight(leave(made).best) == 6


def test_an_improvement_is_saved_between_the_regular_saves_and_counts_as_no_regular_one(tmp_path):
    made = feed(tmp_path, every="4 steps", rows_per_epoch=100)([9, 8, 7, 9, 9, 6, 9])
    assert files(tmp_path) == [4, 6]
    made([9])
    assert files(tmp_path) == [4, 6, 8]
    made([9, 9, 9, 9])
    assert files(tmp_path) == [6, 8, 12]
    leave(made)


def test_by_epochs(tmp_path):
    made = feed(tmp_path, every="2 epochs", rows_per_epoch=2, keep_last=9, keep_best=0)([1] * 9)
    leave(made)
    assert files(tmp_path) == [4, 8]


def test_by_time(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    made = feed(tmp_path, every="10 min", keep_last=9, keep_best=0)
    for _ in range(9):
        made([1])
        clock[0] += 250
    assert files(tmp_path) == [4, 7]
    leave(made)


def test_a_stop_saves_once_more_and_only_once(tmp_path):
    made = feed(tmp_path, every="1000 steps", rows_per_epoch=100)([3, 2, 2.5])
    assert files(tmp_path) == [2]
    made.run.request_stop("enough")
    made.safe_point()
    made.safe_point()
    leave(made)
    assert files(tmp_path) == [2, 3]
    assert len(list(tmp_path.glob("*.pt"))) == 2


def test_nothing_is_saved_before_the_first_step(tmp_path):
    """A script that fails on its first batch is corrected, and must not find a run that it no longer fits."""
    made = feed(tmp_path)
    made.run.request_stop("DataError: the loader yielded no batch")
    made.safe_point()
    leave(made)
    assert list(tmp_path.glob("*.pt")) == []


def test_nothing_is_saved_by_a_callback_that_was_not_started(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    made = Feed(checkpoint)
    made.run.request_stop("ArgumentError: nothing measures 'val_loss'")
    made.safe_point()
    assert list(tmp_path.glob("*.pt")) == []


def test_spoilt_weights_are_never_saved(tmp_path):
    made = feed(tmp_path, every="1 steps", rows_per_epoch=100)([3, 2])
    made.step()
    made.run.request_stop("the loss became nan", keep_state=False)
    made.row(1.0)
    made.safe_point()
    leave(made)
    assert files(tmp_path) == [1, 2]
    assert weight_now(made) == 2


def test_the_last_good_weights_come_back_where_there_is_no_best(tmp_path):
    run = new_run()
    run.directions = {"train_loss": False}
    made = feed(tmp_path, run=run)([None, None])
    made.step()
    made.run.request_stop("the loss became nan", keep_state=False)
    leave(made)
    assert weight_now(made) == 2


def test_a_dry_run_writes_nothing(tmp_path):
    made = feed(tmp_path / "run")
    made.run.write_files = False
    made([1, 2])
    leave(made)
    assert files(tmp_path / "run") == []


def test_the_best_comes_back_after_a_restart_too(tmp_path):
    leave(feed(tmp_path)([3, 1, 2]))
    made = feed(tmp_path)
    assert made.run.step == 3
    made([4, 5, 6])
    leave(made)
    assert files(tmp_path) == [2, 5, 6]
    assert weight_now(made) == 2


def test_a_damaged_best_is_told_and_the_next_best_comes_back(tmp_path):
    made = feed(tmp_path, keep_best=2)([1, 3, 2, 9])
    best = checkpoint_of(made).best
    with open(best, "r+b") as file:
        file.seek(200)
        file.write(b"damage")
    with pytest.warns(CheckpointWarning, match="could not restore the best weights: .*checksum does not match"):
        leave(made)
    assert weight_now(made) == 3


def test_a_file_that_cannot_be_written_is_told_and_training_goes_on(tmp_path):
    made = feed(tmp_path)([2, 1])
    good = checkpoint_of(made).last
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))  # no file may become larger: the kernel refuses
    try:
        with pytest.warns(CheckpointWarning, match="File too large.* is still good; training continues"):
            made([3])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint_of(made).last == good
    assert list(tmp_path.glob(".*.tmp")) == []
    made([4])
    assert weight(leave(made).last) == 4


def test_the_average_is_what_comes_back_and_what_later_evaluations_use(tmp_path):
    made = feed(tmp_path, EMA(0.5))([3, 1, 2])
    average = [1.0, 1.5, 2.25]  # of the weights 1, 2, 3
    assert float(made.run.eval_model.weight.detach()[0, 0]) == average[2]
    leave(made)
    assert weight_now(made) == average[1]
    assert float(made.run.eval_model.weight.detach()[0, 0]) == average[1]


VALUES = st.lists(st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 1.0, NAN, math.inf]), st.none()), max_size=14)


@settings(max_examples=40)
@given(
    values=VALUES,
    cuts=st.lists(st.integers(0, 14), max_size=2),
    patience=st.integers(1, 4),
    min_delta=st.sampled_from([0.0, 1.0]),
    every=st.sampled_from(["epoch", "1 steps", "3 steps", "1000 steps"]),
    rows_per_epoch=st.integers(1, 4),
    keep_best=st.integers(1, 2),
)
def test_best_file_history_early_stopping_and_plateau_agree(
    tmp_path_factory, values, cuts, patience, min_delta, every, rows_per_epoch, keep_best
):
    """Wherever the validations fall, whatever is no number, and after any restarts from any checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    ends = [*sorted(cuts), len(values)]
    for end in ends:
        stopping = EarlyStopping(patience=patience, min_delta=min_delta)
        run = new_run()
        plateau = ReduceLROnPlateau(run.optimizer, threshold=0.0, threshold_mode="abs")
        made = feed(
            folder,
            stopping,
            LearningRate(plateau),
            run=run,
            every=every,
            rows_per_epoch=rows_per_epoch,
            keep_best=keep_best,
        )
        if not made.run.cursor.finished:
            made(values[made.run.step : max(end, made.run.step)])
        checkpoint = leave(made)  # as if killed: what was done since the last save is lost
    numbers = [
        (row["val_loss"], row["step"]) for row in made.run.history.rows if not math.isnan(row.get("val_loss", NAN))
    ]
    best = checkpoint.store.best_entries(keep_best)
    expected = sorted(numbers)[:keep_best]
    assert [(entry.value, entry.step) for entry in best] == expected
    assert stopping.best == (expected[0][0] if expected else None)
    assert plateau.best == (expected[0][0] if expected else math.inf)
    for entry in best:
        state = load_checkpoint(folder / entry.file)
        assert weight(folder / entry.file) == entry.step == state["history"][-1]["step"]
        assert state["history"][-1]["val_loss"] == entry.value
    shutil.rmtree(folder)


def test_what_cannot_be_meant_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="keep_last must be a whole number of at least 1, not 0"):
        Checkpoint(tmp_path, keep_last=0)
    with pytest.raises(ArgumentError, match="'sometimes' is not an interval"):
        Checkpoint(tmp_path, every="sometimes")
    with pytest.raises(ArgumentError, match="nothing measures 'val_acc'"):
        Feed(Checkpoint(tmp_path, "val_acc")).start()
    with pytest.raises(ArgumentError, match="'val_odd' does not say whether more is better"):
        Feed(Checkpoint(tmp_path, "val_odd")).start()


def test_a_name_that_nothing_measures_is_told(tmp_path):
    made = Feed(Checkpoint(tmp_path, "val_acc", mode="max", background=False)).start()
    with pytest.warns(
        UserWarning, match="Checkpoint looks at 'val_acc', which the validation did not measure: val_loss"
    ):
        made([1, 2])


def test_without_validation_data_only_the_last_is_kept(tmp_path):
    checkpoint = Checkpoint(tmp_path, background=False)
    run = new_run()
    run.directions = {"train_loss": False}
    made = Feed(checkpoint, run=run).start()([None, None, None]).end()
    assert files(tmp_path) == [2, 3]
    assert weight_now(made) == 3
    assert torch.equal(run.eval_model.weight, run.model.weight)
