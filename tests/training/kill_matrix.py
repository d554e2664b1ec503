"""Train, be killed, start again, until done: are the final bits those of a run that nobody disturbed?

One process imports torch and forks a child per start, so that a start costs milliseconds. Children are killed with
SIGKILL after a random time, or at the moment a checkpoint's temporary file appears. Run as a script it prints one line
per case and a total; `python tests/training/kill_matrix.py KILLS`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

CASES: list[dict[str, Any]] = [
    {"scheduler": "step", "ema": True, "accumulate": 2, "validate_every": "4 steps", "every": "1 steps"},
    {"scheduler": "epoch", "sampler": "weighted", "every": "1 steps", "background": False},
    {"scheduler": "plateau", "sampler": "custom", "every": "2 steps", "progress": True},
    {"sampler": "batch_sampler", "accumulate": 2, "every": "1 steps"},
    {"sampler": "drop_last", "ema": True, "scheduler": "epoch", "every": "epoch", "validate_every": "5 steps"},
    {"sampler": "subset", "scheduler": "plateau", "accumulate": 2, "every": "3 steps", "background": False},
    {"data": "sounds", "scheduler": "epoch", "every": "1 steps"},
]
WORKERS = [0, 2, 0, 1, 0, 4]
# In memory, where other temporary files of the tests lie, a file is saved before a kill could meet it.
DISK = "/var/tmp" if os.path.isdir("/var/tmp") else None


def _child(case: dict[str, Any], folder: Path, result: Path) -> None:
    from cases import digest, fit

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        text = digest(fit(case, folder))
    result.write_text(text)


def _start(case: dict[str, Any], folder: Path, result: Path) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            _child(case, folder, result)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def _ended(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _kill_or_end(pid: int, folder: Path, *, after: float, in_save: bool) -> int | None:
    """Kill the child at the chosen moment and return None, or its exit code if it ended before."""
    deadline = time.monotonic() + after
    while (code := _ended(pid)) is None:
        now = time.monotonic()
        saving = in_save and now >= deadline and any(folder.glob(".checkpoint-*.tmp"))
        if saving or now >= deadline + (2.0 if in_save else 0.0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.0005)
    return code


def _whole(case: dict[str, Any], folder: Path) -> tuple[str, float]:
    start, result = time.monotonic(), folder / "result"
    pid = _start(case, folder / "run", result)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise SystemExit(f"the undisturbed run of {case} failed")
    return result.read_text(), time.monotonic() - start


def check_files(folder: Path) -> int:
    """The number of files in the index that do not load."""
    from dlkit.runs.checkpointfile import load_checkpoint
    from dlkit.runs.store import CheckpointStore

    bad = 0
    for entry in CheckpointStore(folder).entries:
        try:
            load_checkpoint(folder / entry.file)
        except Exception as error:
            print(f"unloadable {entry.file}: {error}")
            bad += 1
    return bad


def disturbed(case: dict[str, Any], kills: int, chance: random.Random) -> tuple[int, int, int, int, int]:
    """Kill a case `kills` times; returns kills, inside a save, with a checkpoint, differences, bad files."""
    folder = Path(tempfile.mkdtemp(prefix="dlkit-kill-", dir=DISK))
    (folder / "whole").mkdir()
    expected, duration = _whole(case, folder / "whole")
    done = inside = bad = starts = resumable = 0
    run, result = folder / "run", folder / "result"
    while True:
        workers = WORKERS[starts % len(WORKERS)]
        starts += 1
        pid = _start({**case, "num_workers": workers}, run, result)
        if done < kills:
            in_save, span = chance.random() < 0.5, chance.choice([0.25, 1.0]) * duration
            code = _kill_or_end(pid, run, after=chance.uniform(0.02, span + 0.05), in_save=in_save)
        else:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code is None:
            done += 1
            inside += bool(list(run.glob(".checkpoint-*.tmp")))
            resumable += bool(list(run.glob("checkpoint-*.pt")))
            bad += check_files(run)
            continue
        if code != 0:
            raise SystemExit(f"a run of {case} ended with code {code}")
        if done >= kills:
            break
        if run.exists():  # finished before all kills were dealt: compare, and start over
            bad += result.read_text() != expected
            run.rename(folder / f"finished-{starts}")
    differs, bad = int(result.read_text() != expected), bad + check_files(run)
    if not differs and not bad:  # else there is something to look at
        shutil.rmtree(folder)
    return done, inside, resumable, differs, bad


def main(kills: int, seed: int = 0) -> int:
    """Deal `kills` over the matrix; returns the number of differences and unloadable files."""
    import torch
    from cases import fit

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:  # all that is imported on the way: what is to be killed is training
        for data in ("tensor", "sounds"):
            fit({"data": data, "epochs": 1}, Path(folder) / data)
    chance, totals = random.Random(seed), [0, 0, 0, 0, 0]
    line = "{} kills, {} inside a save, {} with a checkpoint to resume from: {} differences, {} unloadable files"
    for number, case in enumerate(CASES):
        share = kills // len(CASES) + (number < kills % len(CASES))
        counts = disturbed(case, share, chance)
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        print(line.format(*counts), case, flush=True)
    print("in all:", line.format(*totals))
    return totals[3] + totals[4]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 12))
