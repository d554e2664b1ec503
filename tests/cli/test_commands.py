"""Every command: its result for people and for machines, its exit code, and errors in one sentence."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dlkit as library
from dlkit.cli._lines import Written, write_lines
from dlkit.cli._talking import _in_shell_words

Run = Any

# Some tests evaluate on what was trained on, which is told.
pytestmark = pytest.mark.filterwarnings("ignore:.* equal one that the model was trained on")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    visits, plan = rng.integers(0, 30, 300), rng.choice(["month", "year"], 300)
    left = np.where(visits + 8 * (plan == "year") < 14, "yes", "no")
    path = tmp_path_factory.mktemp("tables") / "members.csv"
    pd.DataFrame({"visits": visits, "plan": plan, "left": left}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def model(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dlkit.recipes import train

    folder = tmp_path_factory.mktemp("runs")
    path = train(table, target="left", epochs=8, out=folder, device="cpu", progress=False).path
    assert path is not None
    return path


def test_train_says_how_it_read_the_data_and_what_to_do_next(dlkit: Run, table: Path, tmp_path: Path) -> None:
    done = dlkit("train", table, "--target", "left", "--epochs", 2, "--out", tmp_path / "run", "--device", "cpu")
    assert done.code == 0, done.err
    assert "240 training, 30 validation, 30 test samples" in done.err
    assert "model: TabularEnsemble" in done.err
    assert "test: " in done.out
    assert f"use it: dlkit predict {tmp_path / 'run' / 'model.safetensors'} new.csv" in done.out
    again = dlkit("train", table, "--target", "left", "--epochs", 2, "--out", tmp_path / "run", "--json")
    assert "nothing to train: this run is finished" in again.err
    assert again.document["model"] == str(tmp_path / "run" / "model.safetensors")
    assert again.document["classes"] == ["no", "yes"]
    assert f"accuracy {again.document['metrics']['accuracy']:.4g}" in done.out


def test_train_texts_by_number_of_the_column(dlkit: Run, tmp_path: Path) -> None:
    rows = [f"{label}\t{word} message {n}" for n in range(40) for label, word in (("ham", "dear"), ("spam", "win"))]
    (tmp_path / "sms.tsv").write_text("\n".join([*rows, "broken"]) + "\n")
    command = ["train", tmp_path / "sms.tsv", "--text", 1, "--target", 0, "--out", tmp_path / "run"]
    refused = dlkit(*command)
    assert refused.code == 1
    assert "line 81" in refused.err
    assert "--on-error skip leaves such rows out" in refused.err
    done = dlkit(*command, "--on-error", "skip", "--fractions", "0.75,0.25")
    assert done.code == 0, done.err
    assert "no test part" in done.err
    told = dlkit("predict", tmp_path / "run" / "model.safetensors", "win win", "--json")
    assert told.document["prediction"] == "spam"
    many = dlkit("evaluate", tmp_path / "run/model.safetensors", tmp_path / "sms.tsv", "--text", 1, "--target", 0)
    assert many.code == 1  # the same broken row
    many = dlkit(*many_arguments(tmp_path), "--on-error", "skip", "--json")
    assert many.document["samples"] == 80


def many_arguments(folder: Path) -> list[object]:
    return ["evaluate", folder / "run/model.safetensors", folder / "sms.tsv", "--text", 1, "--target", 0]


def test_train_on_several_columns_of_texts_cleaned_as_was_said(dlkit: Run, tmp_path: Path) -> None:
    rows = [f"<b>GOOD &amp; long</b>,film {n},who?,yes\n,<i>BAD</i> film {n},why?,no" for n in range(30)]
    data, model = tmp_path / "t.csv", tmp_path / "run" / "model.safetensors"
    data.write_text("\n".join(["title,body,question,mood", *rows]) + "\n")
    columns = ["--text", "title", "--text", "body", "--pair", "question"]
    how = ["--strip-html", "--lower", "--tokenizer", "whitespace", "--out", tmp_path / "run"]
    done = dlkit("train", data, *columns, "--target", "mood", *how, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    spec = library.load(model).preprocessing
    assert (spec.text, spec.pair) == (("title", "body"), ("question",))
    assert {"good", "&", "long", "bad", "film", "who?"} < set(spec.encoder.tokens)
    assert not any("<" in token or token != token.lower() for token in spec.encoder.tokens)
    found = lines(dlkit("predict", model, "--file", data, "--json").out)
    assert [line["text"] for line in found[:2]] == ["<b>GOOD &amp; long</b>\nfilm 0", "<i>BAD</i> film 0"]
    again = lines(dlkit("predict", model, "--file", data, *columns, "--json").out)
    assert again == found
    assert dlkit("evaluate", model, data, "--target", "mood", "--json").document["samples"] == 60
    looked = dlkit("inspect", data, *columns, "--target", "mood")
    assert looked.code == 0
    refused = dlkit("train", data, "--target", "mood", "--lower")
    assert (refused.code, "--lower" in refused.err, "name the column of the texts: --text" in refused.err) == (
        1,
        True,
        True,
    )


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_predict_writes_a_line_for_each_row(dlkit: Run, model: Path, table: Path, tmp_path: Path) -> None:
    done = dlkit("predict", model, table, "--out", tmp_path / "new.csv")
    assert (done.code, done.out) == (0, ""), done.err
    assert "300 predictions" in done.err
    written = pd.read_csv(tmp_path / "new.csv")
    assert list(written.columns) == ["row", "prediction", "probability"]
    assert written["row"].tolist() == list(range(300))
    assert (written["prediction"] == pd.read_csv(table)["left"]).mean() > 0.9
    shown = dlkit("predict", model, table)
    assert pd.read_csv(io.StringIO(shown.out)).equals(written)
    rows = lines(dlkit("predict", model, table, "--json", "--top-k", 2).out)
    assert (len(rows), set(rows[0])) == (300, {"row", "prediction", "probability", "prediction_2", "probability_2"})
    done = dlkit("predict", model, table, "--out", tmp_path / "new.jsonl", "--json", "--top-k", 2)
    assert lines((tmp_path / "new.jsonl").read_text()) == rows
    assert done.document == {"out": str(tmp_path / "new.jsonl"), "lines": 300, "errors": 0}


def test_predict_puts_an_error_into_the_line_of_a_broken_row(dlkit: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("visits,plan\n3,year\nmany,year\n4\n5,month\n")
    refused = dlkit("predict", model, tmp_path / "new.csv", "--out", tmp_path / "out.csv")
    assert refused.code == 1
    assert "line 3 of new.csv has no number in column 'visits' but 'many'" in refused.err
    assert "--on-error skip reports this error in the input's place" in refused.err
    assert not (tmp_path / "out.csv").exists()
    done = dlkit("predict", model, tmp_path / "new.csv", "--out", tmp_path / "out.csv", "--on-error", "skip")
    assert "4 predictions (2 with an error in its place)" in done.err
    written = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert [bool(error) for error in written["error"]] == [False, True, True, False]
    rows = lines(dlkit("predict", model, tmp_path / "new.csv", "--json", "--on-error", "skip").out)
    assert [row["probability"] is None for row in rows] == [False, True, True, False]


def test_a_terminal_gets_no_control_characters_and_a_file_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    table = pd.DataFrame({"text": ["\x1b[31mred", "two\nlines"], "prediction": ["a", "b"], "error": ["", "why"]})
    monkeypatch.setattr(sys, "stdout", screen := Screen())
    for as_json in (False, True):
        write_lines([table], None, written := Written(), as_json=as_json, skipping=True)
        assert (written.lines, written.errors) == (2, 1)
    assert "\x1b" not in screen.getvalue()
    assert "\\x1b[31mred,a," in screen.getvalue()
    assert json.loads(screen.getvalue().splitlines()[-2])["text"] == "\x1b[31mred"
    write_lines([table, table], tmp_path / "out.csv", Written(), as_json=False, skipping=True)
    assert pd.read_csv(tmp_path / "out.csv")["text"].tolist() == table["text"].tolist() * 2


def test_predict_never_writes_over_what_it_reads(dlkit: Run, model: Path, table: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rows.csv"
    copy.write_bytes(table.read_bytes())
    for out in (copy, model):
        done = dlkit("predict", model, copy, "--out", out)
        assert done.code == 2
        assert "is read in this very call" in done.err
    assert copy.read_bytes() == table.read_bytes()
    assert "there is no folder" in dlkit("predict", model, copy, "--out", tmp_path / "no" / "x.csv").err


def test_a_word_is_a_text_for_a_model_of_texts_and_a_file_only_where_it_is_named_so(
    dlkit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlkit.datasets import TextDataset
    from dlkit.models import TextClassifier

    frame = pd.DataFrame({"id": [1, 2], "words": ["good film", "bad film"], "mood": ["pos", "neg"]})
    data = TextDataset(frame, text="words", target="mood", min_freq=1)
    path = library.save(TextClassifier(len(data.vocabulary), 2), tmp_path / "m.safetensors", preprocessing=data)
    monkeypatch.chdir(tmp_path)
    frame.to_csv("new.csv", index=False)
    done = dlkit("predict", path, "new.csv", "--json")
    assert done.document["text"] == "new.csv"
    assert "'new.csv' is taken as a text; --file new.csv reads the file" in done.err
    assert [line["text"] for line in lines(dlkit("predict", path, "--file", "new.csv", "--json").out)] == [
        "good film",
        "bad film",
    ]
    twice = dlkit("predict", path, "--file", "new.csv", "--file", "new.csv", "--json")
    assert len(lines(twice.out)) == 4
    frame.rename(columns={"words": "body"}).to_csv("other.csv", index=False)
    wrong = dlkit("predict", path, "--file", "other.csv")
    assert wrong.code == 1
    assert "no column 'words'" in wrong.err
    assert "--text ... names another" in wrong.err
    assert dlkit("predict", path, "--file", "other.csv", "--text", "body").code == 0
    for arguments, told in (
        ([], "give at least one INPUT"),
        (["x", "--file", "new.csv"], "not both"),
        (["new.csv", "--text", "words"], "named by --file new.csv"),
    ):
        done = dlkit("predict", path, *arguments)
        assert (done.code, done.out) == (2, "")
        assert told in " ".join(done.err.replace("│", " ").split())
    odd = dlkit("predict", path, "half \udc80", "--on-error", "skip", "--json")
    assert odd.code == 0, odd.err
    assert odd.document["error"]
    assert "with the columns words" in dlkit("info", path).out


def test_evaluate_measures(dlkit: Run, model: Path, table: Path) -> None:
    done = dlkit("evaluate", model, table, "--json")
    assert done.document["samples"] == 300
    assert done.document["accuracy"] > 0.9
    assert "accuracy 1" in dlkit("evaluate", model, table, "--target", "left").out
    wrong = dlkit("evaluate", model, table, "--target", "plan")
    assert (wrong.code, wrong.out) == (1, "")
    assert "--target plan: the model predicts left; leave it out" in wrong.err
    assert dlkit("evaluate", model, table, "--part", "test", "--json").document["samples"] == 30


def test_info_reads_the_head_alone(dlkit: Run, model: Path) -> None:
    done = dlkit("info", model)
    assert done.code == 0, done.err
    assert "TabularEnsemble" in done.out
    assert "tables with the columns visits, plan" in done.out
    assert "classification of no, yes" in done.out
    assert "test_accuracy" in done.out
    assert dlkit("info", model, "--json").document["meaning"]["classes"] == ["no", "yes"]


def test_export_writes_weights_that_torch_reads(dlkit: Run, model: Path, tmp_path: Path) -> None:
    import torch

    done = dlkit("export", model, "--to", "state_dict", "--out", tmp_path / "weights.pth")
    assert done.code == 0, done.err
    weights = torch.load(tmp_path / "weights.pth", weights_only=True)
    own = library.load(model).model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in own.items())
    assert dlkit("export", model, "--to", "gguf").code == 2


def test_export_for_other_programs_computes_the_same(dlkit: Run, model: Path, table: Path, tmp_path: Path) -> None:
    import torch

    from dlkit.datasets import CSVDataset

    runtime = pytest.importorskip("onnxruntime")
    predictor = library.load(model)
    inputs, _ = next(iter(library.DataLoader(CSVDataset(table, spec=predictor.preprocessing), 5)))
    wanted = predictor.logits(table)[:5]
    for kind, name in (("onnx", "m.onnx"), ("torch.export", "m.pt2")):
        done = dlkit("export", model, "--to", kind, "--out", tmp_path / name)
        assert done.code == 0, done.err
        assert name in done.out
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-4)
    program = torch.export.load(tmp_path / "m.pt2").module()
    torch.testing.assert_close(program(*inputs.values()), wanted, rtol=1e-4, atol=1e-4)


def test_inspect_tells_what_is_in_a_table(dlkit: Run, table: Path, tmp_path: Path) -> None:
    pd.read_csv(table).assign(again=lambda frame: frame["left"]).to_csv(tmp_path / "leaky.csv", index=False)
    done = dlkit("inspect", tmp_path / "leaky.csv", "--target", "left")
    assert "'again' alone predicts 100% of the target" in done.out
    document = dlkit("inspect", tmp_path / "leaky.csv", "--target", "left", "--json").document
    assert [column["column"] for column in document["columns"]] == ["visits", "plan", "left", "again"]
    letters = dlkit("inspect", "glyphs", "--json").document
    assert (letters["kind"], letters["classes"][:2]) == ("letters", ["A", "B"])


def test_inspect_tells_what_is_in_a_folder(dlkit: Run, tmp_path: Path) -> None:
    for name, color in (("red", (250, 0, 0)), ("blue", (0, 0, 250))):
        (tmp_path / "colors" / name).mkdir(parents=True)
        Image.new("RGB", (30, 20), color).save(tmp_path / "colors" / name / "1.png")
    (tmp_path / "colors" / "red" / "2.png").write_bytes(b"no image")
    assert "2 readable images, 1 unreadable" in dlkit("inspect", tmp_path / "colors").out
    document = dlkit("inspect", tmp_path / "colors", "--json").document
    assert document["classes"] == {"": {"blue": 1, "red": 2}}
    assert document["unreadable"][0]["file"] == "red/2.png"


def test_compare_puts_the_better_features_first(dlkit: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shade in (("dark", 60), ("light", 200)):
        (tmp_path / "all" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(rng.normal(shade, 20, (80, 80, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "all" / name / f"{number}.png")
    names = ["torchvision/squeezenet1_1", "torchvision/shufflenet_v2_x0_5"]
    done = dlkit("compare", tmp_path / "all", *names, "--no-pretrained", "--image-size", 64, "--json")
    assert {row["name"] for row in done.document} == set(names)
    assert done.document[0]["linear"] >= done.document[1]["linear"]
    told = dlkit("compare", tmp_path / "all", names[0], "--no-pretrained", "--image-size", 64).out
    assert told.splitlines()[0].split()[:2] == ["backbone", "linear"]
    assert names[0] in told


def test_download_without_a_network_says_so(dlkit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    done = dlkit("download", "notmnist")
    assert done.code == 1
    assert "DLKIT_OFFLINE" in done.err
    assert "Traceback" not in done.err
    failed = dlkit("download", "torchvision/squeezenet1_1", "--json")
    assert (failed.code, failed.out) == (1, "")
    assert '"error": "OfflineError"' in failed.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "nowhere"], 1, "error: there is no file or folder nowhere"),
        (["train", "{table}"], 1, "say which column to predict, --target ..., or which holds texts, --text ..."),
        (["train", "{table}", "--target", "levt"], 1, "do you mean 'left'"),
        (["train", "{table}", "--target", "left", "--arch", "mpl"], 1, "--arch mpl: do you mean 'mlp'"),
        (["train", "{table}", "--target", "left", "--epochs", "0"], 2, "'--epochs'"),
        (["train", "{table}", "--fractions", "a,b"], 2, "'a,b' are no shares"),
        (["predict", "nowhere.safetensors", "x"], 1, "there is no model file nowhere.safetensors"),
        (["predict", "{table}", "x"], 1, "is not a safetensors file"),
        (["info", "{table}"], 1, "is not a safetensors file"),
        (["download", "nothing-like-it"], 1, "no model 'nothing-like-it'"),
        (["new", "project", "--task", "music"], 2, "'--task'"),
        (["trian", "x"], 2, "No such command 'trian'"),
        (["train", "{table}", "--tagret", "left"], 2, "No such option"),
    ],
)  # fmt: skip
def test_errors_come_in_a_sentence_with_an_exit_code(
    dlkit: Run, table: Path, arguments: list[str], code: int, message: str
) -> None:
    done = dlkit(*(argument.format(table=table) for argument in arguments))
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "Traceback" not in done.err


def test_debug_shows_where_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    from dlkit.cli import app

    with pytest.raises(library.errors.DataNotFoundError):
        app(["inspect", "nowhere", "--debug"])


def test_an_error_of_dlkit_itself_is_told_as_such(
    dlkit: Run, model: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("dlkit.inference.predictor.Predictor.evaluate")
    done = dlkit("evaluate", model, table)
    assert done.code == 1
    assert "unexpected error: AttributeError" in done.err
    assert "--debug shows where" in done.err


def test_ctrl_c_outside_of_training_is_130(dlkit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dlkit.recipes.using.inspect", interrupted)
    monkeypatch.setattr("dlkit.recipes.using.understood", interrupted)
    done = dlkit("inspect", "photos")
    assert (done.code, done.err) == (130, "interrupted\n")


def test_messages_name_options_instead_of_arguments() -> None:
    for message, told in (
        ("on_error='skip' leaves such rows out", "--on-error skip leaves such rows out"),
        ("choose another folder, out=, or resume=False", "choose another folder, --out, or --no-resume"),
        ("freeze=True with pretrained=False would", "--freeze with --no-pretrained would"),
        ("see ImageFolder(on_error='skip') and x.target=3", "see ImageFolder(on_error='skip') and x.target=3"),
        ("num_workers=2", "--num-workers 2"),
    ):
        assert _in_shell_words(message) == told


def test_compare_ranks_the_models_for_a_table(dlkit: Run, table: Path) -> None:
    done = dlkit("compare", table, "boosting", "mlp", "--target", "left", "--json")
    (first, second) = json.loads(done.out)
    assert {first["name"], second["name"]} == {"boosting", "mlp"}
    assert first["metrics"]["accuracy"] >= second["metrics"]["accuracy"]
