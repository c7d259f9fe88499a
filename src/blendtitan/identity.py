"""The identity of a tokenizer, which is recorded with every shard and compared later."""

from dataclasses import dataclass

SHOWN_HASH = 12
"""Characters of a hash that messages show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerIdentity:
    """Everything that determines the ids of a tokenizer."""

    hash: str
    """``SCHEME:HEX``. Hashes of one kind and scheme are equal if and only if both tokenizers give
    every text the same ids. Other hashes cannot be compared."""

    name: str
    """File and folder of the tokenizer, for messages. Not compared."""

    kind: str
    """Library that defines the ids, such as ``sentencepiece``."""

    vocab_size: int
    """Smallest number that is larger than every id."""

    eod_id: int | None
    """Token that ends a document. None: there is no such token."""

    def can_be_compared(self, other: "TokenizerIdentity") -> bool:
        """Whether the two hashes were made in the same way."""
        schemes = (self.hash.partition(":")[0], other.hash.partition(":")[0])
        return self.kind == other.kind and schemes[0] == schemes[1]

    def gives_ids_of(self, other: "TokenizerIdentity") -> bool:
        """Whether both certainly give every text the same ids. EOD is not compared."""
        return self.can_be_compared(other) and self.hash == other.hash

    def is_same(self, other: "TokenizerIdentity | None") -> bool:
        """Whether both certainly give every text the same document, EOD included."""
        return other is not None and self.gives_ids_of(other) and self.eod_id == other.eod_id

    def __str__(self) -> str:
        digest = self.hash.partition(":")[2][:SHOWN_HASH]
        eod = "no EOD" if self.eod_id is None else f"EOD {self.eod_id}"
        return f"{self.kind} {self.name!r} ({self.vocab_size:,} ids, {eod}, hash {digest})"
