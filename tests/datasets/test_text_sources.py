"""Every kind of source gives the same texts; what is broken is named with file and line, or skipped and listed."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlkit.datasets import TextDataset
from dlkit.errors import ArgumentError, DataError, DataNotFoundError, TooManyErrorsError

TEXTS = ["first text", 'with "quotes", and comma', "", "한국어 👍🏽", "שלום עולם", "two\nlines"]
LABELS = ["a", "b", "a", "c", "b", "a"]
RECORDS = [
    {"id": place, "text": text, "label": label} for place, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
]


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def read(source: Any, **options: Any) -> tuple[list[str], list[str]]:
    """Texts and class names."""
    ds = TextDataset(source, **options)
    targets = [] if ds.targets is None else [ds.classes[code] for code in ds.targets.tolist()]
    return list(ds.texts), targets


@pytest.mark.parametrize(
    "name", ["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet", "t.csv.gz", "t.jsonl.bz2", "t.zip"]
)
def test_every_format_gives_the_same(tmp_path: Path, name: str) -> None:
    frame, path = pd.DataFrame(RECORDS), tmp_path / name
    if "csv" in name:
        frame.to_csv(path, index=False)
    elif name == "t.tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif name == "t.parquet":
        frame.to_parquet(path)
    elif name == "t.json":
        path.write_text(json.dumps(RECORDS))
    elif name == "t.zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("t.csv", frame.to_csv(index=False))
    else:
        path.write_bytes(bz2.compress("\n".join(map(json.dumps, RECORDS)).encode()))
    quotes = {"quotes": True} if name == "t.tsv" else {}  # a line end inside quotes is nothing a TSV has by itself
    assert read(path, text="text", target="label", **quotes) == (TEXTS, LABELS)


def test_data_in_memory(tmp_path: Path) -> None:
    assert read(TEXTS, target=LABELS) == (TEXTS, LABELS)
    assert read(tuple(TEXTS)) == (TEXTS, [])
    assert read(RECORDS, text="text", target="label") == (TEXTS, LABELS)
    assert read(pd.DataFrame(RECORDS), text="text", target="label") == (TEXTS, LABELS)
    assert read(pd.DataFrame(RECORDS), text=1, target=2) == (TEXTS, LABELS)
    assert read(iter(TEXTS), target=pd.Series(LABELS)) == (TEXTS, LABELS)
    lines = write(tmp_path / "lines.txt", "x\ny\n")
    assert read(lines, target=[1, 0]) == (["x", "y"], ["1", "0"])


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    for place, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True)):
        (tmp_path / label).mkdir(exist_ok=True)
        write(tmp_path / label / f"{place}.txt", text + "\n" if text else "")
    write(tmp_path / "a" / "notes.md", "not a text")
    (tmp_path / ".hidden").mkdir()
    write(tmp_path / ".hidden" / "x.txt", "not a text")
    ds = TextDataset(tmp_path)
    assert sorted(zip(ds.texts, (ds.classes[code] for code in ds.targets.tolist()), strict=True)) == sorted(  # type: ignore[union-attr]
        zip(TEXTS, LABELS, strict=True)
    )
    assert ds.where(0) == f"{tmp_path}/a/0.txt"
    assert read(tmp_path / "a")[1] == []
    assert read(tmp_path, pattern="*.md") == (["not a text"], ["a"])
    for options in ({"text": (0, 1)}, {"text": "body"}):
        with pytest.raises(ArgumentError, match="is a folder, which has texts and their classes"):
            TextDataset(tmp_path / "a", **options)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="is a folder"):
        TextDataset.split(tmp_path, group="author")
    with pytest.raises(DataError, match=r"have no file '\*.rst'; pattern= names another"):
        TextDataset(tmp_path, pattern="*.rst")


def test_a_file_of_lines_keeps_every_line(tmp_path: Path) -> None:
    # str.splitlines would also cut at the form feed, NEL and the line separator
    path = write(tmp_path / "corpus", "one\r\n\ntwo\x0cstill two\x85\u2028still\nlast")
    with pytest.warns(UserWarning, match=r"corpus: line 3 holds the control character '\\x0c'"):
        ds = TextDataset(path)
    assert list(ds.texts) == ["one", "", "two\x0cstill two\x85\u2028still", "last"]
    assert ds.where(3) == "line 4 of corpus"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949", "euc-kr"])
def test_encodings_are_found_and_said(tmp_path: Path, encoding: str) -> None:
    text = "리뷰,감성\n" + "정말 재미있는 영화였다,긍정\n너무 지루하고 재미없다,부정\n" * 5
    path = write(tmp_path / "t.csv", text, encoding)
    ds = TextDataset(path, text="리뷰", target="감성")
    assert ds.texts[0] == "정말 재미있는 영화였다"
    assert ds.classes == ["긍정", "부정"]
    assert any(name in ds.notes[0] for name in (encoding, "cp949" if encoding == "euc-kr" else encoding))
    assert read(path, text="리뷰", target="감성", encoding=encoding)[0] == list(ds.texts)


def test_latin_1_is_read_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "t.txt", "café\nnaïve\nplain\n", "latin-1")
    with pytest.warns(UserWarning, match="is read as cp1252"):
        assert read(path)[0] == ["café", "naïve", "plain"]
    assert read(path, encoding="cp1252")[0] == ["café", "naïve", "plain"]


@pytest.mark.parametrize("others", ["cp949", "latin-1"])
def test_mixed_encodings_are_an_error_with_the_line_or_skipped(tmp_path: Path, others: str) -> None:
    word = "지루한 영화" if others == "cp949" else "déjà vu café"
    lines = [("재미있는 영화 " + str(n)).encode() for n in range(30)]
    lines[::3] = [word.encode(others)] * 10
    path = write(tmp_path / "t.txt", b"\n".join(lines))
    with pytest.raises(DataError, match=r"t.txt, line \d+: not .*the file mixes encodings|but for some damaged bytes"):
        TextDataset(path)
    ds = TextDataset(path, encoding="utf-8", on_error="skip", max_errors=0.5)
    assert len(ds) == 20
    assert len(ds.skipped) == 10
    assert (ds.skipped[0].file, ds.skipped[0].row) == ("t.txt", 1)
    assert "which is not of its encoding" in ds.skipped[0].reason


def test_tabs_do_not_quote_unless_every_quote_has_its_partner(tmp_path: Path) -> None:
    stray = write(tmp_path / "stray.tsv", 'ham\t"never closed\nspam\tsay "hi"\nham\t"whole" and more\n')
    assert read(stray, text=1, target=0) == (['"never closed', 'say "hi"', '"whole" and more'], ["ham", "spam", "ham"])
    paired = write(tmp_path / "paired.tsv", 'ham\t"a ""b"""\nspam\tc\n')
    assert read(paired, text=1, target=0)[0] == ['a "b"', "c"]
    assert read(paired, text=1, target=0, quotes=False)[0] == ['"a ""b"""', "c"]


