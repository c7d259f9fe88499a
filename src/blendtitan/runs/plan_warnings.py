"""What is likely to be a mistake in what a run will read, in sentences."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from blendtitan.config import split_fractions
from blendtitan.dataset.build import Datasets, read_catalog
from blendtitan.dataset.progress import check_repetition
from blendtitan.errors import ConfigError, MixedEodError
from blendtitan.runs.open import RunConfig
from blendtitan.storage.catalog import Catalog

_LEAST_VALIDATION = 100
"""The loss of fewer samples says little."""


def plan_warnings(
    run: RunConfig, datasets: Datasets, catalog: Catalog, rows: tuple[int, int] | None
) -> Iterator[str]:
    """One sentence for each likely mistake.

    ``rows`` are how many rows of documents are shorter than a window, and how many there are.
    """
    yield from _repetition(run, datasets)
    if run.validates:
        yield from _validation(run, datasets)
    yield from _eod(run, catalog)
    yield from _vocabulary(run, catalog)
    if rows and rows[0]:
        yield (
            f"{rows[0]:,} of {rows[1]:,} rows of documents have fewer than seq_length + 1 = "
            f"{run.blend.seq_length + 1:,} tokens: their only window wraps around and repeats "
            f"tokens"
        )
    too_small = int((catalog.split_tokens(0) == 0).sum())
    if too_small and split_fractions(run.blend.split)[0] > 0:
        yield (
            f"{too_small:,} of {len(catalog.prefixes):,} shards are too small to have a document "
            f"for training: the other shards of their corpora are read in their place"
        )


def _repetition(run: RunConfig, datasets: Datasets) -> Iterator[str]:
    assert datasets.train is not None
    try:
        check_repetition(datasets.train, run.num_samples, run.max_epochs)
    except ConfigError as error:
        yield f"{error} Training would stop at its start with this error."


def _validation(run: RunConfig, datasets: Datasets) -> Iterator[str]:
    if datasets.valid is None:
        yield (
            f"validation.enable is true, but no corpus has documents in the valid split, with "
            f"split = {run.blend.split!r}: training would stop at its start"
        )
        return
    assert datasets.train is not None
    samples = datasets.valid.num_windows
    if samples < max(run.global_batch_size, _LEAST_VALIDATION):
        is_less = samples < run.global_batch_size
        least = f"a global batch of {run.global_batch_size:,}" if is_less else _LEAST_VALIDATION
        yield (
            f"the valid split has {samples:,} samples, fewer than {least}: its loss says little. "
            f"Give it a larger part of blendcorpus.split"
        )
    without = [name for name in datasets.train.corpora if name not in datasets.valid.corpora]
    if without:
        yield f"no documents for validation, left out of it: {', '.join(without)}"


def _eod(run: RunConfig, catalog: Catalog) -> Iterator[str]:
    eod_id = run.blend.eod_token_id
    if run.blend.append_eod:
        lacking = int(catalog.lacks_eod.sum())
        if lacking:
            yield (
                f"the documents of {lacking:,} of {len(catalog.prefixes):,} shards do not end in "
                f"EOD ({eod_id}): it is inserted while they are read"
            )
        return
    if eod_id is None:
        return
    try:
        probed = read_catalog(replace(run.blend, append_eod=True, data_cache_path=None))
    except MixedEodError as error:
        yield f"append_eod is false, and {error}"
        return
    lacking = int(probed.lacks_eod.sum())
    if lacking:
        yield (
            f"append_eod is false, and the documents of {lacking:,} of {len(catalog.prefixes):,} "
            f"shards do not end in EOD ({eod_id}): nothing marks where they end"
        )


def _vocabulary(run: RunConfig, catalog: Catalog) -> Iterator[str]:
    try:
        vocab_size = run.tokenizer().vocab_size
    except ConfigError as error:
        yield f"the tokenizer cannot be used, so token types were not compared with it: {error}"
        return
    largest = [int(np.iinfo(catalog.dtype(i)).max) for i in range(len(catalog.prefixes))]
    small = [i for i, most in enumerate(largest) if most < vocab_size - 1]
    if small:
        yield (
            f"the tokenizer has {vocab_size:,} ids, but {len(small):,} of {len(largest):,} shards "
            f"hold no id above {largest[small[0]]:,} ({catalog.dtype(small[0]).name}): they were "
            f"made with another tokenizer, or ids were cut off. The first is "
            f"{catalog.prefixes[small[0]]}"
        )
