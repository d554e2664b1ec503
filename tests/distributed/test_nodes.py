"""A node is lost and comes back: torchrun's elastic launcher on two hosts, which are network namespaces here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worlds import TRAIN, results

NAMES = ("dlkit-a", "dlkit-b")


def command(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True).returncode == 0


@pytest.fixture
def hosts() -> Iterator[list[list[str]]]:
    """What stands before a command to run it on the first and on the second host."""
    if shutil.which("ip") is None or not command("netns", "add", NAMES[0]):
        pytest.skip("network namespaces need Linux, the program ip and its rights")
    try:
        command("netns", "add", NAMES[1])
        assert command("link", "add", "va", "netns", NAMES[0], "type", "veth", "peer", "name", "vb", "netns", NAMES[1])
        for number, (name, link) in enumerate(zip(NAMES, ("va", "vb"), strict=True), 1):
            assert command("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", link)
            assert command("-n", name, "link", "set", link, "up")
            assert command("-n", name, "link", "set", "lo", "up")
        yield [["ip", "netns", "exec", name] for name in NAMES]
    finally:
        for name in NAMES:
            command("netns", "del", name)


def agent(host: list[str], number: int, folder: Path, case: dict[str, Any]) -> subprocess.Popen[str]:
    """torchrun on a host, in a session of its own."""
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    elastic = ["--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "5", "--rdzv-backend", "c10d"]
    meeting = ["--rdzv-endpoint", "10.77.0.1:29400", "--rdzv-id", "lost", "--local-addr", f"10.77.0.{number}"]
    leads = str(number == 1).lower()  # torchrun finds out by the machine's name, which both hosts share here
    calm = ["--rdzv-conf", f"is_host={leads},last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=3"]
    script = [str(folder / "train.py"), json.dumps(case)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "va" if number == 1 else "vb"}
    # Else torchrun 2.14 does not tell a node that comes later where the first one's store is, and both wait in vain.
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with open(folder / f"node{number}.txt", "a") as log:
        return subprocess.Popen(
            [*host, sys.executable, "-m", "torch.distributed.run", *elastic, *meeting, *calm, *script],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )


def until(folder: Path, pattern: str, times: int, seconds: float = 120) -> None:
    """Wait until the first node has said something so often."""
    deadline = time.monotonic() + seconds
    while len(re.findall(pattern, (folder / "node1.txt").read_text())) < times:
        assert time.monotonic() < deadline, (folder / "node1.txt").read_text()
        time.sleep(0.05)


def processes_in(name: str) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_lost_node_comes_back_and_no_bit_differs(hosts: list[list[str]], tmp_path: Path) -> None:
    """All of one host's processes are killed at once; the other goes on alone, then both, to the same end."""
    case = {"model": "cnn", "epochs": 32, "ema": True}
    (whole,) = results(1, case | {"folder": str(tmp_path / "whole")}, tmp_path)
    case |= {"folder": str(tmp_path / "run"), "pace": 0.15}
    first, second = (agent(host, number, tmp_path, case) for number, host in enumerate(hosts, 1))
    agents = [first, second]
    try:
        until(tmp_path, r"world 2, epoch", 3)
        for pid in processes_in(NAMES[1]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        second.wait(20)
        until(tmp_path, r"world 1, epoch", 2)
        alone = len(re.findall(r"world 2, epoch", (tmp_path / "node1.txt").read_text()))
        agents.append(agent(hosts[1], 2, tmp_path, case))
        until(tmp_path, r"world 2, epoch", alone + 2)
        assert [each.wait(200) for each in (first, agents[-1])] == [0, 0], (tmp_path / "node1.txt").read_text()
        ended = [line for line in (tmp_path / "node1.txt").read_text().splitlines() if line.startswith("{")]
        assert json.loads(ended[-1]) == whole
    finally:
        for each in agents:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()
        for name in NAMES:
            for pid in processes_in(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
