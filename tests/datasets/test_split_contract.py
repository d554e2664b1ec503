"""One `split` for all datasets: the same names, order, defaults and meaning, parts in a tuple, and the same errors."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dlkit.datasets import (
    AudioFiles,
    AudioFolder,
    AudioTable,
    CSVDataset,
    Glyphs,
    ImageFiles,
    ImageFolder,
    ImageTable,
    NotMNIST,
    TextDataset,
)
from dlkit.errors import ArgumentError, DataError
from dlkit.splits import split_indices

PEOPLE = 12
ROWS = 5 * PEOPLE

COMMON = {"fractions": None, "stratify": True, "group": None, "dedupe": None, "time": None, "seed": 0}


@pytest.mark.parametrize(
    "kind",
    [
        *(CSVDataset, TextDataset, ImageFolder, ImageTable, ImageFiles, NotMNIST, Glyphs),
        *(AudioFolder, AudioTable, AudioFiles),
    ],
)
def test_all_have_one_signature(kind: Any) -> None:
    found = inspect.signature(kind.split).parameters
    names = [name for name in found if name in COMMON]
    timeless = kind in (NotMNIST, Glyphs)  # letters from fonts have no past
    assert names == [name for name in COMMON if name != "time" or not timeless]
    usual = COMMON | ({"group": "font"} if kind is Glyphs else {})  # which says so: else a letter's twin is easy
    assert {name: found[name].default for name in names} == {name: usual[name] for name in names}
    assert found["fractions"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert all(found[name].kind is inspect.Parameter.KEYWORD_ONLY for name in names[1:])
    assert next(iter(found)) in ("self", "source", "fractions")


def test_indices_are_split_with_the_same_names() -> None:
    found = inspect.signature(split_indices).parameters
    assert [name for name in found if name in COMMON] == list(COMMON)
    assert isinstance(split_indices(10), tuple)
    assert [len(part) for part in split_indices(10)] == [8, 1, 1]


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Rows of twelve people, of which every fifth is the copy of another one of the same person."""
    folder = tmp_path_factory.mktemp("split")
    numbers = [number - number % 5 if number % 5 == 4 else number for number in range(ROWS)]
    for number in range(ROWS):
        label = "ab"[number // 5 % 2]
        (folder / label).mkdir(exist_ok=True)
        pixels = np.random.default_rng(numbers[number]).integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / label / f"{number:02}.png")
        for letter in "ABCDEFGHIJ":
            (folder / "letters" / letter).mkdir(parents=True, exist_ok=True)
            shifted = np.roll(pixels, "ABCDEFGHIJ".index(letter), 0)
            Image.fromarray(shifted).save(folder / "letters" / letter / f"{number:02}.png")
    frame = pd.DataFrame(
        {
            "text": [f"text number {number} of all" for number in numbers],
            "x": [number / 7 for number in numbers],
            "person": [f"p{number // 5}" for number in range(ROWS)],
            "label": ["ab"[number // 5 % 2] for number in range(ROWS)],
            "file": [f"{'ab'[number // 5 % 2]}/{number:02}.png" for number in range(ROWS)],
        }
    )
    frame.attrs["folder"] = str(folder)
    return frame


class Case:
    """One dataset, and how it is split."""

    def __init__(self, frame: pd.DataFrame, kind: str) -> None:
        self.frame, self.kind, self.root = frame, kind, Path(frame.attrs["folder"])

    def split(self, *given: Any, **options: Any) -> tuple[Any, ...]:
        if self.kind in ("table", "stream"):
            columns = self.frame.drop(columns="file")
            path = self.root / "table.csv"
            columns.to_csv(path, index=False)
            streaming = self.kind == "stream"
            return CSVDataset.split(path, *given, target="label", text="text", streaming=streaming, **options)
        if self.kind == "text":
            return TextDataset.split(self.frame, *given, text="text", target="label", min_freq=1, **options)
        if self.kind == "files":
            return ImageTable(self.frame, image="file", target="label", root=self.root, size=8, color="L").split(
                *given, **options
            )
        if self.kind == "folder":
            return ImageFolder(self.root / "letters", size=8, color="L").split(*given, **options)
        return NotMNIST(self.root / "letters").split(*given, **options)


KINDS = ["table", "text", "files", "folder", "notmnist"]


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, frame: pd.DataFrame) -> Case:
    return Case(frame, request.param)


def test_parts_come_in_a_tuple_of_the_shares_asked_for(case: Case) -> None:
    whole = ROWS * (10 if case.kind in ("folder", "notmnist") else 1)
    parts = case.split(dedupe=False)
    assert isinstance(parts, tuple)
    assert [len(part) for part in parts] == [whole * 8 // 10, whole // 10, whole // 10]
    assert len({type(part) for part in parts}) == 1
    assert [len(part) for part in case.split(0.75, dedupe=False)] == [whole * 3 // 4, whole // 4]
    assert [len(part) for part in case.split(fractions=[0.5, 0.5], dedupe=False)] == [whole // 2] * 2
    first, again, other = (contents(case, case.split(0.5, seed=seed)[1]) for seed in (3, 3, 4))
    assert first == again != other


def test_a_stream_of_rows_is_cut_by_the_same_arguments(frame: pd.DataFrame) -> None:
    case = Case(frame, "stream")
    assert len(case.split()) == 3
    assert sum(map(len, case.split(0.5, dedupe=True))) == ROWS
    train, rest = case.split(0.5, dedupe=True, seed=2)
    assert not {sample[0]["text"] for sample in train} & {sample[0]["text"] for sample in rest}
    with pytest.raises(ArgumentError, match="leave out group= or dedupe="):
        case.split(0.5, group="person", dedupe=True)


WRONG: list[tuple[Any, str]] = [
    ([0.5, 0.4], r"fractions must be .* shares above 0 that sum to 1, not \[0.5, 0.4\]"),
    (1.0, "fractions must be one number between 0 and 1"),
    ("half", "fractions must be one number .* not 'half'"),
    ([], r"fractions must be .* not \[\]"),
    ([0.999999, 0.000001], "would be empty"),
]


@pytest.mark.parametrize(("fractions", "message"), WRONG, ids=[str(case[0]) for case in WRONG])
def test_wrong_shares_are_the_same_error(case: Case, fractions: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        case.split(fractions, dedupe=False)


def contents(case: Case, part: Any) -> set[Any]:
    if case.kind == "text":
        return set(part.texts)
    if case.kind == "table":
        return {part[place][0]["text"] for place in range(len(part))}
    return {sample[0].numpy().tobytes() for sample in part}


def test_equal_samples_stay_together_where_they_are_copies(case: Case) -> None:
    def shared(**options: Any) -> int:
        parts = [contents(case, part) for part in case.split(0.5, stratify=False, **options)]
        return len(parts[0] & parts[1])

    assert shared(dedupe=True) == 0
    assert shared(dedupe=False) > 0
    assert (shared() > 0) is (case.kind == "table")


GROUPED: dict[str, Callable[[Case], Any]] = {
    "table": lambda case: "person",
    "text": lambda case: "person",
    "files": lambda case: list(case.frame["person"]),
    "folder": lambda case: lambda path: int(path.stem) // 5,
    "notmnist": lambda case: [number // 5 for number in range(ROWS)] * 10,
}


def test_groups_stay_together(case: Case) -> None:
    parts = case.split(0.5, group=GROUPED[case.kind](case), stratify=False)
    copies = [contents(case, part) for part in parts]
    assert not copies[0] & copies[1]
    few = case.split(0.5, group=GROUPED[case.kind](case), dedupe=False, stratify=False)
    assert all(len(part) % 5 == 0 for part in few)
    with pytest.raises((ArgumentError, ValueError), match=r"group|column"):
        case.split(0.5, group="nothing of the kind")


@pytest.mark.parametrize("kind", ["table", "text", "files"])
def test_the_past_is_trained_on_and_the_future_judges(frame: pd.DataFrame, kind: str) -> None:
    days = [f"{1 + number * 7 % 28}.{1 + number * 5 % 12}.2024" for number in range(ROWS)]
    timed = frame.assign(day=days, text=[f"text {number}" for number in range(ROWS)])
    case = Case(timed, kind)
    moments = [tuple(map(int, reversed(day.split(".")))) for day in days]
    time = [f"{year}-{month:02}-{day:02}" for year, month, day in moments] if kind == "files" else "day"
    parts = case.split(time=time, dedupe=False)
    assert sum(map(len, parts)) == ROWS
    assert len(parts[0]) == pytest.approx(48, abs=3)
    seen = [[moments[number] for number in numbers(case, part)] for part in parts]
    assert all(max(before) < min(after) for before, after in itertools.pairwise(seen))
    if kind != "files":
        with pytest.raises((ArgumentError, DataError), match="has no column 'nothing of the kind'"):
            case.split(0.5, time="nothing of the kind")
        with pytest.raises(DataError, match="neither dates nor numbers"):
            case.split(0.5, time="person", dedupe=False)
        case.frame = timed.assign(day=[f"{1 + number % 12}/{1 + number % 9}/2024" for number in range(ROWS)])
        with pytest.raises(DataError, match="which are different orders in time"):
            case.split(0.5, time="day", dedupe=False)


def numbers(case: Case, part: Any) -> list[int]:
    if case.kind == "files":
        return [int(part.path(place).stem) for place in range(len(part))]
    texts = part.texts if case.kind == "text" else [sample[0]["text"] for sample in part]
    return [int(text.split()[1]) for text in texts]


def test_what_belongs_together_goes_with_its_latest_moment() -> None:
    train, test = split_indices(6, 0.5, time=[1, 2, 3, 4, 5, 6], group=["a", "b", "c", "a", "d", "e"])
    assert (train.tolist(), test.tolist()) == ([1, 2], [0, 3, 4, 5])  # 0 goes with 3, behind the cut
    with pytest.raises(ArgumentError, match="would be empty: the samples have only 1 times at which"):
        split_indices(6, 0.5, time=[1] * 6)
    with pytest.raises(ArgumentError, match="time has no value for sample 1"):
        split_indices(3, 0.5, time=[1.0, float("nan"), 2.0])
    with pytest.raises(ArgumentError, match="time must hold dates or numbers"):
        split_indices(3, 0.5, time=["a", "b", "c"])


def test_a_stream_has_no_past(frame: pd.DataFrame) -> None:
    with pytest.raises(ArgumentError, match="time= needs all rows in memory"):
        Case(frame, "stream").split(time="x")
