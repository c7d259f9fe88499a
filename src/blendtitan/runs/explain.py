"""Which documents made a step, a slot, or a token of a run; any of them, at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import MAX_SLOT, check_at_least
from blendtitan.errors import ConfigError, VocabularyError
from blendtitan.pace import Paces, step_of
from blendtitan.run.segments import slot_at_tokens
from blendtitan.runs.contents import Contents, DocumentPart
from blendtitan.runs.slots import Stretch, Window, step_slots
from blendtitan.runs.source import Source
from blendtitan.tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Ranks:
    """How a step is dealt to the ranks."""

    number: int
    micro_batch: int
    """Samples that one rank reads at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a sample is read. Everything is counted from 0, but for the step, from 1."""

    step: int | None
    """None: how many samples a step has is not known."""

    sample: int | None
    """Place in the global batch."""

    rank: int | None = None
    """None: on how many ranks is not known; likewise what follows."""

    micro_batch: int | None = None
    """Running number among those of the step."""

    row: int | None = None
    """Place in the rank's micro batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What a sample has of one shard."""

    stretch: Stretch
    prefix: str | None
    """Path of the shard, without suffix; None: it is not there, and so nothing below is known."""

    byte_range: tuple[int, int] | None = None
    """In the ``.bin``: the first byte, and the one after the last."""

    documents: tuple[DocumentPart, ...] = ()
    texts: tuple[str | None, ...] = ()
    """Text of each document's tokens; None: not asked for, or not of this tokenizer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """One sample."""

    window: Window
    place: Place
    parts: tuple[Part, ...]


def ranks_of(source: Source, number: int | None) -> Ranks | None:
    """How a step is dealt to so many ranks; None where their number is not given.

    Raises:
        ConfigError: The run's configuration, which tells the micro batch, is not given.
    """
    if number is None:
        return None
    check_at_least("ranks", number, 1)
    if source.run is None:
        raise ConfigError("ranks read micro batches: name the run's configuration, which has them")
    return Ranks(number, source.run.micro_batch)


def select_step(
    source: Source,
    step: int,
    *,
    ranks: Ranks | None = None,
    rank: int | None = None,
    sample: int | None = None,
) -> list[int]:
    """Slots of a step, of one rank's part of it, or of one sample of these.

    Raises:
        ConfigError: There is no such step, rank or sample.
    """
    slots = list(step_slots(source.slots.paces, step))
    if rank is not None:
        if ranks is None or not 0 <= rank < ranks.number:
            known = "--ranks" if ranks is None else f"a rank from 0 to {ranks.number - 1}"
            raise ConfigError(f"rank is {rank}, expected {known} with it")
        slots = [slot for slot in slots if place_of(source.slots.paces, slot, ranks).rank == rank]
    if sample is None:
        return slots
    if not 0 <= sample < len(slots):
        raise ConfigError(
            f"sample is {sample}, expected 0 to {len(slots) - 1}: "
            + ("the step" if rank is None else "the rank's part of the step")
            + f" has {len(slots):,} samples"
        )
    return [slots[sample]]


def select_tokens(source: Source, tokens: int) -> list[int]:
    """The slot of the token that so many tokens of the run come before.

    Raises:
        ConfigError: The number is below 0.
    """
    check_at_least("tokens", tokens, 0)
    return [slot_at_tokens(tokens + 1, source.slots.lengths) - 1]


def place_of(paces: Paces, slot: int, ranks: Ranks | None) -> Place:
    """Where a slot is read.

    Raises:
        ConfigError: A step cannot be dealt to so many ranks.
    """
    if not paces:
        return Place(step=None, sample=None)
    step = step_of(paces, slot)
    slots = step_slots(paces, step)
    sample = slot - slots.start
    if ranks is None:
        return Place(step=step, sample=sample)
    stride = ranks.number * ranks.micro_batch
    if len(slots) % stride:
        raise ConfigError(
            f"a step has {len(slots):,} samples, expected a multiple of {stride:,}: "
            f"{ranks.number:,} ranks of {ranks.micro_batch:,} samples at once"
        )
    micro_batch, of_ranks = divmod(sample, stride)
    rank, row = divmod(of_ranks, ranks.micro_batch)
    return Place(step=step, sample=sample, rank=rank, micro_batch=micro_batch, row=row)


def explain_slots(
    source: Source, slots: Sequence[int], *, ranks: Ranks | None = None, with_texts: bool = True
) -> list[Explained]:
    """What some slots are, and the documents, bytes and texts of those whose data is there.

    Raises:
        ConfigError: There is no such slot, or the tokenizer cannot be used.
        ShardError: A shard is damaged.
    """
    if any(not 0 <= slot < MAX_SLOT for slot in slots):
        raise ConfigError(f"slots {min(slots)} to {max(slots)}, expected 0 to 10^15 - 1")
    tokenizer = None
    if with_texts and source.run is not None and source.contents is not None:
        tokenizer = source.run.tokenizer()
    return [
        Explained(
            window=window,
            place=place_of(source.slots.paces, window.slot, ranks),
            parts=tuple(_part(source.contents, stretch, tokenizer) for stretch in window.stretches),
        )
        for window in source.slots.windows(np.array(slots, np.int64))
    ]


def _part(contents: Contents | None, stretch: Stretch, tokenizer: Tokenizer | None) -> Part:
    if contents is None or not contents.holds(stretch):
        return Part(stretch=stretch, prefix=None)
    documents = contents.documents(stretch)
    return Part(
        stretch=stretch,
        prefix=contents.prefix(stretch),
        byte_range=contents.byte_range(stretch),
        documents=tuple(documents),
        texts=tuple(_texts(contents, stretch, documents, tokenizer)),
    )


def _texts(
    contents: Contents,
    stretch: Stretch,
    documents: Sequence[DocumentPart],
    tokenizer: Tokenizer | None,
) -> Iterator[str | None]:
    if tokenizer is None:
        yield from [None] * len(documents)
        return
    tokens = contents.tokens([stretch])
    at = 0
    for document in documents:
        yield decoded(tokenizer, tokens[at : at + document.count])
        at += document.count


def decoded(tokenizer: Tokenizer, tokens: NDArray[np.integer]) -> str | None:
    """Text of some tokens; None where one is not of this tokenizer."""
    try:
        return tokenizer.decode(tokens)
    except VocabularyError:
        return None
