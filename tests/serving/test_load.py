"""Load of every kind at once, with slow clients, clients that leave, swapped models and restarts: no answer is wrong,
and nothing is left over.

`make proof` goes on for 10 minutes, or for as many as `DLKIT_LOAD_MINUTES` says; `make test` for some seconds.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch

import dlkit
from dlkit.inference import Prediction
from serving.asking import Server
from serving.conftest import passengers, picture

CLIENTS = 6
POOL = min(32, (os.cpu_count() or 1) + 4)  # threads that asyncio keeps for what takes long, started as they are needed
PROOF = 60 * float(os.environ.get("DLKIT_LOAD_MINUTES", "10"))
TEXTS = ["win a prize now", "see you at noon ☕", "call this number please", "lunch"]
ROWS = json.loads(passengers(64, seed=11).to_json(orient="records"))
PICTURES = [picture(number) for number in range(4)]
TABLES = [passengers(count, seed=count).to_csv(index=False).encode() for count in (1, 30, 200)]


class Ask(NamedTuple):
    """A request, and what a version's `Predictor` says to it."""

    model: str
    media: str
    body: bytes
    inputs: Any

    def wanted(self, predictor: dlkit.Predictor, known: dict[Any, list[Prediction]]) -> list[Prediction]:
        """As `Predictor` answers; each is asked once."""
        key = (id(predictor), self.body)
        if key not in known:
            known[key] = list(predictor.predict_each(self.inputs, top_k=2))
        return known[key]


def asks() -> list[Ask]:
    """One request of every kind, of several sizes."""
    made = [Ask("titanic", "application/json", json.dumps(row).encode(), [row]) for row in ROWS[:40]]
    made += [Ask("titanic", "application/json", json.dumps(ROWS[n : n + 7]).encode(), ROWS[n : n + 7]) for n in (0, 9)]
    made += [Ask("titanic", "text/csv", table, table) for table in TABLES]
    made += [Ask("insects", "image/jpeg", data, [data]) for data in PICTURES]
    made += [Ask("spam", "application/json", json.dumps(text).encode(), [text]) for text in TEXTS]
    made += [Ask("spam", "text/plain", text.encode(), [text]) for text in TEXTS]
    return [*made, Ask("spam", "application/json", json.dumps(TEXTS).encode(), TEXTS)]


