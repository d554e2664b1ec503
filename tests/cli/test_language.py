"""Korean: the same commands, options and figures as in English, and no text without its translation."""

from __future__ import annotations

import ast
import inspect
import os
import pickle
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import dlkit
from dlkit._language import Message, _catalogue, here, language, speaking
from dlkit.cli._lines import fitted
from dlkit.cli._translating import ERRORS, WORDS, language_of
from dlkit.cli.app import app

KOREAN = _catalogue("ko")
PROGRAM: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = {"": PROGRAM, **PROGRAM.commands}
HANGUL = re.compile("[\uac00-\ud7a3]")


def columns(line: str) -> int:
    """Of a terminal, in which letters of Korean take two."""
    return len(line) + sum(unicodedata.east_asian_width(letter) in "WF" for letter in line)


def helps() -> Iterator[str]:
    """The texts of the help of all commands, in the pieces in which they are translated."""
    for command in COMMANDS.values():
        for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
            first, *lines = paragraph.split("\n")
            # A line of an example is translated where it says in words what it does.
            yield from (
                [line for line in lines if "   " in line.strip()] if first == "\b" else [" ".join([first, *lines])]
            )
        for parameter in command.params:
            yield parameter.help


def messages() -> Iterator[str]:
    """The texts that the code says through `Message`; each stands there as it is."""
    for file in Path(dlkit.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "Message(" in text else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Message":
                said = node.args[0]
                assert isinstance(said, ast.Constant), f"{file}:{node.lineno}: a text that cannot be looked up"
                yield str(said.value)


def test_every_text_is_translated_and_no_other() -> None:
    said = {*helps(), *messages(), *WORDS, *ERRORS}
    assert sorted(said - KOREAN.keys()) == []
    assert sorted(KOREAN.keys() - said) == []


def test_what_is_said_can_be_translated() -> None:
    """No sentence goes to `run.say`, `tell`, or a bar as a bare string, which could not be looked up."""
    wrong = []
    for file in Path(dlkit.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            said = {"say": node.args[:1], "tell": node.args[:1], "_say": node.args[:1]}.get(name, [])
            said += [each.value for each in node.keywords if name == "Bar" and each.arg in ("desc", "unit")]
            bare = [text for text in said if isinstance(text, ast.JoinedStr | ast.Constant)]
            wrong += [f"{file.name}:{node.lineno}: {ast.unparse(text)}" for text in bare]
    assert [line for line in wrong if not line.endswith("'B'")] == []


def test_translations_hold_the_same_values_and_options() -> None:
    for english, korean in KOREAN.items():
        wanted, found = (
            Counter((name, form or "", how) for _, name, form, how in string.Formatter().parse(text) if name)
            if "{" in english
            else Counter[Any]()
            for text in (english, korean)
        )
        assert found == wanted, english
        for named in re.findall(r"--[a-z][\w-]*|`[^`]+`", english):
            assert named in korean, english
        assert HANGUL.search(korean) or not re.search("[a-z]{4}", re.sub(r"\{.*?\}", "", korean)), korean


def help_of(command: str, name: str) -> str:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*command.split(), "--help", "--lang", name])
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=lambda name: name or "dlkit")
def test_help_names_the_same_commands_options_and_values(command: str) -> None:
    english, korean = help_of(command, "en"), help_of(command, "ko")

    def named(text: str) -> tuple[set[str], list[str]]:
        """Options and commands wherever they stand; and what the lists of arguments, options, commands begin with."""
        told, lists = (
            re.sub(r"\s+", " ", text),
            re.split(r"(?m)^(?:Arguments|Options|인자|옵션):$", text, maxsplit=1)[1],
        )
        commands = re.findall(rf"dlkit (?:{'|'.join(PROGRAM.commands)})\b", told, re.ASCII)
        options = re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", told, re.ASCII)
        return {*commands, *options}, re.findall(r"(?m)^  (\S+(?: \S+)*)", lists)

    assert named(korean) == named(english)
    assert not re.search(r"Usage|Options|Arguments|Commands|Examples?:|default:|required|Show this", korean)
    assert len(HANGUL.findall(korean)) > 40


@pytest.mark.parametrize("command", COMMANDS, ids=lambda name: name or "dlkit")
def test_lines_of_help_fit_a_terminal(command: str) -> None:
    examples = re.compile(r"^ +(dlkit|curl)\b")
    for line in help_of(command, "ko").splitlines():
        assert columns(line) <= 80 or examples.match(line), line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("tarin", "'tarin': 그런 명령은 없습니다. 혹시 'train'?"),
        ("train x --epchs 3", "그런 옵션은 없습니다: --epchs"),
        ("predict", "인자 'MODEL': 빠졌습니다."),
        ("train x --epochs 0", "'--epochs' 값이 올바르지 않습니다:"),
        ("train x --precision fp8", "'--precision' 값이 올바르지 않습니다:"),
        ("serve m --lang ko --max-body much", "--max-body: 'much' is not a size such as 16MB or 500kB"),
    ],
)
def test_wrong_usage_is_told_in_korean(words: str, told: str) -> None:
    result = CliRunner(env={"DLKIT_LANG": "ko"}).invoke(app, words.split())
    assert result.exit_code == 2
    assert told in result.stderr
    assert "사용법: dlkit" in result.stderr
    assert "오류: " in result.stderr
    assert not re.search("Usage|Error|Try", result.stderr)


