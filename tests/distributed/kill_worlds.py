"""Train in some processes, lose one of them at a random moment, go on in another number of them: are the bits the same?

One process imports torch and forks the processes of each start. One of them, whichever it is, gets SIGKILL after a
random time; the others must end by themselves, and the next start has another number. Run as a script it prints one
line per case and a total; `python tests/distributed/kill_worlds.py KILLS`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

CASES: list[dict[str, Any]] = [
    {"model": "mlp", "ema": True, "schedule": True, "clip": True, "epochs": 3},
    {"model": "cnn", "stopping": True, "workers": 1, "epochs": 3},
    {"model": "transformer", "weights": True, "ignored": True, "accumulate": 5, "epochs": 3},
    {"model": "resnet", "parallel": "shard", "frozen": "2.conv2", "ema": True, "epochs": 3},
]
SIZES = [3, 1, 4, 2]
PATIENCE = 30.0  # seconds in which the others have to end
MEETING = (
    3.0  # seconds after which they get SIGTERM, as from torchrun at once: without it they wait for one who comes late
)


class Counts(NamedTuple):
    """What came of a case."""

    kills: int = 0
    resumable: int = 0
    differences: int = 0
    orphans: int = 0
    hung: int = 0
    told: int = 0

    def __add__(self, other: Any) -> Counts:
        return Counts(*map(sum, zip(self, other, strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.resumable} with a checkpoint to go on from, {self.told} processes that were "
            f"still waiting for the lost one to come (they get SIGTERM, as from torchrun): {self.differences} "
            f"differences, {self.orphans} orphans, {self.hung} that hung"
        )


def _start(case: dict[str, Any], size: int, result: Path) -> list[int]:
    from worlds import free_port

    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    return [_fork(case, common | {"RANK": str(rank)} if size > 1 else {}, result) for rank in range(size)]


def _fork(case: dict[str, Any], place: dict[str, str], result: Path) -> int:
    from worlds import TRAIN

    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()  # so that its loader's workers are found, too
        os.environ.update(place)
        sys.argv = ["train.py", json.dumps(case)]
        target = result if place.get("RANK", "0") == "0" else Path(os.devnull)
        with contextlib.ExitStack() as files:
            files.enter_context(contextlib.redirect_stdout(files.enter_context(open(target, "w"))))
            files.enter_context(contextlib.redirect_stderr(files.enter_context(open(f"{result}.err", "a"))))
            exec(compile(TRAIN, "train.py", "exec"), {"__name__": "__main__"})
        code = 0
    finally:
        os._exit(code)


def _wait(pids: list[int], seconds: float) -> dict[int, int]:
    """The exit codes of those that have ended in time."""
    codes, end = dict[int, int](), time.monotonic() + seconds
    while len(codes) < len(pids) and time.monotonic() < end:
        for pid in pids:
            if pid not in codes and (found := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(found[1])
        time.sleep(0.001)
    return codes


def _lives(session: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, 0)
        return True
    return False


def _ends(pids: list[int], codes: dict[int, int], *, meeting: float = PATIENCE) -> Counts:
    """End the processes of a start: how many had to be told, hang, or have left somebody behind."""
    codes |= _wait([pid for pid in pids if pid not in codes], meeting)
    told = [pid for pid in pids if pid not in codes]
    for pid in told:
        os.kill(pid, signal.SIGTERM)
    codes |= _wait(told, PATIENCE)
    hung = [pid for pid in told if pid not in codes]
    end = time.monotonic() + 10.0  # a loader's worker looks for its parent now and then
    while any(_lives(pid) for pid in pids if pid not in hung) and time.monotonic() < end:
        time.sleep(0.01)
    orphans = [pid for pid in pids if pid not in hung and _lives(pid)]
    for pid in [*hung, *orphans]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    for pid in hung:
        os.waitpid(pid, 0)
    return Counts(hung=len(hung), orphans=len(orphans), told=len(told))


def _until_it_is_time(pids: list[int], run: Path, duration: float, chance: random.Random) -> dict[int, int]:
    """Wait for the moment of a kill: one in four comes at any time, also while they meet; the rest when they train."""
    codes, before, end = dict[int, int](), set(run.glob("*.pt")), time.monotonic() + 60.0
    if chance.random() >= 0.25:
        while len(codes) < len(pids) and set(run.glob("*.pt")) <= before and time.monotonic() < end:
            codes |= _wait([pid for pid in pids if pid not in codes], 0.005)
    return codes | _wait([pid for pid in pids if pid not in codes], chance.uniform(0.0, duration))


def disturbed(case: dict[str, Any], kills: int, chance: random.Random) -> Counts:
    """Kill a process of a case `kills` times, and compare its end with that of one process which nobody disturbed."""
    folder = Path(tempfile.mkdtemp(prefix="dlkit-kill-"))
    _ends(_start(case | {"folder": str(folder / "undisturbed")}, 1, folder / "whole"), {})
    expected, times = (folder / "whole").read_text(), [each.stat().st_mtime for each in folder.glob("undisturbed/*")]
    duration = max(times, default=1.0) - min(times, default=0.0)
    assert expected, (folder / "whole.err").read_text()
    run, result, counts, starts = folder / "run", folder / "result", Counts(), chance.randrange(4)
    while True:
        size = SIZES[starts % len(SIZES)]
        starts += 1
        pids = _start(case | {"folder": str(run)}, size, result)
        last = counts.kills >= kills
        codes = _wait(pids, 300.0) if last else _until_it_is_time(pids, run, duration * size, chance)
        if len(codes) < size:
            os.kill(chance.choice([pid for pid in pids if pid not in codes]), signal.SIGKILL)
            counts += Counts(kills=1, resumable=bool(list(run.glob("checkpoint-*.pt"))))
        counts += _ends(pids, codes, meeting=MEETING)
        if all(codes.get(pid) == 0 for pid in pids):
            if result.read_text() != expected:
                print(f"another end in {size} processes: {result.read_text()} instead of {expected}", flush=True)
                counts += Counts(differences=1)
            if last:
                if not counts.differences:
                    shutil.rmtree(folder)
                return counts
            run.rename(folder / f"finished-{starts}")
        elif last:
            raise SystemExit(f"a run of {case} ended with {codes}: {Path(f'{result}.err').read_text()[-3000:]}")


def main(kills: int, seed: int = 0) -> int:
    """Deal `kills` over the cases; returns the number of differences, orphans and hung processes."""
    import torch
    import torch._dynamo  # before the forks, as all that takes long to import
    from torch.utils.data._utils import worker

    import dlkit.callbacks
    import dlkit.training  # noqa: F401

    torch.set_num_threads(1)
    worker.MP_STATUS_CHECK_INTERVAL = 0.5  # a loader's worker that lost its parent looks for it every five seconds
    chance, total = random.Random(seed), Counts()
    for number, case in enumerate(CASES[: max(kills, 1)]):
        counts = disturbed(case, kills // len(CASES) + (number < kills % len(CASES)), chance)
        total += counts
        print(counts, case, flush=True)
    print("in all:", total)
    return total.differences + total.orphans + total.hung


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 6))
