"""Look at every page of the built site in a browser, wide and narrow, and say what is wrong with it.

    make docs && python tools/pages.py [FOLDER] [--pictures build/pictures] [--match how-to/]

A page fails if it is wider than the window, shows no text, misses a picture, or has an error in the browser's console.
Code and tables may be wider: they scroll by themselves. With `--pictures` each page is also saved as a PNG, for a
person to look at. The browser is Playwright's Chromium, or the one that the environment variable CHROMIUM names.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

WIDTHS = (360, 1280)
LOOK = """() => ({
    width: document.documentElement.scrollWidth,
    text: (document.querySelector('article') || document.body).innerText.trim().length,
    broken: [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src),
    cut: [...document.querySelectorAll('article *')]
        .filter(part => part.getBoundingClientRect().right > innerWidth + 1 && !part.closest(SCROLLS))
        .slice(0, 3).map(part => part.tagName + ' ' + (part.innerText || '').slice(0, 40)),
})""".replace("SCROLLS", "'pre, .pst-scrollable-table-container, .cell_output, .headerlink, .indextable'")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Nothing: what fails is seen in the page."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder at an address of this machine."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def faults(page: Page, address: str, width: int) -> list[str]:
    """What is wrong with a page in a window of this width."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address, wait_until="load")
    for image in page.locator("img[loading=lazy]").all():
        image.scroll_into_view_if_needed()
    seen = page.evaluate(LOOK)
    if seen["width"] > width or seen["cut"]:
        said.append(f"{seen['width']} pixels wide, and beyond the edge: {seen['cut']}")
    if seen["text"] < 40:
        said.append("shows no text")
    return [*said, *(f"no picture at {source}" for source in seen["broken"])]


def main() -> int:
    """Every page of the folder in every width; the number of faults."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    asked.add_argument("folder", nargs="?", default="build/site", type=Path)
    asked.add_argument("--pictures", type=Path, help="a folder for a PNG of each page")
    asked.add_argument("--match", default="", help="only pages whose path holds this")
    given = asked.parse_args()
    names = sorted(str(path.relative_to(given.folder)) for path in given.folder.rglob("*.html"))
    aside = ("_modules", "_static", "index.html")  # index.html only leads to README.html
    names = [name for name in names if not name.startswith(aside) and given.match in name]
    wrong = 0
    with served(given.folder) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM"))
        for width in WIDTHS:
            for name in names:
                with browser.new_page(viewport={"width": width, "height": 800}) as page:
                    for fault in faults(page, site + name, width):
                        wrong += 1
                        print(f"{name} at {width}: {fault}", file=sys.stderr)
                    if given.pictures:
                        given.pictures.mkdir(parents=True, exist_ok=True)
                        png = given.pictures / f"{name.removesuffix('.html').replace('/', '_')}-{width}.png"
                        page.screenshot(path=png, full_page=True)
        browser.close()
    print(f"{len(names)} pages in {len(WIDTHS)} widths: {wrong} faults")
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(), 1))
