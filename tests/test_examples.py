"""Every example runs, in its smoke mode, from an empty folder; run twice, it goes on."""

from __future__ import annotations

import os
from pathlib import Path

import warm

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted(ROOT.glob("examples/*.py"))


def run(example: Path, folder: Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DLKIT_HOME": str(folder / "home"), "DLKIT_OFFLINE": "1"}
    paths = [str(ROOT / "src"), environment.get("PYTHONPATH", "")]  # a relative one does not reach into the folder
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    done = warm.run([example, "--smoke"], cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_by_a_test():
    """Those that need data are run beside the tests of their kind, on the real data."""
    tests = "".join(path.read_text() for path in ROOT.glob("tests/**/*.py"))
    assert EXAMPLES
    assert [example.stem for example in EXAMPLES if example.stem not in tests] == []


def test_every_example_is_in_the_gallery():
    gallery = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    for example in EXAMPLES:
        assert f"[{example.name}]({example.name})" in gallery
        assert f"](pictures/{example.stem}.png)" in gallery


def test_the_gan_goes_on_where_it_was(tmp_path):
    example = ROOT / "examples" / "gan.py"
    assert run(example, tmp_path) == run(example, tmp_path)
    assert (tmp_path / "runs" / "gan" / "history.csv").read_text().count("\n") == 3
