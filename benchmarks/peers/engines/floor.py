"""The least that a start needs: the header of every ``.idx``, in a plain loop."""

from request import Request
from sources import Source

HEADER_BYTES = 34


def once(request: Request, source: Source) -> None:
    for prefix in source.prefixes:
        with open(f"{prefix}.idx", "rb", buffering=0) as file:
            file.read(HEADER_BYTES)
