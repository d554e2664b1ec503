"""A model that listens, served: bodies and forms of sounds, base64 in JSON, and how long a sound may be."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

import dlkit
from dlkit.models import AudioClassifier
from dlkit.serving import Limits, app
from dlkit.transforms.audio import AudioPreprocessing

soundfile = pytest.importorskip("soundfile")
RATE = 8_000


def sound(seconds: float, rate: int = RATE, kind: str = "WAV", channels: int = 1) -> bytes:
    file, times = io.BytesIO(), np.arange(round(seconds * rate)) / rate
    soundfile.write(file, np.stack([0.3 * np.sin(2 * math.pi * 500 * times)] * channels, 1), rate, format=kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    spec = AudioPreprocessing(sample_rate=RATE, seconds=0.5)
    file = tmp_path_factory.mktemp("models") / "birds.safetensors"
    return dlkit.save(AudioClassifier(2, RATE, width=4), file, classes=["owl", "wren"], preprocessing=spec)


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[TestClient]:
    with TestClient(app(model, limits=Limits(sound_seconds=4))) as made:
        yield made


def test_sounds_come_as_a_body_a_form_or_json(client: TestClient, model: Path) -> None:
    wanted = dlkit.load(model)
    given = [sound(0.7), sound(0.4, 44_100, "FLAC", 2), b"no sound", sound(1.0, 22_050)]
    for data, media in ((given[0], "audio/wav"), (given[1], "audio/flac"), (given[3], "application/octet-stream")):
        done = client.post("/predict", content=data, headers={"content-type": media})
        assert done.status_code == 200, done.text
        assert done.json()["predictions"][0]["label"] == wanted.predict_one(data).label
    form = client.post("/predict", files=[("file", (f"{n}.wav", data)) for n, data in enumerate(given)]).json()
    as_json = client.post("/predict", json=[base64.b64encode(data).decode() for data in given]).json()
    assert form == as_json
    answers = list(wanted.predict_each(given, batch_size=1, on_error="skip"))
    assert [each.get("label") for each in form["predictions"]] == [each.label for each in answers]
    assert "not a sound" in form["predictions"][2]["error"]
    assert "sound 2" not in form["predictions"][2]["error"]


def test_a_sound_that_is_too_long_is_refused_before_it_is_decoded(client: TestClient) -> None:
    long, wide = sound(4.1, kind="FLAC"), sound(1.0, 48_000, "FLAC", channels=8)
    done = client.post("/predict", content=long, headers={"content-type": "audio/flac"})
    assert done.status_code == 422
    assert "has 4 seconds and 32,800 samples; this server takes 4 seconds of stereo at 48 kHz" in done.text
    assert client.post("/predict", content=wide, headers={"content-type": "audio/flac"}).status_code == 200
    refused = client.post("/predict", content=b"x", headers={"content-type": "image/png"})
    assert refused.status_code == 415
    assert "this model takes sounds, as audio/*" in refused.text


def test_it_is_described(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    taken = next(each["post"]["requestBody"]["content"] for path, each in paths.items() if path == "/predict")
    assert "audio/*" in taken