def test_errors_of_dlkit_have_a_korean_frame_and_json_none(tmp_path: Path) -> None:
    words = ["inspect", str(tmp_path / "none.csv"), "--lang", "ko"]
    assert CliRunner().invoke(app, words).stderr.startswith("오류: there is no file or folder")
    assert (
        '{"error": "DataNotFoundError", "message": "there is no' in CliRunner().invoke(app, [*words, "--json"]).stderr
    )


@pytest.mark.parametrize(
    ("words", "environ", "expected"),
    [
        ("train", {}, "en"),
        ("train --lang ko", {"LANG": "en_US.UTF-8"}, "ko"),
        ("--lang=ko train", {}, "ko"),
        ("train", {"LANG": "ko_KR.UTF-8"}, "ko"),
        ("train", {"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, "en"),
        ("train", {"LANG": "C", "LC_MESSAGES": "ko_KR.eucKR"}, "ko"),
        ("train", {"LANG": "ko_KR.UTF-8", "DLKIT_LANG": "en"}, "en"),
        ("train --lang en", {"DLKIT_LANG": "ko"}, "en"),
        ("predict m -- --lang ko", {}, "en"),
        ("train --lang", {"LANG": "de_DE.UTF-8"}, "en"),
    ],
)
def test_which_language(words: str, environ: dict[str, str], expected: str) -> None:
    assert language_of(words.split(), environ) == expected


def test_a_language_alone_shows_the_help_in_it() -> None:
    result = CliRunner().invoke(app, ["--lang", "ko"])
    assert (result.exit_code, result.stdout.split(":")[0]) == (0, "사용법")


def test_a_message_is_english_and_is_read_in_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Message("error: {message}", message=Message("interrupted"))
    assert said == "error: interrupted" == pickle.loads(pickle.dumps(said))
    monkeypatch.setenv("DLKIT_LANG", "de")
    assert language() == "en"
    with speaking("ko"):
        assert pickle.loads(pickle.dumps(said)).here() == "오류: 중단되었습니다"
        assert here("interrupted") == "interrupted"  # of the user, not of dlkit
        assert f"{said}" == "error: interrupted"
    assert said.here() == "error: interrupted"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("language") / "환자.csv"
    rows = (f"{n % 90},{'red' if n % 3 else 'green'},{'yes' if n % 90 > 50 else 'no'}" for n in range(120))
    path.write_text("\n".join(["age,color,ill", *rows]), encoding="utf-8")
    return path


def test_a_training_says_korean_and_has_the_same_numbers(dlkit: Any, table: Path, tmp_path: Path) -> None:
    """What programs read is the same in every language: JSON, CSV, names of files and of columns."""
    done, documents = {}, {}
    for name in ("en", "ko"):
        out = tmp_path / name
        how = ("--target", "ill", "--arch", "mlp", "--epochs", 1, "--device", "cpu", "--out", out, "--lang", name)
        done[name] = dlkit("train", table, *how)
        documents[name] = dlkit("train", table, *how, "--json").document
        dlkit("predict", out, table, "--out", out / "predicted.csv", "--probabilities", "--lang", name)
        for place in ("model", "folder", "report"):
            assert Path(documents[name].pop(place)).is_relative_to(out)
    assert documents["en"] == documents["ko"]
    assert len({tuple(sorted(path.name for path in (tmp_path / name).iterdir())) for name in ("en", "ko")}) == 1
    for file in ("history.csv", "predicted.csv"):
        assert (tmp_path / "en" / file).read_bytes() == (tmp_path / "ko" / file).read_bytes()
    english, korean = done["en"], done["ko"]
    assert re.findall(r"\d\.\d+", korean.out) == re.findall(r"\d\.\d+", english.out)
    for line in ("표: ", "타깃 ill: ", "학습 96개, 검증 12개, 테스트 12개", "모델: TabularMLP", "에포크 1/1, 스텝 3:"):
        assert line in korean.err
    for line in ("정확도 ", "기준선: ", "보고서: ", "사용: dlkit predict"):
        assert line in korean.out
    page = (tmp_path / "ko" / "report.html").read_text(encoding="utf-8")
    titles = re.findall(r"<h[23]>(.*?)</h", page)
    assert titles[:5] == ["결과", "학습 곡선", "클래스", "혼동 행렬", "가장 크게 틀린 것"]
    assert all(map(HANGUL.search, titles))
    assert "재현율" in "".join(re.findall(r"<text.*?</text>", page))  # pictures are text of the page, in its fonts
    assert '<html lang="ko">' in page
    assert '<html lang="en">' in (tmp_path / "en" / "report.html").read_text(encoding="utf-8")


def test_the_language_of_the_machine_and_columns_that_stand_in_line(
    dlkit: Any, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DLKIT_LANG")
    monkeypatch.setenv("LC_ALL", "")
    monkeypatch.setenv("LC_MESSAGES", "")
    monkeypatch.setenv("LANG", "ko_KR.UTF-8")
    lines = dlkit("inspect", table, "--target", "ill").out.splitlines()
    assert lines[0].split() == ["종류", "결측값", "서로", "다른", "값", "예"]
    assert len(set(map(columns, lines[:4]))) == 1
    assert "DLKIT_LANG" not in os.environ
    headings = {
        "seconds": 7,
        "parameters": 10,
        "per image": 9,
        "backbone": 8,
        "model": 6,
        "made with": 10,
        "reached": 10,
    }
    with speaking("ko"):
        for heading, width in headings.items():
            shown = fitted(KOREAN[heading], width, right=True)
            assert columns(shown) == width
            assert "…" not in shown
