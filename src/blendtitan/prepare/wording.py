"""Numbers in messages."""


def number_of(number: int, one: str, many: str = "") -> str:
    """A number and what it counts, as in ``1 file`` and ``2,000 files``."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
