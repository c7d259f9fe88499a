"""The rows of a run that was changed, as the order sees them."""

from typing import Protocol, Self

from blendtitan.order.slots import IntArray, Places, SlotOrder


class Begun(Protocol):
    """The progress of the rows before the first slot, in a run that was changed."""

    def places(self, order: SlotOrder, corpora: IntArray, draws: IntArray) -> Places:
        """The places of some draws of the order."""
        ...

    def first_tokens(self, places: Places) -> IntArray:
        """Offset in its row of the first token of each window. Shape ``(n,)``."""
        ...

    def stretches(self, row: int, start: int, seq_len: int) -> list[tuple[int, int]]:
        """The pieces of a window of a remainder, as ``(offset, tokens)`` in its row."""
        ...

    def only(self, corpus: int) -> Self:
        """The same for one corpus."""
        ...
