"""The report of a training: whole, right, and harmless whatever the data calls itself."""

from __future__ import annotations

import html.parser
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dlkit import recipes

QUIET = {"device": "cpu", "progress": False}


class Parsed(html.parser.HTMLParser):
    """Tags that are closed, headings, table rows, and every address."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "img", "br", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(trained: recipes.Trained) -> Parsed:
    assert trained.report is not None
    page = Parsed(trained.report.read_text(encoding="utf-8"))
    assert not page.open
    assert all(address.startswith(("data:image/png;base64,", "data:audio/wav;base64,")) for address in page.addresses)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    return page


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> recipes.Trained:
    drawn = np.random.default_rng(0)
    frame = pd.DataFrame({"tells": drawn.normal(size=400), "noise": drawn.normal(size=400), "kind": ["a", "b"] * 200})
    evil = "<script>alert(1)</script>"
    frame["y"] = np.where(frame["tells"] + 0.3 * drawn.normal(size=400) > 0, evil, "no\x1b[31m")
    out = tmp_path_factory.mktemp("report")
    return recipes.train(frame, target="y", arch="mlp", epochs=6, lr=0.03, out=out, **QUIET)


def test_the_report_of_a_table(table: recipes.Trained) -> None:
    page = parsed(table)
    text = " ".join(page.text)
    assert table.standing is not None
    assert f"accuracy {table.standing.score:.4g}" in text
    assert "alert(1)" in text
    assert "\x1b" not in text
    for section in ("Result", "Training", "Classes", "Mistakes", "Which columns matter", "Data", "Choices", "Again"):
        assert section in page.text
    ranked = re.findall(
        r"(tells|noise|kind) +(-?[\d.e-]+)", " ".join(page.text[page.text.index("Which columns matter") :])
    )
    assert ranked[0][0] == "tells"
    assert float(ranked[0][1]) > 0.2
    assert abs(float(dict(ranked)["noise"])) < 0.15


def test_the_surest_mistakes_come_first(table: recipes.Trained) -> None:
    text = parsed(table).text
    rows = text[text.index("Mistakes") : text.index("Which columns matter")]
    sure = [float(found[1]) for cell in rows if (found := re.search(r"(?:>|31m) (0\.\d{3}|1\.000)$", cell))]
    assert table.standing is not None
    wrong = round((1 - table.standing.score) * table.standing.samples)
    assert len(sure) == min(wrong, 12) > 1
    assert sure == sorted(sure, reverse=True)


def test_the_matrix_adds_up_to_the_test_part(table: recipes.Trained) -> None:
    assert table.report is not None
    heat = re.search(r'<table class="heat">(.*?)</table>', table.report.read_text(encoding="utf-8"))
    assert heat is not None
    assert sum(map(int, re.findall(r">(\d+)</td>", heat[1]))) == len(table.data.test)


def test_a_finished_run_writes_the_same_report_again(table: recipes.Trained, tmp_path: Path) -> None:
    assert table.report is not None
    before = table.report.read_bytes()
    again = recipes.train(table.data, arch="mlp", epochs=6, lr=0.03, out=table.folder, **QUIET)
    assert again.report is not None
    assert again.report.read_bytes() == before


def test_mistakes_show_the_pictures(tmp_path: Path) -> None:
    drawn = np.random.default_rng(1)
    for name in ("dark", "light"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = drawn.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    trained = recipes.train(tmp_path / "photos", arch="small", epochs=1, out=tmp_path / "run", **QUIET)
    page = parsed(trained)
    assert trained.standing is not None
    wrong = round((1 - trained.standing.score) * trained.standing.samples)
    assert page.tags.count("img") == wrong > 0
    assert "is not significantly better" in " ".join(page.text)


def test_mistakes_can_be_heard(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="the extra audio")
    drawn = np.random.default_rng(1)
    for name in ("low", "high"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(10):
            soundfile.write(tmp_path / "sounds" / name / f"{number}.wav", drawn.normal(0, 0.1, 2_000), 8_000)
    trained = recipes.train(tmp_path / "sounds", epochs=1, out=tmp_path / "run", **QUIET)
    assert trained.standing is not None
    wrong = round((1 - trained.standing.score) * trained.standing.samples)
    assert parsed(trained).tags.count("audio") == wrong > 0


def test_texts_and_values(tmp_path: Path) -> None:
    said = [f"{word} <b>film {number}" for number in range(40) for word in ("good", "bad")]
    frame = pd.DataFrame({"text": said, "stars": ["up", "down"] * 40})
    texts = recipes.train(frame, text="text", target="stars", out=tmp_path / "texts", **QUIET)
    assert "Classes" in parsed(texts).text
    numbers = pd.DataFrame({"x": range(120), "y": [3.5 * n + (n % 7) for n in range(120)]})
    values = recipes.train(numbers, target="y", arch="mlp", epochs=2, out=tmp_path / "values", **QUIET)
    page = parsed(values)
    assert {"Values", "Missed most"} <= set(page.text)
    assert "Classes" not in page.text


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.parametrize("width", [360, 1600])
def test_it_fits_a_telephone_and_a_wide_screen(table: recipes.Trained, width: int) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here; apt install chromium")
    assert table.report is not None
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(table.report.absolute().as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not said
        browser.close()
