"""The page in a real browser: it draws, hover, click, drag and keys work, and it asks nothing of any network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from xl3m_integrations import Answer, Selection
from xl3m_integrations.report import framed, write

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium and chromedriver (Debian: chromium-driver)"),
    pytest.mark.enable_socket,  # to talk to the driver; the page itself is seen to ask for nothing
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1100,900"
).split()
HOSTILE = (
    "<script>document.title='owned'</script></script><!-- \u2028\u2029 <img src=x onerror=\"document.title='owned'\"> "
    "& &amp; ' \" ` ]]> </style><style>body{display:none}</style> \u202eright\u202c 👩‍👩‍👧 <a href=javascript:x>. "
)


def endless(text: str) -> Callable[[int, int], str]:
    """A document that repeats `text`."""
    return lambda start, end: (text * ((end - start) // len(text) + 2))[start % len(text) :][: end - start]


NUMBERED = "".join(f"Line {number:05d}. " for number in range(20_000))  # 240,000 characters, each stretch its own


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.set_capability("webSocketUrl", False)
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """A page that is open in the browser."""

    def __init__(self, browser: Chrome, path: Path, selection: Selection) -> None:
        self.browser, self.selection = browser, selection
        for kind in ("browser", "performance"):
            browser.get_log(kind)  # what came before is no concern of this page
        browser.get(path.as_uri())
        ready = "return document.documentElement.dataset.ready === 'yes' && !document.getElementById('detail').hidden"
        WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(ready))
        self.bars = browser.find_element(By.ID, "bars")

    def text(self, name: str) -> str:
        return str(self.browser.execute_script(f"return document.getElementById({name!r}).textContent"))

    @property
    def shown(self) -> int:
        """Index of the segment that is described."""
        self.settle()
        return int(self.text("which").split()[1].replace(",", "")) - 1

    def settle(self) -> None:
        self.browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def x(self, index: int) -> float:
        """Where a segment is on the unzoomed map, in pixels from its middle."""
        table = self.selection.table
        last = index + 1 == len(table.starts)
        until = table.ends[index] if last else table.starts[index + 1]
        width = self.bars.size["width"]
        return width * (table.starts[index] + until) / 2 / self.selection.characters - width / 2

    def move_to(self, x: float) -> ActionChains:
        return ActionChains(self.browser, duration=0).move_to_element_with_offset(self.bars, round(x), -20)

    def requests(self) -> list[str]:
        """What the page asked for; not what the browser's own pages did, nor data: addresses."""
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        urls = [params["request"]["url"] for params in sent if params["documentURL"] == self.browser.current_url]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[Any]:
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture
def open_page(browser: Chrome, tmp_path: Path) -> Callable[..., Page]:
    def opened(selection: Selection, answer: str = "Line", sources: Any = ()) -> Page:
        shown = Answer(answer, selection.question, selection.key_context, 99, selection)
        write(tmp_path / "page.html", shown.to_html(sources))
        return Page(browser, tmp_path / "page.html", selection)

    return opened


def best(selection: Selection) -> Any:
    return min(selection.segments, key=lambda segment: segment.rank)


