"""Many unreadable files cost what as many readable ones cost: no work for each pair of them.

Measured once with 50,000 in a folder: `verify` 6 s, `inspect` 3.5 s; these take 20,000 for the sake of the suite, which
the pairs would show as well.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlkit.datasets import ImageFiles
from dlkit.datasets.files.journal import ErrorJournal
from dlkit.errors import EmptyBatchError, TooManyErrorsError

MANY = 20_000


@contextlib.contextmanager
def ten_seconds() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < 10


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files that are not there, which is the quickest way to have so many unreadable ones."""
    folder = tmp_path_factory.mktemp("gone")
    return [folder / f"{number}.png" for number in range(MANY)]


def test_all_files_of_a_large_folder_may_be_unreadable(files: list[Path]) -> None:
    dataset = ImageFiles(files, size=8, on_error="skip", max_errors=1.0)
    with ten_seconds():
        found = dataset.verify()
    assert [error.file for error in found] == list(map(str, files))
    assert dataset.skipped == found
    assert len(dataset.without_errors()) == 0
    with pytest.raises(TooManyErrorsError, match=r"20000 of 20000 images cannot be read"):
        ImageFiles(files, size=8, on_error="skip", max_errors=0.5).verify()


def test_reading_them_batch_by_batch_is_linear_too(files: list[Path]) -> None:
    (part, _) = ImageFiles(files, size=8, on_error="skip", max_errors=1.0).split(0.999, dedupe=False)
    with ten_seconds(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for start in range(0, len(part), 100):
            with contextlib.suppress(EmptyBatchError):
                part.__getitems__(range(start, min(start + 100, len(part))))
    assert [error.file for error in part.skipped] == [str(part.path(place)) for place in range(len(part))]


def test_a_journal_takes_many_lines_one_by_one() -> None:
    journal, other = ErrorJournal(), ErrorJournal()
    other.path = journal.path  # as another process has it
    with ten_seconds():
        for row in range(20_000):
            assert journal.add({row: "broken"}) == {row: "broken"}
    assert other.add({5: "again", 30_000: "new"}) == {30_000: "new"}
    assert len(journal.read()) == 20_001
