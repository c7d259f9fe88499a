"""Colours of the page and of its figures, in light and in dark.

Figures name colours ``@ink`` or ``@series0``; the page replaces the names by those of its theme.
Series are those of Okabe and Ito, which the colour-blind tell apart, made lighter in the dark.
"""

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#1b1f24",
    "muted": "#59636e",
    "grid": "#dfe3e8",
    "accent": "#0b63b0",
    "others": "#a9b1ba",
    "series0": "#0072b2",
    "series1": "#d55e00",
    "series2": "#009e73",
    "series3": "#c4609c",
    "series4": "#d99000",
    "series5": "#4aa8de",
    "series6": "#3a3f46",
}

DARK = {
    "paper": "#14171c",
    "panel": "#1c2027",
    "ink": "#e6e9ed",
    "muted": "#9aa4af",
    "grid": "#323944",
    "accent": "#6cb6ff",
    "others": "#6b7580",
    "series0": "#3f9fe8",
    "series1": "#f0803c",
    "series2": "#2fc297",
    "series3": "#e08fc0",
    "series4": "#f2b632",
    "series5": "#9bd8f8",
    "series6": "#f4ec70",
}

NUM_SERIES = sum(name.startswith("series") for name in LIGHT)

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "cross")
PATTERNS = ("", "/", "x", "\\", "-", "+", "|", ".")


def series(number: int) -> str:
    """Name of the colour of the ``number``-th thing that is drawn."""
    return f"@series{number % NUM_SERIES}"
