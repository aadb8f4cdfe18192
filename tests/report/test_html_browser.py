"""The page in a real browser: what no reading of its text can show.

The browser is the system's own, found by name or named by the variable ``COMPRESS_TEST_BROWSER``: nothing is
downloaded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from compress.report.html import render_html
from compress.report.sweep_file import draw_sweep
from tests.report.page_samples import report, sweep

BROWSER = os.environ.get("COMPRESS_TEST_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no browser: install chromium, or name one with COMPRESS_TEST_BROWSER"
)

# Names of elements that stick out of the page, but for what scrolls in a box of its own.
_STICKING_OUT = """
[...document.querySelectorAll("body *")]
  .filter(e => !e.closest(".scroll") && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.tagName + "." + (e.getAttribute("class") || ""))
"""
_TEXT_IN_PICTURES = """
[...document.querySelectorAll("svg.chart text")].map(e => parseFloat(getComputedStyle(e).fontSize))
"""


@dataclass(kw_only=True)
class Seen:
    """What a browser told while it showed a page."""

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """One browser for all tests, with a profile of its own that is thrown away."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """The page of a whole run, and the picture of a sweep."""
    folder = tmp_path_factory.mktemp("page")
    paths = {"page": folder / "page.html", "picture": folder / "sweep.svg"}
    paths["page"].write_text(render_html(report(folder)), encoding="utf-8")
    paths["picture"].write_text(draw_sweep(sweep()), encoding="utf-8")
    return paths


def open_page(browser, path, *, width=1280, scheme="light", scripts=True):
    """The page at ``path``, opened in a fresh window."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
    )
    page, seen = context.new_page(), Seen()
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.messages.append(message.text))
    page.on("pageerror", lambda error: seen.messages.append(str(error)))
    page.goto(path.as_uri())
    return page, seen


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_whole_at_any_width_and_scheme(browser, files, width, scheme):
    """It asks for nothing but itself, has no complaint, sticks out nowhere, and follows the reader's colours."""
    page, seen = open_page(browser, files["page"], width=width, scheme=scheme)
    for summary in page.query_selector_all("summary"):
        summary.click()
    assert seen.requests == [files["page"].as_uri()]
    assert seen.messages == []
    assert page.evaluate(_STICKING_OUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    red, green, blue = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert (min(red, green, blue) > 240) if scheme == "light" else (max(red, green, blue) < 40)
    # Text in pictures keeps its size however narrow the page.
    assert min(page.evaluate(_TEXT_IN_PICTURES)) >= 12
    page.context.close()


def test_tables_scroll_by_themselves(browser, files):
    """On a phone the reference table is wider than the screen: its box scrolls, also by keyboard, the page does not."""
    page, _ = open_page(browser, files["page"], width=375)
    box = page.query_selector(".scroll")
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")
    box.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(100):
        if box.evaluate("e => e.scrollLeft"):
            break
        page.wait_for_timeout(20)
    assert box.evaluate("e => e.scrollLeft") > 0
    assert page.evaluate("window.scrollX") == 0
    page.context.close()


def test_a_screen_reader_finds_its_way(browser, files):
    """Headings, tables and pictures are there under their roles and names."""
    page, _ = open_page(browser, files["page"])
    assert page.get_by_role("heading", level=1).inner_text() == "digits"
    assert page.get_by_role("region", name="Results").count() >= 1
    assert page.get_by_role("columnheader", name="structured", exact=True).count() == 1
    assert page.get_by_role("rowheader", name="top-1 error", exact=True).count() == 1
    assert page.get_by_role("img", name="Error against time").count() == 1
    assert page.get_by_role("img", name="Layers of compose").count() == 1
    assert page.get_by_role("link", name="History").count() == 1
    page.context.close()


def test_the_page_reads_without_javascript(browser, files):
    """All is there where scripts are switched off; a sweep's picture stands for itself too."""
    page, seen = open_page(browser, files["page"], scripts=False)
    assert page.get_by_role("row").count() == 7
    assert page.get_by_role("img").count() == 28
    page.context.close()
    page, seen = open_page(browser, files["picture"])
    assert seen == Seen(requests=[files["picture"].as_uri()])
    page.context.close()
