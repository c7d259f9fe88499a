"""Splits: which documents of a shard are for training, validation and test."""


def document_cuts(num_documents: int, fractions: tuple[float, float, float]) -> list[int]:
    """Cut the documents of one shard into train, valid and test.

    Args:
        num_documents: Documents of the shard.
        fractions: Share of each split; they sum to 1.

    Returns:
        Four growing numbers from 0 to ``num_documents``: split ``s`` has the documents
        ``cuts[s]`` to ``cuts[s + 1]``, the latter not included. Every document is in one split.

    Source: Megatron-LM, ``get_train_valid_test_split_``: each size is rounded to nearest (halves
    to even), and the excess or lack of the sum is moved to the first split that is not empty.
    """
    cuts = [0]
    for fraction in fractions:
        cuts.append(cuts[-1] + round(fraction * num_documents))
    excess = cuts[-1] - num_documents
    if excess == 0:
        return cuts
    # Megatron moves it to train even where that is to have nothing: it would lose or repeat
    # documents there, as it would where the first split is smaller than the excess.
    first = next(s for s, fraction in enumerate(fractions) if fraction > 0)
    return [*cuts[: first + 1], *(max(0, cut - excess) for cut in cuts[first + 1 :])]