def test_lines_are_counted_through_quoted_line_ends_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'text,label\n"one\ntwo\nthree",x\n\nlast,y\n')
    ds = TextDataset(path, text="text", target="label")
    assert [ds.where(index) for index in (0, 1)] == ["line 2 of t.csv", "line 6 of t.csv"]


@pytest.mark.parametrize("separator", ["\t", ",", ";", "|"])
def test_separators_are_found(tmp_path: Path, separator: str) -> None:
    path = write(tmp_path / "t.csv", separator.join(["text", "label"]) + "\n" + f"some text{separator}x\n" * 3)
    assert read(path, text="text", target="label") == (["some text"] * 3, ["x"] * 3)


def test_headers_go_by_how_columns_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\nhello,x\n")
    assert read(path, text="text", target="label")[0] == ["hello"]
    assert read(path, text=0, target=1)[0] == ["text", "hello"]
    assert read(path, text=0, target=1, header=True)[0] == ["hello"]
    assert read(path, text=-2, target=-1, header=True)[0] == ["hello"]
    with pytest.raises(DataError, match=r"no column 'x'; its columns are 'text', 'label'"):
        TextDataset(path, text="x")
    with pytest.raises(DataError, match=r"has 2 columns, so there is no column 7"):
        TextDataset(path, text=7)


