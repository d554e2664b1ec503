"""Bodies at random: never an error of the server, and no memory that is kept."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serving.conftest import passengers, picture

NAMES = ["insects", "titanic", "spam", "bare"]
MEDIA = [
    "image/jpeg",
    "application/octet-stream",
    "text/plain",
    "text/csv",
    "application/json",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "",
]
ROW = json.loads(passengers(1).to_json(orient="records"))[0]
GOOD = [
    picture(0),
    picture(1, "PNG"),
    picture(2, "GIF"),
    picture(3, "TIFF"),
    picture(4, "BMP"),
    passengers(3).to_csv(index=False).encode(),
    json.dumps([ROW]).encode(),
    json.dumps({"inputs": ["win a prize", ["a", "b"]], "top_k": 2}).encode(),
    b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\nhello\r\n--x--\r\n',
    json.dumps({"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": ["b"]}]}).encode(),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(list(ROW.values())),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*ROW, "inputs", "x"]), inner, max_size=6)
    ),
    max_leaves=12,
)


@st.composite
def changed(draw: Callable[..., Any]) -> bytes:
    """A good body in which some bytes are others, gone, or there twice."""
    body = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(body)))
        length = draw(st.integers(0, 40))
        body[place : place + draw(st.integers(0, 40))] = draw(st.binary(max_size=8) | st.just(bytes(body[:length])))
    return bytes(body)


_ROUNDS = 20
BODIES = st.binary(max_size=200) | changed() | VALUES.map(lambda value: json.dumps(value).encode())


def check(client: TestClient, name: str, body: bytes, media: str) -> None:
    headers = {"content-type": media} if media else {}
    for path in ("/predict?top_k=2", f"/v2/models/{name}/infer"):
        done = client.post(path, content=body, headers=headers)
        assert done.status_code < 500, (path, done.text)
        answer = done.json()
        assert answer.get("predictions") or answer.get("outputs") or answer["error"]
        assert "Traceback" not in done.text
        assert ".py" not in done.text
        assert done.status_code == 200 or answer["error"]


@given(name=st.sampled_from(NAMES), body=BODIES, media=st.sampled_from(MEDIA))
@example(name="spam", body=b'"\\ud800"', media="application/json")
@example(name="titanic", body=json.dumps([ROW | {"age": 1e308}]).encode(), media="application/json")
@example(name="titanic", body=json.dumps([ROW | {"age": "\ud800"}]).encode(), media="application/json")
@example(name="titanic", body=b"age,fare,sex,port,alone\n", media="text/csv")
@example(name="bare", body=b"[[1e999]]", media="application/json")
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_no_body_is_an_error_of_the_server(clients: dict[str, TestClient], name: str, body: bytes, media: str) -> None:
    check(clients[name], name, body, media)


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_20000_bodies_and_memory_stays_flat(clients: dict[str, TestClient]) -> None:
    sizes, asked = list[int](), 0
    for number in range(_ROUNDS):  # in rounds, because Hypothesis remembers every example of one

        @seed(number)
        @given(name=st.sampled_from(NAMES), body=BODIES, media=st.sampled_from(MEDIA))
        @settings(settings.get_profile("fuzz"), max_examples=1000, suppress_health_check=list(HealthCheck))
        def ask(name: str, body: bytes, media: str) -> None:
            nonlocal asked
            asked += 1
            check(clients[name], name, body, media)

        ask()
        del ask
        gc.collect()
        sizes.append(psutil.Process().memory_info().rss >> 20)
    assert asked >= 1000 * _ROUNDS
    assert sizes[-1] - sizes[len(sizes) // 4] < 30, sizes
    assert len(os.listdir("/proc/self/fd")) < 200 if Path("/proc").is_dir() else True
