"""The service's web page in a real browser, on the real server."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, TimeoutError, expect, sync_playwright
from tests.inference.conftest import experiment, finished  # noqa: F401 (fixtures)
from tests.inference.service.conftest import TOKEN, Service, served  # noqa: F401 (fixtures)
from tests.inference.service.pictures import picture

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Two files."""
    (tmp_path / "a.png").write_bytes(picture(1, (64, 64)))
    (tmp_path / "b <b>.jpg").write_bytes(picture(2, (64, 64), "JPEG"))
    return [str(tmp_path / name) for name in ("a.png", "b <b>.jpg")]


@pytest.fixture(params=[1280, 360], ids=["wide", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, served: Service) -> Iterator[Page]:  # noqa: F811
    """The page; fails at the end for console messages, errors of the script and requests to elsewhere."""
    complaints: list[str] = []
    urls: list[str] = []
    context = browser.new_context(
        viewport={"width": request.param, "height": 800}, permissions=["clipboard-read", "clipboard-write"]
    )
    shown = context.new_page()
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on("request", lambda one: urls.append(one.url))
    shown.goto(f"{served.url}/")
    yield shown
    assert shown.evaluate("document.documentElement.scrollWidth") <= request.param, "it scrolls sideways"
    context.close()
    assert [text for text in complaints if "status of 401" not in text and "status of 422" not in text] == []
    assert all(url.startswith((served.url, "data:", "blob:")) for url in urls), urls


def test_images_are_predicted_and_copied(page: Page, images: list[str]) -> None:
    expect(page.locator("#token")).to_be_focused()
    page.locator("#token").fill(TOKEN)
    page.locator("#token").press("Tab")
    expect(page.locator("#about")).to_contain_text("4 labels, version")
    page.locator("#files").set_input_files(images)
    expect(page.locator("article.card")).to_have_count(2)
    expect(page.locator("article.card h2").first).to_have_text("b <b>.jpg")
    assert page.locator("article.card").first.locator("li").count() == 4
    assert page.locator("article.card").first.locator(".limit").count() >= 1
    page.locator("article.card").nth(1).locator(".label").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("warm for it, cool against it")
    expect(page.locator("article.card").nth(1).locator("img")).to_have_attribute(
        "alt", re.compile("^Evidence")
    )
    page.locator("#copy").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("Copied 2 results.")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert [one["id"] for one in copied] == ["a.png", "b <b>.jpg"]
    assert set(copied[0]) == {"model", "version", "id", "labels", "probabilities"}
    page.locator("#clear").focus()
    page.keyboard.press("Enter")
    expect(page.locator("article.card")).to_have_count(0)


def test_files_are_chosen_by_keyboard_and_dropped(page: Page, images: list[str]) -> None:
    page.locator("#token").fill(TOKEN)
    page.locator("#token").press("Tab")
    expect(page.locator("#about")).to_contain_text("4 labels")
    chosen_by_keyboard(page, images[0])
    expect(page.locator("article.card")).to_have_count(1)
    data = page.evaluate_handle(
        """(bytes) => { const t = new DataTransfer();
        t.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"})); return t; }""",
        list(picture(3)),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    expect(page.locator("article.card h2").first).to_have_text("dropped.png")


def chosen_by_keyboard(page: Page, image: str) -> None:
    """Choose a file with the Enter key; the browser shows no dialog while it is still busy."""
    for attempt in range(5):
        page.locator("#files").focus()
        try:
            with page.expect_file_chooser(timeout=3000) as chooser:
                page.keyboard.press("Enter")
            chooser.value.set_files(image)
            return
        except TimeoutError:
            assert attempt < 4, "the Enter key opens no dialog"


def test_errors_are_said(page: Page, tmp_path: Path) -> None:
    page.locator("#token").fill("wrong-token-of-a-person")
    page.locator("#token").press("Tab")
    expect(page.locator("#status")).to_contain_text("The token must be that of the service")
    page.locator("#token").fill(TOKEN)
    page.locator("#token").press("Tab")
    (tmp_path / "broken.png").write_bytes(picture()[:200])
    page.locator("#files").set_input_files(str(tmp_path / "broken.png"))
    expect(page.locator("#status.error")).to_contain_text("Image broken.png must be readable")
