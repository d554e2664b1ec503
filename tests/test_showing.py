"""Text from elsewhere cannot act in a terminal, forge a line of a log, or betray a secret."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dlkit._showing import Lines, escaped_json, public, safe, without_secrets
from dlkit.cli import app
from dlkit.datasets import CSVDataset, ImageFolder, NotMNIST, TextDataset, inspect
from dlkit.download import Patience, fetch
from dlkit.errors import ArgumentError, DataError, DataNotFoundError, DlkitError, DownloadError
from dlkit.inference import Prediction
from dlkit.recipes import read_data
from dlkit.runs.state import Run
from dlkit.transfer import load_weights
from servers import Reply, Server

RED, ERASE, TURNED, C1 = "\x1b[31m", "\x1b[2J\x07", "\u202egnp.exe", "\x9b31m"
HOSTILE = f"{RED}name{ERASE}{TURNED}{C1}\nINFO all is well\r\u2028"
SECRET = "s3cr3t"
QUICK = Patience(attempts=1, backoff=0)


def is_harmless(text: str) -> bool:
    """Whether no character but line ends and letters is in it."""
    return not any(
        character != "\n" and (ord(character) < 32 or 127 <= ord(character) < 160 or character in "\u202e\u2028\u2066")
        for character in text
    )


@given(st.text(alphabet=st.characters()))
def test_no_text_keeps_what_could_act(text: str) -> None:
    assert is_harmless(safe(text))
    assert "\n" not in safe(text)
    assert safe(safe(text)) == safe(text)
    safe(text).encode()  # no lone surrogate is left
    assert json.loads(escaped_json(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize("text", ["héllo 한글 日本", "می‌خواهم", "שלום\u200f!", "👩‍🔬", "C:\\data\\new", "a/b.csv"])
def test_ordinary_text_of_any_script_stays_as_it_is(text: str) -> None:
    assert safe(text) == text


def test_only_line_breaks_of_dlkit_itself_stay() -> None:
    assert safe("one\ntwo") == r"one\ntwo"
    text = Lines.of("first", "one\ntwo", Lines.of("third", "fourth"))
    assert text == "first\none\\ntwo\nthird\nfourth"
    assert safe(text) == text
    assert str(DlkitError(text)) == text


def test_long_messages_lose_their_middle() -> None:
    told = str(DataError("begin" + "x" * 10**6 + "end"))
    assert len(told) < 9000
    assert told.startswith("begin")
    assert told.endswith("end")
    assert "992,008 characters left out" in told


@pytest.mark.parametrize("kind", [DlkitError, ArgumentError, DataNotFoundError, DownloadError])
def test_every_error_is_shown_safely_and_keeps_its_text(kind: type[DlkitError]) -> None:
    error = kind(f"no class {HOSTILE}")
    assert is_harmless("".join(traceback.format_exception(error)))
    assert "INFO" in str(error)
    assert "\n" not in str(error)
    assert error.args == (f"no class {HOSTILE}",)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"https://eve:{SECRET}@host/a.zip", "https://host/a.zip"),
        (f"https://host/a.zip?X-Amz-Signature={SECRET}&part=1", "https://host/a.zip?X-Amz-Signature=***&part=***"),
        (f"https://host/a?{SECRET}", "https://host/a?***"),
        (f"https://host/a#access_token={SECRET}", "https://host/a#***"),
        (f"https://host/a?q=1 {SECRET}'{SECRET}", "https://host/a?q=***"),
        ("https://host/@scope/package", "https://host/@scope/package"),
        ("file:///data/a.zip", "file:///data/a.zip"),
    ],
)
def test_secrets_of_an_address_are_hidden(address: str, shown: str) -> None:
    assert public(address) == shown
    if " " not in address:
        assert without_secrets(f"cannot get {address!r}: 403") == f"cannot get {shown!r}: 403"


def test_secrets_of_queries_stay_out_of_errors_and_notes(tmp_path: Path) -> None:
    with Server() as server:
        server.files["/a.bin"] = b"x" * 1000
        url = f"{server.url('/a.bin')}?token={SECRET}&id=1"
        server.script("/a.bin", Reply(break_after=100), Reply(status=403))
        with pytest.raises(DownloadError, match=r"a\.bin\?token=\*\*\*&id=\*\*\*: answered 403") as caught:
            fetch(url, tmp_path / "a.bin", progress=False, patience=Patience(attempts=2, backoff=0))
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert all(SECRET not in path.read_text() for path in tmp_path.iterdir())
        # It is still known which address the first part came from, and which it did not.
        fetch(url.replace("id=1", "id=2"), tmp_path / "a.bin", progress=False)
        assert "Range" not in server.requests[-1].headers


def test_a_part_is_continued_from_the_same_address_with_a_query(tmp_path: Path) -> None:
    with Server() as server:
        server.files["/a.bin"] = b"x" * 1000
        server.script("/a.bin", Reply(break_after=100))
        fetch(
            f"{server.url('/a.bin')}?token={SECRET}", tmp_path / "a.bin", progress=False, patience=Patience(backoff=0)
        )
        assert server.requests[1].headers["Range"] == "bytes=100-"


def test_secrets_of_redirects_stay_out_of_errors(tmp_path: Path) -> None:
    with Server() as server:
        for target in (
            f"ftp://host/a?sig={SECRET}",
            f"http://[bad/a?sig={SECRET}",
            f"http://127.0.0.1:1/?sig={SECRET}",
        ):
            server.script("/a.bin", Reply(status=302, headers={"Location": target}))
            with pytest.raises(DownloadError) as caught:
                fetch(server.url("/a.bin"), tmp_path / "a.bin", progress=False, patience=QUICK)
            assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_an_address_that_cannot_be_fetched_is_named_without_its_secret(tmp_path: Path) -> None:
    for url in (f"ftp://eve:{SECRET}@host/a?key={SECRET}", f"http://[bad/a?key={SECRET}", f"//host/a?{SECRET}"):
        with pytest.raises(ArgumentError, match="cannot fetch from") as caught:
            fetch(url, tmp_path / "a")
        assert SECRET not in str(caught.value)


def test_a_table_from_a_signed_address_keeps_the_signature_out_of_what_is_saved(tmp_path: Path) -> None:
    with Server() as server:
        server.files["/shop.csv"] = b"x,y\n" + b"".join(b"%d,%d.5\n" % (n, n) for n in range(60))
        data = read_data(f"{server.url('/shop.csv')}?token=a.{SECRET}", target="y")
        other = read_data(f"{server.url('/shop.csv')}?token=b.{SECRET}", target="y")
    assert data.name == "shop"
    assert SECRET not in data.source + str(data)
    assert data.source != other.source


def test_the_words_of_a_server_cannot_act(tmp_path: Path) -> None:
    with Server() as server:
        server.script("/a", Reply(status=404, reason=f"{RED}gone{ERASE}" + "x" * 5000))
        with pytest.raises(DownloadError, match=r"answered 404 \\x1b\[31mgone") as caught:
            fetch(server.url("/a"), tmp_path / "a", progress=False, patience=QUICK)
        assert is_harmless(str(caught.value))
        assert len(str(caught.value)) < 1000


@pytest.fixture
def hostile_folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in (f"{RED}ants", f"bees{TURNED}\nINFO fine"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (9, 9), (number * 80, 0, 0)).save(root / name / f"{number}.png")
        (root / name / f"{ERASE}bad\udcff.png").write_text("no image")
    return root


def test_names_of_classes_and_files_cannot_act(hostile_folder: Path) -> None:
    dataset = ImageFolder(hostile_folder, size=8)
    assert RED in dataset.classes[0]
    found = inspect(hostile_folder, progress=False)
    for text in (repr(dataset), str(found), repr(Prediction(label=RED, top=((RED, 1.0),)))):
        assert is_harmless(text)
        text.encode()
    assert "INFO fine" not in str(found).split("\n")
    with pytest.raises(DataError, match=r"bad\\udcff\.png: is not an image") as caught:
        dataset.__getitems__(range(len(dataset)))
    assert is_harmless(str(caught.value))
    with pytest.warns(UserWarning, match="left out permanently") as warned:
        ImageFolder(hostile_folder, size=8, on_error="skip", max_errors=0.5).__getitems__(range(8))
    assert all(is_harmless(str(warning.message)) for warning in warned)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command_line_shows_names_safely(
    hostile_folder: Path, options: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        app(["inspect", str(hostile_folder), *options], prog_name="dlkit")
    assert left.value.code == 0
    out, err = capfd.readouterr()
    assert is_harmless(out)
    assert is_harmless(err)
    assert not any(line.startswith("INFO") for line in out.splitlines())
    if options:
        names = {name for part in json.loads(out)["classes"].values() for name in part}
        assert names == {f"{RED}ants", f"bees{TURNED}\nINFO fine"}


def test_the_command_line_hides_secrets(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as left:
            app(["inspect", f"http://127.0.0.1:1/{RED}a.csv?token={SECRET}", *options], prog_name="dlkit")
        assert left.value.code == 1
        out, err = capfd.readouterr()
        assert SECRET not in out + err
        assert is_harmless(out + err)


def test_names_of_columns_cannot_act(tmp_path: Path) -> None:
    name, path = f"{RED}a{ERASE}{TURNED}", tmp_path / "x.csv"
    path.write_text(f"{name},label\n" + "1.5,a\n2.5,b\n" * 9, encoding="utf-8")
    with pytest.raises(DlkitError, match="control character") as refused:
        CSVDataset(path, target="label")
    assert is_harmless(str(refused.value))
    frame = pd.DataFrame({name: [1.5, 2.5] * 9, "label": ["a", "b"] * 9})
    dataset = CSVDataset(frame, target="label")
    for text in (repr(dataset), str(dataset.spec), str(dataset.describe())):
        assert is_harmless(text)
    with pytest.raises(DlkitError, match=r"\\x1b\[31ma") as caught:
        CSVDataset(frame, target="gone")
    assert is_harmless(str(caught.value))


def test_what_a_run_says_is_safe_in_the_log_and_on_the_screen(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    class Speaker:
        verbose = _speaks = True

    speaker: Any = Speaker()
    with caplog.at_level(logging.INFO, "dlkit"):
        Run.say(speaker, f"stopped: {HOSTILE}")
    assert is_harmless(caplog.records[-1].getMessage() + capsys.readouterr().err)
    assert "\n" not in caplog.records[-1].getMessage()


def test_weights_from_a_signed_address_are_named_without_the_signature(tmp_path: Path) -> None:
    import torch

    with Server() as server:
        server.files["/w-deadbeef.pth"] = b"x"
        with pytest.raises(DlkitError, match="its name promises deadbeef") as caught:
            load_weights(torch.nn.Linear(2, 1), f"{server.url('/w-deadbeef.pth')}?sig={SECRET}", progress=False)
        assert SECRET not in str(caught.value)


def test_a_mirror_with_a_key_is_named_without_it(tmp_path: Path) -> None:
    with Server() as server:
        server.script("/notMNIST_small.tar.gz", Reply(status=404))
        url = f"{server.url('/notMNIST_small.tar.gz')}?key={SECRET}"
        with (
            pytest.warns(UserWarning, match=r"key=\*\*\* is not checked") as warned,
            pytest.raises(DownloadError, match=r"key=\*\*\*: answered 404"),
        ):
            NotMNIST(tmp_path, mirror=url, download=True)
        assert not any(SECRET in str(warning.message) for warning in warned)


def test_what_objects_say_is_a_str_and_no_more() -> None:
    """pytest-xdist sends the repr of a failing test's fixtures to another process, and dies of anything else."""
    data = CSVDataset(pd.DataFrame({"a": [1, 2, 3.5] * 9, "b": ["x", "y", "z"] * 9}), target="b")
    texts = TextDataset(["good film", "bad film"] * 5, target=["yes", "no"] * 5)
    shown = [data, data.spec, data.describe(), texts, texts.spec]
    assert [type(said) for each in shown for said in (repr(each), str(each))] == [str] * 10
    assert "\n" in repr(data)
