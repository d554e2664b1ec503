"""Early stopping, fed with a plain list of values."""

from __future__ import annotations

import math
import warnings

import pytest
from feeding import Feed, new_run
from hypothesis import given
from hypothesis import strategies as st

from dlkit.callbacks import EarlyStopping
from dlkit.errors import ArgumentError
from dlkit.runs.checkpointfile import load_checkpoint, save_checkpoint

NAN, INF = math.nan, math.inf


def stopped_at(values, *, monitor="val_loss", rows_per_epoch=1, **settings) -> int | None:
    """After how many rows early stopping ends a run with these values; None if it does not."""
    feed = Feed(EarlyStopping(monitor, **settings), monitor=monitor, rows_per_epoch=rows_per_epoch).start()(values)
    return len(feed.run.history.rows) if feed.run.stop_reason is not None else None


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        ([3, 2, 1, 0.5], {}, None),
        ([1, 2, 2, 2, 2], {}, 4),  # patience 3 by default
        ([1, 2, 2, 2, 2], {"patience": 1}, 2),
        ([1, 1, 1, 1], {"patience": 2}, 3),  # equal is no improvement
        ([1, 2, 0.9, 2, 2, 0.8], {"patience": 2}, 5),  # an improvement starts the patience anew
        ([1, 0.95, 0.89, 0.88, 0.87, 0.1], {"patience": 2, "min_delta": 0.1}, 5),  # steps add up against what counted
        ([1, 0.9], {"patience": 1, "min_delta": 0.1}, 2),  # larger than min_delta, not equal to it
        ([100, 95, 91, 90, 0.1], {"patience": 2, "min_delta": 0.1, "relative": True}, 3),
        ([100, 89, 81, 80.5, 75, 73, 1], {"patience": 2, "min_delta": 0.1, "relative": True}, 4),
        ([-1.0, -1.05, -1.08, -2], {"patience": 2, "min_delta": 0.1, "relative": True}, 3),  # of the size of the best
        ([1, 2, 2, 2, 2, 2, 2], {"patience": 2, "min_epochs": 6}, 6),
        ([1, 2, 2, 0.5, 0.6, 0.4], {"patience": 2, "min_epochs": 5}, None),
        ([5, 4, 3, 2.5], {"patience": 2, "baseline": 2.0}, 2),
        ([5, 1.9, 3, 3, 3], {"patience": 2, "baseline": 2.0}, 4),
        ([NAN, NAN, 1, NAN, NAN, 0.5], {"patience": 3}, None),
        ([1, NAN, NAN, NAN, 0.5], {"patience": 3}, 4),
        ([NAN, NAN, 0.5], {"patience": 2}, 2),
        ([INF, 1, 0.9, 0.8], {"patience": 1}, None),
        ([INF, 1, 0.9, 0.8], {"patience": 1, "relative": True}, None),
        ([INF, 9, 8], {"patience": 1, "relative": True, "min_delta": 0.01}, None),
        ([1, None, None, None, None, 2, 2, 2], {}, 8),  # rows without a validation do not count
    ],
)
def test_when_it_stops(values, settings, expected):
    assert stopped_at(values, **settings) == expected


def test_the_direction_comes_from_the_metric():
    rising = [0.1, 0.2, 0.3, 0.4]
    assert stopped_at(rising, monitor="val_accuracy", patience=1) is None
    assert stopped_at(rising[::-1], monitor="val_accuracy", patience=1) == 2
    assert stopped_at(rising, monitor="val_odd", mode="min", patience=1) == 2
    assert stopped_at(rising, monitor="val_odd", mode="max", patience=1) is None
    assert stopped_at([0.5, 0.55, 0.7], monitor="val_accuracy", patience=1, min_delta=0.1) == 2


def test_min_epochs_counts_finished_epochs_also_where_validations_fall_inside_them():
    assert stopped_at([1, 2, 2, 2, 2, 2, 2, 2, 2], patience=2, min_epochs=2, rows_per_epoch=4) == 8
    assert stopped_at([1, 2, 2, 2, 2, 2, 2, 2, 2], patience=2, min_epochs=0, rows_per_epoch=4) == 3
    assert stopped_at([1, 2, 2, 2, 2, 0.5, 2, 2, 2, 2], patience=3, min_epochs=1, rows_per_epoch=4) == 4


