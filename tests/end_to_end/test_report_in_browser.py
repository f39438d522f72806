"""The report in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from tests.report.conftest import PLANET, make_run

from canopy.report.attention_maps import AttentionFigure
from canopy.report.image_grid import image_grid
from canopy.report.page import render_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (apt-get install chromium)")


@pytest.fixture
def run_of() -> Callable[..., dict[str, Any]]:
    """Makes the summary, histories and trials of a run with given members and labels."""
    return make_run


@pytest.fixture
def demo() -> dict[str, Any]:
    """The run of a demo: three members, Planet's labels, a sweep, known best reachable scores."""
    return make_run(["resnet-bce", "efficientnet-focal", "resnet-cbam-focal"], PLANET)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens a run's report; fails at the end for any console message or request."""
    complaints: list[str] = []
    requests: list[str] = []
    contexts = []

    def show(run: dict[str, Any], *, width: int = 1280, dark: bool = False) -> Page:
        rng = np.random.default_rng(0)
        chips = rng.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
        sheet = image_grid(chips, ["clear, primary"] * 6, columns=3, scale=2)
        file = tmp_path / "report.html"
        attention = [AttentionFigure("resnet-cbam-focal", ("last: 2 × 2 positions",), True, sheet)]
        file.write_text(
            render_report(run["summary"], run["histories"], run["trials"], sheet, (), attention),
            encoding="utf-8",
        )
        scheme = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert complaints == []
    assert requests
    assert all(url.startswith(("file:", "data:")) for url in requests)


def test_headline_tables_and_figures_are_there(show: Callable[..., Page], demo: dict[str, Any]) -> None:
    page = show(demo)
    ensemble = demo["summary"]["ensemble"]
    figures = page.locator(".figure-value").all_inner_texts()
    for metric, shown in zip(("macro_f1", "micro_f1", "map"), figures, strict=True):
        assert shown.startswith(f"{ensemble[metric]:.3f}")
    assert page.locator("#members tbody tr").count() == 5
    assert page.locator("#labels tbody tr").count() == 17
    assert page.locator("#sweep circle.trial").count() == len(demo["trials"])
    assert page.locator("#training polyline").count() == 9
    for figure in page.locator("#labels rect.score, #training rect.fill, rect.column, polyline").all():
        box = figure.bounding_box()
        assert box is not None
        assert box["width"] > 3
        assert box["height"] > 3
    for section in ("data", "attention"):
        assert page.evaluate(f"document.querySelector('#{section} img').naturalWidth") > 100


def test_the_table_of_every_figure_fits_a_screen(show: Callable[..., Page], demo: dict[str, Any]) -> None:
    page = show(demo)
    scroll = page.locator("#figures .scroll").first
    assert scroll.evaluate("box => box.scrollWidth <= box.clientWidth")
    assert page.locator("#figures tbody tr").count() == 5 + 17
    assert not page.locator("#figures details table").is_visible()
    page.locator("#figures summary").click()
    assert page.locator("#figures details table").is_visible()


def test_bars_are_as_long_as_their_scores(show: Callable[..., Page], demo: dict[str, Any]) -> None:
    page = show(demo)
    graphs = page.locator("#labels td.graph > svg").all()
    scores = demo["summary"]["ensemble"]["per_class_f1"]
    names = page.locator("#labels tbody th").all_inner_texts()
    for name, graph in zip(names, graphs, strict=True):
        whole, bar = graph.evaluate(
            "g => [g, g.querySelector('rect.score')].map(e => e.getBoundingClientRect().width)"
        )
        assert bar / whole == pytest.approx(scores[name], abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_page_scrolls_only_down_and_text_stands_out(
    show: Callable[..., Page], demo: dict[str, Any], dark: bool
) -> None:
    page = show(demo, width=360, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for element in (
        "h1",
        ".note",
        "#labels thead th",
        "#labels tbody th",
        ".legend li",
        "nav a",
        "footer",
        "figcaption b",
    ):
        assert contrast(page, element) >= 4.5, element


def test_names_stay_text(show: Callable[..., Page], run_of: Callable[..., dict[str, Any]]) -> None:
    name = "<img src=x onerror=document.title='owned'>"
    page = show(run_of([name, "b&b"], ["<script>document.title='owned'</script>", "rain & fog"]))
    assert page.title().startswith("Canopy report")
    assert page.locator("#labels tbody th").first.inner_text() == "<script>document.title='owned'</script>"


def contrast(page: Page, selector: str) -> float:
    """WCAG 2.1 contrast of an element's text against the first opaque background behind it."""
    ink, ground = page.locator(selector).first.evaluate(
        """e => {
          const read = colour => { const c = document.createElement('canvas').getContext('2d');
            c.fillStyle = colour; c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; };
          let behind = e;
          while (read(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
          return [read(getComputedStyle(e).color), read(getComputedStyle(behind).backgroundColor)];
        }"""
    )
    lights = sorted(luminance(rgba[:3]) for rgba in (ink, ground))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(rgb: list[int]) -> float:
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
