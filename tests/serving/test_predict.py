"""`POST /predict`: every kind of body, answers in the inputs' order, and the same bits as `Predictor` gives."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

import dlkit
from dlkit.datasets import CSVDataset, TextDataset
from dlkit.errors import ArgumentError
from dlkit.inference import Prediction
from dlkit.models import MixedClassifier, TabularBlend, TabularEnsemble, TabularTrees, TextClassifier, TfidfLinear
from dlkit.serving import Limits, app
from serving.asking import answers_as_predictor, same
from serving.conftest import passengers, picture, recording

Clients = dict[str, TestClient]
Predictors = dict[str, dlkit.Predictor]


def test_an_image_in_the_body(clients: Clients, predictors: Predictors) -> None:
    data = picture(0)
    for media in ("image/jpeg", "application/octet-stream", "image/png; name=x"):  # its bytes say what it is
        done = clients["insects"].post("/predict?top_k=3", content=data, headers={"content-type": media})
        assert done.status_code == 200, done.text
        same(done.json()["predictions"][0], predictors["insects"].predict_one(data, top_k=3))
        assert done.json()["model"] == "insects"
        assert done.headers["x-dlkit-version"] == done.json()["version"]
        assert len(done.json()["version"]) == 12


@pytest.mark.parametrize("name", ["insects", "tags"])
def test_many_files_keep_their_order_and_a_bad_one_its_place(
    clients: Clients, predictors: Predictors, name: str
) -> None:
    files = [picture(0), b"no picture", picture(1, "PNG"), picture(2), b"\xff\xd8\xff cut", picture(3)]
    form = [("file", (f"{number}.jpg", data)) for number, data in enumerate(files)]
    done = clients[name].post("/predict?top_k=2", files=form)
    assert done.status_code == 200, done.text
    wanted = list(predictors[name].predict_each(files, top_k=2, batch_size=1, on_error="skip"))
    for answer, prediction in zip(done.json()["predictions"], wanted, strict=True):
        same(answer, prediction)
    assert "image 1" not in done.json()["predictions"][1]["error"]
    as_json = clients[name].post("/predict?top_k=2", json=[base64.b64encode(data).decode() for data in files])
    assert as_json.json() == done.json()


def test_nothing_that_can_be_used_is_422(clients: Clients) -> None:
    done = clients["insects"].post("/predict", content=b"no picture", headers={"content-type": "image/jpeg"})
    assert done.status_code == 422
    assert "image" in done.json()["error"]
    assert done.json()["predictions"] == [{"error": done.json()["error"]}]


@pytest.mark.parametrize("name", ["titanic", "prices"])
def test_a_table_as_csv_and_as_rows(clients: Clients, predictors: Predictors, name: str) -> None:
    table = passengers(70, seed=5)
    content = table.to_csv(index=False).encode()
    wanted = list(predictors[name].predict_each(content))
    done = clients[name].post("/predict", content=content, headers={"content-type": "text/csv; charset=utf-8"})
    assert done.status_code == 200, done.text
    for answer, prediction in zip(done.json()["predictions"], wanted, strict=True):
        same(answer, prediction)
    assert clients[name].post("/predict", files={"f": ("a.csv", content)}).json() == done.json()
    rows = json.loads(table.to_json(orient="records"))
    found = clients[name].post("/predict", json={"inputs": rows}).json()["predictions"]
    for answer, prediction in zip(found, predictors[name].predict_each(rows), strict=True):
        same(answer, prediction)


def test_a_table_of_several_batches(clients: Clients, predictors: Predictors) -> None:
    table = passengers(1_500, seed=6).astype({"fare": object})
    table.loc[[3, 1_100], "fare"] = "a lot"
    content = table.to_csv(index=False).encode()
    wanted = list(predictors["titanic"].predict_each(content, top_k=2, on_error="skip"))
    done = clients["titanic"].post("/predict?top_k=2", content=content, headers={"content-type": "text/csv"})
    assert (done.status_code, done.headers["x-dlkit-batch"]) == (200, "1024")
    for answer, prediction in zip(done.json()["predictions"], wanted, strict=True):
        same(answer, prediction)
    assert [place for place, each in enumerate(wanted) if each.error] == [3, 1_100]


def test_a_bad_row_has_an_error_in_its_place(clients: Clients, predictors: Predictors) -> None:
    good = json.loads(passengers(3).to_json(orient="records"))
    rows = [good[0], {"age": 3}, "a string", good[1] | {"fare": "a lot"}, good[2]]
    answers = clients["titanic"].post("/predict", json=rows).json()["predictions"]
    wanted = list(predictors["titanic"].predict_each([row for row in rows if isinstance(row, dict)], on_error="skip"))
    wanted.insert(2, Prediction(error="is not an object with a value for each column, but a text"))
    assert [each.error for each in wanted] == [answer.get("error", "") for answer in answers]
    assert [bool(each.error) for each in wanted] == [False, True, True, True, False]
    lines = passengers(3).to_csv(index=False).splitlines()
    lines[2] = lines[2].replace(lines[2].split(",")[1], "a lot")
    done = clients["titanic"].post("/predict", content="\n".join(lines), headers={"content-type": "text/csv"})
    assert ["error" in answer for answer in done.json()["predictions"]] == [False, True, False]


def test_one_row_and_one_text_need_no_list(clients: Clients, predictors: Predictors) -> None:
    row = json.loads(passengers(1).to_json(orient="records"))[0]
    for name, one in (("titanic", row), ("spam", "win a prize now")):
        answers = clients[name].post("/predict", json=one).json()["predictions"]
        assert len(answers) == 1
        same(answers[0], predictors[name].predict_one(one))


def test_texts(clients: Clients, predictors: Predictors) -> None:
    texts = ["call this number now", "see you at noon ☕", ""]
    wanted = list(predictors["spam"].predict_each(texts, top_k=2))
    done = clients["spam"].post("/predict", json={"inputs": texts, "top_k": 2})
    for answer, prediction in zip(done.json()["predictions"], wanted, strict=True):
        same(answer, prediction)
    plain = clients["spam"].post("/predict", content=texts[1].encode(), headers={"content-type": "text/plain"})
    same(plain.json()["predictions"][0], predictors["spam"].predict_one(texts[1]))
    for charset in ("utf-16", "windows-1252", "EUC-KR"):
        done = clients["spam"].post(
            "/predict", content=texts[0].encode(charset), headers={"content-type": f"text/plain; charset={charset}"}
        )
        assert done.json() == clients["spam"].post("/predict", json=texts[0]).json()
    mixed = clients["spam"].post("/predict", json=["good", 3, None, "x" * 100_001]).json()["predictions"]
    assert ["error" in answer for answer in mixed] == [False, True, True, True]
    assert "100,000" in mixed[3]["error"]


def test_texts_in_a_csv_file(clients: Clients, predictors: Predictors, tmp_path: Path) -> None:
    content = 'kind,subject\nx,"win a, prize"\ny,\nz,see you at noon ☕\nq\n'.encode()
    (tmp_path / "t.csv").write_bytes(content)
    wanted = list(predictors["mails"].predict_each(tmp_path / "t.csv", on_error="skip"))
    done = clients["mails"].post("/predict", content=content, headers={"content-type": "text/csv"})
    for answer, prediction in zip(done.json()["predictions"], wanted, strict=True):
        same(answer, prediction)
    assert ["error" in each for each in done.json()["predictions"]] == [False, False, False, True]
    lacking = clients["mails"].post("/predict", content=b"a,b\n1,2\n", headers={"content-type": "text/csv"})
    assert (lacking.status_code, "'subject'" in lacking.json()["error"]) == (422, True)
    # A model that knows no column takes the only one there is.
    one = clients["spam"].post("/predict", content="comment\nwin a prize\n", headers={"content-type": "text/csv"})
    same(one.json()["predictions"][0], predictors["spam"].predict_one("win a prize"))
    long = clients["mails"].post(
        "/predict", content=f"subject\n{'x' * 100_001}\nhello\n", headers={"content-type": "text/csv"}
    )
    assert ["error" in each for each in long.json()["predictions"]] == [True, False]


def test_recordings(clients: Clients, predictors: Predictors) -> None:
    sounds = [recording(0), b"no sound", recording(1, "FLAC"), recording(2, "OGG")]
    wanted = list(predictors["calls"].predict_each(sounds, top_k=2, batch_size=1, on_error="skip"))
    raw = clients["calls"].post("/predict?top_k=2", content=sounds[0], headers={"content-type": "audio/wav"})
    same(raw.json()["predictions"][0], wanted[0])
    form = [("file", (f"{number}.wav", data)) for number, data in enumerate(sounds)]
    coded = [base64.b64encode(data).decode() for data in sounds]
    for done in (
        clients["calls"].post("/predict?top_k=2", files=form),
        clients["calls"].post("/predict?top_k=2", json=coded),
    ):
        for answer, prediction in zip(done.json()["predictions"], wanted, strict=True):
            same(answer, prediction)
    limited = TestClient(app({"calls": predictors["calls"]}, limits=Limits(audio_seconds=0.05)))
    done = limited.post("/predict", content=sounds[0], headers={"content-type": "audio/wav"})
    assert (done.status_code, "s this server takes" in done.json()["error"]) == (422, True)


def tables(kind: str) -> tuple[torch.nn.Module, CSVDataset, list[Any]]:
    """A model of tables that is more than a network or none at all, its training data, and rows."""
    table = passengers(120)
    if kind == "mixed":
        table = table.assign(note=[f"note {number}, {'good' if number % 2 else 'bad'}" for number in range(120)])
    rows = json.loads(table.to_json(orient="records"))
    table = table.assign(target=table["fare"] * 3 if "numbers" in kind else ["no", "yes"] * 60)
    data = CSVDataset(table, target="target", text=["note"] if kind == "mixed" else None)
    if kind == "mixed":
        return MixedClassifier(data.spec), data, rows
    if kind.startswith("ensemble"):
        return TabularEnsemble.for_data(data, members=2), data, rows
    trees = TabularTrees.for_data(data, max_iter=5)
    if kind.startswith("trees"):
        return trees, data, rows
    return TabularBlend.joined(TabularEnsemble.for_data(data, members=2), trees, 0.25), data, rows


@pytest.mark.parametrize(
    "kind", ["ensemble", "ensemble of numbers", "trees", "trees of numbers", "blend", "blend of numbers", "mixed"]
)
def test_every_model_of_tables(tmp_path: Path, kind: str) -> None:
    model, data, rows = tables(kind)
    predictor = dlkit.load(dlkit.save(model, tmp_path / "rows", preprocessing=data))
    answers_as_predictor(predictor, rows[:20])


@pytest.mark.parametrize("kind", ["classes", "numbers"])
@pytest.mark.parametrize("net", [False, True], ids=["counted words", "network"])
def test_every_model_of_texts(tmp_path: Path, kind: str, net: bool) -> None:
    texts = [f"{word} and {other}" for word in ("win", "prize", "noon") for other in ("call", "see", "lunch", "you")]
    targets = ["ham", "spam"] * 6 if kind == "classes" else [1000.5 + 10 * len(text) for text in texts]
    data = TextDataset(texts, target=targets, min_freq=1)
    model = TextClassifier(len(data.vocabulary), 2 if kind == "classes" else 1) if net else TfidfLinear.for_data(data)
    predictor = dlkit.load(dlkit.save(model, tmp_path / "texts", preprocessing=data))
    assert (predictor.task == "regression") == (kind == "numbers")
    answers_as_predictor(predictor, texts)


def test_a_table_that_names_files_is_not_served(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(picture(ord(name), "PNG"))
    (tmp_path / "t.csv").write_text(
        "file,age,y\n" + "".join(f"{name}.png,{ord(name)},{name > 'b'}\n" for name in "abcd")
    )
    data = CSVDataset(tmp_path / "t.csv", target="y", image="file", image_size=8)

    @dlkit.register("tests.serving.Pictured")
    class Pictured(torch.nn.Linear):
        def forward(self, numeric: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
            return super().forward(numeric + image.mean())

    example = {name: part[None] for name, part in data[0][0].items()}
    file = dlkit.save(Pictured(1, 2), tmp_path / "model", preprocessing=data, example=example)
    with pytest.raises(ArgumentError, match="'file' names image files"):
        app(file)


def test_bare_numbers(clients: Clients, predictors: Predictors) -> None:
    given = torch.rand(3, 1, 16, 16)
    done = clients["bare"].post("/predict", json=[*given.tolist(), [1, 2]])
    answers = done.json()["predictions"]
    for answer, prediction in zip(answers, predictors["bare"].predict_each(given), strict=False):
        same(answer, prediction)
    assert "[1, 16, 16]" in answers[3]["error"]


@pytest.mark.parametrize(
    ("name", "content", "media", "status", "word"),
    [
        ("insects", b"hello", "text/plain", 415, "image/*"),
        ("insects", b"hello", "", 415, "no Content-Type"),
        ("insects", b"", "image/png", 400, "empty"),
        ("insects", b"[]", "application/json", 400, "empty"),
        ("insects", b"{", "application/json", 400, "JSON"),
        ("insects", b"[" * 100_000, "application/json", 400, "JSON"),
        ("insects", b"[NaN]", "application/json", 400, "NaN"),
        ("insects", b"\xff\xfe[", "application/json", 400, "JSON"),
        ("insects", b"[" * 70 + b"1" + b"]" * 70, "application/json", 400, "levels deep"),
        ("insects", b'{"inputs": ["x"], "path": "a"}', "application/json", 400, "'path'"),
        ("insects", b'{"inputs": ["x"], "top_k": 0}', "application/json", 400, "top_k"),
        ("insects", b"--x", "multipart/form-data", 400, "boundary"),
        ("insects", b"--x\r\n", "multipart/form-data; boundary=x", 400, "cut off"),
        ("insects", b"--x--\r\n", "multipart/form-data; boundary=x", 400, "multipart|no parts"),
        ("titanic", b"", "text/csv", 400, "empty"),
        ("titanic", b"\x1f\x8b\x08", "text/csv", 415, "gzip"),
        ("titanic", b"PAR1\0\0\0\0", "text/csv", 415, "Parquet"),
        ("titanic", b"age,fare\n1,2\n", "text/csv", 422, "sex"),
        ("titanic", b"\xff\xd8\xff", "image/jpeg", 415, "text/csv"),
        ("spam", b"\xff", "text/plain", 400, "utf-8"),
        ("spam", b"x", "text/plain; charset=zlib", 415, "zlib"),
        ("titanic", b"age\n\xe4", "text/csv", 400, "charset="),
        ("bare", b"x", "multipart/form-data; boundary=x", 400, "multipart"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    clients: Clients, name: str, content: bytes, media: str, status: int, word: str
) -> None:
    done = clients[name].post("/predict", content=content, headers={"content-type": media} if media else {})
    assert done.status_code == status, done.text
    assert any(each in done.json()["error"] for each in word.split("|")), done.text
    assert "Traceback" not in done.text
    assert done.json().get("request_id", done.headers["x-request-id"]) == done.headers["x-request-id"]


@pytest.mark.parametrize("query", ["top_k=0", "top_k=x", "top_k=1001", "timeout=0", "timeout=nan", "timeout=x"])
def test_a_query_that_cannot_be_meant_is_refused(clients: Clients, query: str) -> None:
    done = clients["spam"].post(f"/predict?{query}", json=["hello"])
    assert (done.status_code, query.split("=")[0] in done.json()["error"]) == (400, True)


def test_no_text_of_a_client_opens_a_file(clients: Clients, models: dict[str, Any]) -> None:
    path = str(models["insects"])
    for name in ("insects", "spam", "titanic"):
        done = clients[name].post("/predict", json=[path, {"image": path}, f"file://{path}"])
        assert done.status_code in (200, 422)
        assert path not in done.text.replace(json.dumps(path), "")
    answers = clients["insects"].post("/predict", json=[path]).json()["predictions"]
    assert "base64" in answers[0]["error"]
