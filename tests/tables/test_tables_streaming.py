"""Streams give every row once, in an order of (seed, epoch) alone, from few blocks at a time and in little memory."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet
from torch.utils.data import DataLoader as Stock

import dlkit
import warm
from dlkit import Trainer
from dlkit._handout import Handout
from dlkit.callbacks import Callback, Checkpoint
from dlkit.datasets import CSVDataset
from dlkit.datasets.tables.lanes import Batches, InOrder, Lanes
from dlkit.errors import ArgumentError, DataError, TooManyErrorsError
from dlkit.models import TabularMLP
from dlkit.reading import _columnar as columnar
from dlkit.reading import blocks as block_module
from dlkit.reading._delimited import Dialect
from dlkit.reading.blocks import block_file, last_record_end
from dlkit.reading.cells import Skipped
from dlkit.reading.policy import ReadOptions
from dlkit.reading.reader import read_table
from dlkit.samplers import Share
from dlkit.splits import part_of_keys

ROWS = 1800


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_module, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(columnar, "PIECE_ROWS", 70)


def frame(rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "key": rng.permutation(rows) + 0.5,
            "amount": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows).round(3)),
            "color": rng.choice(["red", "green", "blue", None], rows),
            "when": pd.date_range("2020-01-01", periods=rows, freq="7h").strftime("%Y-%m-%d %H:%M"),
            "note": [f'he said "{i}",\nand left for good' for i in range(rows)],
            "y": rng.choice(["no", "yes"], rows),
        }
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    frame().to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def keys_of(batches: Any, ds: CSVDataset) -> list[float]:
    """The column `key` in the units of the file: it tells the rows apart."""
    part = next(column for column in ds.spec.numbers if column.name == "key").parts[0]
    numeric = torch.cat([x["numeric"][:, 0] if isinstance(x, dict) else x[:, 0] for x, _ in batches]).double()
    return [round(float(value) * part.scale + part.center, 1) for value in numeric]


def same(left: Any, right: Any) -> bool:
    return len(left) == len(right) and all(
        torch.equal(y, v)
        and x.get("text") == u.get("text")
        and all(torch.equal(x[n], u[n]) for n in ("numeric", "categorical"))
        for (x, y), (u, v) in zip(left, right, strict=True)
    )


# --- the same as in memory --------------------------------------------------------------------------------------------


def test_in_order_it_gives_what_memory_gives(path: Path) -> None:
    whole = CSVDataset(path, target="y", text="note")
    stream = CSVDataset(path, spec=whole.spec, streaming=True)
    assert path.stat().st_size > 50 * block_module.BLOCK_BYTES
    assert same(list(dlkit.DataLoader(whole, 64)), list(dlkit.DataLoader(stream, 64)))
    assert same(list(Stock(whole, 64)), list(Stock(stream, 64)))
    x, y = stream[1234]
    assert x["text"] == 'he said "1234",\nand left for good'
    assert torch.equal(x["numeric"], whole[1234][0]["numeric"])
    assert y == whole[1234][1]


def test_the_first_pass_fits_what_memory_fits(path: Path) -> None:
    whole = CSVDataset(path, target="y").spec
    stream = CSVDataset(path, target="y", streaming=True).spec
    assert [(c.name, c.kind, c.missing, c.rows) for c in stream.columns] == [
        (c.name, c.kind, c.missing, c.rows) for c in whole.columns
    ]
    assert stream["color"] == whole["color"]
    assert stream.target == whole.target
    for left, right in zip(stream.numbers, whole.numbers, strict=True):
        assert [part.name for part in left.parts] == [part.name for part in right.parts]
        for part, other in zip(left.parts, right.parts, strict=True):
            assert (part.center, part.scale, part.fill) == pytest.approx(
                (other.center, other.scale, other.fill), rel=1e-9
            )


@pytest.mark.parametrize("make", ["parquet", "gz", "cp949", "utf-16", "tsv", "two"])
def test_all_that_can_be_read_can_be_streamed(tmp_path: Path, make: str) -> None:
    data = frame(400).drop(columns="when").assign(color="빨강")
    data["color"] = np.where(np.arange(400) % 3 == 0, "빨강", "파랑")
    source: Any = tmp_path / "t.csv"
    if make == "parquet":
        source = tmp_path / "t.parquet"
        data.to_parquet(source, row_group_size=150)  # read in pieces of 70 rows
    elif make == "gz":
        source = tmp_path / "t.csv.gz"
        source.write_bytes(gzip.compress(data.to_csv(index=False).encode()))
    elif make == "two":
        source = [tmp_path / "1.csv", tmp_path / "2.csv"]
        data[:150].to_csv(source[0], index=False)
        data[150:][[*data.columns[::-1]]].to_csv(source[1], index=False)
    else:
        text = data.to_csv(index=False, sep="\t" if make == "tsv" else ",")
        source.write_bytes(text.encode("utf-8-sig" if make == "tsv" else make))
    whole = CSVDataset(source, target="y", text="note")
    stream = CSVDataset(source, spec=whole.spec, streaming=True)
    assert same(list(dlkit.DataLoader(whole, 32)), list(dlkit.DataLoader(stream, 32)))
    again = CSVDataset(source, target="y", text="note", streaming=True)
    assert (len(again), again.spec.target) == (400, whole.spec.target)
    assert repr(again).startswith(repr(whole).split(",")[0])  # told by the name that was given, not by a copy's
    for left, right in zip(again.spec.numbers, whole.spec.numbers, strict=True):
        assert left.parts[0].fill == pytest.approx(right.parts[0].fill)  # every row is in the sample of so few


# --- order ------------------------------------------------------------------------------------------------------------


def test_every_row_once_per_epoch_in_another_order(path: Path) -> None:
    ds = CSVDataset(path, target="y", streaming=True)
    loader = dlkit.DataLoader(ds, 32, shuffle=True, seed=7)
    first, second = keys_of(loader, ds), keys_of(loader, ds)
    expected = sorted(frame().key.tolist())
    assert sorted(first) == sorted(second) == expected
    assert first != second
    assert first == keys_of(dlkit.DataLoader(ds, 32, shuffle=True, seed=7), ds)
    assert first != keys_of(dlkit.DataLoader(ds, 32, shuffle=True, seed=8), ds)
    in_file = dict(zip(frame().key.tolist(), range(ROWS), strict=True))
    places = np.array([in_file[key] for key in first])
    assert abs(np.corrcoef(places, np.arange(ROWS))[0, 1]) < 0.3
    assert len(list(dlkit.DataLoader(ds, 32, shuffle=True, drop_last=True))) == ROWS // 32


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_and_resuming_change_nothing(path: Path, workers: int) -> None:
    ds = CSVDataset(path, target="y", streaming=True)
    alone = list(dlkit.DataLoader(ds, 64, shuffle=True, seed=1))
    loader = dlkit.DataLoader(ds, 64, shuffle=True, seed=1, num_workers=workers)
    assert same(alone, list(loader.batches(0)))
    assert same(alone[17:], list(loader.batches(0, start=17)))
    again = dlkit.DataLoader(ds, 64, shuffle=True, seed=1)
    again.load_state_dict({"epoch": 0, "batch": 20})
    assert same(alone[20:], list(again))


def test_workers_that_are_new_processes(path: Path) -> None:
    ds = CSVDataset(path, target="y", streaming=True)
    loader = dlkit.DataLoader(ds, 512, shuffle=True, num_workers=1, multiprocessing_context="forkserver")
    assert same(list(dlkit.DataLoader(ds, 512, shuffle=True)), list(loader))


def test_ranks_share_without_loss_or_doubles(path: Path) -> None:
    ds = CSVDataset(path, target="y", streaming=True)
    assert ds.planner is not None
    plan = ds.planner(32, shuffle=True, drop_last=False).plan(0, 3)
    for world in (2, 3, 5):
        shares = [torch.cat(list(plan[rank::world])) for rank in range(world)]
        assert torch.cat(shares).sort().values.tolist() == list(range(ROWS))
    assert torch.equal(torch.cat(list(plan[10:20:2])), torch.cat([plan[number] for number in range(10, 20, 2)]))
    with pytest.raises(IndexError):
        plan[len(plan)]


@given(
    rows=st.integers(1, 80), batch=st.integers(1, 9), ranks=st.integers(1, 6), drop=st.booleans(), shuffle=st.booleans()
)
def test_ranks_get_equally_many_batches(rows: int, batch: int, ranks: int, drop: bool, shuffle: bool) -> None:
    lanes = Lanes(np.array([rows]), batch, drop_last=drop, at_once=1) if shuffle else None
    made = lanes or InOrder(np.array([rows]), batch, drop_last=drop)
    whole = made.plan(1, 2)
    if ranks > 1 and len(whole) < ranks and rows < ranks and not drop:
        with pytest.raises(DataError, match=f"{rows} rows cannot be distributed over {ranks} processes"):
            Share(made, rank=0, world_size=ranks, drop_last=drop, in_order=not shuffle).plan(1, 2)
        return
    dealt = {"world_size": ranks, "drop_last": drop, "in_order": not shuffle}
    plans = [Share(made, rank=rank, **dealt).plan(1, 2) for rank in range(ranks)]
    shares = [[plan[number] for number in range(len(plan))] for plan in plans]
    assert len({len(share) for share in shares}) == 1
    seen = torch.cat([indices for share in shares for indices in share] or [torch.arange(0)]).sort().values
    if drop:
        assert len(seen.unique()) == len(seen) == len(whole) // ranks * ranks * batch
        assert all(len(indices) == batch for share in shares for indices in share)
    else:
        assert seen.tolist() == list(range(rows))
        assert max(len(indices) for share in shares for indices in share) <= batch + 1
    if not shuffle:  # each has rows that follow each other, but for the last step
        for share in shares:
            steps = torch.cat(share[:-1] or [torch.arange(0)])
            assert (steps.diff() == 1).all()


@given(
    rows=st.lists(st.integers(0, 40), min_size=1, max_size=60).filter(lambda rows: sum(rows) > 0),
    batch=st.integers(1, 20),
    at_once=st.integers(1, 48),
    seed=st.integers(0, 5),
    drop_last=st.booleans(),
)
def test_a_plan_is_a_permutation_in_whole_batches(
    rows: list[int], batch: int, at_once: int, seed: int, drop_last: bool
) -> None:
    planner = Lanes(np.array(rows), batch, drop_last=drop_last, at_once=at_once)
    plan = planner.plan(seed, 0)
    batches = [plan[number] for number in range(len(plan))]
    total = sum(rows)
    assert [len(indices) for indices in batches[:-1]] == [batch] * (len(batches) - 1)
    assert len(batches) == (total // batch if drop_last else -(-total // batch))
    seen = torch.cat(batches).tolist() if batches else []
    assert len(set(seen)) == len(seen) == (len(batches) * batch if drop_last else total)
    assert set(seen) <= set(range(total))
    backwards = planner.plan(seed, 0)
    assert all(torch.equal(backwards[number], batches[number]) for number in reversed(range(len(batches))))


@given(rows=st.integers(0, 50), batch=st.integers(1, 9), drop_last=st.booleans())
def test_in_order_needs_no_array(rows: int, batch: int, drop_last: bool) -> None:
    plan = InOrder(np.array([rows]), batch, drop_last=drop_last).plan(0, 0)
    expected = [list(range(start, min(start + batch, rows))) for start in range(0, rows, batch)]
    assert [indices.tolist() for indices in plan] == (expected[: rows // batch] if drop_last else expected)


def blocks_of(plan: Batches, rows: np.ndarray, number: int) -> set[int]:
    return set(np.searchsorted(np.cumsum(rows), plan[number].numpy(), side="right").tolist())


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 40])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_touches_few_blocks_and_workers_share_none(workers: int, shuffle: bool) -> None:
    rows = np.random.default_rng(0).integers(900, 1100, 400)
    planner = Lanes(rows, 256, drop_last=False, at_once=48) if shuffle else InOrder(rows, 256, drop_last=False)
    plan = planner.plan(0, 0)
    touched = [blocks_of(plan, rows, number) for number in range(len(plan))]
    assert max(map(len, touched[: -len(touched) // 20])) <= 8
    handout = Handout(iter(range(len(plan))), plan, range(len(plan)), workers, None)
    dealt: list[set[int]] = [set() for _ in range(workers)]
    idle = 0

    def work() -> Any:
        nonlocal idle
        for turn, number in enumerate(handout):
            idle += number is None
            dealt[turn % workers] |= set() if number is None else touched[number]
            yield number

    assert list(handout.in_order(work())) == list(range(len(plan))), "the order does not know of workers"
    decoded = sum(map(len, dealt))
    assert decoded <= 1.15 * len(rows) + workers, "each block by one worker, but for the ends of the lanes"
    assert idle <= max(0.35, workers / 12) * len(plan)


def test_blocks_are_decoded_once_per_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_module, "BLOCK_BYTES", 500)
    data = frame(6000)[["key", "amount", "y"]]
    data.to_csv(tmp_path / "t.csv", index=False)
    ds = CSVDataset(tmp_path / "t.csv", target="y", streaming=True)
    read = list[int]()
    table = block_module.TextFile.table

    def counted(file: Any, block: Any, *given: Any, **options: Any) -> Any:
        read.append(block.start)
        return table(file, block, *given, **options)

    monkeypatch.setattr(block_module.TextFile, "table", counted)
    list(dlkit.DataLoader(ds, 16, shuffle=True))
    count = len(set(read))
    assert count > 150, "more than are kept"
    assert len(read) <= 1.05 * count
    list(dlkit.DataLoader(ds, 16))
    assert len(read) <= 2.1 * count
    with pytest.raises(ArgumentError, match=r"each would be decoded for a few rows\. dlkit\.DataLoader"):
        list(Stock(ds, 1000, shuffle=True))


# --- blocks -----------------------------------------------------------------------------------------------------------

cells = st.text(st.sampled_from('ab",\n\r 1가'), max_size=6)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=40), st.integers(5, 60))
@settings(max_examples=80)
def test_blocks_end_with_records(rows: list[tuple[str, str]], size: int) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("first", "second"), *rows])
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "t.csv"
        path.write_bytes(text.getvalue().encode())
        block_module.BLOCK_BYTES = size  # put back by the fixture
        file = block_file(path, ReadOptions(separator=","))
        seen: list[tuple[Any, ...]] = []
        position = None
        for block, content in file.blocks():
            assert position is None or block.start == position
            position = block.stop
            table = file.table(block, ["first", "second"], content)
            seen += zip(*(column.tolist() for column in table.columns.values()), strict=True)  # type: ignore[union-attr]
        whole = read_table(path, ReadOptions(separator=","), ["first", "second"])
    assert seen == list(zip(*(column.tolist() for column in whole.columns.values()), strict=True))  # type: ignore[union-attr]
    assert seen == rows


def test_a_quote_in_the_middle_of_a_cell_ends_no_block_too_early() -> None:
    dialect = Dialect(",", ("a", "b"), 0)
    data = b'1,5" disk\n2,"x\ny"\n3,"open\nstill open'
    assert last_record_end(data, dialect) == data.index(b"3,")
    assert last_record_end(b'1,"open', dialect) == 0
    assert last_record_end(b"1,2\n3,4", dialect) == 4


# --- policies ---------------------------------------------------------------------------------------------------------


def lines(tmp_path: Path, rows: list[str], header: str = "key,x,y") -> Path:
    path = tmp_path / "t.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def numbered(count: int = 600) -> list[str]:
    return [f"{i}.5,{i % 7},{'ab'[i % 2]}" for i in range(count)]


def test_ragged_rows(tmp_path: Path) -> None:
    rows = numbered()
    rows[500] = "500.5,1"
    path = lines(tmp_path, rows)
    with pytest.raises(DataError, match=r"line 502 of t\.csv has 2 cells where the header has 3"):
        CSVDataset(path, target="y", streaming=True)
    ds = CSVDataset(path, target="y", streaming=True, on_error="skip")
    assert ds.skipped == [Skipped("t.csv", 502, "has 2 cells where the header has 3", "line")]
    assert sorted(keys_of(dlkit.DataLoader(ds, 64, shuffle=True), ds)) == [i + 0.5 for i in range(600) if i != 500]


def test_missing_targets(tmp_path: Path) -> None:
    rows = numbered()
    rows[400] = "400.5,1,"
    path = lines(tmp_path, rows)
    with pytest.raises(DataError, match=r"line 402 of t\.csv has no target 'y'"):
        CSVDataset(path, target="y", streaming=True)
    ds = CSVDataset(path, target="y", streaming=True, on_error="skip")
    assert (len(ds), ds.skipped) == (599, [Skipped("t.csv", 400, "has no target 'y'")])
    assert 400.5 not in keys_of(dlkit.DataLoader(ds, 64), ds)


def test_cells_that_contradict_the_first_block(tmp_path: Path) -> None:
    rows = [f"{i}.5,{i % 70},{'ab'[i % 2]}" for i in range(600)]
    rows[450] = "450.5,seven,a"
    path = lines(tmp_path, rows)
    message = r"line 452 of t\.csv has no number in column 'x' but 'seven': add it to missing="
    with pytest.raises(DataError, match=message):
        CSVDataset(path, target="y", streaming=True)
    assert len(CSVDataset(path, target="y", streaming=True, on_error="skip")) == 599
    assert len(CSVDataset(path, target="y", streaming=True, missing=["seven"])) == 600
    assert CSVDataset(path, target="y", streaming=True, categorical="x").spec["x"].kind == "category"
    fitted = CSVDataset(lines(tmp_path, numbered()), target="y").spec
    with pytest.raises(DataError, match=r"line 452 of t\.csv has no number in column 'x' but 'seven'"):
        CSVDataset(lines(tmp_path, rows), spec=fitted, streaming=True)


def test_too_much_skipped(tmp_path: Path) -> None:
    rows = [row if i % 4 else "1,2" for i, row in enumerate(numbered())]
    with pytest.raises(TooManyErrorsError, match="150 of 600 rows cannot be read"):
        CSVDataset(lines(tmp_path, rows), target="y", streaming=True, on_error="skip")


def test_columns_that_begin_empty_and_ones_that_stay_constant(tmp_path: Path) -> None:
    rows = [
        f"{i}.5,{'' if i < 300 else 'late' if i % 2 else 'later'},{'' if i < 400 else i},7,{i},{'ab'[i % 2]}"
        for i in range(600)
    ]
    spec = CSVDataset(lines(tmp_path, rows, "key,text,number,same,rowno,y"), target="y", streaming=True).spec
    assert [(c.name, c.kind, c.missing) for c in spec.columns] == [
        ("key", "number", 0),
        ("text", "category", 300),
        ("number", "number", 400),
        ("same", "constant", 0),
        ("rowno", "identifier", 0),
    ]
    described = CSVDataset(tmp_path / "t.csv", target="y", streaming=True).describe()
    assert described.columns.loc["text", "distinct"] == "2"
    assert described.findings == ["'same' is constant: always 7"]


def test_labels_and_amounts(tmp_path: Path) -> None:
    rows = [f"{i}.5,{i % 3},{i * 2.5},{'x|y' if i % 2 else 'z' if i == 590 else ''}" for i in range(600)]
    path = lines(tmp_path, rows, "key,small,amount,labels")
    small = CSVDataset(path, target="small", streaming=True, drop="labels")
    assert small.classes == ["0", "1", "2"]
    amount = CSVDataset(path, target="amount", streaming=True, drop="labels")
    whole = CSVDataset(path, target="amount", drop="labels")
    assert amount.spec.target is not None
    assert whole.spec.target is not None
    assert amount.spec.target.center == pytest.approx(whole.spec.target.center)
    assert amount.spec.target.scale == pytest.approx(whole.spec.target.scale)
    assert CSVDataset(path, target="labels", label_separator="|", streaming=True).classes == ["x", "y", "z"]
    binary = CSVDataset(
        path, target="labels", aliases={"x|y": "some"}, classes=["", "some"], streaming=True, on_error="skip"
    )
    assert len(binary) == 300


def test_what_a_stream_is_not_for(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="a DataFrame is in memory already"):
        CSVDataset(frame(10), streaming=True)
    ds = CSVDataset(path, target="y", streaming=True)
    with pytest.raises(ArgumentError, match="the rows of a streamed table are not kept"):
        ds.describe(ds)
    for ask in (ds.to_pandas, ds.comparable, lambda: ds.numeric, lambda: ds.targets, lambda: ds.rows):
        with pytest.raises(ArgumentError, match="a streamed table is never in memory as a whole"):
            ask()
    path.write_text(path.read_text()[:20_000])
    with pytest.raises(DataError, match=r"shorter since it was first read|has changed since it was first read"):
        list(dlkit.DataLoader(ds, 64))
    (tmp_path / "bytes.csv").write_bytes(b"key,x\n" + b"1.5,2\n" * 2_900_000 + b"1.5,\xff\n")
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(block_module, "BLOCK_BYTES", 1 << 20)
        with pytest.raises(DataError, match=r"bytes\.csv, line 2900002: byte 0xff is not utf-8"):
            CSVDataset(tmp_path / "bytes.csv", streaming=True, encoding="utf-8")


def test_a_quote_that_never_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlkit.reading._delimited.LONGEST_LINE", 10_000)
    monkeypatch.setattr("dlkit.reading._delimited._PIECE", 4096)
    rows = numbered(5000)
    rows[300] = '300.5,"1,a'
    for streaming in (False, True):
        with pytest.raises(DataError, match=r"t\.csv: the cell that begins in line 302 does not end within"):
            CSVDataset(lines(tmp_path, rows), target="y", streaming=streaming)


@pytest.mark.parametrize("packed", [False, True])
def test_images_of_streamed_rows_lie_beside_the_file_and_are_looked_for_at_once(tmp_path: Path, packed: bool) -> None:
    Image.new("RGB", (12, 12), (255, 0, 0)).save(tmp_path / "red.png")
    rows = [f"{i}.5,{'gone' if i == 333 else 'red'}.png,{'ab'[i % 2]}" for i in range(600)]
    path = lines(tmp_path, rows, "key,file,y")
    if packed:
        path = tmp_path / "t.csv.gz"
        path.write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    name = path.name
    with pytest.raises(DataError, match=rf"line 335 of {name} names no image file in column 'file': .*gone\.png"):
        CSVDataset(path, target="y", image="file", streaming=True)
    ds = CSVDataset(path, target="y", image="file", image_size=8, on_error="skip", streaming=True)
    assert (len(ds), len(ds.skipped)) == (599, 1)
    assert ds[333][0]["image"].shape == (3, 8, 8)
    again = CSVDataset(path, spec=ds.spec, image_size=8, on_error="skip", streaming=True)
    assert len(again) == 599


# --- training ---------------------------------------------------------------------------------------------------------


def test_a_training_on_a_stream_goes_on_where_it_stood(path: Path, tmp_path: Path) -> None:
    ds = CSVDataset(path, target="y", streaming=True)

    def train(folder: str, epochs: int, stop_after: int | None = None) -> Any:
        torch.manual_seed(0)
        model = TabularMLP(ds.spec, hidden=(8,))
        callbacks: list[Any] = [Checkpoint(tmp_path / folder, every="20 steps")]
        callbacks += [] if stop_after is None else [StopAfter(stop_after)]
        optim = torch.optim.AdamW(model.parameters(), 1e-2)
        trainer = Trainer(model, torch.nn.CrossEntropyLoss(), optim, callbacks=callbacks, progress=False)
        trainer.fit(dlkit.DataLoader(ds, 64, shuffle=True), epochs=epochs)
        return model.state_dict()

    whole = train("whole", 2)
    train("parts", 2, stop_after=61)  # in the middle of the second epoch
    parts = train("parts", 2)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


class StopAfter(Callback):
    """Ends a training after some steps."""

    changes_numbers = False

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, run: Any) -> None:
        if run.step >= self.steps:
            run.request_stop("enough")


# --- splits -----------------------------------------------------------------------------------------------------------


def test_a_split_of_a_stream(path: Path) -> None:
    train, val, test = CSVDataset.split(path, target="y", streaming=True, seed=1)
    assert [len(part) for part in (train, val, test)] == pytest.approx([1440, 180, 180], abs=50)
    keys = [keys_of(dlkit.DataLoader(part, 64, shuffle=True), part) for part in (train, val, test)]
    assert sorted(keys[0] + keys[1] + keys[2]) == sorted(frame().key.tolist())
    assert train.spec == val.spec
    part = next(column for column in train.spec.numbers if column.name == "key").parts[0]
    assert part.center == pytest.approx(np.mean(keys[0]), rel=1e-9)
    again = CSVDataset.split(path, target="y", streaming=True, seed=1)[1]
    assert keys_of(dlkit.DataLoader(again, 64), again) == sorted(keys[1], key=frame().key.tolist().index)


def test_a_split_of_parquet_whose_groups_are_read_in_pieces(tmp_path: Path) -> None:
    data = frame(400).drop(columns=["when", "note"])
    data.loc[[5, 90, 91, 399], "y"] = None  # in the first, the second and the last piece
    data.to_parquet(tmp_path / "t.parquet", row_group_size=200)
    with pytest.raises(DataError, match=r"row 5 of t\.parquet has no target 'y'"):
        CSVDataset(tmp_path / "t.parquet", target="y", streaming=True)
    parts = CSVDataset.split(tmp_path / "t.parquet", target="y", fractions=0.6, on_error="skip", streaming=True)
    assert [(row.file, row.row) for row in parts[0].skipped] == [("t.parquet", row) for row in (5, 90, 91, 399)]
    keys = [keys_of(dlkit.DataLoader(part, 16, shuffle=True), part) for part in parts]
    assert sorted(keys[0] + keys[1]) == sorted(data.key[data.y.notna()].tolist())
    assert len(keys[0]) == pytest.approx(240, abs=40)


def test_groups_of_a_stream_stay_together(tmp_path: Path) -> None:
    rows = [f"{i}.5,g{i % 37},{'ab'[i % 2]}" for i in range(1000)]
    path = lines(tmp_path, rows, "key,g,y")
    parts = CSVDataset.split(path, target="y", fractions=0.7, group="g", streaming=True)
    groups = [Counter(int(key) % 37 for key in keys_of(dlkit.DataLoader(part, 64), part)) for part in parts]
    assert not set(groups[0]) & set(groups[1])
    assert sum(map(len, groups)) == 37
    with pytest.raises(DataError, match="has no rows; give it a larger share"):
        CSVDataset.split(path, target="y", fractions=[0.9999, 0.0001], streaming=True)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(0, 10))
def test_parts_of_keys_depend_on_the_key_alone(keys: list[int], seed: int) -> None:
    array = np.array(keys, dtype=np.uint64)
    parts = part_of_keys(array, [0.5, 0.3, 0.2], seed=seed)
    assert parts.tolist() == [
        int(part_of_keys(array[i : i + 1], [0.5, 0.3, 0.2], seed=seed)[0]) for i in range(len(keys))
    ]


def test_parts_of_keys_have_their_shares() -> None:
    parts = part_of_keys(np.arange(100_000, dtype=np.uint64), [0.5, 0.3, 0.2], seed=4)
    assert np.bincount(parts) / 100_000 == pytest.approx([0.5, 0.3, 0.2], abs=0.01)


# --- memory -----------------------------------------------------------------------------------------------------------

MEASURE = """
import sys
import dlkit
from dlkit.datasets import CSVDataset

