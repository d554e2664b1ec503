"""Run the quick tests on every supported Python, and on the oldest of them with the oldest allowed packages.

`make matrix` does it; `python tools/matrix.py 3.13 oldest` only these. Each environment is made by `uv` under
build/matrix (a few gigabytes each), made anew each time. What cannot be made
here, because uv finds no such Python, is said and counts as not run, not as passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
CELLS = (*PYTHONS, "oldest")
#: Old packages with young ones below them: what those call outdated is not ours to mend.
OUTDATED = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
TESTS = ("-n", "2", "--dist", "worksteal", "-q", "-p", "no:cacheprovider", "-m", "not slow and not proof")


def uv(*arguments: str | Path, quiet: bool = False) -> int:
    """The exit code of uv, which an environment for development has."""
    command = [sys.executable, "-m", "uv", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL if quiet else None).returncode


def run(cell: str) -> str:
    """What became of one environment: "passed", "FAILED", or why it was not run."""
    python = PYTHONS[0] if cell == "oldest" else cell
    place = ROOT / "build" / "matrix" / cell
    if uv("python", "find", "-q", python, quiet=True) and uv("python", "install", "-q", python, quiet=True):
        return f"not run: there is no Python {python} here, and uv cannot fetch it"
    if uv("venv", "-q", "--clear", "--python", python, place):
        return "FAILED: no environment"
    limits = place.with_suffix(".txt")
    if cell == "oldest":  # of what users install; the tools of the tests are today's
        options = ("--resolution", "lowest-direct", "--python-version", python, "--extra", "all", "-o", limits)
        if uv("pip", "compile", "-q", *options, "pyproject.toml"):
            return "FAILED: the packages do not go together"
    constraints = ["--constraints", limits] if cell == "oldest" else []
    if uv("pip", "install", "-q", "--python", place, *constraints, "--editable", ".[dev]"):
        return "FAILED: the packages do not go together"
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    ignored = [f"-Wignore::{kind}" for kind in OUTDATED if cell == "oldest"]
    tests = subprocess.run([place / "bin" / "python", "-m", "pytest", *TESTS, *ignored], cwd=ROOT, env=settings)
    return "FAILED" if tests.returncode else "passed"


def main() -> int:
    """Run the cells that are named, or all."""
    found = {cell: run(cell) for cell in sys.argv[1:] or CELLS}
    print(*(f"{cell:8}{outcome}" for cell, outcome in found.items()), sep="\n")
    return any(outcome.startswith("FAILED") for outcome in found.values())


if __name__ == "__main__":
    sys.exit(main())
