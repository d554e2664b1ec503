"""A client that sends a request piece by piece, without a socket; a model that waits until it is let go; a server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import uvicorn
from starlette.testclient import TestClient

import dlkit
import warm
from dlkit.inference import Prediction
from dlkit.serving import app


class Done(NamedTuple):
    """An answer; status 0 where there is none."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as plain data."""
        return json.loads(self.body)


class Client:
    """One request to an application, of which the test decides when what comes.

    Args:
        application: Of ASGI.
        method: Of HTTP.
        path: With a query.
        headers: By name.
    """

    def __init__(self, application: Any, method: str, path: str, headers: dict[str, str] | None = None) -> None:
        self._application, self._messages = application, asyncio.Queue[dict[str, Any]]()
        bare, _, query = path.partition("?")
        self._scope = {
            "type": "http",
            "method": method,
            "path": bare,
            "raw_path": bare.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        self._sent = list[dict[str, Any]]()

    def send(self, body: bytes, *, more: bool = False) -> Client:
        """A piece of the body."""
        self._messages.put_nowait({"type": "http.request", "body": body, "more_body": more})
        return self

    def leave(self) -> Client:
        """Close the connection."""
        self._messages.put_nowait({"type": "http.disconnect"})
        return self

    async def answer(self) -> Done:
        """Wait for the answer."""

        async def send(message: dict[str, Any]) -> None:
            self._sent.append(message)

        await self._application(self._scope, self._messages.get, send)
        if not self._sent:
            return Done(0, {}, b"")
        headers = {name.decode(): value.decode() for name, value in self._sent[0]["headers"]}
        return Done(self._sent[0]["status"], headers, b"".join(each.get("body", b"") for each in self._sent[1:]))


def post(application: Any, body: Any, path: str = "/predict", **headers: str) -> Client:
    """A request with JSON, all of it sent."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Client(application, "POST", path, {"content-type": "application/json", **headers}).send(content)


class Gated(torch.nn.Module):
    """A model that computes when it is let, and notes the size of each batch."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.open, self.sizes = inner, threading.Event(), list[int]()
        self.reached = threading.Semaphore(0)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the model inside gives."""
        self.sizes.append(len([*inputs, *named.values()][0]))
        self.reached.release()
        assert self.open.wait(20)
        return self.inner(*inputs, **named)


def gated(file: Any) -> tuple[dlkit.Predictor, Gated]:
    """A loaded model that waits."""
    predictor = dlkit.load(file)
    gate = Gated(predictor.model).eval()
    predictor.model = gate
    return predictor, gate


class Server:
    """A real `dlkit serve`."""

    def __init__(self, *arguments: object) -> None:
        self.program = warm.Program(["-m", "dlkit", "serve", *arguments, "--port", "0", "--json"])
        self._reading = threading.Thread(target=lambda: self.lines.extend(self.program.stderr))
        self.lines = list[str]()
        self._reading.start()
        told = ""
        while not told.rstrip().endswith("}"):
            line = self.program.stdout.readline()
            assert line, self.log()
            told += line
        self.address = json.loads(told)["address"]
        self.port = int(self.address.rstrip("/").rpartition(":")[2])

    def log(self) -> str:
        """All that was logged, when it has ended."""
        self.program.wait(20)
        self._reading.join()
        return "".join(self.lines)

    def post(self, rows: Any, **headers: str) -> Any:
        request = urllib.request.Request(
            f"{self.address}predict",
            json.dumps(rows).encode(),
            {"content-type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def connect(self, first: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        try:
            connection.sendall(first)
        except OSError:  # the server ends, and has not taken it up
            connection.close()
            raise
        return connection


@contextlib.contextmanager
def listening(application: Any, **options: Any) -> Iterator[str]:
    """The address of a real server of an application, on a free port, in a thread."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="error", ws="none", **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


def same(answer: dict[str, Any], wanted: Prediction) -> None:
    """An answer has the bits of a prediction."""
    if wanted.error:
        assert list(answer) == ["error"]
        return
    assert answer.get("values", wanted.values) == wanted.values
    assert answer.get("probabilities", wanted.values) == wanted.values
    assert answer.get("label") == wanted.label
    assert [tuple(each.values()) for each in answer.get("top", [])] == list(wanted.top)


def answers_as_predictor(predictor: dlkit.Predictor, inputs: list[Any]) -> None:
    """A server says what the model says, of several inputs, of one, and of some that come at once."""
    with TestClient(app({"model": predictor}, workers=1)) as client:
        several = client.post("/predict?top_k=2", json=inputs)
        assert several.status_code == 200, several.text
        wanted = list(predictor.predict_each(inputs, top_k=2))
        for answer, prediction in zip(several.json()["predictions"], wanted, strict=True):
            same(answer, prediction)
        for each in inputs[:3]:  # the first by a thread, the others where requests are answered
            (answer,) = client.post("/predict?top_k=2", json=each).json()["predictions"]
            same(answer, predictor.predict_one(each, top_k=2))


async def until(condition: Sequence[Any] | Any) -> None:
    """Let the event loop run until something is so; a test's own time limit is the only one."""
    while not condition():
        await asyncio.sleep(0.001)
