"""Shards in the folder ``tokens`` of a run that its ``data.toml`` no longer names."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from blendtitan.prepare.existing import unplanned_inputs
from blendtitan.prepare.records import write_catalog
from blendtitan.runs.run_folder import DATA
from blendtitan.storage.list_forms import corpus_in_folder, find_shards
from blendtitan.visible import counted, visible_logger

logger = visible_logger(__name__)


def prune_unnamed(tokens: Path, planned: Collection[Path], *, kept: Collection[str]) -> None:
    """Delete the shards that ``prepare`` made earlier, and that are no longer planned.

    Those of the corpora ``kept`` stay, and so do shards without a record.
    """
    found = [
        left
        for left in unplanned_inputs(tokens, planned)
        if corpus_in_folder(left.prefix, tokens) not in kept
    ]
    for left in found:
        left.delete_shard()
        if left.counts.documents:
            logger.info("%s: is not named in %s, so it was deleted", left.prefix, DATA)
    if found:
        write_catalog(tokens)


def report_unnamed(tokens: Path, planned: Collection[Path], *, corpora: Collection[str]) -> None:
    """Warn about shards of ``corpora`` that are not planned: their text was moved or narrowed."""
    names = [(corpus_in_folder(prefix, tokens), prefix) for prefix in find_shards(tokens)]
    left = [each for each in names if each[0] in corpora and each[1] not in planned]
    first = dict(reversed(left))
    for corpus, number in Counter(corpus for corpus, _ in left).items():
        logger.warning(
            "left out of the run (not named in %s): %s of the corpus %s, such as %s. To delete "
            "them, run with --prune.",
            *(DATA, counted(number, "shard"), corpus, first[corpus]),
        )
