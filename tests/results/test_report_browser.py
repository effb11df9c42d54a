"""The page of a run in a real browser: what is there, what the keyboard does, what is not done."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hydragen_tree.results.report import write_report
from hydragen_tree.results.results import Results
from tests.results.report_run import HOSTILE, write_run

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_WIDTHS = (400, 1600)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip(f"no browser is installed: {', '.join(_NAMES)}")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    write_report(Results.read(write_run(folder / "run")), folder / "report.html")
    return (folder / "report.html").as_uri()


class Opened:
    """A page, with what it asked for and complained about."""

    def __init__(
        self, browser: Any, address: str, width: int = 1600, scheme: str = "light"
    ) -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        self.page = context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def focused(self) -> str:
        return str(self.page.evaluate("document.activeElement.textContent"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", _WIDTHS)
def test_everything_is_there_and_nothing_overflows(
    browser: Any, address: str, width: int, scheme: str, tmp_path: Path
) -> None:
    opened = Opened(browser, address, width, scheme)
    page = opened.page
    assert page.title() == "run - Hydragen report"
    headings = page.locator("h2").all_inner_texts()
    assert headings[1:] == ["pass@k", "Problems", "Programs", "Time and tokens", "Settings"]
    assert page.locator("svg.curve:visible").count() == 1
    assert page.locator("#problem-table tbody tr:visible").count() == 3
    assert page.locator("[role=tree] [role=treeitem]:visible").count() > 3
    assert page.locator(".icicle .cell:visible").count() > 3
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = """() => [...document.querySelectorAll("body *")].filter((e) => {
        if (e.closest(".scroll, nav, .icicle, pre, .skip, .unseen, svg")) return false;
        const box = e.getBoundingClientRect();
        return box.right > innerWidth + 0.5 || box.left < -0.5;
    }).map((e) => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(outside) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shade = int(background.split("(")[1].split(",")[0])
    assert shade > 200 if scheme == "light" else shade < 60
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert opened.requests == [address]
    assert opened.complaints == []


def test_a_heading_sorts_by_keyboard(browser: Any, address: str) -> None:
    opened = Opened(browser, address)
    names = opened.page.locator("#problem-table tbody th a")
    heading = opened.page.locator("th", has_text="accepted")
    assert names.all_inner_texts() == ["half", "never <b>", "always"]
    heading.locator("button").focus()
    opened.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert names.all_inner_texts() == ["always", "half", "never <b>"]
    opened.press("Space")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert names.all_inner_texts() == ["never <b>", "half", "always"]
    opened.page.locator("th", has_text="problem").locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") is None
    assert names.all_inner_texts() == ["always", "half", "never <b>"]
    first_solved = opened.page.locator("th", has_text="first solved")
    for _ in range(2):  # what has no value comes last either way
        first_solved.locator("button").press("Enter")
        assert names.all_inner_texts()[2] == "never <b>"


def test_problems_are_filtered(browser: Any, address: str) -> None:
    opened = Opened(browser, address)
    opened.page.get_by_label("Filter problems").fill("AL")
    assert opened.page.locator("#problem-table tbody tr:visible").count() == 2
    assert opened.page.locator("#filtered").inner_text() == "2 of 3 shown"


def test_a_program_is_read_by_keyboard(browser: Any, address: str) -> None:
    opened = Opened(browser, address)
    page = opened.page
    rows = page.locator("[role=treeitem]")
    rows.first.focus()
    assert rows.first.get_attribute("aria-expanded") == "true"
    opened.press("ArrowLeft")
    assert (rows.count(), rows.first.get_attribute("aria-expanded")) == (1, "false")
    opened.press("ArrowRight", "ArrowRight")
    assert "print(n" in opened.focused()
    named = re.compile(r"60 % ?, 3 samples, ?2 accepted: ?n = int\(input\(\)\) ?print\(n")
    assert page.get_by_role("treeitem", name=named).count() == 1
    assert rows.nth(1).get_attribute("aria-expanded") == "true"
    opened.press("ArrowDown")
    assert "\u2713 AC" in opened.focused()
    opened.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.get_attribute("aria-labelledby") == "program-title"
    assert "half, sample 0" in dialog.inner_text()
    assert dialog.locator("pre").first.inner_text() == "n = int(input())\nprint(n)"
    assert "2 times of 5 (40 %)" in dialog.inner_text()
    page.get_by_role("button", name="Next", exact=True).press("Enter")
    assert "token 1: expected '<5>', got '6'" in dialog.inner_text()
    opened.press("Escape")
    assert not dialog.is_visible()
    assert "WA" in opened.focused()  # back where the last program stands
    assert opened.complaints == []


def test_a_hostile_program_is_only_read(browser: Any, address: str) -> None:
    opened = Opened(browser, address)
    page = opened.page
    page.locator("[role=treeitem]").first.focus()
    opened.press("End", "Enter")
    shown = page.get_by_role("dialog").locator("pre").first.text_content()
    assert shown == HOSTILE.replace("\ud800", "\ufffd") or shown == HOSTILE
    assert page.title() == "run - Hydragen report"
    assert opened.complaints == []


def test_a_name_in_the_table_leads_to_its_programs(browser: Any, address: str) -> None:
    opened = Opened(browser, address)
    page = opened.page
    page.get_by_role("link", name="never <b>").press("Enter")
    assert page.locator("#reader h3:visible").inner_text() == "never <b>"
    assert opened.focused() == "never <b>"
    assert page.get_by_role("tree").get_attribute("aria-label") == "Programs of never <b>"
    page.get_by_role("treeitem").first.press("Enter")
    assert page.locator("dialog .hint code").inner_text().endswith("samples.jsonl 'never <b>' 0")
    opened.press("Escape")
    page.get_by_role("button", name="Previous problem").press("Enter")
    assert page.locator("#reader h3:visible").inner_text() == "half"
    page.get_by_role("button", name="Next problem").click()
    page.reload()
    assert page.locator("#reader h3:visible").inner_text() == "never <b>"  # the address keeps it


def test_an_address_that_was_cut_off_leaves_the_page_as_it_is(browser: Any, address: str) -> None:
    opened = Opened(browser, address + "#task=never%20%3")
    assert opened.page.locator("#reader h3:visible").inner_text() == "half"
    assert opened.complaints == []


def test_a_name_with_half_a_character_leads_to_its_programs(browser: Any, tmp_path: Path) -> None:
    lines = [{"task_id": name, "solution": "print(1)"} for name in ("a", "b\ud800\n<c>")]
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report(Results.read(samples), tmp_path / "report.html")
    opened = Opened(browser, (tmp_path / "report.html").as_uri())
    opened.page.locator("#problem-table a").last.click()
    assert opened.page.locator("#reader h3:visible").text_content() == "b\ufffd\n<c>"
    opened.page.get_by_role("button", name="Previous problem").click()
    opened.page.locator("#task").select_option(index=1)
    assert opened.page.locator("#reader h3:visible").text_content() == "b\ufffd\n<c>"
    assert opened.complaints == []