BROKEN = {
    "t.csv": ("text,label\ngood,x\none field\ngood,y\n", "line 3", "has 1 cells where the header has 2"),
    "empty.csv": ("text,label\ngood,x\nno label,\ngood,y\n", "line 3", "has no target"),
    "t.jsonl": ('{"text": "good", "label": 1}\n{"text": \n{"text": "good", "label": 2}\n', "line 2", "is not JSON"),
    "key.jsonl": (
        '{"text": "good", "label": 1}\n{"txt": ""}\n{"text": "good", "label": 2}\n',
        "line 2",
        "has no 'text'",
    ),
    "null.jsonl": (
        '{"text": "good", "label": 1}\n{"text": null, "label": 1}\n{"text": "good", "label": 2}\n',
        "line 2",
        "has no text",
    ),
    "int.jsonl": (
        '{"text": "good", "label": 1}\n{"text": 5, "label": 1}\n{"text": "good", "label": 2}\n',
        "line 2",
        "has a value of type int where a text is expected",
    ),
    "half.jsonl": (
        '{"text": "good", "label": 1}\n{"text": "\\ud83d", "label": 1}\n{"text": "good", "label": 2}\n',
        "line 2",
        r"has half a surrogate pair (U+D83D) after 0 characters",
    ),
    "deep.jsonl": (
        '{"text": "good", "label": 1}\n' + "[" * 100_000 + '\n{"text": "good", "label": 2}\n',
        "line 2",
        "is not JSON",
    ),
    "list.jsonl": (
        '{"text": "good", "label": 1}\n{"text": "x", "label": [1]}\n{"text": "good", "label": 2}\n',
        "line 2",
        "has a value of type list where a word or a number is expected",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_named_or_skipped_and_listed(tmp_path: Path, name: str) -> None:
    content, place, problem = BROKEN[name]
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        TextDataset(path, text="text", target="label")
    assert str(caught.value).startswith(f"{place} of {name} {problem}")
    assert "on_error='skip' leaves such rows out" in str(caught.value)
    ds = TextDataset(path, text="text", target="label", on_error="skip")
    assert list(ds.texts) == ["good", "good"]
    assert [skipped.place for skipped in ds.skipped] == [f"{place} of {name}"]
    assert ds.skipped[0].reason.startswith(problem)


def test_a_broken_quote_is_named_where_the_others_quote_and_a_character_where_none_does(tmp_path: Path) -> None:
    path = write(tmp_path / "q.csv", 'text,label\n"a, b",x\n"broken"quote,x\n"c, d",y\n')
    with pytest.raises(DataError, match=r"line 3 of q.csv has a broken quote"):
        TextDataset(path, text="text", target="label")
    assert read(path, text="text", target="label", on_error="skip")[0] == ["a, b", "c, d"]
    plain = write(tmp_path / "open.csv", 'text,label\ngood,x\n"never closed,x\n')
    ds = TextDataset(plain, text="text", target="label")
    assert (list(ds.texts), "quotes taken as ordinary" in ds.notes[0]) == (["good", '"never closed'], True)
    with pytest.raises(DataError, match=r"line 3 of open.csv has a broken quote"):
        TextDataset(plain, text="text", target="label", quotes=True)


def test_a_byte_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.txt", "한국어 영화\n".encode() * 20 + b"bad \xff byte\n" + "끝\n".encode())
    with pytest.raises(DataError, match=r"t.txt.*line 21"):
        TextDataset(path)
    with pytest.raises(DataError, match=r"t.txt, line 21: byte 0xff is not utf-8"):
        TextDataset(path, encoding="utf-8")
    assert len(TextDataset(path, encoding="utf-8", on_error="skip")) == 21


def test_lone_surrogates_in_memory_are_named() -> None:
    with pytest.raises(
        DataError,
        match=r"item 1 of the list has half a surrogate pair \(U\+DC00\) after 1",
    ):
        TextDataset(["fine", "x\udc00"])


def test_a_control_character_is_named_or_its_row_skipped(tmp_path: Path) -> None:
    for name, options in (("t.csv", {"text": 0, "target": 1}), ("t.txt", {})):
        rows = ["fine,1", "a\0b,0", "fine,0"] if options else ["fine", "a\x1b[31mb", "fine"]
        path = write(tmp_path / name, "\n".join(rows))
        with pytest.raises(DataError, match=f"line 2 of {name} holds the control character"):
            TextDataset(path, **options)  # type: ignore[arg-type]
        assert read(path, on_error="skip", **options)[0] == ["fine", "fine"]


def test_emoji_and_right_to_left_text_pass(tmp_path: Path) -> None:
    odd = ["👩🏽‍🚀🇰🇷", "שָׁלוֹם \u202eabc", "\ufeffbom inside", "x" * 10]
    path = write(tmp_path / "t.csv", "".join(f"{text},{place}\n" for place, text in enumerate(odd)))
    assert read(path, text=0, target=1)[0] == odd
    tsv = write(tmp_path / "t.tsv", "".join(f"{text}\t{place}\n" for place, text in enumerate(odd)))
    assert read(tsv, text=0, target=1)[0] == odd


# A CSV line is the dearest to read, and longer than a piece of any reader; the others are as long as several blocks.
@pytest.mark.parametrize(("name", "length"), [("t.csv", 50), ("t.tsv", 9), ("t.jsonl", 9), ("t.txt", 9)])
def test_a_line_of_50_megabytes(tmp_path: Path, name: str, length: int) -> None:
    long = "x" * (length * 1_000_000)
    content = json.dumps({"text": long}) + '\n{"text": "short"}\n' if "jsonl" in name else f"{long}\nshort\n"
    header = "" if name in ("t.jsonl", "t.txt") else "text\n"
    path = write(tmp_path / name, header + content)
    options = {} if name == "t.txt" else {"text": "text"}
    ds = TextDataset(path, tokenizer=lambda text: [str(len(text))], cache=None, **options)  # type: ignore[arg-type]
    assert [len(text) for text in ds.texts] == [len(long), 5]


def test_too_many_bad_rows_stop_even_skipping(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\n" + "good,x\n" * 20 + "bad\n" * 20)
    with pytest.raises(TooManyErrorsError, match=r"20 of 40 rows cannot be read, more than max_errors=0.1 allows"):
        TextDataset(path, text="text", target="label", on_error="skip")
    assert len(TextDataset(path, text="text", target="label", on_error="skip", max_errors=0.5)) == 20


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30), st.sampled_from(["x", "y"])),
        min_size=1,
        max_size=10,
    )
)
def test_any_csv_and_json_lines_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("made")
    with open(folder / "t.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    pd.DataFrame(rows, columns=["text", "label"]).to_json(folder / "t.jsonl", orient="records", lines=True)
    expected = ([text for text, _ in rows], [label for _, label in rows])
    for name in ("t.csv", "t.jsonl"):
        assert read(folder / name, text="text", target="label") == expected


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ("missing.csv", {}, DataNotFoundError, "no file missing.csv"),
        ([], {}, DataError, "the list has no text"),
        (["a", "b"], {"target": [1]}, ArgumentError, "there are 2 texts but 1 targets"),
        ([("a", "b")], {}, ArgumentError, "the texts are pairs; text=0, pair=1 takes both"),
        (
            [("a", "b", "c")],
            {"text": 0, "pair": 7},
            DataError,
            r"item 0 of the list has 3 parts, of which \[0, 7\] were asked for",
        ),
        (7, {}, ArgumentError, "source must be a path, a list of texts or a DataFrame, not int"),
        (["a"], {"on_error": "ignore"}, ArgumentError, "on_error must be 'raise' or 'skip'"),
        (["a"], {"target": {"a": 1}}, ArgumentError, "target must be a column's name or number, or a value per text"),
        (["a"], {"tokenizer": "magic"}, ArgumentError, "tokenizer must be one of .* not 'magic'"),
        (["a"], {"text": []}, ArgumentError, "text must be a column, by name or number from 0, or several"),
        (["a"], {"pair": 0.5}, ArgumentError, "pair must be a column"),
    ],
)
def test_mistakes_are_named(source: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TextDataset(source, **options)


def test_odd_files_are_named(tmp_path: Path) -> None:
    for name, content, message in [
        ("empty.csv", "", "is empty"),
        ("header.csv", "text,label\n", "has no text"),
        ("t.parquet", "PAR1 but no more", "is a damaged Parquet file"),
        ("t.json", "[1, 2", "begins like a JSON array but is not one"),
        ("t.gz", gzip.compress(b"x" * 10_000)[:-20], "cannot be unpacked"),
    ]:
        with pytest.raises(DataError, match=message):
            TextDataset(write(tmp_path / name, content), text="text" if "csv" in name else 0)
    with pytest.raises(ArgumentError, match="is read as one text per line, which has no columns"):
        TextDataset(write(tmp_path / "t.txt", "x\n"), text=1, format="lines")
    with pytest.raises(ArgumentError, match="format must be one of"):
        TextDataset(tmp_path / "t.txt", format="xml")  # type: ignore[arg-type]


def test_the_real_files(shared_data: Path) -> None:
    with pytest.warns(UserWarning, match="line 20 holds the control character"):
        sms = TextDataset(shared_data / "text/SMSSpamCollection", text=1, target=0, on_error="skip")
    assert (len(sms), sms.classes, sms.targets.bincount().tolist()) == (5574, ["ham", "spam"], [4827, 747])  # type: ignore[union-attr]
    assert [(skipped.row, skipped.reason) for skipped in sms.skipped] == [
        (6, "has 1 cells where there are names for 2")
    ]
    assert "quotes taken as ordinary characters" in sms.notes[0]
    train = TextDataset(shared_data / "text/nsmc/ratings_train_subset.txt", text="document", target="label")
    assert (len(train), train.classes) == (13_000, ["0", "1"])
    empty = [index for index, text in enumerate(train.texts) if not text]
    assert [train.where(index) for index in empty] == ["line 2522 of ratings_train_subset.txt"]
    assert train[empty[0]][0].tolist() == [1]
    korean = TextDataset(shared_data / "csv/reviews_cp949.csv", text="리뷰", target="감성")
    assert (len(korean), korean.classes, korean.notes[0].partition("csv: ")[2].split(",")[0]) == (
        1000,
        ["긍정", "부정"],
        "cp949",
    )
