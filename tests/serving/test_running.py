"""The process: its address, slow and silent clients, a changed file, and its end by a signal."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import platform
import shutil
import signal
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dlkit
import warm
from dlkit.errors import ModelFileError
from dlkit.inference.predictor import load
from dlkit.models import TabularMLP
from dlkit.serving import app, running
from dlkit.serving.logs import LOGGER, event, write_to
from dlkit.serving.served import Served
from serving.asking import Server, listening
from serving.conftest import passengers

ROWS = json.loads(passengers(3).to_json(orient="records"))


@pytest.fixture
def server(models: dict[str, Path], tmp_path: Path) -> Iterator[Server]:
    file = tmp_path / "titanic.safetensors"
    shutil.copy(models["titanic"], file)
    (tmp_path / "token").write_text("s3cret\n")
    server = Server(file, "--token-file", tmp_path / "token", "--threads", "1", "--workers", "1")
    yield server
    server.program.kill()
    server.log()
    server.program.stdout.close()
    server.program.stderr.close()


def test_a_server_from_its_start_to_its_end(
    server: Server, models: dict[str, Path], predictors: dict[str, dlkit.Predictor], tmp_path: Path
) -> None:
    token = {"authorization": "Bearer s3cret"}
    first = server.post(ROWS, **token)
    wanted = predictors["titanic"].predict_each(ROWS)
    assert [each["probability"] for each in first["predictions"]] == [each.probability for each in wanted]

    # A changed file is taken without a failed request; a broken one never is.
    torch.manual_seed(5)
    model = TabularMLP(predictors["titanic"].preprocessing)
    newer = dlkit.save(model, tmp_path / "newer", preprocessing=predictors["titanic"].preprocessing)
    os.replace(newer, tmp_path / "titanic.safetensors")
    until, versions = time.monotonic() + 60, {first["version"]}
    while len(versions) == 1 and time.monotonic() < until:
        found = server.post(ROWS, **token)
        versions.add(found["version"])
    loaded = dlkit.load(tmp_path / "titanic.safetensors")
    assert [each["probability"] for each in found["predictions"]] == [
        each.probability for each in loaded.predict_each(ROWS)
    ]

    # A request whose body is still on its way when the end is asked for is answered; then there is nobody left.
    body = json.dumps(ROWS).encode()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with server.connect(head + body[:10]) as slow, server.connect(b"GET / HT") as silent:
        server.post(ROWS, **token)  # by now the server has seen both
        os.kill(server.program.pid, signal.SIGTERM)
        while True:
            try:
                server.connect(b"").close()
            except OSError:
                break
        slow.sendall(body[10:])
        assert slow.recv(1 << 16).startswith(b"HTTP/1.1 200")
        silent.settimeout(20)
        assert silent.recv(1) == b""
    log = server.log()
    assert server.program.returncode == 0, log
    events = [json.loads(line) for line in log.splitlines()]
    assert [each["event"] for each in events if each["event"] != "request"] == [
        "started",
        "reloaded",
        "draining",
        "ended",
    ]
    assert {each["status"] for each in events if each["event"] == "request"} == {200}
    assert str(tmp_path) not in log
    assert "s3cret" not in log


def test_a_connection_that_says_nothing_is_closed(
    predictors: dict[str, dlkit.Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_HEAD_SECONDS", 0.1)
    monkeypatch.setattr(running, "_LOOK", 0.05)
    with listening(app(predictors["spam"]), http=running._Protocol) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
            silent.sendall(b"GET / HT")
            assert silent.recv(1) == b""


FAULTS = """
import resource, sys, threading, torch
from dlkit._malloc import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
def work():
    torch.set_num_threads(1)
    for number in range(20):
        if number == 10:
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        held = [torch.zeros(1 << 19) for _ in range(8)]  # 2 MB each
        del held
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is an option of glibc")
def test_memory_that_was_freed_is_used_again() -> None:
    faults = [int(warm.run(["-c", FAULTS, how]).stdout) for how in ("kept", "given back")]
    assert faults[0] < 100 < faults[1], faults  # pages got from the system in ten passes


def test_what_is_loaded_is_not_looked_through_for_garbage(models: dict[str, Path]) -> None:
    """It would stop all answers for as long as that takes."""
    seen = []
    gc.unfreeze()  # what the tests have frozen

    def started(_: str) -> None:
        seen.append(gc.get_freeze_count())
        signal.raise_signal(signal.SIGTERM)

    assert running.serve(app(models["titanic"]), port=0, started=started) == signal.SIGTERM
    assert seen[0] > 100_000
    assert gc.get_freeze_count() == 0


def test_a_log_that_nobody_reads_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    running.log_to_stderr()
    warnings.showwarning("half \x1b[31m", UserWarning, "/secret/path.py", 3)
    monkeypatch.undo()
    for _ in range(11_000):  # more than the pipe and the queue hold
        event("x" * 100)
    loggers = [logging.getLogger(LOGGER), logging.getLogger("uvicorn")]
    (handler,) = loggers[1].handlers
    write_to(None)
    for logger in loggers:
        logger.handlers, logger.propagate, logger.level = [], True, logging.NOTSET
    first, *rest = os.read(reading, 1 << 16).splitlines()
    assert (json.loads(first)["text"], b"secret" in first, len(rest) > 200) == ("half \x1b[31m", False, True)
    os.close(reading)
    handler.close()
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def test_a_file_that_cannot_be_used_is_not_taken(
    models: dict[str, Path], predictors: dict[str, dlkit.Predictor], tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    shutil.copy(models["spam"], file)
    served = Served("spam", file)
    first = served.now
    assert served.renew() is False
    for content in (models["spam"].read_bytes()[:-1], b"nothing", models["titanic"].read_bytes()):
        file.write_bytes(content)
        assert served.renew() is False  # it may still be written
        assert served.renew() is None
        assert served.renew() is False  # told once
        assert served.now is first
    file.unlink()
    assert served.renew() is False
    shutil.copy(models["spam"], file)
    assert [served.renew(), served.renew(), served.now] == [False, False, first]  # the same content again


def test_a_file_that_changes_while_it_is_read_is_read_again(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    shutil.copy(models["spam"], file)
    served, right = Served("spam", file), load
    shutil.copy(models["mails"], file)

    def swapped(path: Path, **options: object) -> dlkit.Predictor:
        monkeypatch.setattr("dlkit.serving.served.load", right)
        os.replace(shutil.copy(models["spam"], tmp_path / "next"), path)
        raise ModelFileError("the head of one file and the weights of the next")

    monkeypatch.setattr("dlkit.serving.served.load", swapped)
    assert [served.renew(), served.renew()] == [False, False]  # it is again what it was
    assert served.now.predictor.predict_one("win a prize").label
