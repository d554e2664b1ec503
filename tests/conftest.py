"""What every test shares: fixed seeds, an own cache folder, and the way to the real data beside the project."""

from __future__ import annotations

import getpass
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

ROOT = Path(__file__).resolve().parent.parent

# Tests run side by side on few cores, where threads that wait for each other cost more than they bring.
torch.set_num_threads(1)

# The one place for Hypothesis. "ci" draws the same examples every time, so that unchanged code gives an unchanged
# result; "fuzz" (`make fuzz`) searches at random, and remembers what it found. No deadline: on a busy machine a first
# call may take a second, and what is too slow is for the benchmarks to say.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, derandomize=False, print_blob=True)
settings.load_profile("ci")
# By default Hypothesis keeps its findings in the current folder, and no test writes into the source tree.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / f"dlkit-hypothesis-{getpass.getuser()}")

_FOUND = """\
What `make fuzz` found becomes a test that `make test` runs every time. Above the test's @given stands
    @example(ARGUMENTS)    # from hypothesis import example; the arguments as Hypothesis printed them above
For a test that draws from st.data(), write a test of its own with the values that were drawn.
First make it fail with `make test`, then mend the code."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what to do with a finding of the random search."""
    if terminalreporter.stats.get("failed") and config.getoption("--hypothesis-profile") == "fuzz":
        terminalreporter.write_sep("=", "from a finding to a test")
        terminalreporter.write_line(_FOUND)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Every test starts from the same random state, alone or in any order."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the user's cache folder."""
    folder = tmp_path_factory.mktemp("dlkit-home")
    monkeypatch.setenv("DLKIT_HOME", str(folder))
    monkeypatch.delenv("DLKIT_OFFLINE", raising=False)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data: `DLKIT_TEST_DATA`, else `../shared/data` beside the project."""
    folder = Path(os.environ.get("DLKIT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real test data is not at {folder}; set DLKIT_TEST_DATA to the folder that has it")
    return folder
