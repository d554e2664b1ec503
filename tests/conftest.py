"""What every test shares: fixed seeds, an own cache folder, and the way to the real data beside the project."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# Tests run side by side on few cores, where threads that wait for each other cost more than they bring.
torch.set_num_threads(1)

# On a busy machine a first call may take a second; what is too slow is for the benchmarks to say.
settings.register_profile("dlkit", deadline=None)
settings.load_profile("dlkit")


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