def test_the_reason_is_kept_and_the_run_is_finished():
    run = Feed(EarlyStopping(patience=2)).start()([1, 0.25, 2, 2, 2]).run
    assert run.stop_reason == "early stopping: val_loss did not improve in 2 validations (best 0.25)"
    assert run.cursor.finished == run.stop_reason
    run = Feed(EarlyStopping(patience=2)).start()([NAN, NAN]).run
    assert run.stop_reason == "early stopping: val_loss did not improve in 2 validations (no value was finite)"


def test_an_interrupted_run_is_finished_as_well_when_the_last_row_ended_it():
    """Else a Ctrl-C in the wrong moment would make the resumed run go on, and the numbers depend on it."""
    feed = Feed(EarlyStopping(patience=1)).start()([1])
    feed.step()
    feed.run.request_stop("interrupted")
    feed.row(2)
    assert feed.run.stop_reason == "interrupted"
    assert feed.run.cursor.finished.startswith("early stopping")


@given(
    values=st.lists(st.one_of(st.integers(0, 6).map(float), st.just(NAN), st.none()), min_size=1, max_size=12),
    cut=st.integers(0, 12),
    patience=st.integers(1, 3),
    min_delta=st.sampled_from([0.0, 1.0]),
    min_epochs=st.integers(0, 6),
    rows_per_epoch=st.integers(1, 3),
)
def test_resuming_anywhere_changes_nothing(
    tmp_path_factory, values, cut, patience, min_delta, min_epochs, rows_per_epoch
):
    def feed() -> Feed:
        stopping = EarlyStopping(patience=patience, min_delta=min_delta, min_epochs=min_epochs)
        return Feed(stopping, rows_per_epoch=rows_per_epoch)

    path = tmp_path_factory.mktemp("run") / "state.pt"
    whole = feed().start()(values)
    first = feed().start()(values[:cut])
    save_checkpoint(first.state(), path)
    second = feed().resume(load_checkpoint(path)).start()
    if not second.run.cursor.finished:
        second(values[cut:])
    assert second.run.cursor.finished == whole.run.cursor.finished
    assert repr(second.state()) == repr(whole.state())


@given(
    st.lists(st.one_of(st.floats(-10, 10), st.just(NAN)), min_size=1, max_size=20),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.5, 3.0]),
)
def test_its_best_is_the_best_of_the_history(values, patience, min_delta):
    stopping = EarlyStopping(patience=patience, min_delta=min_delta)
    run = Feed(stopping).start()(values).run
    numbers = [value for value in run.history["val_loss"] if not math.isnan(value)]
    assert stopping.best == (min(numbers) if numbers else None)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ArgumentError, match="patience must be a whole number of at least 1 validations, not 0"):
        EarlyStopping(patience=0)
    with pytest.raises(ArgumentError, match=r"min_delta is a size and cannot be negative: -0\.1"):
        EarlyStopping(min_delta=-0.1)
    with pytest.raises(ArgumentError, match=r"min_delta is a size .*: nan"):
        EarlyStopping(min_delta=NAN)
    with pytest.raises(ArgumentError, match="baseline must be a number, not nan"):
        EarlyStopping(baseline=NAN)
    with pytest.raises(ArgumentError, match="mode must be 'min', 'max' or None, not 'up'"):
        Feed(EarlyStopping(mode="up")).start()
    with pytest.raises(ArgumentError, match="nothing measures 'val_acc'; do you mean 'val_accuracy'"):
        Feed(EarlyStopping("val_acc")).start()
    with pytest.raises(ArgumentError, match="'val_odd' does not say whether more is better; pass mode='max' or"):
        Feed(EarlyStopping("val_odd")).start()


def test_a_name_that_nothing_measures_is_told_once_even_with_a_mode():
    feed = Feed(EarlyStopping("val_acc", mode="max"), run=new_run()).start()
    with pytest.warns(UserWarning, match=r"EarlyStopping looks at 'val_acc', which the validation .* val_loss") as told:
        feed([1, 2])
    assert len(told) == 1


def test_a_value_that_a_callback_logs_can_be_monitored():
    feed = Feed(EarlyStopping("bleu", mode="max", patience=2), monitor="bleu").start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(feed([0.1, 0.3, 0.2, 0.2, 0.9]).run.history.rows) == 4
