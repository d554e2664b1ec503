"""Requests per second and latency of `dlkit serve`, beside the bare loop, FastAPI and LitServe, in turn.

    python bench/serving.py [--rounds 2] [--seconds 3] [--only images|tables] [--peers PYTHON]

All contenders decode and compute with the same `dlkit.Predictor`, on as many threads as there are cores, one of torch
each; the bare loop does it without HTTP. Of images there is a second server of dlkit, with `--fuse`. Every server is
started once and stands still (SIGSTOP) while another one is measured. Images: MobileNetV2 on JPEGs of 500x375 pixels; 1
and 16 clients in a closed loop, then twice as many requests as the bare loop manages, at fixed times, whoever has been
answered. Tables: one row a request with 1 and 16 clients, beside a Starlette application that answers a constant;
overload is twice as many clients, which ask again at once, as twice the rate of such a server is more than one process
of clients can send; and 1,000 rows a request as CSV beside `Predictor.predict`. The clients are one more process's
worth of work on the same cores, for every contender alike. FastAPI and LitServe run where PYTHON (by default this one)
has them.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import contextlib
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
import torch
from PIL import Image

import dlkit
from dlkit.datasets import CSVDataset
from dlkit.models import TabularMLP
from dlkit.transfer import create_model
from dlkit.transforms import for_evaluation

try:
    from uvloop import run
except ImportError:
    from asyncio import run

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
LOAD = "import sys, json, torch, dlkit; torch.set_num_threads(1); predictor = dlkit.load(sys.argv[1])\n"
LOAD += "def one(body, kind): return predictor.predict_one(body if 'image' in kind else json.loads(body)).label\n"
FASTAPI = f"""{LOAD}
import anyio, contextlib, fastapi, uvicorn
@contextlib.asynccontextmanager
async def life(app):
    anyio.to_thread.current_default_thread_limiter().total_tokens = {CORES}
    yield
app = fastapi.FastAPI(lifespan=life)
async def read(request: fastapi.Request): return await request.body(), request.headers["content-type"]
@app.post("/predict")
def predict(given=fastapi.Depends(read)): return {{"label": one(*given)}}
uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""
LITSERVE = f"""{LOAD}
import fastapi, litserve, typing
async def read(request: fastapi.Request): return await request.body(), request.headers["content-type"]
class Api(litserve.LitAPI):
    def setup(self, device): torch.set_num_threads(1)
    def decode_request(self, request: typing.Annotated[tuple, fastapi.Depends(read)]): return request
    def predict(self, given): return one(*given)
    def encode_response(self, label): return {{"label": label}}
if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device={CORES})
    server.run(port=int(sys.argv[2]), generate_client_file=False, log_level="error")
"""
STARLETTE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
async def predict(request):
    await request.body()
    return Response(b'{"label": "a"}', media_type="application/json")
