"""`dlkit.launch` and `dlkit train --processes`: torchrun's launcher from Python, and every end of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient

import dlkit
from dlkit import launching, recipes
from dlkit._devices import pick_device
from dlkit.errors import ArgumentError
from dlkit.launching import launch
from kernels import kernel
from warm import Program, run

SCRIPT = '''
import hashlib, os, signal, sys, time
import torch
from torch import nn
import dlkit
from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint

what, folder = sys.argv[1:3]


class Pace(Callback):
    def on_step_end(self, run):
        if what in ("interrupt", "kill the launcher"):
            open(f"{folder}/{os.getpid()}.pid", "w").close()
            time.sleep(0.05)


def train(epochs):
    """Knows `what` and `folder` of this process, so copies of it do the work."""
    rank = int(os.environ["RANK"])
    if what == "fail" and rank == 1:
        raise LookupError("no such thing in process one")
    if what == "die" and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 2))
    batches = [(torch.randn(4, 4), torch.randint(0, 2, (4,))) for _ in range(7)]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    callbacks = [Pace()] if what == "train" else [Pace(), Checkpoint(folder, every="1 step")]
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, accumulate=4, device="cpu")
    trainer.fit(batches, batches[:3], epochs=epochs)
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values()))
    return digest.hexdigest(), trainer.evaluate(batches)["loss"], torch.get_num_threads()


if what == "train":
    print(*[dlkit.launch(train, 2, processes=processes) for processes in (1, 2)], sep="\\n")
else:
    print(dlkit.launch(train, epochs=10_000, processes=2))
'''


def write(folder: Path) -> Path:
    script = folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    return script


def test_what_the_first_process_returns_is_the_same_for_any_number(tmp_path: Path) -> None:
    found = run([write(tmp_path), "train", tmp_path], check=True).stdout.splitlines()
    assert len(found) == 2
    assert len(set(found)) == 1


def test_an_error_comes_with_its_own_traceback(tmp_path: Path) -> None:
    done = run([write(tmp_path), "fail", tmp_path])
    assert done.returncode == 1
    assert "process 1 of 2 failed, and the others were terminated" in done.stderr
    assert re.search(r'script.py", line \d+, in train\n.*raise LookupError', done.stderr)
    assert done.stderr.strip().endswith("LookupError: no such thing in process one")
    assert "another process of the run" not in done.stderr


def test_a_process_that_is_killed_is_named(tmp_path: Path) -> None:
    done = run([write(tmp_path), "die", tmp_path])
    assert done.returncode == 1
    assert "process 1 of 2 was ended by SIGKILL" in done.stderr


def gone(pids: list[int], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            for pid in pids:
                os.kill(pid, 0)
                break
            else:
                return True
            time.sleep(0.05)
            continue
        pids = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        if not pids:
            return True
    return False


@pytest.mark.parametrize(("what", "number"), [("interrupt", signal.SIGINT), ("kill the launcher", signal.SIGKILL)])
def test_no_process_outlives_the_launcher(what: str, number: int, tmp_path: Path) -> None:
    program = Program([write(tmp_path), what, tmp_path])
    try:
        deadline = time.monotonic() + 60
        while len(pids := [int(path.stem) for path in tmp_path.glob("*.pid")]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        program.send_signal(number)
        _, errors = program.communicate(60)
        assert gone(pids), errors
        if number == signal.SIGINT:
            assert re.search(r"stopped after step \d+: interrupted", errors), errors
            assert "KeyboardInterrupt" in errors
    finally:
        program.kill()


def test_a_notebook_launches_what_only_it_knows(tmp_path: Path) -> None:
    cells = [
        "import torch\nfrom torch import nn\nimport dlkit\ndata = [(torch.randn(4, 3), torch.ones(4, 1))] * 5",
        "def train():\n"
        "    torch.manual_seed(0)\n"
        "    model = nn.Linear(3, 1)\n"
        "    optimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
        "    trainer = dlkit.Trainer(model, nn.MSELoss(), optimizer, accumulate=2, device='cpu', progress=False)\n"
        "    trainer.fit(data, epochs=2)\n"
        "    return model.weight.detach(), trainer.run.world.size\n",
        "weight, size = dlkit.launch(train, processes=2)\n"
        "assert size == 2\nassert torch.equal(weight, dlkit.launch(train, processes=1)[0])\nprint('the same')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with kernel(tmp_path) as manager:
        client = NotebookClient(notebook, km=manager, timeout=120)
        try:
            client.execute()
        finally:
            client.kc.stop_channels()
    assert notebook.cells[-1].outputs[-1]["text"] == "the same\n"


def test_the_command_line_trains_the_same_with_any_number_of_processes(tmp_path: Path) -> None:
    """One process takes the steps of a folder in as many batches as two did before it."""
    table = pd.DataFrame({"a": range(120), "b": [number % 7 for number in range(120)]})
    table.assign(y=(table["a"] % 7 > 2).map({True: "yes", False: "no"})).to_csv(tmp_path / "t.csv", index=False)
    common = ["-m", "dlkit", "train", "t.csv", "--target", "y", "--json", "--arch", "mlp", "--epochs", 2]
    results = []
    for processes in (1, 2):
        arguments = [*common, "--device", "cpu", "--out", f"run{processes}", "--processes", processes]
        accumulate = ["--accumulate", 2] if processes == 1 else []
        done = run([*arguments, *accumulate], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        assert "warning" not in done.stderr
        document = json.loads(done.stdout)
        results.append({name: document[name] for name in ("metrics", "history", "stopped")})
        assert (tmp_path / f"run{processes}" / "model.safetensors").is_file()
    assert results[0] == results[1]
    again = recipes.train(
        tmp_path / "t.csv", target="y", arch="mlp", epochs=2, out=tmp_path / "run2", device="cpu", progress=False
    )
    assert [row["train_loss"] for row in again.history.rows] == [row["train_loss"] for row in results[0]["history"]]


def test_an_error_of_the_data_is_one_sentence(tmp_path: Path) -> None:
    done = run(["-m", "dlkit", "train", "nothing.csv", "--target", "y", "--processes", "2"], cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("nothing.csv") == 1


def test_each_launch_of_a_process_has_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a port whose store has ended torch would not find a later one, and the system gives ports again."""
    had = {port for port in range(1 << 16) if port % 4 == 1}  # half of those that Linux gives
    monkeypatch.setattr(launching, "_used", set(had))
    assert not {launching._store().port for _ in range(5)} & had


def test_it_is_not_nested_and_has_at_least_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="processes must be"):
        launch(print, processes=0)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError, match="one of several processes already"):
        dlkit.launch(print, processes=2)


def test_each_process_of_a_machine_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("auto", gpus=2) == torch.device("cuda")
    place = {"WORLD_SIZE": "8", "RANK": "5", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "LOCAL_RANK": "1"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    assert pick_device("auto", gpus=2) == pick_device("cuda", gpus=2) == torch.device("cuda:1")
    with pytest.raises(ArgumentError, match=r"process 1 of this machine .* as there is 1; start as many processes"):
        pick_device("auto", gpus=1)
    assert pick_device("cpu", gpus=2) == torch.device("cpu")