@pytest.mark.parametrize("segments", [1, 10, 1_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_it_draws_kept_segments_in_the_accent_colour_and_asks_nothing_of_the_network(
    open_page, make_selection, segments
):
    page = open_page(make_selection(segments, min(4, segments), endless(NUMBERED)))
    assert page.complaints() == []
    assert page.requests() == [page.browser.current_url]
    assert page.shown == best(page.selection).index
    colour = """
        const [canvas, x] = [document.getElementById('bars'), arguments[0]];
        const scale = canvas.width / canvas.getBoundingClientRect().width;
        const at = canvas.height - 27 * scale; // within the mark below a kept segment
        return [...canvas.getContext('2d').getImageData((canvas.width / 2) + x * scale, at, 1, 1).data].slice(0, 3)"""
    for segment in page.selection.segments:
        assert page.browser.execute_script(colour, page.x(segment.index)) == pytest.approx([0xB9, 0x3F, 0x0A], abs=30)


def test_hover_shows_text_and_figures_and_a_click_holds_them(open_page, make_selection):
    selection = make_selection(40, 2, endless(NUMBERED))
    page = open_page(selection)
    other = next(index for index in range(10, 30) if selection.table.ranks[index] > 2)
    page.move_to(page.x(other)).perform()
    assert page.shown == other
    table = selection.table
    assert page.text("excerpt") == NUMBERED[table.starts[other] : table.ends[other]]
    figures = page.text("figures-list")
    for figure in (
        f"{selection.scores[other]:.3f}", f"{table.evidence['entropy'][other]:.3f} nats",
        f"Rank{table.ranks[other]}", f"{table.starts[other]:,} to {table.ends[other]:,}",
    ):  # fmt: skip
        assert figure in figures
    page.move_to(0).move_by_offset(0, -300).perform()
    assert page.shown == best(selection).index  # hovering holds nothing
    page.move_to(page.x(other)).click().move_by_offset(0, -300).perform()
    assert page.shown == other
    assert page.complaints() == []


def test_dragging_zooms_in_and_a_button_shows_the_whole_again(open_page, make_selection):
    selection = make_selection(1_000, 3, endless(NUMBERED))
    page = open_page(selection)
    width = page.bars.size["width"]
    page.move_to(-width / 4).click_and_hold().move_by_offset(round(width / 8), 0).release().perform()
    page.move_to(0).perform()
    middle = round(1_000 * (1 / 4 + 1 / 16))
    assert abs(page.shown - middle) <= 2
    page.browser.find_element(By.ID, "all").click()
    page.move_to(page.x(700)).perform()
    assert abs(page.shown - 700) <= 2
    assert page.complaints() == []


def test_the_keyboard_reaches_every_segment(open_page, make_selection):
    selection = make_selection(30, 3, endless(NUMBERED))
    page = open_page(selection)
    kept = [segment.index for segment in selection.segments]
    page.bars.send_keys(Keys.HOME)
    assert page.shown == 0
    page.bars.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.shown == 2
    assert page.bars.get_attribute("aria-valuenow") == "3"
    assert f"rank {selection.table.ranks[2]}" in str(page.bars.get_attribute("aria-valuetext"))
    page.bars.send_keys(Keys.END)
    assert page.shown == 29
    page.bars.send_keys("p")
    assert page.shown == max(index for index in kept if index < 29)
    page.bars.send_keys("+", "+", Keys.HOME, "n")
    assert page.shown == min(index for index in kept if index > 0)
    assert page.complaints() == []


def test_a_passage_leads_to_its_segment_on_the_map(open_page, make_selection):
    page = open_page(make_selection(2_000, 4, endless(NUMBERED)))
    buttons = page.browser.find_elements(By.CSS_SELECTOR, ".show")
    assert [int(str(button.get_attribute("data-index"))) for button in buttons] == [
        segment.index for segment in page.selection.segments
    ]
    buttons[2].click()
    assert page.shown == page.selection.segments[2].index
    assert page.browser.switch_to.active_element == page.bars


def test_a_hostile_document_is_shown_and_does_nothing(open_page, make_selection):
    selection = replace(make_selection(60, 3, endless(HOSTILE)), question=HOSTILE)
    page = open_page(selection, HOSTILE, [(HOSTILE, 0, selection.characters)])
    page.bars.send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert page.shown == 1
    assert page.text("excerpt") == selection.table.cut(45, 105)
    assert page.browser.find_element(By.TAG_NAME, "h1").get_property("textContent") == HOSTILE
    assert page.browser.title.startswith("<script>document.title=")  # the question, not what it would do
    assert page.browser.find_elements(By.CSS_SELECTOR, "img, iframe, a") == []
    assert len(page.browser.find_elements(By.TAG_NAME, "script")) == 2
    assert page.browser.find_element(By.TAG_NAME, "main").is_displayed()
    assert page.complaints() == []
    assert page.requests() == [page.browser.current_url]


def test_light_and_dark_follow_the_system(open_page, make_selection):
    page = open_page(make_selection(10, 1, endless(NUMBERED)))
    seen = {}
    for scheme in ("light", "dark"):
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        page.settle()
        style = "return getComputedStyle(document.body)"
        seen[scheme] = [page.browser.execute_script(f"{style}.{name}") for name in ("backgroundColor", "color")]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen["light"] == ["rgb(250, 249, 247)", "rgb(35, 33, 30)"]
    assert seen["dark"] == ["rgb(22, 21, 19)", "rgb(235, 231, 225)"]


def test_a_notebook_shows_it_in_a_frame(browser, make_selection, tmp_path):
    selection = make_selection(10, 1, endless(NUMBERED))
    write(tmp_path / "cell.html", f"<!doctype html><meta charset=utf-8>{framed(selection)}")
    browser.get_log("browser")
    browser.get((tmp_path / "cell.html").as_uri())
    browser.switch_to.frame(browser.find_element(By.TAG_NAME, "iframe"))
    which = browser.find_element(By.ID, "which")
    WebDriverWait(browser, 60).until(lambda _: which.text == f"Segment {best(selection).index + 1} of 10")
    assert browser.find_element(By.ID, "badge").is_displayed()
    browser.switch_to.default_content()
    assert [entry["message"] for entry in browser.get_log("browser") if "favicon" not in entry["message"]] == []