async def ready(request): return Response()
routes = [Route("/predict", predict, methods=["POST"]), Route("/ready", ready)]
uvicorn.run(Starlette(routes=routes), port=int(sys.argv[2]), log_level="error", access_log=False)
"""
CLIENTS = 16


class Seen(NamedTuple):
    """What clients saw.

    Attributes:
        per_second: Requests answered.
        seconds: Until each was answered.
        refused: Seconds until each of the others was refused.
        used: Seconds of the processor that the server took.
    """

    per_second: float
    seconds: list[float]
    refused: list[float]
    used: float = 0.0

    @classmethod
    def joined(cls, parts: list[Seen]) -> Seen:
        """Several rounds as one; the rate is the median."""
        seconds, refused = ([one for part in parts for one in getattr(part, name)] for name in ("seconds", "refused"))
        used = sum(part.used for part in parts)
        return cls(statistics.median(part.per_second for part in parts), seconds, refused, used)

    def share(self, percent: float, *, refused: bool = False) -> float:
        """A percentile of the latency, in milliseconds."""
        return 1000 * float(np.percentile((self.refused if refused else self.seconds) or [np.nan], percent))

    def told(self) -> str:
        """One line."""
        last = f"   {len(self.refused)} refused, p95 {self.share(95, refused=True):.1f} ms" if self.refused else ""
        used = 1000 * self.used / max(1, len(self.seconds) + len(self.refused))
        return (
            f"{self.per_second:9.1f}/s   p50 {self.share(50):7.1f} ms   p95 {self.share(95):7.1f} ms   "
            f"processor {used:6.2f} ms a request{last}"
        )


class Client(asyncio.Protocol):
    """A connection that is kept, and sends the next request when the last one is answered.

    Written on the transport itself: with streams, clients take as much of the processor as a server of small requests.

    Args:
        requests: What to send, one after the other.
        note: Is told the status of each answer, and the seconds until it came.
    """

    def __init__(self, requests: Iterator[bytes], note: Callable[[int, float], None]) -> None:
        self._requests, self._note, self._got = requests, note, b""
        self._begun, self.ended = time.perf_counter(), asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        if (request := next(self._requests, None)) is None:
            self._transport.close()
        else:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, there, body = self._got.partition(b"\r\n\r\n")
        if there and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            now, self._got = time.perf_counter(), b""
            self._note(int(head[9:12]), now - self._begun)
            self._begun = now
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def asking(port: int, requests: Iterator[bytes], note: Callable[[int, float], None]) -> None:
    """Send all of some requests on one connection."""
    _, client = await asyncio.get_running_loop().create_connection(lambda: Client(requests, note), "127.0.0.1", port)
    await client.ended


async def closed(port: int, head: bytes, bodies: list[bytes], clients: int, seconds: float) -> Seen:
    """Clients that send the next request when the last one is answered."""
    good, bad, end = list[float](), list[float](), time.perf_counter() + seconds
    requests = [_sized(head, body) + body for body in bodies]

    def note(status: int, taken: float) -> None:
        (good if status == 200 else bad).append(taken)

    def until_the_end(number: int) -> Iterator[bytes]:
        while time.perf_counter() < end:
            yield requests[number % len(requests)]
            number += 1

    await asyncio.gather(*(asking(port, until_the_end(number), note) for number in range(clients)))
    return Seen(len(good) / seconds, good, bad)


async def opened(port: int, head: bytes, bodies: list[bytes], rate: float, seconds: float) -> Seen:
    """Requests at fixed times, each on a connection of its own."""
    good, bad = list[float](), list[float]()

    def note(status: int, taken: float) -> None:
        (good if status == 200 else bad).append(taken)

    async def client(number: int) -> None:
        await asyncio.sleep(number / rate)
        body = bodies[number % len(bodies)]
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(asking(port, iter([_sized(head, body) + body]), note), 20)

    await asyncio.gather(*map(client, range(int(rate * seconds))))
    return Seen(len(good) / seconds, good, bad)


def _sized(head: bytes, body: bytes) -> bytes:
    return head % len(body)


def head_of(media: str) -> bytes:
    return b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: " + media.encode() + b"\r\nContent-Length: %d\r\n\r\n"


class Server:
    """A contender in a process group of its own, which is ended whole: LitServe leaves processes behind.

    Args:
        command: Without the port, which comes last.
        ready: The path that answers 200 when it can be asked.
    """

    def __init__(self, command: list[str], ready: str) -> None:
        self.port, quiet = free_port(), {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(  # type: ignore[call-overload]
            [*command, str(self.port)], start_new_session=True, env=environment, **quiet
        )
        atexit.register(self.end)  # also of a bench that is broken off
        until = time.monotonic() + 180
        while not self._answers(ready):
            if self._process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"this server does not answer: {command}")
            time.sleep(0.2)
        self._signal(signal.SIGSTOP)

    def _answers(self, path: str) -> bool:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2).close()
            return True
        return False

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    @contextlib.contextmanager
    def awake(self) -> Iterator[int]:
        """Its port, while it may work."""
        self._signal(signal.SIGCONT)
        yield self.port
        self._signal(signal.SIGSTOP)

    def used(self) -> float:
        """Seconds of the processor that it and all that it started have taken."""
        main, found = psutil.Process(self._process.pid), 0.0
        for process in [main, *main.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += sum(process.cpu_times()[:2])
        return found

    def end(self) -> None:
        """End it and all that it started."""
        atexit.unregister(self.end)
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._signal(signal.SIGKILL)


def bare(predict: Callable[[int], Any], seconds: float) -> float:
    """Calls per second of a loop in as many threads as cores, without HTTP."""
    counts, end = [0] * CORES, time.perf_counter() + seconds

    def work(place: int) -> None:
        torch.set_num_threads(1)
        while time.perf_counter() < end:
            predict(counts[place])
            counts[place] += 1

    threads = [threading.Thread(target=work, args=(place,)) for place in range(CORES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def contenders(
    file: Path, options: Any, *, queue: int, peers: bool, constant: bool, fuse: bool = False
) -> dict[str, Server]:
    command = [sys.executable, "-m", "dlkit", "serve", str(file), "--queue", str(queue)]
    ways = {"dlkit": [], "dlkit --fuse": ["--fuse"]} if fuse else {"dlkit": list[str]()}
    here = {name: Server([*command, *more, "--port"], "/v2/health/ready") for name, more in ways.items()}
    others = [("FastAPI", "fastapi", FASTAPI, "/openapi.json"), ("LitServe", "litserve", LITSERVE, "/health")]
    others = others * peers + [("Starlette, a constant", "starlette", STARLETTE, "/ready")] * constant
    for name, module, source, ready in others:
        script = file.with_name(f"{module}_server.py")
        script.write_text(source)
        python = sys.executable if module == "starlette" else options.peers
        if subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0:
            here[name] = Server([python, str(script), str(file)], ready)
        else:
            print(f"{name} is not installed in {Path(python).name}; --peers names a Python that has it")
    return here


def photos() -> list[bytes]:
    drawn, found = np.random.default_rng(0), list[bytes]()
    for _ in range(8):
        noise = drawn.normal(128, 60, (32, 42, 3)).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def image_model(folder: Path) -> Path:
    torch.manual_seed(0)
    model = create_model("mobilenetv2_100", classes=list("abcdefghij"), pretrained=False)
    return dlkit.save(model, folder / "photos.safetensors", preprocessing=for_evaluation(224))


def table_model(folder: Path) -> tuple[Path, pd.DataFrame]:
    drawn, count = np.random.default_rng(0), 1000
    table = pd.DataFrame({f"number{n}": drawn.normal(n, 3, count).round(3) for n in range(8)})
    table = table.assign(**{f"kind{n}": drawn.choice(list("abcdef"), count) for n in range(4)})
    data = CSVDataset(table.assign(target=drawn.choice(["no", "yes"], count)), target="target")
    return dlkit.save(TabularMLP(data.spec), folder / "rows.safetensors", preprocessing=data), table


def measure(servers: dict[str, Server], media: str, bodies: list[bytes], predict: Any, options: Any) -> None:
    """Every contender in turn, round after round: medians of the rates, percentiles over all rounds."""
    loops, seen = list[float](), dict[tuple[str, str], list[Seen]]()
    head, seconds = head_of(media), options.seconds

    def note(name: str, load: str, found: Any) -> None:
        before = servers[name].used()
        part = run(found)
        seen.setdefault((name, load), []).append(part._replace(used=servers[name].used() - before))

    for _ in range(options.rounds):
        loops.append(bare(predict, seconds))
        for name, server in servers.items():
            with server.awake() as port:
                run(closed(port, head, bodies, 4, 0.5))
                for clients in (1, CLIENTS):
                    note(name, f"{clients} clients", closed(port, head, bodies, clients, seconds))
                if media.startswith("image"):
                    note(name, "overload", opened(port, head, bodies, 2 * loops[-1], seconds))
                elif media == "application/json":
                    note(name, "overload", closed(port, head, bodies, 2 * CLIENTS, seconds))
    loop, whole = statistics.median(loops), {key: Seen.joined(parts) for key, parts in seen.items()}
    print(f"{f'bare loop of {CORES} threads':34} {loop:9.1f}/s")
    for (name, load), found in whole.items():
        print(f"{f'{name}, {load}':34} {found.told()}   {found.per_second / loop:5.2f} of the bare loop")
    _compared(whole, f"{CLIENTS} clients")
    if media.startswith("image"):
        print(f"{CLIENTS} clients at the rate of the bare loop wait {1000 * CLIENTS / loop:.1f} ms on average")
    for server in servers.values():
        server.end()


def _compared(whole: dict[tuple[str, str], Seen], usual: str) -> None:
    """The ratios that matter."""
    names = list(dict.fromkeys(name for name, _ in whole))
    for own in (name for name in names if name.startswith("dlkit")):
        mine = whole[own, usual]
        for name in (name for name in names if not name.startswith("dlkit")):
            peer = whole[name, usual]
            print(
                f"{own} / {name}, {usual}: {mine.per_second / peer.per_second:.2f} of its requests per second, "
                f"{mine.share(95) / peer.share(95):.2f} of its p95"
            )
        if (own, "overload") in whole:
            ratio = whole[own, "overload"].share(95) / mine.share(95)
            print(f"{own}, p95 of what it takes under overload / with {usual}: {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", choices=["images", "tables"])
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        if options.only != "tables":
            images(Path(name), options)
        if options.only != "images":
            tables(Path(name), options)


def images(folder: Path, options: Any) -> None:
    file, bodies = image_model(folder), photos()
    predictor = dlkit.load(file)
    print("== images: MobileNetV2, JPEG of 500x375", flush=True)
    servers = contenders(file, options, queue=CLIENTS, peers=True, constant=False, fuse=True)
    measure(servers, "image/jpeg", bodies, lambda n: predictor.predict_one(bodies[n % 8]), options)


def tables(folder: Path, options: Any) -> None:
    file, table = table_model(folder)
    predictor, rows = dlkit.load(file), json.loads(table.head(64).to_json(orient="records"))
    print("== tables: one row a request", flush=True)
    servers = contenders(file, options, queue=CLIENTS, peers=True, constant=True)
    bodies = [json.dumps(row).encode() for row in rows]
    measure(servers, "application/json", bodies, lambda n: predictor.predict_one(rows[n % 64]), options)
    print("== tables: 1,000 rows a request, as CSV", flush=True)
    servers, content = (
        contenders(file, options, queue=64, peers=False, constant=False),
        table.to_csv(index=False).encode(),
    )
    measure(servers, "text/csv", [content], lambda n: predictor.predict(content, progress=False), options)


if __name__ == "__main__":
    main()
