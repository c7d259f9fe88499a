"""The page in a real Chromium: light, dark, on a phone and printed, without network access."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from playwright.sync_api import Browser, Page, sync_playwright
from tokenizers.models import WordLevel

from blendtitan.runs.report.facts import gather_run, gather_runs
from blendtitan.runs.report.figures import DARK, LIGHT
from blendtitan.runs.report.page import report_page, write_page
from tests.conftest import EOD, wait_until
from tests.runs.conftest import WriteRun
from tests.runs.report.conftest import TrainedRun

HOSTILE = "</script><script>window.hacked=1</script><img/src=x/onerror=window.hacked=1>{{7*7}}"
NAME = "<b>web&amp;%{y}"
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "is_mobile": True,
    "has_touch": True,
}
SCREENS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "dark phone": PHONE | {"color_scheme": "dark"},
}

CLIPPED = """() => [...document.querySelectorAll(".plot")].flatMap((plot) => {
  const box = plot.getBoundingClientRect();
  const outside = (r) => r.width > 0 && (r.left < box.left - 1 || r.right > box.right + 1
    || r.top < box.top - 1 || r.bottom > box.bottom + 1);
  return [...plot.querySelectorAll("text:not(.nsewdrag text)")]
    .filter((text) => outside(text.getBoundingClientRect())).map((text) => text.textContent);
})"""
"""Texts of figures that are cut off by the edge of their figure."""

HIDING = """() => [...document.querySelectorAll(".plot")].flatMap((plot) => {
  const texts = [...plot.querySelectorAll(".annotation-text")];
  const found = [".nsewdrag", ".modebar"].map((name) => plot.querySelector(name));
  const boxes = [...texts, ...found.filter(Boolean)].map((it) => it.getBoundingClientRect());
  const meets = (a, b) => a !== b && a.left < b.right && b.left < a.right
    && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const hides = (_, i) => boxes.some((box) => meets(boxes[i], box));
  return texts.filter(hides).map((text) => text.textContent);
})"""
"""Labels of figures that hide data or each other, or that the mode bar hides when it is shown."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, which ``scripts/set_up test`` installs, or playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    # Chromium's sandbox refuses to run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path at which the first test leaves the report for the others."""
    return tmp_path_factory.mktemp("report") / "report.html"


@pytest.fixture
def report(trained_run: TrainedRun, report_path: Path) -> Path:
    """A comparison of two runs."""
    if not report_path.exists():
        runs = gather_runs([trained_run("a"), trained_run("b", of_loss=5)])
        write_page(report_page(runs), report_path)
    return report_path


def opened(browser: Browser, path: Path, **screen: Any) -> tuple[Page, list[str]]:
    """A page, and its violations: messages, errors, requests other than its own file."""
    page = browser.new_page(**screen)
    page.set_default_timeout(120_000)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on(
        "request",
        lambda request: None if request.url == path.as_uri() else wrong.append(request.url),
    )
    page.goto(path.as_uri())
    page.wait_for_function(
        "[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))"
    )
    return page, wrong


Shown = Callable[[str], tuple[Page, list[str]]]


@pytest.fixture(scope="module")
def kept() -> Iterator[dict[str, tuple[Page, list[str]]]]:
    """The pages that tests share, initially none."""
    pages: dict[str, tuple[Page, list[str]]] = {}
    yield pages
    for page, _ in pages.values():
        page.close()


@pytest.fixture
def shown(browser: Browser, report: Path, kept: dict[str, tuple[Page, list[str]]]) -> Shown:
    """``shown("dark")`` is the page on a screen, and its violations. Drawing one takes seconds."""

    def show(screen: str) -> tuple[Page, list[str]]:
        if screen not in kept:
            kept[screen] = opened(browser, report, **SCREENS[screen])
        return kept[screen]

    return show


def color_of(page: Page, selector: str, kind: str) -> str:
    """A colour as it is drawn, as ``#rrggbb``; none while a figure is drawn anew."""
    found: str = page.locator(selector).first.evaluate(
        "(element, kind) => getComputedStyle(element)[kind]", kind
    )
    return "".join(["#", *(f"{int(part):02x}" for part in re.findall(r"\d+", found))])


@pytest.mark.parametrize("screen", SCREENS)
def test_it_is_drawn_without_a_message_a_request_or_an_overflow(shown: Shown, screen: str) -> None:
    page, wrong = shown(screen)
    colors = DARK if "dark" in screen else LIGHT

    assert page.locator(".plot .main-svg").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CLIPPED) == []
    assert "trained up to here" in page.locator(".annotation-text").all_text_contents()
    assert page.evaluate(HIDING) == []
    assert color_of(page, "body", "backgroundColor") == colors["paper"]
    assert color_of(page, "body", "color") == colors["ink"]
    assert color_of(page, ".plot .xtick text", "fill") == colors["ink"]
    assert wrong == []


