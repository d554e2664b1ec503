"""Documentation runs: every Python block of README and docs, every doctest; and what the texts point to is there."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

import dlkit
from test_korean import PAGES as TRANSLATED

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("[a-z]*/README.md")})
NOTEBOOKS = sorted(ROOT.glob("docs/**/*.ipynb"))
MODULES = ["dlkit", *(module.name for module in pkgutil.walk_packages(dlkit.__path__, "dlkit."))]
ROOMS = ("tutorials", "how-to", "concepts", "reference")

FENCE = re.compile(
    r"(?P<note><!--\s*not run\b(?P<reason>[^>]*)-->\s*)?"
    r"^[ ]*```(?P<language>[^\n`]*)\n(?P<code>.*?)^[ ]*```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
LANGUAGES = {"python", "bash", "text", "toml", "json", "csv", "make"}


@dataclass
class Block:
    """A fenced block of a page."""

    language: str
    code: str
    line: int
    reason: str | None

    @property
    def runs(self) -> bool:
        return self.language == "python" and self.reason is None


def blocks(text: str) -> list[Block]:
    found = []
    for match in FENCE.finditer(text):
        reason = match["reason"].strip(" :\n") if match["note"] else None
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(match["language"].strip(), textwrap.dedent(match["code"]), line, reason))
    return found


def run(text: str, name: str) -> None:
    """Execute the Python blocks of a page in one namespace; a traceback shows the page's own line numbers."""
    namespace = {"__name__": "__main__"}
    for block in blocks(text):
        if block.runs:
            exec(compile("\n" * (block.line - 1) + block.code, name, "exec"), namespace)


def page_faults(text: str, targets: set[str]) -> list[str]:
    """Blocks without a known language or a reason, and `make` targets that do not exist."""
    wrong = []
    for block in blocks(text):
        if block.language not in LANGUAGES:
            wrong.append(f"line {block.line}: the block's language {block.language!r} is none of {sorted(LANGUAGES)}")
        if block.reason == "":
            wrong.append(f"line {block.line}: 'not run' needs a reason: <!-- not run: reason -->")
        if block.language == "bash":
            named = re.findall(r"^\s*make +([\w-]+)", block.code, re.MULTILINE)
            wrong += [f"line {block.line}: there is no target 'make {name}'" for name in named if name not in targets]
    inline = re.findall(r"`make ([\w-]+)`", text)
    return wrong + [f"there is no target `make {name}`" for name in inline if name not in targets]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(autouse=True)
def empty_folder_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLKIT_OFFLINE", "1")


@pytest.mark.parametrize("path", [page for page in PAGES if page_id(page) not in TRANSLATED.values()], ids=page_id)
def test_python_blocks_run(path: Path) -> None:
    """Of a translation, whose code is compared with that of the original, nothing is run again."""
    run(path.read_text(encoding="utf-8"), str(path))


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_blocks_say_what_they_are(path: Path) -> None:
    wrong = page_faults(path.read_text(encoding="utf-8"), make_targets())
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=page_id)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS, raise_on_error=False)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples failed; see the captured output"


def test_readme_has_a_short_example_that_runs() -> None:
    runs = [block for block in blocks((ROOT / "README.md").read_text(encoding="utf-8")) if block.runs]
    assert runs
    assert len(runs[0].code.strip().splitlines()) <= 20


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_has_a_map_of_all_its_pages(room: str) -> None:
    index = (ROOT / "docs" / room / "README.md").read_text(encoding="utf-8")
    pages = {page.name for kind in ("md", "ipynb") for page in (ROOT / "docs" / room).glob(f"*.{kind}")} - {"README.md"}
    assert pages == set(re.findall(r"\]\(([\w.-]+\.(?:md|ipynb))\)", index))
    assert f"]({room}/README.md)" in (ROOT / "docs" / "README.md").read_text(encoding="utf-8")


def test_the_reference_has_a_page_for_every_door() -> None:
    doors = {"dlkit", *(f"dlkit.{name}" for name in dlkit.__all__ if inspect.ismodule(getattr(dlkit, name)))}
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs/reference/api").glob("*.rst")}
    assert set(pages) == doors
    assert [door for door, page in pages.items() if f".. automodule:: {door}\n   :members:\n" not in page] == []


# ------------------------------------------------------------------------------------------- the checks themselves work


def test_blocks_of_a_page_share_names_and_keep_their_line_numbers() -> None:
    page = (
        "# Title\n\n```python\nvalue = 1\n```\n\n- item:\n\n  ```python\n  assert value == 1\n  raise KeyError\n  ```\n"
    )
    with pytest.raises(KeyError) as caught:
        run(page, "page.md")
    assert (str(caught.traceback[-1].path), caught.traceback[-1].lineno + 1) == ("page.md", 11)


def test_blocks_marked_with_a_reason_are_not_run() -> None:
    run("<!-- not run: needs a GPU -->\n\n```python\nraise KeyError\n```\n", "page.md")
    with pytest.raises(KeyError):
        run("<!-- not run: needs a GPU -->\n\nSome text.\n\n```python\nraise KeyError\n```\n", "page.md")


def test_faults_of_a_page_are_found() -> None:
    page = "`make tea` or `make help`\n<!-- not run -->\n```python\n```\n\n```\n```\n\n"
    page += "```bash\nmake coffee\nmake help\n```\n"
    assert page_faults(page, {"help"}) == [
        "line 4: 'not run' needs a reason: <!-- not run: reason -->",
        f"line 7: the block's language '' is none of {sorted(LANGUAGES)}",
        "line 10: there is no target 'make coffee'",
        "there is no target `make tea`",
    ]


#: Phrases that kept coming back, and what the field writes instead. In code, messages, docstrings and pages.
PHRASES = {
    r"\banew\b": "again, 'start over'",
    r"\bcannot be meant\b": "is invalid",
    r"\bnot to be had\b": "is not available",
    r"\bof one's own\b": "custom",
    r"\b(?:loss|step|loop|metric|transform|class) of your own\b": "a custom loss, your own class",
    r"\bfor ever\b": "forever",
    r"\btold apart\b": "distinguished",
    r"\bhangs? on (?:the|its|their|what|how)\b": "depends on",
    r"\b(?:goes|went) on\b(?! top)": "continues, resumes",
    r"\bto (?:judge by|watch and to)\b": "training, validation and test set",
    r"\bbatches sought\b": "data position restored",
    r"\bif they are amounts\b": "quantities",
    r"\b(?:it|that|which|this|what) is no (?!longer|more|less|such|better|need|other|way|room)[a-z]": "is not a",
}
SPOKEN = [
    *sorted((ROOT / "src/dlkit").rglob("*.py")),
    *sorted((ROOT / "src/dlkit").rglob("*.txt")),
    *sorted((ROOT / "examples").glob("*.py")),
    *[page for page in (*PAGES, *NOTEBOOKS) if page.name != "CHANGELOG.md"],
]


def test_the_words_are_those_of_the_field() -> None:
    odd, any_of_them = [], re.compile("|".join(PHRASES))
    for path in SPOKEN:
        text = re.sub(r'"?\n\s*(?:# |f?")?', " ", path.read_text(encoding="utf-8").lower())
        for found in any_of_them.finditer(text):
            word = next(word for phrase, word in PHRASES.items() if re.match(phrase, text[found.start() :]))
            shown = text[max(found.start() - 40, 0) : found.end() + 20]
            odd.append(f"{path.relative_to(ROOT)}: ...{shown}...: {word}")
    assert odd == []