class Load:
    """The clients, and what they saw.

    Args:
        versions: The models by name and version.
    """

    def __init__(self, versions: dict[tuple[str, str], dlkit.Predictor]) -> None:
        self.versions, self.asks, self.known = versions, asks(), dict[Any, list[Prediction]]()
        self.seen, self.wrong = collections.Counter[str](), list[str]()
        self.port, self.running, self.ending = 0, threading.Event(), threading.Event()
        self.idle = threading.Semaphore(0)
        self.stopping = False  # while the server ends, a connection may be refused
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def pause(self) -> None:
        """Until no client asks anything."""
        self.running.clear()
        for _ in self._threads:
            assert self.idle.acquire(timeout=60)

    def end(self) -> None:
        self.ending.set()
        self.running.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        drawn, kinds = random.Random(number), [self._whole] * 8 + [self._slow, self._leaving, self._left]
        while not self.ending.is_set():
            if not self.running.is_set():
                self.idle.release()
                self.running.wait()
                continue
            ask, kind = drawn.choice(self.asks), drawn.choice(kinds)
            try:
                kind(ask)
            except (OSError, http.client.HTTPException) as error:
                if not self.stopping:
                    self.wrong.append(f"{kind.__name__} of {ask.model}: {error!r}")
                self.seen["refused by a server that ends"] += 1
                self.ending.wait(0.01)

    def _whole(self, ask: Ask) -> None:
        """A client as there should be."""
        with self._connected(ask, len(ask.body)) as connection:
            connection.send(ask.body)
            self._compare(ask, connection)

    def _slow(self, ask: Ask) -> None:
        """A client whose body comes in pieces, with pauses."""
        with self._connected(ask, len(ask.body)) as connection:
            step = len(ask.body) // 5 + 1
            for start in range(0, len(ask.body), step):
                connection.send(ask.body[start : start + step])
                self.ending.wait(0.02)
            self._compare(ask, connection)
            self.seen["slow clients"] += 1

    def _leaving(self, ask: Ask) -> None:
        """A client that leaves in the middle of its body."""
        with self._connected(ask, len(ask.body)) as connection:
            connection.send(ask.body[: len(ask.body) // 2])
        self.seen["left in the middle of the body"] += 1

    def _left(self, ask: Ask) -> None:
        """A client that does not wait for its answer."""
        with self._connected(ask, len(ask.body)) as connection:
            connection.send(ask.body)
        self.seen["left before the answer"] += 1

    @contextlib.contextmanager
    def _connected(self, ask: Ask, length: int) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest("POST", f"/predict?model={ask.model}&top_k=2")
            connection.putheader("Content-Type", ask.media)
            connection.putheader("Content-Length", str(length))
            connection.endheaders()
            yield connection
        finally:
            connection.close()

    def _compare(self, ask: Ask, connection: http.client.HTTPConnection) -> None:
        answer = connection.getresponse()
        body = json.loads(answer.read())
        if answer.status == 503 and answer.getheader("retry-after"):
            self.seen["refused with 503"] += 1
            return
        if answer.status != 200:
            self.wrong.append(f"{answer.status} for {ask.model}: {body}")
            return
        self.seen[f"{ask.model}, {ask.media}"] += 1
        predictor = self.versions[body["model"], body["version"]]
        wanted, alone = ask.wanted(predictor, self.known), answer.getheader("x-dlkit-batch") == "1"
        if not all(_same(found, one, alone) for found, one in zip(body["predictions"], wanted, strict=True)):
            self.wrong.append(f"{ask.model} {body['version']}: {body['predictions'][:2]} and not {wanted[:2]}")


def _same(found: dict[str, Any], wanted: Prediction, alone: bool) -> bool:
    """Bit for bit where an input was computed alone; what is computed together may differ in a float32's last bits."""
    pairs = [(each["label"], each["probability"]) for each in found["top"]]
    if alone:
        return pairs == list(wanted.top)
    return dict(pairs) == pytest.approx(dict(wanted.top), abs=2e-7)


def _settled(process: psutil.Process, most: int) -> int:
    """The open files, with all sockets, of a server that nobody asks any more."""
    until = time.monotonic() + 20
    while (now := process.num_fds()) > most and time.monotonic() < until:
        time.sleep(0.02)
    return now


def _under_load(models: dict[str, Path], folder: Path, seconds: float, say: Callable[[str], None]) -> None:
    """One server after the other, each with swaps under load, and each counted before it ends."""
    files = {name: folder / f"{name}.safetensors" for name in ("titanic", "insects", "spam")}
    for name, file in files.items():
        shutil.copy(models[name], file)
    torch.manual_seed(9)
    first = dlkit.load(files["titanic"])
    other = type(first.model)(first.preprocessing)
    swapped = [models["titanic"], dlkit.save(other, folder / "other", preprocessing=first.preprocessing)]
    versions = {}
    for name, file in [*files.items(), ("titanic", swapped[1])]:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        versions[name, digest] = dlkit.load(file)
    load = Load(versions)
    load.start()
    begun, lives, swaps = time.monotonic(), 0, 0
    try:
        while lives < 2 or time.monotonic() - begun < seconds:
            server = Server(*files.values(), "--workers", "1", "--threads", "1")
            process = psutil.Process(server.program.pid)
            load.port, load.stopping = server.port, False
            for ask in load.asks:
                load._whole(ask)
            fresh, threads, size = process.num_fds(), process.num_threads(), process.memory_info().rss >> 20
            load.running.set()
            until = time.monotonic() + max(1.5, min(60.0, seconds / 3))
            while time.monotonic() < until and not load.wrong:
                swaps += 1
                shutil.copy(swapped[swaps % 2], folder / "next")
                os.replace(folder / "next", files["titanic"])
                load.ending.wait(min(1.5, max(0.1, until - time.monotonic())))
            load.pause()
            left, grown = _settled(process, fresh), (process.memory_info().rss >> 20) - size
            assert left <= fresh, f"{left} files, {fresh} at the beginning: {process.net_connections()}"
            more = process.num_threads() - threads
            assert more <= POOL, f"{more} more threads than at the beginning"
            load.running.set()  # it ends while it is asked
            load.stopping = True
            os.kill(server.program.pid, signal.SIGTERM)
            log = server.log()
            load.pause()
            server.program.stdout.close()
            server.program.stderr.close()
            lives += 1
            failed = [line for line in log.splitlines() if '"level": "error"' in line]
            assert (server.program.returncode, failed) == (0, []), log[-3000:]
            assert not load.wrong, load.wrong[:5]
            assert grown < 60, f"{grown} MB more than after the first requests"
            say(f"server {lives}: {left} files and sockets, {fresh} at its beginning; {more:+} threads, {grown:+} MB")
    finally:
        load.end()
    took = time.monotonic() - begun
    asked = sum(load.seen.values())
    say(f"{took:.0f} s, {lives} servers, {swaps} swaps, {asked} requests, 0 wrong answers")
    for what, count in sorted(load.seen.items()):
        say(f"{count:8} {what}")


@pytest.mark.skipif(sys.platform != "linux", reason="files are counted as Linux counts them")
@pytest.mark.timeout(PROOF + 900)
@pytest.mark.parametrize(
    "seconds", [pytest.param(4, id="short"), pytest.param(PROOF, id="proof", marks=pytest.mark.proof)]
)
def test_under_load_no_answer_is_wrong_and_nothing_is_left(
    models: dict[str, Path], tmp_path: Path, seconds: float
) -> None:
    _under_load(models, tmp_path, seconds, print)
