"""Bodies and files that are made to harm: a sentence, in little time and memory, and nothing here is opened."""

from __future__ import annotations

import gc
import hmac
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from starlette.testclient import TestClient

import dlkit
from dlkit.errors import ModelFileError
from dlkit.serving import app, gate
from dlkit.serving.served import Served
from serving.conftest import passengers, picture

ROOT = Path(__file__).resolve().parents[2]
ROW = json.loads(passengers(1).to_json(orient="records"))[0]
_MB = 1 << 20


def bomb(kind: str) -> bytes:
    """A picture of 100 million pixels in some ten thousand bytes."""
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, kind, **({"compression": "group4"} if kind == "TIFF" else {}))
    return file.getvalue()


def long_silence() -> bytes:
    """Half an hour of silence, which takes some kB as FLAC."""
    import soundfile

    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8_000, 1, format="FLAC", subtype="PCM_16") as written:
        for _ in range(30):
            written.write(np.zeros(60 * 8_000, np.int16))
    return file.getvalue()


def zipped() -> bytes:
    """A table in a zip file, as Excel's are: 30 MB of nothing in 30 kB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/worksheets/sheet1.xml", b" " * (30 * _MB))
    return file.getvalue()


def form(head: bytes, body: bytes = b"x") -> bytes:
    return b"--x\r\n" + head + b"\r\n\r\n" + body + b"\r\n--x--\r\n"


FORM = "multipart/form-data; boundary=x"
HOSTILE: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "PNG of 100 million pixels": ("insects", "image/png", lambda: bomb("PNG")),
    "TIFF of 100 million pixels": ("insects", "image/tiff", lambda: bomb("TIFF")),
    "half an hour of silence": ("calls", "audio/flac", long_silence),
    "WAV that promises 4 GB": (
        *("calls", "audio/wav"),
        lambda: (
            b"RIFF\xff\xff\xff\xffWAVEfmt "
            + bytes([16, 0, 0, 0, 1, 0, 1, 0, 64, 31, 0, 0, 128, 62, 0, 0, 2, 0, 16, 0])
            + b"data\xff\xff\xff\xff"
        ),
    ),
    "zip in place of a table": ("titanic", "text/csv", zipped),
    "zip in place of texts": ("spam", "text/csv", zipped),
    "a page that begins like a GIF": ("insects", "image/gif", lambda: b"GIF89a/*<script>alert(1)</script>*/"),
    "a program in place of a picture": ("insects", "image/png", lambda: b"#!/bin/sh\nid\n" + picture(0, "PNG")),
    "a pickle in place of a picture": (
        "insects",
        "application/octet-stream",
        lambda: b"\x80\x04cos\nsystem\n(S'id'\ntR.",
    ),
    "a path in place of a picture": ("insects", "image/png", lambda: b"/etc/passwd"),
    "SVG that names a file": (
        *("insects", "image/svg+xml"),
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    ),
    "deep lists": ("titanic", "application/json", lambda: b"[" * 1_000_000),
    "deep objects": ("titanic", "application/json", lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "NaN": ("titanic", "application/json", lambda: json.dumps(ROW | {"age": float("nan")}).encode()),
    "infinity": ("titanic", "application/json", lambda: json.dumps(ROW | {"age": float("inf")}).encode()),
    "a number of a million digits": ("titanic", "application/json", lambda: b'{"age": ' + b"9" * 1_000_000 + b"}"),
    "a key that comes twice": ("titanic", "application/json", lambda: b'{"age": 1, "age": 2}'),
    "five million values": ("titanic", "application/json", lambda: b"[" + b"1," * 5_000_000 + b"1]"),
    "a table of 300,000 columns": ("titanic", "text/csv", lambda: b"a," * 300_000 + b"b\n1\n"),
    "a table of a million rows": ("titanic", "text/csv", lambda: b"age\n" + b"1\n" * 1_000_000),
    "a form's head of 8 MB": ("insects", FORM, lambda: form(b"Content-Disposition: form-data; name=" + b"a" * 8 * _MB)),
    "a form's 200,000 heads": ("insects", FORM, lambda: form(b"\r\n".join([b"X: y"] * 200_000), picture(0)[:50])),
    "a form of 100,000 parts": ("insects", FORM, lambda: b"--x\r\n\r\n\r\n" * 100_000 + b"--x--\r\n"),
    "a text of 15 MB": ("spam", "text/plain", lambda: b"a " * 7_500_000),
    "texts that are no text": ("spam", "text/plain", lambda: bytes(range(256)) * 100),
}


@pytest.fixture(scope="module")
def little_to_look_through(clients: dict[str, TestClient]) -> None:
    """What is there before these tests is garbage in none of them: fifty times `gc.collect` would look through it."""
    gc.collect()
    gc.freeze()


@pytest.mark.usefixtures("little_to_look_through")
@pytest.mark.parametrize("what", HOSTILE)
def test_a_body_that_is_made_to_harm_gets_a_sentence(clients: dict[str, TestClient], what: str) -> None:
    name, media, made = HOSTILE[what]
    body, process = made(), psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    for _ in range(3):
        done = clients[name].post("/predict", content=body, headers={"content-type": media})
        assert 400 <= done.status_code < 500, done.text[:300]
        assert done.headers["content-type"] == "application/json"
        assert done.headers["x-content-type-options"] == "nosniff"
        assert 10 < len(done.json()["error"]) < 1000
        assert not re.search(r"Traceback|\.py\b|/root|/home|root:x", done.text)
    gc.collect()
    grown = (process.memory_info().rss - before) / _MB
    assert grown < 150 + 3 * len(body) / _MB, f"{grown:.0f} MB are kept of {len(body):,} bytes"


def test_a_picture_with_something_behind_it_is_a_picture(
    clients: dict[str, TestClient], predictors: dict[str, dlkit.Predictor]
) -> None:
    polyglot = picture(0) + zipped()[:2000] + b"<script>alert(1)</script>"
    done = clients["insects"].post("/predict", content=polyglot, headers={"content-type": "text/html, image/png"})
    assert done.status_code == 415
    done = clients["insects"].post("/predict", content=polyglot, headers={"content-type": "image/jpeg"})
    assert done.json()["predictions"][0]["label"] == predictors["insects"].predict_one(picture(0)).label
    assert done.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_a_fifo_in_place_of_a_model_is_not_waited_for(models: dict[str, Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError):
        app(tmp_path / "model.safetensors")
    file = tmp_path / "spam.safetensors"
    shutil.copy(models["spam"], file)
    served = Served("spam", file)
    first = served.now
    file.unlink()
    os.mkfifo(file)
    assert [served.renew(), served.renew(), served.renew()] == [False, None, False]
    assert served.now is first


def test_tokens_are_compared_in_constant_time(
    predictors: dict[str, dlkit.Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = list[tuple[bytes, bytes]]()

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(gate, "hmac", type("Noted", (), {"compare_digest": staticmethod(noted)}))
    client = TestClient(app(predictors["spam"], token="s3cret"))
    for token in ("", "s", "s3cres", "x" * 10_000, "s3cret"):
        client.get("/model", headers={"authorization": f"Bearer {token}"})
    assert len(compared) == 5
    assert {len(part) for pair in compared for part in pair} == {32}  # whatever the token's length


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_unit_of_the_documentation(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    found = re.search(r"```text\n(\[Unit\].*?)```", document, re.DOTALL)
    assert found
    unit = tmp_path / "dlkit.service"
    unit.write_text(found[1].replace("/opt/dlkit/bin/dlkit", sys.executable))  # the program must be there
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
