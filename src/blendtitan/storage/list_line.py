"""One line of a file list, whatever form the list has."""

from typing import NamedTuple


class Line(NamedTuple):
    """What one line of a file list says."""

    where: str
    """Names the line in errors."""

    path: str
    weight: float | None = None
    corpus: str | None = None

    @property
    def name(self) -> str:
        """File name of the path."""
        return self.path[self.path.rfind("/") + 1 :]
