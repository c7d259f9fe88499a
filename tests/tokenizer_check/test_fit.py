"""Tokens without a record: every tokenizer knows its own, and no other's."""

import itertools

import numpy as np
import pytest

from blendtitan.tokenizer_check.fit import DocumentStart, Fit, Verdict, fit
from blendtitan.tokenizers import Tokenizer
from tests.tokenizer_check.conftest import DOCUMENTS


def starts(tokenizer: Tokenizer, *, size: int = 128) -> list[DocumentStart]:
    """The first tokens of the documents, as a shard of this tokenizer has them."""
    encoded = [np.array(tokenizer.encode(text), np.int64) for text in DOCUMENTS]
    return [DocumentStart(ids[:size], len(ids) > size) for ids in encoded]


def apart(tokenizer: Tokenizer) -> np.ndarray:
    return np.array(sorted(tokenizer.control_ids()), np.int64)


def test_every_tokenizer_knows_its_own_tokens(tokenizers: dict[str, Tokenizer]) -> None:
    """Also those that forget case, spaces or characters."""
    for name, own in tokenizers.items():
        found = fit(own, starts(own), apart=apart(own))

        assert found.verdict is Verdict.MATCH, f"{name}: {found}"


def test_no_tokenizer_takes_the_tokens_of_another_for_its_own(
    tokenizers: dict[str, Tokenizer],
) -> None:
    """110 pairs of eleven, among them other sizes, patterns and orders of one vocabulary."""
    documents = {name: starts(tokenizer) for name, tokenizer in tokenizers.items()}
    for made, read in itertools.permutations(tokenizers, 2):
        found = fit(tokenizers[read], documents[made], apart=apart(tokenizers[read]))

        assert found.verdict is Verdict.MISMATCH, f"{made} read as {read}: {found}"


def test_a_token_that_the_tokenizer_does_not_have_is_a_mismatch(
    tokenizers: dict[str, Tokenizer],
) -> None:
    own = tokenizers["byte-level"]
    documents = [*starts(own), DocumentStart(np.array([5, own.vocab_size]), False)]

    assert fit(own, documents, apart=apart(own)).verdict is Verdict.MISMATCH


def test_tokens_apart_from_text_are_not_compared(tokenizers: dict[str, Tokenizer]) -> None:
    """EOD beyond the vocabulary, as some shards have, and control symbols inside documents."""
    own = tokenizers["byte-level"]
    eod = own.vocab_size + 7
    documents = [
        DocumentStart(np.array([own.eos_id, *tokens, own.eos_id, *tokens, eod]), False)
        for tokens, _ in starts(own)
    ]
    found = fit(own, documents, apart=np.append(apart(own), eod))

    assert found.verdict is Verdict.MATCH
    assert found.lost == 0


def test_a_text_full_of_control_symbols_is_no_match() -> None:
    """What lies between them may come back by chance."""
    shuffled = Fit(shuffled_pairs=600, shuffled_lost=90, shuffled_live_lost=90, control=400)

    assert (shuffled + Fit(pairs=600)).verdict is Verdict.UNCLEAR
    assert (shuffled + Fit(pairs=600, lost=90, live_lost=90)).verdict is Verdict.MISMATCH


def test_too_few_tokens_are_unclear(tokenizers: dict[str, Tokenizer]) -> None:
    own = tokenizers["byte-level"]

    assert fit(own, [], apart=apart(own)).verdict is Verdict.UNCLEAR
    assert fit(own, starts(own, size=16)[:1], apart=apart(own)).verdict is Verdict.UNCLEAR


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [(0, Verdict.MATCH), (6, Verdict.MATCH), (8, Verdict.UNCLEAR), (12, Verdict.MISMATCH)],
)
def test_losses_are_measured_by_those_of_shuffled_tokens(lost: int, verdict: Verdict) -> None:
    found = Fit(
        pairs=100,
        lost=lost,
        live_lost=lost,
        shuffled_pairs=1000,
        shuffled_lost=400,
        shuffled_live_lost=400,
    )

    assert found.verdict is verdict


def test_tokens_that_never_come_back_prove_nothing() -> None:
    """Of a tokenizer that drops characters, its own tokens are lost as often as shuffled ones."""
    found = Fit(pairs=3000, lost=100, shuffled_pairs=3000, shuffled_lost=100)

    assert found.verdict is Verdict.UNCLEAR


def test_a_tokenizer_that_puts_spaces_between_tokens_proves_nothing() -> None:
    """Without a decoder everything comes back: that is no sign of a match."""
    found = Fit(pairs=5000, lost=0, shuffled_pairs=5000, shuffled_lost=3)

    assert found.verdict is Verdict.UNCLEAR