def test_small_numbers_on_axes_are_plain(
    browser: Browser, trained_run: TrainedRun, tmp_path: Path
) -> None:
    """Of a very short run, plotly would write epochs such as ``100\u03bc``."""
    run = gather_run(trained_run("run"), name="run")
    corpora = tuple(replace(c, epochs=3e-4, epochs_at_end=7e-4) for c in run.corpora)
    path = tmp_path / "short.html"
    write_page(report_page([replace(run, corpora=corpora)]), path)
    page, _ = opened(browser, path)
    ticks = page.locator("#corpora .xtick text").all_text_contents()
    page.close()

    assert "0.0006" in ticks
    assert all(re.fullmatch(r"[\d.]+", tick) for tick in ticks)


@pytest.mark.parametrize("step", [1, 20, 39])
def test_the_label_of_a_change_is_never_cut_off(
    browser: Browser, write_run: WriteRun, tmp_path: Path, step: int
) -> None:
    segment = [{"from_step": step, "shares": {"web": 0.5}}]
    corpora = {"web": (0.6, [900]), "code": (0.4, [450])}
    config = write_run(corpora, training={"steps": 40}, blendcorpus={"segment": segment})
    path = tmp_path / "changed.html"
    write_page(report_page([gather_run(config, name="run")]), path)
    page, _ = opened(browser, path, viewport={"width": 1400, "height": 900})
    labels = page.locator(".annotation-text").all_text_contents()
    clipped = page.evaluate(CLIPPED)
    page.close()

    assert labels == [f"segment after step {step}"]
    assert clipped == []


def test_figures_follow_when_the_theme_changes(shown: Shown) -> None:
    page, wrong = shown("light")
    for scheme, ink in (("dark", DARK["ink"]), ("light", LIGHT["ink"])):
        page.emulate_media(color_scheme=scheme)

        wait_until(lambda: color_of(page, ".plot .xtick text", "fill") == ink)  # noqa: B023
    assert wrong == []


def test_it_is_printed_light_whole_and_no_wider_than_a_sheet(shown: Shown) -> None:
    page, wrong = shown("dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 690, "height": 1000})

    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert color_of(page, "body", "backgroundColor") == LIGHT["paper"]
    assert color_of(page, ".plot .xtick text", "fill") == LIGHT["ink"]
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert wrong == []


def test_tables_sort_by_a_click_and_by_the_keyboard(shown: Shown) -> None:
    """Numbers as numbers, the largest first; then the other way round."""
    page, wrong = shown("light")
    table = page.get_by_role("table", name="a: contents of the train split")
    heading = table.get_by_role("columnheader", name="tokens")
    tokens = table.locator("tbody td:nth-child(4)")
    heading.get_by_role("button").click()
    falling = [int(text.replace(",", "")) for text in tokens.all_inner_texts()]

    assert falling == sorted(falling, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").press("Enter")
    rising = [int(text.replace(",", "")) for text in tokens.all_inner_texts()]
    assert rising == falling[::-1]
    assert heading.get_attribute("aria-sort") == "ascending"
    table.get_by_role("columnheader", name="corpus").get_by_role("button").click()
    assert table.locator("tbody th").all_inner_texts() == ["books", "code", "web"]
    assert heading.get_attribute("aria-sort") is None
    assert wrong == []


def test_hostile_texts_and_names_are_shown_and_do_nothing(
    browser: Browser, write_run: WriteRun, tmp_path: Path
) -> None:
    """Every word of every document is markup; so is the name of the corpus."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    vocabulary = {f"{HOSTILE}{i}": i for i in range(6000) if i != EOD} | {"</s>": EOD}
    tokenizer = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token=f"{HOSTILE}0"))
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    config = write_run(
        {NAME: (1, [300]), "code": (1, [300])}, model={"tokenizer_path": str(folder)}
    )
    path = tmp_path / "report.html"
    write_page(report_page([gather_run(config, name=HOSTILE)]), path)
    page, wrong = opened(browser, path)
    page.locator("summary").first.click()

    assert HOSTILE in page.locator("pre").first.inner_text()
    assert page.locator("h1").inner_text() == HOSTILE
    assert NAME in page.locator("tbody th").all_inner_texts()
    assert NAME in page.locator(".plot .legendtext").all_text_contents()
    assert page.evaluate("window.hacked") is None
    assert wrong == []
    page.close()


def test_the_page_runs_no_script_but_its_own(shown: Shown) -> None:
    """Even unescaped markup in a text would be harmless."""
    page, wrong = shown("dark phone")
    assert wrong == []
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
        }"""
    )

    assert page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in message for message in wrong)
    wrong.clear()
