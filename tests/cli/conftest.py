"""`dlkit` in this process, for what needs no process of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from programs import Done

from dlkit.cli import app


@pytest.fixture
def dlkit(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`dlkit("train", "photos")` in this process."""

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            app([str(argument) for argument in arguments], prog_name="dlkit")
        out, err = capfd.readouterr()
        return Done(left.value.code if isinstance(left.value.code, int) else int(bool(left.value.code)), out, err)

    return run
