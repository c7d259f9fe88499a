"""The counts of one pass over the tokens of a shard, for any division into blocks."""

from pathlib import Path

import numpy as np
import pytest

from blendtitan.shards import tokens as tokens_module
from blendtitan.shards.tokens import TextSymbols, summarize_tokens
from blendtitan.storage.reader import OpenFile

EOD, BOS, UNK = 1, 2, 0


@pytest.mark.parametrize("block_tokens", [1, 2, 3, 5, 64])
def test_texts_are_counted_as_by_brute_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_tokens: int
) -> None:
    """A document may begin in one block of the file and end in another."""
    monkeypatch.setattr(tokens_module, "_BLOCK_TOKENS", block_tokens)
    rng = np.random.default_rng(block_tokens)
    documents = [rng.integers(0, 4, rng.integers(0, 5)).astype("<u2") for _ in range(300)]
    path = tmp_path / "a.bin"
    path.write_bytes(np.concatenate(documents).tobytes())
    ends = np.cumsum([len(document) for document in documents])

    found = summarize_tokens(
        OpenFile.open(str(path)),
        np.dtype("<u2"),
        ends,
        eod_id=EOD,
        vocab_size=None,
        symbols=TextSymbols(BOS, UNK),
    )

    assert found.num_unknown == sum(UNK in document for document in documents)
    assert found.num_eod_only == sum(d.tolist() in ([EOD], [BOS, EOD]) for d in documents)
