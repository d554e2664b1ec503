"""The page, in a real browser where there is one: real files, both languages, a phone, and names that are not HTML."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import dlkit
from dlkit.serving import app
from dlkit.serving.page import PAGE, POLICY
from serving.asking import listening
from serving.conftest import passengers, picture, recording

MODELS = ("insects", "titanic", "spam", "calls", "bare")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_the_page_needs_nothing_from_elsewhere_and_allows_its_own_script_only() -> None:
    assert "http:" not in PAGE
    assert "https:" not in PAGE
    assert "innerHTML" not in PAGE
    assert " style=" not in PAGE
    assert " onclick=" not in PAGE
    assert POLICY.count("sha256-") == 2
    assert "unsafe" not in POLICY


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here; apt install chromium")
    with playwright.sync_playwright() as started:
        microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # one that beeps
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *microphone])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(predictors: dict[str, dlkit.Predictor]) -> Iterator[str]:
    """A server of a model of every kind on a free port, with a token."""
    with listening(app({name: predictors[name] for name in MODELS}, token="t0ken")) as found:
        yield found


def serious(page: Any) -> list[str]:
    """What axe-core finds that keeps people from using the page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {[node['target'] for node in each['nodes']]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def opened(browser: Any, address: str, **options: Any) -> tuple[Any, list[str]]:
    """The page with its token entered, and what the browser complained of."""
    page = browser.new_context(**options).new_page()
    complaints = list[str]()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "Security" in line.text else None)
    page.goto(address)
    page.fill("#token", "wrong")
    page.press("#token", "Enter")
    page.wait_for_function("document.getElementById('wrong').textContent !== ''")
    page.fill("#token", "t0ken")
    page.press("#token", "Enter")
    page.wait_for_selector("#inputs > *")
    return page, complaints


@pytest.mark.proof
def test_every_kind_of_input(
    browser: Any, address: str, predictors: dict[str, dlkit.Predictor], tmp_path: Path
) -> None:
    page, complaints = opened(browser, address, locale="en-US", viewport={"width": 1100, "height": 900})
    for name, data in (("<b>bee.jpg", picture(0)), ("ant.png", picture(1, "PNG")), ("bad.jpg", b"no picture")):
        (tmp_path / name).write_bytes(data)
    page.set_input_files(".drop input", [str(tmp_path / name) for name in ("<b>bee.jpg", "ant.png", "bad.jpg")])
    page.wait_for_selector("text=Done: 3")
    wanted = predictors["insects"].predict_one(picture(0), top_k=3)
    assert page.locator(".card strong").first.inner_text() == wanted.label
    assert page.locator(".card").first.inner_text().startswith("<b>bee.jpg")
    assert page.locator(".card .bad").count() == 1
    assert "curl" in page.locator("#curl").inner_text()
    assert "t0ken" not in page.locator("#curl").inner_text()
    assert serious(page) == []
    page.screenshot(path=tmp_path / "images.png", full_page=True)

    page.select_option("#models", "titanic")
    page.fill("input[name=age]", "33")
    page.select_option("select[name=sex]", '"male"')
    page.click("button.main >> nth=-1")
    page.wait_for_selector("text=Done: 1")
    sent = json.loads(page.locator("#curl").inner_text().rsplit("--data-binary ", 1)[1].strip("'"))
    assert (sent["age"], sent["sex"]) == (33, "male")
    assert page.locator(".card strong").inner_text() == predictors["titanic"].predict_one(sent).label
    assert serious(page) == []
    page.screenshot(path=tmp_path / "form.png", full_page=True)

    table = passengers(130, seed=9)
    table.to_csv(tmp_path / "many.csv", index=False)
    page.set_input_files(".drop input", str(tmp_path / "many.csv"))
    page.wait_for_selector("text=Done: 130")
    with page.expect_download() as waiting:
        page.click("#save")
    waiting.value.save_as(tmp_path / "found.csv")
    lines = (tmp_path / "found.csv").read_text(encoding="utf-8-sig").splitlines()
    assert lines[0] == "age,fare,sex,port,alone,prediction,probability"
    labels = [each.label for each in predictors["titanic"].predict_each((tmp_path / "many.csv").read_bytes())]
    assert [line.split(",")[5] for line in lines[1:]] == labels
    assert serious(page) == []
    page.screenshot(path=tmp_path / "sheet.png", full_page=True)

    page.select_option("#models", "spam")
    assert serious(page) == []
    page.fill("textarea", "win a prize now")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # all of it goes without a mouse
    page.wait_for_selector("text=Done: 1")
    assert page.locator(".card strong").inner_text() == predictors["spam"].predict_one("win a prize now").label
    (tmp_path / "texts.csv").write_text("comment\nwin a prize\nlunch at noon\n")
    page.set_input_files(".drop input", str(tmp_path / "texts.csv"))
    page.wait_for_selector("text=Done: 2")

    page.select_option("#models", "calls")
    for number in range(2):
        (tmp_path / f"{number}.wav").write_bytes(recording(number))
    page.set_input_files(".drop input", [str(tmp_path / f"{number}.wav") for number in range(2)])
    page.wait_for_selector("text=Done: 2")
    wanted = [predictors["calls"].predict_one(recording(number)).label for number in range(2)]
    assert [each.inner_text() for each in page.locator(".card strong").all()] == wanted
    assert page.locator(".card audio").count() == 2
    page.click("text=Record with the microphone")
    page.wait_for_selector("text=Recording …")
    page.wait_for_timeout(400)  # something to hear
    page.click("text=Stop and ask")
    page.wait_for_selector("text=Done: 1")
    assert page.locator(".card strong").inner_text() in predictors["calls"].classes
    assert page.locator(".card .bad").count() == 0
    assert serious(page) == []
    page.screenshot(path=tmp_path / "sounds.png", full_page=True)

    page.select_option("#models", "bare")
    page.fill("textarea", json.dumps(torch.zeros(1, 1, 16, 16).tolist()))
    page.click("button.main >> nth=-1")
    page.wait_for_selector("text=Done: 1")
    assert complaints == []


