"""The report in a real browser: drawn without an error or the network, sorted, narrow, wide and on paper."""

import shutil

import pytest
from support.colours import write_competition
from support.made_up_runs import write_experiment

from kit.core.paths import OutputDirs
from kit.report.gather import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (requirements-dev.txt)")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is on the path")

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    data = write_competition(root / "colours", rows=60)
    return report(write_experiment(root, data, seeds=1, samples=8).path, OutputDirs(root))


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield launched
        launched.close()


class Watched:
    """A page, and what went wrong on it."""

    def __init__(self, browser, file, before: str = "", **options):
        self.faults: list[str] = []
        self.context = browser.new_context(viewport={"width": 1400, "height": 900}, **options)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)
        self.page.route("**/*", self._guard)
        if before:
            self.page.add_init_script(before)
        self.page.goto(file.as_uri())

    def _guard(self, route) -> None:
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            self.faults.append(f"asked for {route.request.url[:100]}")
            route.abort()

    def drawn(self):
        self.page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)
        return self.page

    def overflow(self, width: int) -> int:
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.wait_for_timeout(300)
        return self.page.evaluate("document.documentElement.scrollWidth") - width


@pytest.fixture(scope="module")
def watched(browser, file):
    made = Watched(browser, file)
    made.drawn()
    yield made
    made.context.close()


def test_every_figure_is_drawn_without_an_error_or_the_network(watched):
    shown = watched.page.evaluate(
        """[...document.querySelectorAll(".plot")].map(plot => {
            const box = plot.querySelector("svg.main-svg")?.getBoundingClientRect();
            const marks = plot.querySelectorAll(".trace, .heatmaplayer image, .hm").length;
            return [plot.id, box ? box.width : 0, box ? box.height : 0, marks];
        })"""
    )
    assert len(shown) == 2 + 1 + 3 + 3 + 2 + 3 + 2
    assert [each for each in shown if min(each[1:]) <= 0] == []
    assert watched.page.is_hidden("#trouble")
    assert watched.faults == []


def test_captions_stand_below_their_figures(watched):
    gaps = watched.page.evaluate(
        """[...document.querySelectorAll("figure")].map(figure => {
            const plot = figure.querySelector(".plot").getBoundingClientRect();
            const text = figure.querySelector("figcaption").getBoundingClientRect();
            return [text.height, text.top - plot.bottom];
        })"""
    )
    assert all(height > 10 and -1 <= gap < 20 for height, gap in gaps)


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_itself_does_not_scroll_sideways(watched, width):
    assert watched.overflow(width) <= 0
    widths = watched.page.evaluate(
        '[...document.querySelectorAll(".plot")].map(p => p.querySelector("svg").getBoundingClientRect().width - '
        "p.getBoundingClientRect().width)"
    )
    assert max(widths) <= 1  # figures follow the width


def test_cards_stand_side_by_side_where_there_is_room(watched):
    count = 'getComputedStyle(document.querySelector("#activations .cards")).gridTemplateColumns.split(" ").length'
    watched.overflow(1400)
    assert watched.page.evaluate(count) == 4
    watched.overflow(400)
    assert watched.page.evaluate(count) == 1


def test_tables_sort_by_click_and_by_key(watched):
    page, table = watched.page, "#table-comparison-raw"

    def column(place: int) -> list[str]:
        return page.locator(f"{table} tbody tr td:nth-child({place})").all_inner_texts()

    def state(place: int) -> str:
        return page.get_attribute(f"{table} th:nth-child({place})", "aria-sort")

    scores = sorted(map(float, column(2)))
    page.click(f"{table} th:nth-child(2) button")
    assert [float(text) for text in column(2)] == scores[::-1]
    assert state(2) == "descending"
    page.click(f"{table} th:nth-child(2) button")
    assert [float(text) for text in column(2)] == scores
    page.focus(f"{table} th:nth-child(1) button")
    page.keyboard.press("Enter")
    assert column(1) == sorted(column(1))
    assert (state(1), state(2)) == ("ascending", "none")
    page.click(f"{table} th:nth-child(4) button")
    assert column(4)[-1] == "—"  # the baseline has no difference: last in either order
    page.click(f"{table} th:nth-child(4) button")
    assert column(4)[-1] == "—"


def test_on_paper_everything_is_open_and_fits(watched):
    page = watched.page
    page.set_viewport_size({"width": 700, "height": 900})
    page.emulate_media(media="print")
    page.evaluate('dispatchEvent(new Event("beforeprint"))')
    page.wait_for_timeout(300)
    try:
        assert page.evaluate('document.querySelector("details").open')
        assert page.evaluate('getComputedStyle(document.querySelector("figure")).breakInside') == "avoid"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        widest = (
            'Math.max(...[...document.querySelectorAll("svg.main-svg")].map(s => s.getBoundingClientRect().right))'
        )
        assert page.evaluate(widest) <= 700
        assert page.pdf(format="A4").startswith(b"%PDF")
    finally:
        page.emulate_media(media="screen")
        page.evaluate('dispatchEvent(new Event("afterprint"))')
    assert not page.evaluate('document.querySelector("details").open')
    assert watched.faults == []


def test_a_browser_that_cannot_unpack_says_so(browser, file):
    made = Watched(browser, file, before="delete globalThis.DecompressionStream;")
    page = made.drawn()
    assert "cannot unpack the figures" in page.inner_text("#trouble")
    assert page.is_visible("#table-comparison-raw")
    assert page.is_visible(".verdicts")
    assert made.faults == []
    made.context.close()


def test_without_javascript_verdicts_and_tables_are_there(browser, file):
    made = Watched(browser, file, java_script_enabled=False)
    assert made.page.locator("noscript").count() == 1
    assert made.page.is_visible(".verdicts")
    assert made.page.is_visible("#table-comparison-raw")
    made.context.close()
