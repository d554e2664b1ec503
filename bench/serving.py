"""Requests per second and latency of `dlkit serve`, beside the bare loop, FastAPI and LitServe, in turn.

    python bench/serving.py [--rounds 3] [--seconds 4] [--only images|tables]

All contenders decode and compute with the same `dlkit.Predictor`, on as many threads as there are cores, one of torch
each; the bare loop does it without HTTP. Images: MobileNetV2 on JPEGs of 500x375 pixels; 1 and 16 clients in a closed
loop, and twice as many requests as the bare loop manages, at fixed times, whoever has been answered. Tables: one row a
request with 1 and 16 clients, and 1,000 rows a request as CSV beside `Predictor.predict`. The clients are one more
process's worth of work on the same cores, for every contender alike. FastAPI and LitServe run where they are installed.
"""

from __future__ import annotations

import argparse
import asyncio
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
import torch
from PIL import Image

import dlkit
from dlkit.datasets import CSVDataset
from dlkit.models import TabularMLP
from dlkit.transfer import create_model
from dlkit.transforms import for_evaluation

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
import litserve, fastapi
class Api(litserve.LitAPI):
    def setup(self, device): torch.set_num_threads(1)
    async def decode_request(self, request: fastapi.Request):
        return await request.body(), request.headers["content-type"]
    def predict(self, given): return one(*given)
    def encode_response(self, label): return {{"label": label}}
if __name__ == "__main__":
    server = litserve.LitServer(Api(enable_async=False), accelerator="cpu", workers_per_device={CORES})
    server.run(port=int(sys.argv[2]), generate_client_file=False, log_level="error")
"""


class Seen(NamedTuple):
    """What clients saw."""

    per_second: float
    seconds: list[float]
    refused: list[float]

    def told(self) -> str:
        """One line."""
        p50, p95 = (1000 * float(np.percentile(self.seconds or [np.nan], share)) for share in (50, 95))
        refused = (
            f", {len(self.refused)} refused in {1000 * statistics.median(self.refused):.1f} ms" if self.refused else ""
        )
        return f"{self.per_second:9.1f}/s  p50 {p50:7.1f} ms  p95 {p95:7.1f} ms{refused}"


async def request(port: int, head: bytes, body: bytes, connection: list[Any]) -> int:
    """One request on a connection that is kept; the status."""
    if not connection:
        connection += await asyncio.open_connection("127.0.0.1", port)
    reader, writer = connection
    writer.write(head + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    return int(answer.split(b" ", 2)[1])


async def closed(port: int, head: bytes, bodies: list[bytes], clients: int, seconds: float) -> Seen:
    """Clients that send the next request when the last one is answered."""
    good, bad, end = list[float](), list[float](), time.perf_counter() + seconds

    async def client(number: int) -> None:
        connection = list[Any]()
        while (begun := time.perf_counter()) < end:
            status = await request(
                port, _sized(head, bodies[number % len(bodies)]), bodies[number % len(bodies)], connection
            )
            (good if status == 200 else bad).append(time.perf_counter() - begun)
            number += 1
        connection[1].close()

    await asyncio.gather(*map(client, range(clients)))
    return Seen(len(good) / seconds, good, bad)


async def opened(port: int, head: bytes, bodies: list[bytes], rate: float, seconds: float) -> Seen:
    """Requests at fixed times, each on a connection of its own."""
    good, bad = list[float](), list[float]()

    async def client(number: int) -> None:
        await asyncio.sleep(number / rate)
        begun, connection = time.perf_counter(), list[Any]()
        body = bodies[number % len(bodies)]
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            status = await asyncio.wait_for(request(port, _sized(head, body), body, connection), 20)
            (good if status == 200 else bad).append(time.perf_counter() - begun)
            connection[1].close()

    await asyncio.gather(*map(client, range(int(rate * seconds))))
    return Seen(len(good) / seconds, good, bad)


def _sized(head: bytes, body: bytes) -> bytes:
    return head % len(body)


def head_of(media: str) -> bytes:
    return b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: " + media.encode() + b"\r\nContent-Length: %d\r\n\r\n"


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A server in a process group of its own, which is ended whole: LitServe leaves processes behind."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        [sys.executable, *command], start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet
    )  # type: ignore[call-overload]
    try:
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=2).close()
                break
            time.sleep(0.2)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)
            os.killpg(process.pid, signal.SIGKILL)


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


def contenders(file: Path, port: int, *, peers: bool) -> dict[str, list[str]]:
    here = {"dlkit": ["-m", "dlkit", "serve", str(file), "--port", str(port), "--queue", "16"]}
    for name, module, source in (("FastAPI", "fastapi", FASTAPI), ("LitServe", "litserve", LITSERVE)):
        script = file.with_name(f"{module}_server.py")
        script.write_text(source)
        if not peers:
            continue
        if subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0:
            here[name] = [str(script), str(file), str(port)]
        else:
            print(f"{name} is not installed")
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
    return dlkit.save(TabularMLP(data.schema), folder / "rows.safetensors", preprocessing=data), table


def measure(file: Path, media: str, bodies: list[bytes], predict: Callable[[int], Any], options: Any) -> None:
    """Every contender in turn, `rounds` times; medians of the rates, and the last round's latencies."""
    rates, loops = dict[str, list[float]](), list[float]()
    for number in range(options.rounds):
        loops.append(bare(predict, options.seconds))
        for name, command in contenders(file, port := free_port(), peers=media != "text/csv").items():
            with running(command, port):
                asyncio.run(closed(port, head_of(media), bodies, 4, 1.0))
                for clients in (1, 16):
                    seen = asyncio.run(closed(port, head_of(media), bodies, clients, options.seconds))
                    rates.setdefault(f"{name}, {clients} clients", []).append(seen.per_second)
                    print(f"round {number}: {name:9} {clients:2} clients {seen.told()}", flush=True)
                seen = asyncio.run(opened(port, head_of(media), bodies, 2 * loops[-1], options.seconds))
                print(f"round {number}: {name:9} overload   {seen.told()}", flush=True)
    loop = statistics.median(loops)
    print(f"bare loop of {CORES} threads: {loop:.1f}/s")
    for name, found in rates.items():
        print(f"{name:24} {statistics.median(found):9.1f}/s, {statistics.median(found) / loop:.2f} of the bare loop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", choices=["images", "tables"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only != "tables":
            file, bodies = image_model(folder), photos()
            predictor = dlkit.load(file)
            print("== images: MobileNetV2, JPEG of 500x375")
            measure(file, "image/jpeg", bodies, lambda n: predictor.predict_one(bodies[n % 8]), options)
        if options.only != "images":
            file, table = table_model(folder)
            rows = json.loads(table.head(64).to_json(orient="records"))
            predictor = dlkit.load(file)
            print("== tables: one row a request")
            measure(
                file,
                "application/json",
                [json.dumps(row).encode() for row in rows],
                lambda n: predictor.predict_one(rows[n % 64]),
                options,
            )
            print("== tables: 1,000 rows a request, as CSV")
            content = table.to_csv(index=False).encode()
            measure(file, "text/csv", [content], lambda n: predictor.predict(content, progress=False), options)


if __name__ == "__main__":
    main()
