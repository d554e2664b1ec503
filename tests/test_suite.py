"""The suite itself: the same result every time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

TESTS = Path(__file__).resolve().parent


def test_the_profiles_of_hypothesis_are_in_one_place() -> None:
    asked = ("load_profile", "register_profile", "deadline=", "derandomize")
    others = [path for path in TESTS.rglob("*.py") if path.name not in ("conftest.py", Path(__file__).name)]
    assert [f"{path.name}: {word}" for path in others for word in asked if word in path.read_text("utf-8")] == []


def test_make_test_draws_the_same_examples_every_time(request: pytest.FixtureRequest) -> None:
    drawn: list[int] = []

    @settings(settings.get_profile("ci"), max_examples=20)
    @given(st.integers())
    def draw(value: int) -> None:
        drawn.append(value)

    draw()
    first, drawn[:] = list(drawn), []
    draw()
    assert drawn == first
    asked = request.config.getoption("--hypothesis-profile")
    assert settings.get_current_profile_name() == (asked or "ci")