@pytest.mark.proof
def test_the_whole_page_without_a_mouse(browser: Any, address: str, predictors: dict[str, dlkit.Predictor]) -> None:
    page, complaints = opened(browser, address, locale="en-US")
    page.select_option("#models", "titanic")
    reached = list[str]()
    page.focus("#models")
    for _ in range(30):
        page.keyboard.press("Tab")
        where = page.evaluate("document.activeElement.name || document.activeElement.id || document.activeElement.type")
        seen = page.evaluate("getComputedStyle(document.activeElement).outlineStyle !== 'none'")
        inside = page.evaluate("document.activeElement.closest('.drop') !== null")
        assert seen or inside, f"{where} does not show that it has the focus"
        reached.append(where)
        if where == "file":
            break
    assert reached == ["age", "fare", "sex", "port", "alone", "submit", "file"]
    page.focus("input[name=fare]")
    page.keyboard.press("Control+A")
    page.keyboard.type("12.5")
    page.keyboard.press("Enter")  # in a field of the form
    page.wait_for_selector("text=Done: 1")
    assert page.evaluate("document.getElementById('state').getAttribute('aria-live')") == "polite"
    assert complaints == []


@pytest.mark.proof
def test_a_phone_in_korean(browser: Any, address: str, tmp_path: Path) -> None:
    page, complaints = opened(
        browser, address, locale="ko-KR", viewport={"width": 360, "height": 780}, is_mobile=True, has_touch=True
    )
    page.select_option("#models", "titanic")
    page.tap("button.main >> nth=-1")
    page.wait_for_selector("text=완료: 1개")
    assert page.evaluate("document.documentElement.lang") == "ko"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360  # nothing sticks out
    unnamed = "[...document.querySelectorAll('input,select,textarea')].filter(e => !e.labels.length).length"
    assert page.evaluate(unnamed) == 0
    assert serious(page) == []
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert complaints == []
