"""Programs in processes of their own, as a person starts them."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from warm import Program

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def environment_of(**more: str) -> dict[str, str]:
    """The environment of a program: offline, and with the source tree's dlkit."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DLKIT_OFFLINE": "1", "PYTHONUNBUFFERED": "1"} | more
    environment.setdefault("PYTHONPATH", str(ROOT / "src"))
    return environment


def start(command: Sequence[object], folder: Path, **more: str) -> subprocess.Popen[str]:
    """Start a program in a folder, with Ctrl-C working and the source tree's dlkit."""
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        env=environment_of(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever starts the tests in the background has them ignore Ctrl-C, and programs inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen[str] | Program, timeout: float = 200) -> Done:
    """Wait for its end."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Done(process.wait(), out, err)


def warm(folder: Path, *arguments: object) -> Program:
    """Start Python in a folder, in a process that has imported torch."""
    return Program(arguments, cwd=folder, env=environment_of())


def python(folder: Path, *arguments: object) -> Done:
    """Run Python in a folder, in a process that has imported torch."""
    return finish(warm(folder, *arguments))
