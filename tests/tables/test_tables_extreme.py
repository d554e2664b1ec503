"""Tables and texts of extreme shape: read, or refused by name, in less than 10 s and 1 GB, and never an abort."""

from __future__ import annotations

import csv
import json
import re
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import warm
from dlkit._textfiles import MOST_COLUMNS, csv_problem, csv_records
from dlkit.datasets import CSVDataset, TextDataset
from dlkit.errors import DataError

# Name to what is opened and what comes of it: a length, or the words of the error.
CASES = {
    "two million columns": ("CSVDataset('wide.csv')", "2,000,000 columns, more than the 100,000"),
    "two million columns, streaming": ("CSVDataset('wide.csv', streaming=True)", "2,000,000 columns, more than"),
    "two million columns of texts": ("TextDataset('wide.csv', text='7')", "2,000,000 columns, more than"),
    "two million columns of images": ("ImageTable('wide.csv', '1', '2')", "2,000,000 columns, more than"),
    "one line": ("CSVDataset('line.csv')", "line 3: longer than 64 MB"),
    "one line, streaming": ("CSVDataset('line.csv', streaming=True)", "line 3: longer than 64 MB"),
    "one line of texts": ("TextDataset('line.csv', text='b')", "line 3: longer than 64 MB"),
    "one line of JSON": ("TextDataset('line.jsonl', text='b')", "line 1: longer than 64 MB; .* one object a line"),
    "one line of images": ("ImageTable('line.csv', 'a', 'b')", "line 3: longer than 64 MB"),
    "one cell": ("CSVDataset('cell.csv')", "cell that begins in line 3 does not end within 64 MB; is a quote"),
    "one cell, streaming": (
        "CSVDataset('cell.csv', streaming=True)",
        "cell that begins in line 3 does not end within 64 MB",
    ),
    "one cell of texts": ("TextDataset('cell.csv', text='b')", "cell that begins in line 3 does not end within 64 MB"),
    "one cell of images": ("ImageTable('cell.csv', 'a', 'b')", "cell that begins in line 3 does not end within 64 MB"),
    "many broken quotes": ("CSVDataset('broken.csv', target='b', on_error='skip', max_errors=1.0)", "102000"),
    "many broken quotes of texts": ("TextDataset('broken.csv', text='a', on_error='skip', max_errors=1.0)", "102000"),
}

_CHILD = """
import json, sys, time, warnings
warnings.simplefilter("error")
import pandas, pyarrow.csv, torch
from dlkit.datasets import CSVDataset, ImageTable, TextDataset

def memory(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) // 1024

for name, code in json.loads(sys.argv[1]).items():
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # the highest use so far is forgotten
    before, start = memory("VmRSS"), time.process_time()
    try:
        found = str(len(eval(code)))
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    print(json.dumps([name, found, memory("VmHWM") - before, time.process_time() - start]), flush=True)
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What came of each case, with megabytes above the idle process, and seconds; one process for all."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell what a process used")
    folder = tmp_path_factory.mktemp("extreme")
    columns = ",".join(map(str, range(2_000_000)))
    (folder / "wide.csv").write_text(f"{columns}\n" * 2)
    with (folder / "line.csv").open("wb") as table, (folder / "line.jsonl").open("wb") as array:
        table.write(b"a,b\n1,2\n3,")
        array.write(b'[{"b": "')
        for file in (table, array):
            file.seek(400 << 20, 1)  # a hole of 400 MB, which takes no disk
        table.write(b"\n4,5\n")
        array.write(b'"}]')
    (folder / "cell.csv").write_bytes(b'a,b\n1,2\n3,"' + (b"x" * 1023 + b"\n") * (100 << 10) + b'"\n4,5\n')
    (folder / "broken.csv").write_text("a,b\n" + '"x"y,1\n' * 100_000 + "fine and well,1.5\nfine,2.5\n" * 1000)
    code = {name: source for name, (source, _) in CASES.items()}
    done = warm.run(["-c", _CHILD, json.dumps(code)], cwd=folder)
    for path in folder.iterdir():
        path.unlink()
    results = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
    assert len(results) == len(CASES), f"ended with {done.returncode} after {list(results)[-1:]}: {done.stderr[-2000:]}"
    return results


@pytest.mark.parametrize("case", CASES)
def test_what_is_extreme_is_read_or_refused_within_its_limits(case: str, measured: dict[str, list[Any]]) -> None:
    found, megabytes, seconds = measured[case]
    expected = CASES[case][1]
    if expected.isdigit():
        assert found == expected
    else:
        assert found.startswith("DataError")
        assert re.search(expected, found)
    assert megabytes < 1000
    assert seconds < 10


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_cell_of_300_kilobytes_is_read(tmp_path: Path, quote: str, streaming: bool) -> None:
    path, long = tmp_path / "x.csv", quote + "x" * 300_000 + quote
    path.write_text(f"a,{long},b\n" + f"{long},1.5,2.5\n" * 2 + "short,2.5,3.5\n" * 40)
    dataset = CSVDataset(path, target="b", streaming=streaming)
    assert [column.name for column in dataset.spec.columns][1] == "x" * 300_000
    texts = TextDataset(path, text="a")
    assert len(texts) == 42
    assert len(texts.texts[0]) == 300_000


def test_a_broken_quote_beside_a_long_cell_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('a,b\n"x"y,1\n' + f"{'x' * 300_000},2.5\n" * 9 + '"p,q",3.5\n' * 30)
    with pytest.raises(DataError, match=r"line 2 of x\.csv has a broken quote"):
        CSVDataset(path, target="b")


def test_two_readers_that_are_open_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + f'"{"x" * 200_000}",1\n' * 20)
    with path.open(newline="") as first, path.open(newline="") as second:
        one, other = csv_records(first), csv_records(second)
        assert [next(one)[0], next(other)[0]] == [1, 1]
        assert all(not isinstance(record, csv.Error) for _, record in other)
        assert [line for line, record in one if not isinstance(record, csv.Error)] == list(range(2, 22))
    read: list[int] = []
    threads = [threading.Thread(target=lambda: read.append(len(TextDataset(path, text="a")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [20] * 4


def test_a_cell_beyond_the_limit_is_not_called_a_broken_quote() -> None:
    told = csv_problem(csv.Error("field larger than field limit (131072)"))
    assert told == "a cell of more than 64 MB or 1,000,000 lines; is a quote in it never closed?"


def test_a_frame_and_a_parquet_file_keep_the_same_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlkit import _textfiles

    assert MOST_COLUMNS == 100_000
    monkeypatch.setattr(_textfiles, "MOST_COLUMNS", 9)
    frame = pd.DataFrame({f"c{number}": [1.5, 2.5] for number in range(10)})
    frame.to_parquet(tmp_path / "x.parquet")
    for source in (frame, tmp_path / "x.parquet"):
        with pytest.raises(DataError, match="has 10 columns, more than the 9"):
            CSVDataset(source)
    with pytest.raises(DataError, match="has 10 columns, more than the 9"):
        CSVDataset(tmp_path / "x.parquet", streaming=True)


def test_a_header_of_more_than_a_megabyte_streams(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    names = ["y", *(f"a column with a name of {number:0900}" for number in range(1500))]
    path.write_text(",".join(names) + "\n" + "".join(",".join([f"{row}.5"] * 1501) + "\n" for row in range(20)))
    assert path.stat().st_size > 1 << 20
    assert len(CSVDataset(path, target="y", streaming=True).spec.columns) == 1500
