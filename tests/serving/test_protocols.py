"""The documents and protocols of others: OpenAPI, the Open Inference Protocol, Prometheus."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

import dlkit
from dlkit.serving import app
from serving.asking import listening
from serving.conftest import passengers, picture

Clients = dict[str, TestClient]


@pytest.mark.parametrize("name", ["insects", "titanic", "prices", "spam", "tags", "bare", "calls", "mails"])
def test_the_document_of_openapi_is_valid_and_made_from_the_model(clients: Clients, name: str) -> None:
    document = clients[name].get("/openapi.json").json()
    validate(document)
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert ("image/*" in content, "text/csv" in content) == (
        name in ("insects", "tags"),
        name in ("titanic", "prices", "spam", "mails"),
    )
    if name == "titanic":
        one = document["components"]["schemas"]["Input-titanic"]
        assert list(one["properties"]) == one["required"] == ["age", "fare", "sex", "port", "alone"]
        assert clients[name].post("/predict", json=one["example"]).status_code == 200


def test_what_a_model_takes_and_gives(clients: Clients) -> None:
    told = clients["titanic"].get("/model").json()
    assert (told["name"], told["kind"], told["task"], told["classes"]) == (
        "titanic",
        "table",
        "classification",
        ["no", "yes"],
    )
    columns = {column["name"]: column for column in told["columns"]}
    assert sorted(columns["port"]["values"]) == ["C", "Q", "S"]
    assert columns["fare"]["usual"][0] < columns["fare"]["median"] < columns["fare"]["usual"][1]
    assert clients["titanic"].post("/predict", json=told["example"]).status_code == 200
    assert "safetensors" not in json.dumps(told)
    assert clients["insects"].get("/model").json()["takes"]["media"][0] == "image/*"


def test_several_models_are_asked_by_name(predictors: dict[str, dlkit.Predictor]) -> None:
    client = TestClient(app({"a": predictors["spam"], "b": predictors["titanic"]}))
    validate(client.get("/openapi.json").json())
    assert [each["name"] for each in client.get("/models").json()["models"]] == ["a", "b"]
    assert client.post("/predict?model=a", json=["hello"]).json()["model"] == "a"
    assert "model=a" in client.post("/predict", json=["hello"]).json()["error"]
    assert client.post("/predict?model=c", json=["hello"]).status_code == 404
    assert client.get("/model?model=b").json()["kind"] == "table"


def test_the_metrics(predictors: dict[str, dlkit.Predictor]) -> None:
    client = TestClient(app({"spam": predictors["spam"]}))
    client.post("/predict", json=["a", "b"])
    client.post("/predict", content=b"x", headers={"content-type": "image/png"})
    text = client.get("/metrics").text
    for line in (
        'dlkit_requests_total{route="predict",status="200"} 1.0',
        'dlkit_refused_total{status="415"} 1.0',
        'dlkit_inputs_total{model="spam"} 2.0',
        'dlkit_batch_size_count{model="spam"} 1.0',
        "dlkit_queue_inputs 0.0",
        f'dlkit_model{{model="spam",version="{client.get("/model").json()["version"]}"}} 1.0',
    ):
        assert line in text


def ask(client: TestClient, name: str, inputs: list[dict[str, Any]], **more: Any) -> Any:
    return client.post(f"/v2/models/{name}/infer", json={"inputs": inputs, **more})


def test_health_and_metadata(clients: Clients) -> None:
    client = clients["insects"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    told = client.get("/v2/models/insects").json()
    assert told["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in told["outputs"]] == ["label", "probabilities"]
    (version,) = told["versions"]
    assert client.get(f"/v2/models/insects/versions/{version}").json() == told
    assert client.get(f"/v2/models/insects/versions/{version}/ready").json()["ready"]
    assert client.get("/v2/models/insects/versions/1").status_code == 404
    assert client.get("/v2/models/nothing/ready").status_code == 404


def test_images_as_json_and_as_bytes(clients: Clients, predictors: dict[str, dlkit.Predictor]) -> None:
    files = [picture(0), picture(1)]
    wanted = predictors["insects"].probabilities(files, batch_size=1).flatten().tolist()
    coded = [base64.b64encode(data).decode() for data in files]
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES"}
    done = ask(clients["insects"], "insects", [tensor | {"data": coded}], id="7").json()
    assert (done["id"], done["model_name"]) == ("7", "insects")
    outputs = {output["name"]: output for output in done["outputs"]}
    assert outputs["probabilities"]["data"] == wanted
    assert outputs["probabilities"]["shape"] == [2, 3]
    packed = b"".join(struct.pack("<I", len(data)) + data for data in files)
    head = json.dumps(
        {
            "inputs": [tensor | {"parameters": {"binary_data_size": len(packed)}}],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}],
        }
    ).encode()
    answer = clients["insects"].post(
        "/v2/models/insects/infer",
        content=head + packed,
        headers={"inference-header-content-length": str(len(head))},
    )
    length = int(answer.headers["inference-header-content-length"])
    told = json.loads(answer.content[:length])
    assert np.frombuffer(answer.content[length:], "<f8").tolist() == wanted
    assert told["outputs"][1]["data"] == outputs["label"]["data"]


def test_a_table_has_a_tensor_for_each_column(clients: Clients, predictors: dict[str, dlkit.Predictor]) -> None:
    rows = json.loads(passengers(5).to_json(orient="records"))
    for name in ("titanic", "prices"):
        inputs = [
            {"name": key, "shape": [5, 1], "datatype": "BYTES", "data": [row[key] for row in rows]} for key in rows[0]
        ]
        outputs = ask(clients[name], name, inputs).json()["outputs"]
        found = next(each["data"] for each in outputs if each["name"] in ("probabilities", "price"))
        assert found == predictors[name].probabilities(rows).flatten().tolist()
        lacking = ask(clients[name], name, inputs[1:])
        assert (lacking.status_code, "'age'" in lacking.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    ("tensor", "word"),
    [
        ({"name": "t", "shape": [2], "datatype": "BYTES", "data": ["a"]}, "1 values"),
        ({"name": "t", "shape": [-1], "datatype": "BYTES", "data": ["a"]}, "shape"),
        ({"name": "t", "shape": [1], "datatype": "TEXT", "data": ["a"]}, "datatype"),
        ({"name": "t", "shape": [1], "datatype": "BYTES"}, "'data'"),
        ({"name": "t", "shape": [1], "datatype": "BYTES", "data": [3]}, "input 0"),
        ({"name": "t", "shape": [0], "datatype": "BYTES", "data": []}, "values"),
        ({"name": "t", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 9}}, "binary_data_size"),
        ({"name": "t", "shape": [1 << 30, 1 << 30], "datatype": "BYTES", "data": ["a"]}, "values"),
        ("t", "'inputs'"),
    ],
)
def test_tensors_that_cannot_be_meant(clients: Clients, tensor: Any, word: str) -> None:
    done = ask(clients["spam"], "spam", [tensor])
    assert (done.status_code, word in done.json()["error"]) == (400, True), done.text


def test_outputs_that_are_not_there(clients: Clients) -> None:
    good = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["hello"]}
    assert ask(clients["spam"], "spam", [good], outputs=[{"name": "label"}]).json()["outputs"][0]["name"] == "label"
    assert "probabilities" in ask(clients["spam"], "spam", [good], outputs=[{"name": "x"}]).json()["error"]
    assert ask(clients["spam"], "spam", [good], outputs=[3]).status_code == 400


#: Every check is made of every address. A body that fits the schema may be refused all the same, with a sentence, as
#: JSON Schema cannot say that bytes are an image that can be decoded or a sound, that a string is a CSV file with a
#: row, that a tensor has as many values as its shape is of, or that the body hangs on the model that the query names;
#: and the query may ask for an answer sooner than any can be given. (To describe less than is taken, so that all of it
#: is accepted, would fail the check that nothing else is.)
SCHEMATHESIS = """
[[operations]]
include-method = "POST"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "408", "415", "422"]
"""


@pytest.mark.proof
def test_schemathesis_finds_nothing(predictors: dict[str, dlkit.Predictor], tmp_path: Path) -> None:
    if (schemathesis := shutil.which("schemathesis")) is None:
        pytest.skip("pip install schemathesis, into an environment of its own: it brings a plugin for pytest")
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    with listening(app({name: predictors[name] for name in ("titanic", "insects", "spam", "calls")})) as address:
        done = subprocess.run(  # it leaves files in its folder
            [schemathesis, "run", f"{address}openapi.json", "--max-examples", "50", "--seed", "1", "--no-color"],
            capture_output=True,
            text=True,
            timeout=900,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout


@pytest.mark.proof
def test_a_client_of_others(predictors: dict[str, dlkit.Predictor]) -> None:
    """Triton's client, in its default form: tensors as bytes behind the JSON."""
    http = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
    with listening(app({name: predictors[name] for name in ("titanic", "insects", "spam")})) as address:
        client = http.InferenceServerClient(address.removeprefix("http://").rstrip("/"))
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("insects")
        (version,) = client.get_model_metadata("insects")["versions"]
        files = [picture(0), picture(1)]
        tensor = http.InferInput("image", [2], "BYTES")
        tensor.set_data_from_numpy(np.array(files, dtype=object))
        found = client.infer("insects", [tensor], model_version=version, request_id="9")
        wanted = predictors["insects"].probabilities(files, batch_size=1).double().numpy()
        assert np.array_equal(found.as_numpy("probabilities"), wanted)
        assert found.get_response()["id"] == "9"
        labels = [each.label for each in predictors["insects"].predict_each(files, batch_size=1)]
        assert [each.decode() for each in found.as_numpy("label")] == labels
        with pytest.raises(Exception, match="input 0"):
            client.infer(
                "insects",
                [http.InferInput("image", [1], "BYTES").set_data_from_numpy(np.array([b"no picture"], dtype=object))],
            )
        rows = passengers(4).astype(object).where(passengers(4).notna(), "").to_dict("list")
        columns = []
        for name, values in rows.items():
            columns.append(http.InferInput(name, [4], "BYTES"))
            columns[-1].set_data_from_numpy(np.array([str(value).encode() for value in values], dtype=object))
        assert client.infer("titanic", columns).as_numpy("probabilities").shape == (4, 2)
