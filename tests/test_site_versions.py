"""The versions of the site: the menu lists what is published, and every build says which one it is."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import dlkit

ROOT = Path(__file__).parents[1]
CONF = str(ROOT / "docs/conf.py")


def menu(folder: Path, *names: str) -> list[dict[str, str | bool]]:
    for name in names:
        (folder / name).mkdir()
    subprocess.run([sys.executable, ROOT / "tools/site_versions.py", folder, "/dlkit/"], check=True)
    listed: list[dict[str, str | bool]] = json.loads((folder / "switcher.json").read_text(encoding="utf-8"))
    return listed


def test_the_menu_lists_main_and_every_release_the_newest_first(tmp_path: Path) -> None:
    listed = menu(tmp_path, "0.9.0", "latest", "0.10.0", ".git", "assets")
    assert [entry["url"] for entry in listed] == ["/dlkit/latest/", "/dlkit/0.10.0/", "/dlkit/0.9.0/"]
    assert [entry["version"] for entry in listed if entry["preferred"]] == ["0.10.0"]
    assert "url=0.10.0/" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_before_the_first_release_the_start_page_leads_to_main(tmp_path: Path) -> None:
    assert [entry["preferred"] for entry in menu(tmp_path, "latest")] == [False]
    assert "url=latest/" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_build_knows_its_version_and_where_the_menu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLKIT_DOCS_AT", raising=False)
    built_here = runpy.run_path(CONF)
    assert built_here["version"] == dlkit.__version__
    assert "switcher" not in built_here["html_theme_options"]
    monkeypatch.setenv("DLKIT_DOCS_AT", "/dlkit/latest/")
    main = runpy.run_path(CONF)
    assert main["html_theme_options"]["switcher"] == {"json_url": "/dlkit/switcher.json", "version_match": "latest"}
    assert main["html_context"]["dlkit_unreleased"] is True


def test_every_tag_and_main_are_published_by_the_workflow() -> None:
    workflow = (ROOT / ".github/workflows/docs.yml").read_text(encoding="utf-8")
    assert re.search(r'branches: \[main\], tags: \["v\*"\]', workflow)
    assert "DLKIT_DOCS_AT" in workflow
    assert "tools/site_versions.py" in workflow
