"""How dlkit is installed is said in one place, and what is said there is so."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from dlkit._optional import install_line, require
from dlkit.errors import MissingExtraError

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def test_the_page_names_every_extra() -> None:
    page = (ROOT / "docs/how-to/install.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE) == sorted(EXTRAS.keys() - {"bench", "dev", "docs"})
    (everything,) = EXTRAS["all"]
    assert set(re.findall(r"\w+", everything.partition("[")[2])) == EXTRAS.keys() - {"all", "bench", "dev", "docs"}


def test_no_other_place_installs_dlkit_from_an_index() -> None:
    """Until dlkit is there, that would be another's package."""
    files = [ROOT / "README.md", *(path for room in ("src", "docs", "examples") for path in (ROOT / room).rglob("*"))]
    texts = {path.relative_to(ROOT): path for path in files if path.suffix in {".md", ".py", ".txt", ".html", ".toml"}}
    found = [
        str(name)
        for name, path in texts.items()
        if re.search(r"pip install ['\"]?dlkit", path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize("extra", ["excel", "serve", "onnx"])
def test_the_line_names_the_packages_that_the_extra_lists(extra: str) -> None:
    command, _, _ = install_line(extra).partition("  (")
    words = shlex.split(command)
    assert words[:2] == ["pip", "install"]
    assert words[2:] == sorted(requirement.partition(";")[0] for requirement in EXTRAS[extra])


def test_a_package_that_is_not_there_is_said_with_the_line() -> None:
    with pytest.raises(MissingExtraError, match=r"needs the package 'nowhere', .*; pip install 'matplotlib>=3\.8'"):
        require("nowhere.inside", extra="plots")


def test_an_extra_that_the_installation_does_not_know_is_installed_from_a_checkout() -> None:
    assert install_line("of tomorrow") == "pip install '.[of tomorrow]' in a checkout of dlkit"


def test_every_package_that_comes_along_has_a_licence_that_was_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import licences

    found = set(licences.needed())
    assert {"torch", "numpy", "uvicorn", "soundfile"} <= found
    assert not found & {"pytest", "sphinx", "dlkit-torch"}
    assert licences.main() == 0
    monkeypatch.setattr(licences, "licence", lambda name: "GPL-3.0-only" if name == "numpy" else "MIT")
    assert licences.main() == 1
    assert "numpy: 'GPL-3.0-only'" in capsys.readouterr().out
