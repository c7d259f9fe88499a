"""The page of the configuration: made from the source, and up to date."""

from pathlib import Path
from runpy import run_path

SCRIPT = Path(__file__).parents[2] / "scripts/write_configuration_page.py"


def test_the_configuration_page_is_made_from_the_source() -> None:
    """Every section, key, type and default; ``scripts/write_configuration_page.py`` writes it."""
    script = run_path(str(SCRIPT))

    assert script["PAGE"].read_text() == script["configuration_page"]()
