"""Warnings of a run's plan: mistakes that are likely, and errors that training would end with."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from blendtitan.config import split_fractions
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.build import Datasets, read_catalog
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.progress import check_repetition
from blendtitan.dataset.short_rows import short_rows
from blendtitan.errors import ConfigError, MixedEodError
from blendtitan.runs.open import RunConfig
from blendtitan.runs.prepared import unprepared_edit
from blendtitan.runs.row_reads import removal_notes
from blendtitan.settings.batches import check_seq_len
from blendtitan.settings.known_models import MODELS, TORCHTITAN
from blendtitan.storage.catalog import Catalog
from blendtitan.visible import counted

_STOPS = "Training would stop at its start with this error."
_LEAST_VALIDATION = 100  # the loss of fewer samples says little


def likely_mistakes(
    run: RunConfig, train: Dataset, datasets: Datasets, catalog: Catalog
) -> Iterator[str]:
    """The warnings about the settings and the data of a run."""
    for folder in run.path.parents[:2]:  # a run folder, or its outputs
        if edit := unprepared_edit(folder, run.blend.data_file_list):
            yield f"{edit} This plan is of the data as it was prepared."
    yield from _refusals(run, train)
    if run.validates:
        yield from _validation_warnings(run, train, datasets.valid)
    yield from _eod_warnings(run, catalog)
    yield from removal_notes(catalog)
    yield from _vocabulary_warnings(run, catalog)
    yield from _size_warnings(run, train, catalog)


def stopping(error: Exception) -> str:
    """An error that a start of training would end with, as a warning."""
    stop = "" if str(error).endswith((".", "?")) else "."
    return f"{error}{stop} {_STOPS}"


def _refusals(run: RunConfig, train: Dataset) -> Iterator[str]:
    """Errors of the run's settings. Only the models of one version of TorchTitan are known."""
    flavors = MODELS.get(run.model["name"] or "", {}) if _has_known_models() else {}
    try:
        if model := flavors.get(run.model["flavor"] or ""):
            check_seq_len(run.blend.seq_length, model.max_seq_len)
        check_repetition(train, run.stop_slot, run.max_epochs)
    except ConfigError as error:
        yield stopping(error)


def _has_known_models() -> bool:
    """Whether TorchTitan has the known models, or is not installed here."""
    try:
        return version("torchtitan") == TORCHTITAN
    except PackageNotFoundError:
        return True


def _validation_warnings(run: RunConfig, train: Dataset, valid: Dataset | None) -> Iterator[str]:
    if valid is None and run.validation_sets:
        return
    if valid is None:
        yield (
            f"validation.enable is true, but no corpus has documents in the valid split, with "
            f"split = {run.blend.split!r}: training would stop at its start"
        )
        return
    samples = valid.num_windows
    if samples < max(run.global_batch_size, _LEAST_VALIDATION):
        is_less = samples < run.global_batch_size
        least = f"a global batch of {run.global_batch_size:,}" if is_less else _LEAST_VALIDATION
        yield (
            f"the valid split has {counted(samples, 'sample')}, fewer than {least}: its loss "
            f"will be noisy. Give it a larger part of blendcorpus.split"
        )
    if isinstance(valid, BlendedDataset) and (short := short_rows(valid.rows, run.blend)):
        yield (
            f"in the valid split, {short}. Each gives one sample, which repeats its tokens, so its "
            f"loss is too low. Lower training.seq_len, or give validation a larger part of "
            f"blendcorpus.split"
        )
    without = [name for name in train.corpora if name not in valid.corpora]
    if without:
        yield f"no documents for validation, so excluded from it: {', '.join(without)}"


def _eod_warnings(run: RunConfig, catalog: Catalog) -> Iterator[str]:
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
            f"shards do not end in EOD ({eod_id}): nothing marks their ends"
        )


def _vocabulary_warnings(run: RunConfig, catalog: Catalog) -> Iterator[str]:
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
            f"made with another tokenizer, or ids were truncated. The first is "
            f"{catalog.prefixes[small[0]]}"
        )


def _size_warnings(run: RunConfig, train: Dataset, catalog: Catalog) -> Iterator[str]:
    # Of now, not of before.
    if isinstance(train, BlendedDataset) and (short := short_rows(train.rows, run.blend)):
        yield (
            f"{short}. Each has one window, which starts again at its first token until it "
            f"is full, so it repeats tokens. Lower training.seq_len, or make fewer, longer shards: "
            f"blendtitan merge"
        )
    too_small = int((catalog.split_tokens(0) == 0).sum())
    if too_small and split_fractions(run.blend.split)[0] > 0:
        yield (
            f"{too_small:,} of {len(catalog.prefixes):,} shards are too small to contribute a "
            f"document to the train split: the other shards of their corpora are read instead"
        )
