"""Documents that lack EOD, read as if each were followed by it.

In a shard without EODs, document ``d`` of a split that begins at document ``f`` starts
``document_start(d) - document_start(f) + (d - f)`` tokens into the split: one inserted EOD for each
document before it. Nothing is kept in memory: document starts are read from the ``.idx``.
"""

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import MixedEodError
from blendtitan.storage.reader import ShardIndex


def document_at_with_eod(index: ShardIndex, first_document: int, offset: int) -> int:
    """The document that holds the token at ``offset``, or whose EOD it is."""
    first_token = index.document_start(first_document)

    def start(document_id: int) -> int:
        return index.document_start(document_id) - first_token + document_id - first_document

    documents = range(first_document, index.num_documents)
    return documents[bisect_right(documents, offset, key=start) - 1]


def read_with_eod(
    index: ShardIndex,
    read_tokens: Callable[[int, int], NDArray[np.integer]],
    documents: range,
    offset: int,
    out: NDArray[np.integer],
    *,
    eod_id: int,
) -> None:
    """Fill ``out`` with tokens of a split, EOD inserted after each of its documents.

    Args:
        index: The shard's ``.idx``.
        read_tokens: From an offset in the shard and a count to that many tokens.
        documents: Documents of the split.
        offset: Where to begin, in tokens from the split's start, inserted EODs included.
        out: Shape ``(count,)``; the split has at least ``offset + count`` tokens.
        eod_id: The token to insert.

    Raises:
        MixedEodError: A document already ends in EOD.
    """
    document_id = document_at_with_eod(index, documents.start, offset)
    # Every document has at least one token here, its EOD: more than this many are not touched.
    last = min(document_id + len(out), documents.stop)
    starts = index.document_starts(document_id, last)
    first_token = index.document_start(documents.start)
    inserted_before = document_id - documents.start
    eods = starts[1:] - first_token + inserted_before + np.arange(last - document_id) - offset
    eods = eods[(eods >= 0) & (eods < len(out))]
    is_eod = np.zeros(len(out), np.bool_)
    is_eod[eods] = True
    tokens = read_tokens(first_token + offset - inserted_before, len(out) - len(eods))
    out[is_eod] = eod_id
    out[~is_eod] = tokens
    before = eods[eods > 0] - 1
    doubled = before[(out[before] == eod_id) & ~is_eod[before]]
    if len(doubled):
        found = document_at_with_eod(index, documents.start, offset + int(doubled[0]))
        raise MixedEodError(
            f"{index.prefix}: document {found} ends in EOD ({eod_id}), but others of the shard "
            f"do not. Tokenise the shard again, or set append_eod = false to read it as it is."
        )
