"""What is published: the same bytes from the same commit, wherever and whenever it is built."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def built(folder: Path, modified: float) -> dict[str, str]:
    """The SHA-256 of each file that a build in a copy of the sources makes."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for path in folder.rglob("*"):
        os.utime(path, (modified, modified))
    subprocess.run([sys.executable, "-m", "hatchling", "build"], cwd=folder, check=True, capture_output=True)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "dist").iterdir()}


def test_builds_at_other_places_and_times_have_the_same_bytes(tmp_path: Path) -> None:
    one, other = built(tmp_path / "one", 1_700_000_000), built(tmp_path / "other", 1_790_000_000)
    assert one == other
    assert sorted(path.rpartition("0.1.0")[2] for path in one) == ["-py3-none-any.whl", ".tar.gz"]
    (wheel,) = (tmp_path / "one/dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if not re.match(r"dlkit/|dlkit_torch-[\d.]+\.dist-info/", name)]


@pytest.mark.parametrize("name", ["CITATION.cff", "README.md"])
def test_the_version_is_the_same_everywhere(name: str) -> None:
    version = re.search(r'"(.+)"', (ROOT / "src/dlkit/_version.py").read_text(encoding="utf-8").splitlines()[2])
    assert version is not None
    assert version[1] in (ROOT / name).read_text(encoding="utf-8")
