"""The pictures of the documentation: made from the order, and up to date."""

from pathlib import Path
from runpy import run_path
from xml.etree import ElementTree

import pytest

from tests.test_docs import ROOT

SCRIPT = ROOT / "scripts/draw_pictures.py"
PICTURES = sorted(ROOT.glob("docs/pictures/*.svg"))


@pytest.mark.parametrize("name", [path.name for path in PICTURES])
def test_a_picture_is_what_the_order_gives(name: str) -> None:
    """``scripts/draw_pictures.py`` draws them."""
    script = run_path(str(SCRIPT))

    assert (script["PICTURES"] / name).read_text() == script["DRAWN"][name]()
    assert set(script["DRAWN"]) == {path.name for path in PICTURES}


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_legible_in_light_and_dark(path: Path) -> None:
    """It has a ground of its own, and every colour of the one has its counterpart in the other."""
    svg = ElementTree.parse(path).getroot()
    style = next(svg.iter("{http://www.w3.org/2000/svg}style")).text or ""
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    coloured = {rule.split("{")[0].strip() for rule in light.split("}") if "#" in rule}
    ground = svg.find("{http://www.w3.org/2000/svg}rect")

    assert ground is not None
    assert ground.get("class") == "ground"
    for name in coloured:
        assert f"\n{name} {{" in dark, name
