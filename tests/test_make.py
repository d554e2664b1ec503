"""The Makefile with a stand-in for Python that writes down what it was asked: which one is taken, what it installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Says it is suitable, and makes a venv whose python is itself.
FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in
    "-c import sys"*) exit {suitable} ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    --version) echo "Python 3.99" ;;
esac
"""


class Project:
    """A folder with the Makefile, and a PATH on which only stand-ins are called python."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.calls = folder / "project", folder / "bin", folder / "calls"
        self.folder.mkdir()
        self.bin.mkdir()
        shutil.copy(ROOT / "Makefile", self.folder)
        (self.folder / "pyproject.toml").write_text("")
        for tool in ("sh", "awk", "basename", "cp", "find", "mkdir", "rm", "touch", "make"):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    def add(self, name: str, *, suitable: bool) -> None:
        path = self.bin / name
        path.write_text(FAKE.format(suitable=0 if suitable else 1))
        path.chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        environment = {"PATH": str(self.bin), "CALLS": str(self.calls)}
        return subprocess.run(
            ["make", *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def called(self, part: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if part in line]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_newest_suitable_python_is_taken(project: Project) -> None:
    project.add("python3.14", suitable=False)
    project.add("python3.12", suitable=True)
    project.add("python3.11", suitable=True)
    project.add("python3", suitable=True)
    assert project.make("demo").returncode == 0
    assert project.called("-m venv") == ["python3.12 -m venv .venv"]


def test_plain_python3_is_enough(project: Project) -> None:
    project.add("python3", suitable=True)
    assert project.make("demo").returncode == 0
    assert project.called("-m venv") == ["python3 -m venv .venv"]


def test_without_a_suitable_python_it_says_what_to_do(project: Project) -> None:
    project.add("python3", suitable=False)
    done = project.make("demo")
    assert done.returncode != 0
    assert "dlkit needs Python 3.11 or newer with its venv module" in done.stderr
    assert "make demo PYTHON=/path/to/python3" in done.stderr
    assert not (project.folder / ".venv").exists()


def test_another_python_can_be_named(project: Project) -> None:
    project.add("python3", suitable=True)
    project.add("my-python", suitable=True)
    assert project.make("demo", "PYTHON=my-python").returncode == 0
    assert project.called("-m venv") == ["my-python -m venv .venv"]


def test_a_second_demo_installs_nothing(project: Project) -> None:
    project.add("python3", suitable=True)
    assert project.make("demo", "ARGS=--fast").returncode == 0
    assert [line.split()[-1] for line in project.called("pip install")] == [".[plots]"]
    assert project.called("dlkit.demo") == ["python -m dlkit.demo --fast"]
    assert project.make("demo").returncode == 0
    assert project.called("") == ["python -m dlkit.demo"]


def test_a_change_of_pyproject_installs_again(project: Project) -> None:
    project.add("python3", suitable=True)
    project.make("demo")
    later = time.time() + 5
    os.utime(project.folder / "pyproject.toml", (later, later))
    project.make("demo")
    assert len(project.called("pip install")) == 1
    assert not project.called("-m venv")


def test_a_failed_installation_is_tried_again(project: Project) -> None:
    project.add("python3", suitable=True)
    broken = FAKE.replace("--version)", '*"pip install"*) exit 1 ;;\n    --version)').format(suitable=0)
    (project.bin / "python3").write_text(broken)
    assert project.make("demo").returncode != 0
    assert not project.called("dlkit.demo")
    assert project.make("demo").returncode != 0
    assert len(project.called("pip install")) == 1


def test_whoever_has_the_tests_packages_needs_no_other_for_the_demo(project: Project) -> None:
    project.add("python3", suitable=True)
    assert project.make("test").returncode == 0
    assert [line.split()[-1] for line in project.called("pip install")] == [".[dev]"]
    assert project.called("pytest") == ["python -m pytest -n 2 --dist worksteal"]
    project.make("demo")
    assert not project.called("pip install")


def test_check_looks_at_format_lint_and_types(project: Project) -> None:
    project.add("python3", suitable=True)
    assert project.make("check").returncode == 0
    asked = [line.removeprefix("python -m ") for line in project.called("python -m") if "pip" not in line]
    assert asked == ["ruff format --check .", "ruff check .", "mypy --strict src"]


def test_clean_keeps_trained_runs(project: Project) -> None:
    project.add("python3", suitable=True)
    project.make("demo")
    (project.folder / "runs").mkdir()
    (project.folder / "src" / "__pycache__").mkdir(parents=True)
    assert project.make("clean").returncode == 0
    assert sorted(path.name for path in project.folder.iterdir()) == ["Makefile", "pyproject.toml", "runs", "src"]
    assert list((project.folder / "src").iterdir()) == []


def test_help_lists_every_target(project: Project) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    listed = [line.split()[1] for line in project.make().stdout.splitlines()]
    assert listed == phony[1].split()


def test_nothing_names_a_package_index() -> None:
    for path in [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".ci" / "run"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"index-url|extra-index|find-links|pypi|https?://(?!www\.apache\.org)", text), path


def test_ci_runs_without_a_terminal(tmp_path: Path) -> None:
    """`.ci/run` with a `make` that fails the check, ends the tests as pytest does, and has one that leaves a file."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "make").write_text(
        '#!/bin/sh\n[ "$1" = test ] && echo "== 3 passed in 0.1s =="\n'
        # Dated ahead: this one takes less time than the clock of the file system has steps.
        '[ "$1$FAILS" = testwrite ] && touch -t 209901010000 left\n[ "$1" != "$FAILS" ]\n'
    )
    (tmp_path / "make").chmod(0o755)
    for fails, code in [("", 0), ("check", 1), ("test", 1), ("write", 1)]:
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FAILS": fails}
        command = [str(tmp_path / ".ci" / "run")]
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == code
        assert done.stdout.splitlines()[-1] == "make test: == 3 passed in 0.1s =="
        assert ("make check: FAILED" in done.stdout) == (fails == "check")
        left = "./left" if fails == "write" else "nothing"
        assert f"written into the source tree by tests: {left}\n" in done.stdout
