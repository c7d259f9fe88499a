"""Document starts in rows of tokens, and the labels, positions and masks that depend on them.

In most shards EOD ends each document. Where BOS and EOD are one token, it also begins each, and
belongs to the document that it begins: positions restart at it, and as a label it is beyond the
end of the document before.

Shapes: B = rows, L = sequence length.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import BlendConfig
from blendtitan.storage.catalog import EOD_BEGINS, EOD_ENDS, EOD_ENDS_AND_BEGINS, Catalog

IntArray = NDArray[np.int64]

IGNORE_INDEX = -100
"""Label that PyTorch's cross entropy ignores."""


def corpus_eod_roles(catalog: Catalog, corpora: Sequence[str]) -> NDArray[np.uint8] | None:
    """The place of EOD in the documents of each corpus; see ``Catalog.eod_roles``.

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
    """Whether each token starts a document, judged by itself and the token before it.

    Args:
        before: The token before each of ``tokens``. Shape ``(B, n)``.
        tokens: Shape ``(B, n)``.
        eod_id: Token that stands at the ends of documents.
        roles: Its place in the documents of each row; see ``Catalog.eod_roles``. Shape ``(B,)``.
            None: at the end, in all rows.
    """
    is_start = before == eod_id
    if roles is None or not roles.any():
        return is_start
    is_eod = tokens == eod_id
    by_role = {EOD_ENDS: is_start, EOD_ENDS_AND_BEGINS: is_start & is_eod, EOD_BEGINS: is_eod}
    return np.choose(roles[:, None], [by_role[role] for role in sorted(by_role)])


def mask_labels(
    labels: IntArray,
    input_ids: NDArray[np.integer],
    config: BlendConfig,
    roles: NDArray[np.uint8] | None,
) -> None:
    """Mask in place, with ``eod_mask_loss``, the labels that are the first token of a document.

    Args:
        labels: Shape ``(B, L)``.
        input_ids: The token before each of them. Shape ``(B, L)``.
        config: Settings of the blend.
        roles: See ``starts_document``.
    """
    if config.eod_mask_loss:
        assert config.eod_token_id is not None
        is_start = starts_document(input_ids, labels, config.eod_token_id, roles)
        labels[is_start] = IGNORE_INDEX


def document_starts(
    input_ids: NDArray[np.integer], *, eod_id: int | None, roles: NDArray[np.uint8] | None = None
) -> IntArray:
    """The start of the document at each place of each window, as a place. Shapes ``(B, L)``.

    A document that began before the window starts at 0. Without ``eod_id``, each window is taken
    as one document.
    """
    starts = np.zeros(input_ids.shape, np.int64)
    if eod_id is not None:
        rows, places = np.nonzero(
            starts_document(input_ids[:, :-1], input_ids[:, 1:], eod_id, roles)
        )
        starts[rows, places + 1] = places + 1
        np.maximum.accumulate(starts, axis=1, out=starts)
    return starts


def positions_of(starts: IntArray) -> IntArray:
    """Place of each token in its document. Shapes ``(B, L)``."""
    return np.arange(starts.shape[1]) - starts


def attention_mask_of(starts: IntArray) -> NDArray[np.bool_]:
    """True where a token may attend to another: not later, same document. ``(B, 1, L, L)``."""
    same_document = starts[:, :, None] == starts[:, None, :]
    return np.tril(same_document)[:, None]
