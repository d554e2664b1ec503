"""What every request passes: limits on the body, the token, headers, errors as sentences, and a line in the log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import zlib

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import dlkit
from dlkit import serving
from dlkit.errors import MissingExtraError
from dlkit.serving import Limits, app
from dlkit.serving.logs import LOGGER
from serving.asking import Client, post
from serving.conftest import picture


def test_a_body_is_limited_by_its_header_and_as_it_comes(predictors: dict[str, dlkit.Predictor]) -> None:
    application = app(predictors["spam"], limits=Limits(body=1000))

    async def ask() -> None:
        said = Client(application, "POST", "/predict", {"content-length": "1001"})  # nothing of it is read
        assert (await said.answer()).status == 413
        come = Client(application, "POST", "/predict").send(b"x" * 600, more=True).send(b"x" * 600, more=True)
        done = await come.answer()
        assert (done.status, done.headers["connection"]) == (413, "close")
        assert "1,000 bytes" in done.json["error"]
        for wrong in ("-1", "1e3", "²"):
            assert (await Client(application, "POST", "/predict", {"content-length": wrong}).answer()).status == 400
        gone = Client(application, "POST", "/predict").send(b"x", more=True).leave()
        assert (await gone.answer()).status == 0

    asyncio.run(ask())


def test_a_body_that_does_not_come_is_not_waited_for(predictors: dict[str, dlkit.Predictor]) -> None:
    application = app(predictors["spam"], limits=Limits(body_seconds=0.01))

    async def ask() -> None:
        done = await Client(application, "POST", "/predict").send(b"x", more=True).answer()
        assert (done.status, "0.01 s" in done.json["error"]) == (408, True)

    asyncio.run(ask())


def test_the_token(predictors: dict[str, dlkit.Predictor], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    client = TestClient(app(predictors["spam"], token="s3cret"))
    for wrong in ("", "Bearer", "Bearer s3cre", "Basic s3cret", "s3cret", "Bearer s3cret2", "Bearer ümlaut"):
        headers = {"authorization": wrong.encode("latin-1")} if wrong else {}
        done = client.post("/predict", json=["a"], headers=headers)
        assert (done.status_code, done.headers["www-authenticate"]) == (401, "Bearer")
        assert "s3cre" not in done.text
    for path in ("/model", "/models", "/metrics", "/openapi.json", "/v2", "/nothing"):
        assert client.get(path).status_code == 401
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    assert client.post("/predict", json=["a"], headers={"authorization": "bearer s3cret"}).status_code == 200
    assert "s3cre" not in caplog.text


def test_headers_of_every_answer(clients: dict[str, TestClient]) -> None:
    answers = [clients["spam"].get(path) for path in ("/", "/model", "/nothing")]
    answers.append(clients["spam"].post("/predict", content=b"{", headers={"content-type": "application/json"}))
    for done in answers:
        assert done.headers["x-content-type-options"] == "nosniff"
        assert done.headers["x-frame-options"] == "DENY"
        assert done.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in done.headers["content-security-policy"]
        assert "unsafe" not in done.headers["content-security-policy"]
        assert not [name for name in done.headers if name.startswith("access-control")]
        assert len(done.headers["x-request-id"]) == 32


def test_pages_of_other_sites_send_nothing(clients: dict[str, TestClient]) -> None:
    done = clients["spam"].post("/predict", json=["a"], headers={"sec-fetch-site": "cross-site"})
    assert done.status_code == 403
    preflight = clients["spam"].options("/predict", headers={"origin": "https://evil.example"})
    assert (preflight.status_code, "access-control-allow-origin" in preflight.headers) == (405, False)


def test_a_line_in_the_log_for_each_request(clients: dict[str, TestClient], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    clients["spam"].post("/predict?top_k=1", json=["secret text"], headers={"x-request-id": "mine-7"})
    clients["spam"].get("/nothing?password=1", headers={"x-request-id": "not good\x7f"})
    first, second = (json.loads(record.message) for record in caplog.records if "route" in record.message)
    assert {name: first[name] for name in ("event", "level", "id", "method", "route", "status", "model", "inputs")} == {
        "event": "request",
        "level": "info",
        "id": "mine-7",
        "method": "POST",
        "route": "predict",
        "status": 200,
        "model": "spam",
        "inputs": 1,
    }
    assert (second["status"], second["route"], len(second["id"])) == (404, "none", 32)
    assert "secret" not in caplog.text
    assert "password" not in caplog.text


def test_an_image_of_more_pixels_than_allowed_is_refused_by_its_header(
    predictors: dict[str, dlkit.Predictor],
) -> None:
    client = TestClient(app(predictors["insects"], limits=Limits(pixels=90 * 90)))
    bomb = io.BytesIO()
    Image.new("1", (4000, 4000)).save(bomb, "PNG")
    form = [("file", bomb.getvalue()), ("file", picture(0)), ("file", zlib.compress(b"x"))]
    answers = client.post("/predict", files=form).json()["predictions"]
    assert ["error" in answer for answer in answers] == [True, False, True]
    assert "4,000 x 4,000" in answers[0]["error"]


def test_addresses_and_methods_that_are_not_there(clients: dict[str, TestClient]) -> None:
    assert clients["spam"].get("/etc/passwd").status_code == 404
    wrong = clients["spam"].get("/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert clients["spam"].delete("/v2/models/spam").headers["allow"] == "GET, HEAD"
    assert clients["spam"].head("/v2/models/spam").status_code == 200
    assert clients["spam"].get("/../../etc/passwd").status_code == 404
    assert clients["spam"].post("/predict/", json=["a"]).status_code == 404
    assert "openapi.json" in clients["spam"].get("/nothing").json()["error"]


def test_an_application_below_an_address_of_another(predictors: dict[str, dlkit.Predictor]) -> None:
    outer = TestClient(Starlette(routes=[Mount("/models", app({"spam": predictors["spam"]}, token="s3cret"))]))
    assert outer.get("/models/v2/health/ready").json() == {"ready": True}
    assert outer.get("/models/model").status_code == 401
    done = outer.post("/models/predict", json="hello", headers={"authorization": "Bearer s3cret"})
    assert done.json()["model"] == "spam"
    with pytest.raises(WebSocketDisconnect), outer.websocket_connect("/models/predict"):
        pass


def test_too_many_inputs(predictors: dict[str, dlkit.Predictor]) -> None:
    application = app(predictors["spam"], limits=Limits(inputs=3))

    async def ask() -> None:
        assert (await post(application, ["a"] * 3).answer()).status == 200
        done = await post(application, ["a"] * 4).answer()
        assert (done.status, "4 inputs" in done.json["error"]) == (413, True)

    asyncio.run(ask())
    application.scheduler.stop()


def test_the_library_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(serving.app)
    monkeypatch.delitem(vars(serving), "app")
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\bpython-multipart>=0"):
        _ = serving.app
