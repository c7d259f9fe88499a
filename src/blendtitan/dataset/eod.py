"""Where documents start and end in the tokens that are read.

In most shards EOD ends each document. Where BOS and EOD are one token, it also begins each, and
belongs to the document that it begins: positions restart at it, and it is no label that a mask
leaves in at the end of the document before.

Documents that lack EOD are read as if each were followed by it.

In a shard without EODs, document ``d`` of a split that begins at document ``f`` starts
``document_start(d) - document_start(f) + (d - f)`` tokens into the split: one inserted EOD for
each document before it. Nothing is kept in memory: document starts are read from the ``.idx``.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import MixedEodError
from blendtitan.storage.catalog import EOD_BEGINS, EOD_ENDS, EOD_ENDS_AND_BEGINS, Catalog
from blendtitan.storage.reader import ShardIndex


def corpus_eod_roles(catalog: Catalog, corpora: Sequence[str]) -> NDArray[np.uint8] | None:
    """Where EOD stands in the documents of each corpus, as ``Catalog.eod_roles`` says it.

    Returns:
        Shape ``(num_corpora,)``. A corpus whose shards differ has ``EOD_ENDS``. None: all have.
    """
    if not catalog.eod_roles.any():
        return None
    of_corpus: dict[str, set[int]] = {name: set() for name in corpora}
    for name, role in zip(catalog.corpora, catalog.eod_roles.tolist(), strict=True):
        of_corpus.setdefault(name, set()).add(role)
    roles = [of_corpus[name].pop() if len(of_corpus[name]) == 1 else EOD_ENDS for name in corpora]
    return np.array(roles, np.uint8) if any(roles) else None


def starts_document(
    before: NDArray[np.integer],
    tokens: NDArray[np.integer],
    eod_id: int,
    roles: NDArray[np.uint8] | None,
) -> NDArray[np.bool_]:
    """Whether each token starts a document, by itself and the token before it.

    Args:
        before: The token before each of ``tokens``. Shape ``(B, n)``.
        tokens: Shape ``(B, n)``.
        eod_id: Token that stands at the ends of documents.
        roles: Where it stands in each row, as ``Catalog.eod_roles`` says it. Shape ``(B,)``. None:
            at the end of documents in all rows.
    """
    is_start = before == eod_id
    if roles is None or not roles.any():
        return is_start
    is_eod = tokens == eod_id
    by_role = {EOD_ENDS: is_start, EOD_ENDS_AND_BEGINS: is_start & is_eod, EOD_BEGINS: is_eod}
    return np.choose(roles[:, None], [by_role[role] for role in sorted(by_role)])


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
