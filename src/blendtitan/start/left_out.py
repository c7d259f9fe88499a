"""Shards in the folder ``tokens`` of a run that its ``data.toml`` no longer names."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from blendtitan.prepare.existing import removed_inputs, unplanned_inputs
from blendtitan.prepare.records import write_catalog
from blendtitan.runs.run_folder import DATA
from blendtitan.storage.list_forms import corpus_in_folder, find_shards
from blendtitan.visible import counted, some_of, visible_logger

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


def report_unnamed(tokens: Path, planned: Collection[Path], *, corpora: Mapping[str, str]) -> None:
    """Warn about shards of ``corpora`` that are not planned: their text was moved or narrowed.

    ``corpora`` are their locations. Shards of removed text are left out: tokenising reports them.
    """
    removed = {left.prefix for left in removed_inputs(tokens, [*corpora.values()], planned)}
    found: defaultdict[str, list[str]] = defaultdict(list)
    for prefix in find_shards(tokens):
        if prefix not in planned and prefix not in removed:
            found[corpus_in_folder(prefix, tokens)].append(str(prefix))
    for corpus in sorted(found.keys() & corpora.keys()):
        logger.warning(
            "left out of the run (text not named in %s): %s of the corpus %s: %s. To delete shards "
            "that are left out, run with --prune.",
            *(DATA, counted(len(found[corpus]), "shard"), corpus, some_of(found[corpus], 1)),
        )
