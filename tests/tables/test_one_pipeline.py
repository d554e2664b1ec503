"""Memory is a stream of one block: whatever the blocks and the order of the rows, a file means the same."""

from __future__ import annotations

import csv
import gzip
import io
import random
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import dlkit
from dlkit.datasets import CSVDataset
from dlkit.errors import DlkitError
from dlkit.reading import _headers as headers
from dlkit.reading import blocks

# What most cells of a column are, and the odd ones that may lie among them, anywhere.
CELLS: dict[str, tuple[Any, list[str]]] = {
    "whole numbers": (lambda i: str(i % 90), ["", "NA", "x", "1.5", "007", "1e3", "inf", "12 kg"]),
    "few whole numbers": (lambda i: str(i % 3), ["", "0.5", "3+", "no", " 1", "1.0", "-1"]),
    "fractions": (lambda i: f"{i * 0.37 % 5:.2f}", ["", "nan", "unknown", "1e300", "-1e300", "€5"]),
    "row numbers": (lambda i: str(i + 10), ["10", "", "x"]),
    "thousands": (lambda i: f"{i * 997 % 10**6:,}", ["", "1,5", "oops"]),
    "decimal commas": (lambda i: f"{i % 40},{i % 7}5", ["", "1.234", "x"]),
    "long numbers": (lambda i: str(2**60 + i % 50), ["", "0.5", "x"]),
    "truth": (lambda i: ("true", "False", "TRUE")[i % 3], ["", "yes", "1"]),
    "yes": (lambda i: ("yes", "no")[i % 2], ["", "maybe", "Yes"]),
    "words": (lambda i: f"w{i % 5}", ["", "?", "3", "2020-01-01", " w1 ", "true"]),
    "names": (lambda i: f"user {i:05}", ["", "5"]),
    "sentences": (lambda i: f"some words about customer {i}", ["", "short"]),
    "days": (lambda i: f"2020-{1 + i % 12:02}-{1 + i % 28:02}", ["", "soon", "2020-01-01 10:00", "10:30"]),
    "moments": (lambda i: f"2020-01-{1 + i % 28:02} 1{i % 9}:00", ["", "2020-01-05", "never"]),
    "clocks": (lambda i: f"1{i % 9}:{i % 60:02}", ["", "2020-01-01", "late"]),
    "german days": (lambda i: f"{1 + i % 28:02}.{1 + i % 12:02}.2020", ["", "32.1.2020", "-"]),
    "empty": (lambda i: "", ["1", "a", "2020-01-01", "NA"]),
    "always the same": (lambda i: "7", ["", "8", "x"]),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, dict[str, Any], int]:
    """The text of a table whose columns contradict themselves here and there, options, and the size of its blocks."""
    kinds = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=3))
    target = draw(st.one_of(st.none(), st.sampled_from(sorted(set(CELLS) - {"empty"}))))
    count = draw(st.integers(24, 90))
    names = [*(f"c{place}" for place in range(len(kinds))), "sure", *(["y"] if target else [])]
    columns = [[CELLS[kind][0](row) for row in range(count)] for kind in kinds]
    columns += [[f"{row % 11}.5" for row in range(count)]]
    columns += [[CELLS[target][0](row) for row in range(count)]] if target else []
    for column, kind in zip([*columns[: len(kinds)], *columns[len(kinds) + 1 :]], [*kinds, target or ""], strict=False):
        odd = draw(st.lists(st.tuples(st.integers(0, count - 1), st.sampled_from(CELLS[kind][1])), max_size=4))
        odd += [(row, odd[0][1]) for row in range(count // 2, count)] if odd and draw(st.booleans()) else []
        for row, cell in odd:
            column[row] = cell
    rows = list(zip(*columns, strict=True))
    random.Random(draw(st.integers(0, 9))).shuffle(rows) if draw(st.booleans()) else None
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([names, *rows])
    options: dict[str, Any] = {"target": "y"} if target else {}
    options["on_error"] = draw(st.sampled_from(["raise", "skip"]))
    options["max_errors"] = draw(st.sampled_from([0.1, 1.0]))
    options["scale"] = draw(st.sampled_from(["standard", "robust"]))
    role = draw(st.sampled_from(["", "", "numeric", "categorical", "dates", "drop"]))
    options |= {role: "c0"} if role else {}
    options |= {"task": draw(st.sampled_from(["auto", "classification", "regression"]))} if target else {}
    return text.getvalue(), options, draw(st.integers(40, 900))


def meaning(path: Path, options: dict[str, Any], spec: Any = None) -> tuple[Any, ...]:
    """All that can be seen of a dataset, in order; or its error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            ds = CSVDataset(path, spec=spec, **options) if spec else CSVDataset(path, **options)
            batches = list(dlkit.DataLoader(ds, 16))
        except DlkitError as error:
            return type(error).__name__, str(error)
    return (
        ds.spec,
        batches,
        len(ds),
        ds.skipped,
        ds.notes,
        repr(ds),
        list(dict.fromkeys(str(each.message) for each in caught)),
    )


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def check_bytes(content: bytes, options: dict[str, Any], size: int, name: str = "t.csv") -> tuple[Any, ...]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", size)
        path = Path(folder) / name
        path.write_bytes(content)
        whole, stream = meaning(path, options), meaning(path, options | {"streaming": True})
        assert equal(whole, stream), f"\n{whole}\n{stream}"
        return whole


def check(text: str, options: dict[str, Any], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", size)
        path = Path(folder) / "t.csv"
        path.write_text(text, encoding="utf-8")
        whole, stream = meaning(path, options), meaning(path, options | {"streaming": True})
        assert equal(whole, stream), f"\n{whole}\n{stream}"
        if len(whole) > 2:  # the same under a spec that was fitted on the first half
            few = Path(folder) / "few.csv"
            lines = text.splitlines(keepends=True)
            few.write_text("".join(lines[: len(lines) // 2]), encoding="utf-8")
            fitted = meaning(few, options)
            if len(fitted) > 2:
                rest = {name: options[name] for name in ("on_error", "max_errors") if name in options}
                whole, stream = (meaning(path, rest | {"streaming": kind}, fitted[0]) for kind in (False, True))
                assert equal(whole, stream), f"\n{whole}\n{stream}"


CHANGES_ITS_NATURE = "".join(f"{i}.5,{i % 6}\n" for i in range(60)) + "".join(f"{i}.5,{i}.25\n" for i in range(60))
TURNS_TO_LETTERS = "".join(f"{i},{i}.5\n" for i in range(60)) + "".join(f"a{i % 3},{i}.5\n" for i in range(60))


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(tables())
@example(("x,y\n" + CHANGES_ITS_NATURE, {"target": "y"}, 200))
@example(("x,y\n" + TURNS_TO_LETTERS, {"target": "y"}, 200))
def test_a_file_means_the_same_in_memory_and_in_blocks_of_any_size(table: tuple[str, dict[str, Any], int]) -> None:
    check(*table)


@pytest.mark.parametrize("code", ["007", "-012", "0x1F", '"05"', "00"])
def test_a_code_far_from_the_beginning_still_makes_no_numbers_of_a_column(tmp_path: Path, code: str) -> None:
    rows = [f"{i % 90},{i}.5" for i in range(3000)]
    rows[2500] = f"{code},2500.5"
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(rows) + "\n")
    assert CSVDataset(tmp_path / "t.csv").spec["a"].kind == "category"
    check((tmp_path / "t.csv").read_text(), {}, 5000)


@settings(max_examples=25)
@given(
    before=st.integers(2, 80),
    between=st.integers(0, 40),
    first=st.sampled_from(["", "1.5", "0,5", "1.234", "7"]),
    late=st.sampled_from(["0,5", "1.5", "1.234", "12,345", "1,5,5", "x"]),
    torn=st.booleans(),
    size=st.integers(40, 400),
)
@example(before=40, between=9, first="1.5", late="0,5", torn=False, size=60)
@example(before=40, between=9, first="0,5", late="1.234", torn=True, size=60)
def test_a_decimal_mark_that_shows_late_counts_alike(before, between, first, late, torn, size) -> None:
    """In another column, wherever it stands, and whether or not yet another column makes a second pass necessary."""
    many = 5  # rows that are looked at to find the decimal mark, so that most of a small file comes later
    rows = [f"{first or i};{i};{i % 5};1.234" for i in range(many + before)]
    rows += [f"{i};{late};{'a' if torn else 3};1.234" for i in range(3)] + [f"{i};{i};2;2.345" for i in range(between)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "_SAMPLE_ROWS", many)
        check("\n".join(["a;b;c;d", *rows]) + "\n", {"scale": "none", "on_error": "skip", "max_errors": 1.0}, size)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_second_pass_reads_thousands_as_the_first(tmp_path: Path, streaming: bool) -> None:
    """The last column is read anew as text, which must not turn "1.234" behind decimal commas into 1.234."""
    rows = [f"{i},5;1.234;{i}" for i in range(30)] + ["7,5;2.345;word"] * 30
    (tmp_path / "t.csv").write_text("a;b;c\n" + "\n".join(rows), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", 100)
        data = CSVDataset(tmp_path / "t.csv", scale="none", streaming=streaming)
        assert {float(row["numeric"][1]) for row in data} == {1234.0, 2345.0}


LATE = {
    "korean": "가나다 라마바".encode("cp949"),
    "western": "déjà vu".encode("cp1252"),
    "utf-8": "가나다".encode(),
    "bad byte": b"word\xff",
    "quote": b'a "b',
    "cell in quotes": b'"a, b"',
    "open quote": b'"never closed',
    "lines in quotes": b'"one\ntwo"',
    "blank and quote": b' "a, b"',
    "control": b"a\x1b[31m",
    "zero": b"a\x00b",
    "more cells": b"a,b,c",
    "semicolons": b"a;b;c;d",
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    before=st.integers(0, 60),
    odd=st.lists(st.sampled_from(sorted(LATE)), min_size=1, max_size=3),
    times=st.sampled_from([1, 1, 30]),
    options=st.sampled_from(
        [{}, {}, {"encoding": "utf-8"}, {"encoding": "cp949"}, {"comment": "#"}, {"encoding": "utf-16"}]
    ),
    on_error=st.sampled_from(["raise", "skip"]),
    packed=st.booleans(),
    size=st.integers(40, 400),
)
@example(before=60, odd=["korean"], times=1, options={}, on_error="raise", packed=False, size=50)
@example(before=60, odd=["korean"], times=30, options={}, on_error="raise", packed=True, size=50)
@example(before=60, odd=["bad byte"], times=1, options={"encoding": "utf-8"}, on_error="skip", packed=False, size=50)
@example(before=60, odd=["quote"], times=30, options={}, on_error="raise", packed=False, size=50)
@example(before=60, odd=["blank and quote"], times=30, options={}, on_error="raise", packed=False, size=50)
@example(
    before=0,
    odd=["bad byte", "bad byte", "blank and quote"],
    times=30,
    options={},
    on_error="raise",
    packed=False,
    size=40,
)
def test_what_contradicts_the_beginning_of_a_file_counts_alike(
    before, odd, times, options, on_error, packed, size
) -> None:
    rows = [f"{i},w{i % 3},{i % 7}.5".encode() for i in range(before + 3)]
    for number in range(times):
        rows += [b"%d,%s,1.5" % (number, LATE[odd[number % len(odd)]])]
    content = b"\n".join([b"a,b,c", *rows, *rows[: before // 3 + 3]]) + b"\n"
    content = gzip.compress(content) if packed else content
    name = "t.csv.gz" if packed else "t.csv"
    check_bytes(content, options | {"on_error": on_error, "max_errors": 1.0}, size, name)


def test_rows_of_a_sheet_and_lines_behind_carriage_returns_are_named_alike(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [0.5, 1, 2] * 8, "t": ["two\nlines", *["z"] * 23], "y": [0, 1, None] * 8})
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    text = frame.drop(columns="t").to_csv(index=False, lineterminator="\r")
    (tmp_path / "t.csv").write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", 50)
        for name in ("row 4 of t.xlsx", "line 4 of t.csv"):
            path = tmp_path / name.rpartition(" ")[2]
            whole, stream = (meaning(path, {"target": "y", "streaming": streaming}) for streaming in (False, True))
            assert whole == stream
            assert name in whole[1]
