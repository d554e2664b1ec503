"""Intervals and spans of time, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlkit.errors import ArgumentError
from dlkit.runs.every import Every, seconds


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [
        ("epoch", "epochs", 1),
        ("1 epoch", "epochs", 1),
        ("2 epochs", "epochs", 2),
        ("step", "steps", 1),
        ("500 steps", "steps", 500),
        (" 500steps ", "steps", 500),
        ("90 s", "seconds", 90),
        ("30 sec", "seconds", 30),
        ("1 second", "seconds", 1),
        ("2 seconds", "seconds", 2),
        ("10 min", "seconds", 600),
        ("10 mins", "seconds", 600),
        ("1.5 minutes", "seconds", 90),
        ("2 h", "seconds", 7200),
        ("1.5 hours", "seconds", 5400),
        ("hour", "seconds", 3600),
        ("2 days", "seconds", 172_800),
        ("1 d", "seconds", 86_400),
        ("0.5 s", "seconds", 0.5),
    ],
)
def test_read(text, unit, number):
    assert Every.parse(text) == Every(unit=unit, number=number)
    assert isinstance(Every.parse(text).number, type(number))
    assert Every.parse(Every.parse(text)) == Every.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "never",
        "0 steps",
        "-1 epochs",
        "1.5 epochs",
        "0 epochs",
        "0 min",
        "10",
        "min 10",
        "5 weeks",
        "epoch!",
        5,
        None,
    ],
)
def test_refused(text):
    with pytest.raises(
        ArgumentError, match="is not an interval; write 'epoch', '2 epochs', '500 steps', '10 min' or '2 h'"
    ):
        Every.parse(text)


@given(st.integers(1, 10**6), st.sampled_from(["epoch", "step", "min"]), st.booleans())
def test_any_number(number, unit, plural):
    every = Every.parse(f"{number} {unit}{'s' if plural else ''}")
    assert every.number == number * (60 if unit == "min" else 1)


@pytest.mark.parametrize(
    ("span", "expected"), [(5, 5.0), (0.25, 0.25), ("2 h", 7200.0), ("0.5 s", 0.5), ("90 s", 90.0)]
)
def test_seconds(span, expected):
    assert seconds(span) == expected


@pytest.mark.parametrize("span", ["2 epochs", "500 steps", 0, -3, float("nan"), float("inf"), "soon", None])
def test_no_seconds(span):
    with pytest.raises(ArgumentError, match=r"is not (a duration|an interval); write .*'10 min' or '2 h'"):
        seconds(span)