def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")  # the highest use so far is forgotten
before = memory("VmRSS")
train, test = CSVDataset.split(sys.argv[1], target="y", fractions=0.9, streaming=True)
rows = 0
for _, targets in dlkit.DataLoader(train, 1024, shuffle=True):
    rows += len(targets)
print(rows, len(train), len(test), memory("VmHWM") - before)
"""


def write_big(path: Path, size: int) -> int:
    """A file of at least `size` bytes as text: numbers, categories, dates, quoted text; how many rows it has."""
    rng = np.random.default_rng(0)
    rows = 20_000
    data = pd.DataFrame({f"x{i}": rng.normal(size=rows).round(5) for i in range(8)})
    data["c"] = rng.choice([f"city {i}" for i in range(500)], rows)
    data["d"] = pd.date_range("2020-01-01", periods=rows, freq="37min").strftime("%Y-%m-%d %H:%M")
    data["note"] = [f'a "quoted",\nbroken line {i}' for i in range(rows)]
    data["y"] = rng.integers(0, 2, rows)
    body = data.to_csv(index=False, header=False).encode()
    copies = -(-size // len(body))
    if path.suffix == ".parquet":
        table = pa.Table.from_pandas(data)
        with parquet.ParquetWriter(path, table.schema) as writer:
            for done in range(0, copies, 50):  # row groups of a million rows, as most programs make them
                writer.write_table(pa.concat_tables([table] * min(50, copies - done)))
        return rows * copies
    with open(path, "wb") as file:
        file.write((",".join(data.columns) + "\n").encode())
        for _ in range(copies):
            file.write(body)
    return rows * copies


def measure(path: Path, size: int) -> tuple[int, list[int]]:
    rows = write_big(path, size)
    done = warm.run(["-c", MEASURE, path], check=True, timeout=7200)
    path.unlink()
    return rows, [int(number) for number in done.stdout.split()]


def check_memory(path: Path, size: int, limit: int) -> None:
    """What reading takes above the idle process: 100 MB at 4 MB of text, 180 MB at 60 MB, as at 10 GB."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell what a process used")
    rows, (seen, train, test, peak) = measure(path, size)
    assert seen == train
    assert train + test == rows
    assert test == pytest.approx(rows / 10, rel=0.05)
    assert peak * 1024 < limit, f"{peak / 1024:.0f} MB"
    print(f"{path.suffix[1:]}, {size / 1e9:g} GB as text, {rows:,} rows: {peak / 1024:.0f} MB at most")


def test_memory_stays_small(tmp_path: Path) -> None:
    check_memory(tmp_path / "big.csv", 24 << 20, 256 << 20)


@pytest.mark.proof
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("name", "gigabytes"), [("big.csv", 1), ("big.parquet", 1), ("big.csv", 10)])
def test_memory_stays_small_whatever_the_size(tmp_path: Path, name: str, gigabytes: int) -> None:
    check_memory(tmp_path / name, gigabytes * 10**9, 800 << 20)
