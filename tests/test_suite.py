"""The suite itself: the same result every time."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import warm

TESTS = Path(__file__).resolve().parent


def test_the_profiles_of_hypothesis_are_in_one_place() -> None:
    asked = ("load_profile", "register_profile", "deadline=", "derandomize")
    others = [path for path in TESTS.rglob("*.py") if path.name not in ("conftest.py", Path(__file__).name)]
    assert [f"{path.name}: {word}" for path in others for word in asked if word in path.read_text("utf-8")] == []


def test_no_two_test_files_have_one_name() -> None:
    """Else pytest cannot collect the second."""
    counts = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in counts.items() if count > 1] == []


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


def test_everything_that_is_called_slow_is_there(request: pytest.FixtureRequest) -> None:
    conftest = request.config.pluginmanager.get_plugin(str(TESTS / "conftest.py"))
    assert conftest is not None
    for name in conftest.SLOW:
        file, _, single = name.partition("::")
        content = (TESTS / f"{file}.py").read_text("utf-8")
        assert f"def {single}" in content, f"{name} is listed as slow and not there"


LITTER = """
import os, subprocess, sys, tempfile
def test_that_leaves_much_behind(tmp_path):
    tempfile.mkdtemp()
    assert subprocess.run([sys.executable, "-c", "import tempfile; print(tempfile.mkdtemp())"]).returncode == 0
def test_that_fails(tmp_path):
    (tmp_path / "kept").touch()
    raise AssertionError
"""


@pytest.mark.parametrize("processes", [0, 1])
def test_nothing_of_a_run_is_left_but_the_folders_of_tests_that_failed(processes: int, tmp_path: Path) -> None:
    """Also nothing of one that was killed before."""
    (tmp_path / "test_litter.py").write_text(LITTER)
    shutil.copy(TESTS / "conftest.py", tmp_path)
    folder = tmp_path / "temporary"
    (folder / "dlkit-tests-4999999" / "left").mkdir(parents=True)  # a number that no process has
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", processes, "--rootdir", tmp_path]
    done = warm.run([*command, "test_litter.py"], cwd=tmp_path, env=environment | {"TMPDIR": str(folder)})
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    left = {path.name for path in folder.rglob("*") if not path.is_dir() and not path.is_symlink()} - {".lock"}
    assert left == {"kept"}
    assert not [path for path in folder.iterdir() if path.name.startswith(("tmp", "dlkit-tests"))]


class TestWarm:
    """Programs that are forked from a process which has imported torch behave as those that were not."""

    def test_arguments_folder_environment_and_exit_status(self, tmp_path: Path) -> None:
        code = "import os, sys; print(sys.argv, os.getcwd(), os.environ); print('no', file=sys.stderr); sys.exit(7)"
        done = warm.run(["-c", code, 1], cwd=tmp_path, env={"ONLY": "this"})
        assert done.stdout == f"['-c', '1'] {tmp_path} environ({{'ONLY': 'this'}})\n"
        assert (done.stderr, done.returncode) == ("no\n", 7)

    def test_errors_texts_and_modules(self, tmp_path: Path) -> None:
        assert warm.run(["-c", "raise SystemExit('words')"]).stderr == "words\n"
        failed = warm.run(["-c", "1 / 0"])
        assert failed.returncode == 1
        assert failed.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
        (tmp_path / "beside.py").write_text("print(__name__)")
        (tmp_path / "script.py").write_text("import beside, threading\nprint(__name__, threading.active_count())")
        assert warm.run([tmp_path / "script.py"]).stdout == "beside\n__main__ 1\n"
        assert warm.run(["-m", "beside"], cwd=tmp_path).stdout == "__main__\n"

    def test_signals(self) -> None:
        waits = "import time; print('here', flush=True); time.sleep(100)"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            program = warm.Program(["-c", waits])
            assert program.stdout.readline() == "here\n"
            assert program.poll() is None
            program.send_signal(number)
            _, said = program.communicate(timeout=60)
            assert program.returncode == -number
            assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)
