"""Encodings: known, or guessed and said to be; never other letters in silence."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from dlkit._encodings import find_encoding
from dlkit.datasets import CSVDataset, TextDataset

CERTAIN = ("utf-8", "utf-16-le", "cp949", "cp932", "euc_jp")


@pytest.fixture(scope="module")
def cases() -> Path:
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"the small inputs that were read wrong are not at {folder}")
    return folder


def test_every_legacy_encoding_is_right_or_said_to_be_a_guess(cases):
    texts = json.loads((cases / "encodings.json").read_text("utf-8"))
    wrong = []
    for codec, text in texts.items():
        path = cases / f"text_{codec}.txt"
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            data = TextDataset(path)
        guessed = any("is read as" in str(warning.message) and "encoding=" in str(warning.message) for warning in told)
        if list(data.texts) != [text] * 8:
            assert guessed, codec
            wrong.append(codec)
        elif not guessed:
            assert find_encoding(path.read_bytes(), "x")[0] in CERTAIN
    assert wrong == [], "all of these are guessed right, too"


def test_a_guess_names_itself_the_alternatives_and_the_way(tmp_path):
    path = tmp_path / "mesto.csv"
    path.write_bytes("město,n\n".encode("cp1250") + "Večer jsme šli k řece,1\nkvést šeřík,2\n".encode("cp1250") * 9)
    with pytest.warns(UserWarning, match=r"mesto\.csv .* is read as cp125\d \(cp125\d .*encoding='cp125\d'"):
        CSVDataset(path, target="n")
    assert "kvést šeřík" in CSVDataset(path, target="n", encoding="cp1250").spec.columns[0].vocabulary


@pytest.mark.parametrize("streaming", [False, True])
def test_the_guess_is_the_same_in_memory_and_streamed(tmp_path, streaming):
    path = tmp_path / "t.csv"
    path.write_bytes(
        "prénom,n\n".encode("latin-1") + b"".join(f"{'ab'[i % 2]}é,{i % 7}\n".encode("latin-1") for i in range(50))
    )
    with pytest.warns(UserWarning, match="is read as cp1252"):
        data = CSVDataset(path, target="n", streaming=streaming)
    assert [column.name for column in data.spec.columns] == ["prénom"]
    assert set(data.spec.columns[0].vocabulary) == {"aé", "bé"}


def test_an_error_that_reads_the_file_again_does_not_guess_again(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(
        "prénom;n\n".encode("latin-1") + b"".join(f"é{i};{i}\n".encode("latin-1") for i in range(30)) + b"z;\n"
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(Exception, match="line 32 of"):
            CSVDataset(path, target="n", task="regression")
    assert len(told) == 1


def test_a_guess_never_yields_control_characters(tmp_path):
    """Bytes that cp1252 has no letters for were read as latin-1, where they are control characters."""
    path = tmp_path / "t.csv"
    path.write_bytes("name,n\nMüller,1\nBöhm,2\n".encode("cp850"))
    with pytest.warns(UserWarning, match="is read as cp850"):
        data = CSVDataset(path, target="n", categorical="name")
    assert data.spec.columns[0].vocabulary == ("Böhm", "Müller")
