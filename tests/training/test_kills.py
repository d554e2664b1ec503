"""Runs that are really killed, and signals that ask politely."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

import warm

HERE = Path(__file__).parent


def kill_matrix(kills: int) -> str:
    done = warm.run([HERE / "kill_matrix.py", kills], timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_few_kills_change_nothing():
    assert re.search(r"in all: 7 kills, .*: 0 differences, 0 unloadable files", kill_matrix(7))


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_a_hundred_and_forty_kills_change_nothing():
    assert "0 differences, 0 unloadable files" in kill_matrix(140).splitlines()[-1]


CHILD = """
import os, signal, sys
sys.path.insert(0, {here!r})
from cases import build
from dlkit.callbacks import Callback

class Send(Callback):
    def on_step_end(self, run):
        if run.step == 5:
            os.kill(os.getpid(), {number})

trainer, train, val = build({{"every": "1000 steps"}}, sys.argv[1])
trainer.callbacks.append(Send())
history = trainer.fit(train, val, epochs=2)
print("returned", trainer.run.stop_reason, trainer.run.step)
"""


@pytest.mark.parametrize(
    ("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGINT", 0)], ids=["SIGTERM", "SIGUSR1", "Ctrl-C"]
)
def test_a_signal_finishes_the_step_saves_and_leaves(tmp_path, name, code):
    script = CHILD.format(here=str(HERE), number=int(getattr(signal, name)))
    done = warm.run(["-c", script, tmp_path])
    assert done.returncode == code, done.stderr
    assert ("returned interrupted 5" in done.stdout) == (name == "SIGINT")
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint-000001-step-00000005.pt"]


def test_ctrl_c_in_a_validation_ends_it_and_the_resumed_run_starts_with_it(tmp_path):
    from cases import build, digest, fit

    from dlkit.callbacks import Callback

    class Interrupt(Callback):
        def on_validation_step(self, run, done, total):
            if run.step == 4 and done == 2:
                os.kill(os.getpid(), signal.SIGINT)

    case = {"validate_every": "4 steps", "scheduler": "plateau"}
    whole = fit(case, None)
    trainer, train, val = build(case, tmp_path)
    trainer.callbacks.append(Interrupt())
    history = trainer.fit(train, val, epochs=2, validate_every="4 steps")
    assert trainer.run.stop_reason == "interrupted"
    assert history.rows == []
    assert digest(fit(case, tmp_path)) == digest(whole)


def test_signal_handlers_are_put_back():
    from cases import fit

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    fit({"data": "tensor", "epochs": 1}, None)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
