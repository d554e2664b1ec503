"""The Korean pages say what the English ones say: the same commands, options, names and links."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "README.ko.md", "docs/tutorials/quick-start-command-line.md": "docs/ko/quick-start.md"}
NOTEBOOKS = {
    "docs/tutorials/letters.ipynb": "docs/ko/letters.ipynb",
    "docs/tutorials/korean-reviews.ipynb": "docs/ko/reviews.ipynb",
}
FENCE = re.compile(r"^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code(page: str) -> list[str]:
    """The blocks of a page, without their comments and with single blanks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [re.sub(r" +", " ", re.sub(r" *# .*", "", block)) for block in FENCE.findall(text)]


def named(page: str) -> Counter[str]:
    """What stands between backticks in the text of a page; lines may break in the middle of it."""
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    return Counter(re.sub(r"\s+", " ", name) for name in re.findall(r"`([^`]+)`", text))


@pytest.mark.parametrize(("english", "korean"), PAGES.items(), ids=["readme", "quick-start"])
def test_commands_and_names_are_the_same(english: str, korean: str) -> None:
    assert code(korean) == code(english)
    said, written = named(english), named(korean)
    assert written == said


@pytest.mark.parametrize("page", PAGES.values(), ids=["readme", "quick-start"])
def test_it_is_korean(page: str) -> None:
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    assert len(re.findall(r"[\uac00-\ud7a3]", text)) > 0.3 * len(re.sub(r"`[^`]*`|\(.*?\)|\W", "", text))


def cells(page: str, kind: str) -> list[str]:
    """What stands in the cells of a notebook."""
    found = json.loads((ROOT / page).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


@pytest.mark.parametrize(("english", "korean"), NOTEBOOKS.items(), ids=["letters", "reviews"])
def test_tutorials_run_the_same_code_and_name_the_same(english: str, korean: str) -> None:
    assert cells(korean, "code") == cells(english, "code")
    said, written = (re.findall(r"`([^`]+)`", "\n".join(cells(page, "markdown"))) for page in (english, korean))
    assert Counter(written) == Counter(said)
    text = re.sub(r"`[^`]*`|\(.*?\)|\W", "", "".join(cells(korean, "markdown")))
    assert len(re.findall(r"[\uac00-\ud7a3]", text)) > 0.8 * len(text)
