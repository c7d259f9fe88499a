"""The documentation site: it builds without a warning, and every link of it leads somewhere."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from playwright.sync_api import Browser

from tests.runs.report.test_browser import browser as browser

ROOT = Path(__file__).parents[1]
PAGES = sorted(page.stem for page in ROOT.glob("docs/*.md"))


class Page(HTMLParser):
    """What a page links to, what can be linked to in it, and the links of its navigation."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.navigation: set[Path] = set()
        self._in_navigation = False
        self._path = path
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the links and anchors of one tag."""
        given = dict(attrs)
        link = given.get("href") or given.get("src")
        if tag == "aside":
            self._in_navigation = given.get("class") == "sidebar-drawer"
        if given.get("id"):
            self.anchors.add(str(given["id"]))
        if link and not urlsplit(link).scheme:
            self.links.append(link)
            if self._in_navigation:
                self.navigation.add(target(self._path, link)[0])

    def handle_endtag(self, tag: str) -> None:
        """Notice the end of the navigation."""
        if tag == "aside":
            self._in_navigation = False


def target(page: Path, link: str) -> tuple[Path, str]:
    """The file and the anchor that a link of a page means."""
    path, anchor = urldefrag(link)
    file = page.parent / unquote(urlsplit(path).path) if path else page
    return file.resolve(), unquote(anchor)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``scripts/build_site`` does it, where a warning is an error."""
    folder = tmp_path_factory.mktemp("site").resolve()
    done = subprocess.run(
        [ROOT / "scripts/build_site", folder],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site, read."""
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_in_the_navigation(site: Path, pages: dict[Path, Page]) -> None:
    """Of every page, so that a reader who came by a link finds all others."""
    expected = {site / f"docs/{name}.html" for name in PAGES}

    assert len(expected) > 10
    for path in expected:
        assert expected - {path} <= pages[path].navigation, path


def test_every_link_and_anchor_leads_somewhere(pages: dict[Path, Page]) -> None:
    """Also those that Sphinx made itself: pictures, styles, headings, downloads."""
    for path, page in pages.items():
        for link in page.links:
            file, anchor = target(path, link)

            assert file.is_file(), f"{path.name}: {link}"
            if anchor and file in pages:
                assert anchor in pages[file].anchors, f"{path.name}: {link}"


def test_the_site_needs_no_network(pages: dict[Path, Page]) -> None:
    """Scripts, styles, fonts and pictures are files of the site."""
    for path in pages:
        for tag in ("<script", "<link", "<img"):
            for piece in path.read_text().split(tag)[1:]:
                assert "://" not in piece.split(">")[0], f"{path.name}: {tag}{piece[:200]}"


def test_the_first_page_leads_to_the_documentation(site: Path, pages: dict[Path, Page]) -> None:
    (link,) = pages[site / "index.html"].links

    assert target(site / "index.html", link)[0] in pages


@pytest.mark.parametrize("width", [1400, 390])
def test_no_page_is_wider_than_the_window(
    site: Path,
    browser: Browser,  # noqa: F811 - the imported fixture
    width: int,
) -> None:
    """Wide tables and blocks scroll on their own; at 1400 pixels, the output of a plan fits."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    for name in PAGES:
        page.goto((site / f"docs/{name}.html").as_uri())

        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    page.goto((site / "docs/looking.html").as_uri())
    output = page.locator("pre", has_text="steps/epoch").first
    scrolls = output.evaluate("block => block.scrollWidth > block.clientWidth")
    assert scrolls == (width < 1400)
    page.close()
