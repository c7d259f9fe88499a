"""Shards that a run has read and its file list no longer names, found again in the run folder.

``prepare`` leaves the shards of a corpus that was removed from ``data.toml``.
"""

from dataclasses import replace
from pathlib import Path

from blendtitan.config import BlendConfig, split_fractions
from blendtitan.dataset.build import document_cuts
from blendtitan.errors import BlendTitanError
from blendtitan.history.record import Fingerprints
from blendtitan.runs.contents import Contents
from blendtitan.runs.open import OpenRun
from blendtitan.runs.run_folder import TOKENS
from blendtitan.storage.catalog import Catalog, build_catalog
from blendtitan.storage.file_list import ShardList
from blendtitan.storage.list_forms import corpus_in_folder, find_shards
from blendtitan.storage.reader import file_signature
from blendtitan.visible import counted, quietly


def with_kept_shards(run: OpenRun) -> OpenRun:
    """The run, with the contents of such shards.

    A shard with the same name and other contents stays unused, because its digest differs.
    """
    if run.config is None or run.contents is None:
        return run
    blend, listed = run.config.blend, run.contents.catalog
    folder = Path(blend.data_file_list).absolute().parent / TOKENS
    named = zip(listed.corpora, Fingerprints.of_catalog(listed).names, strict=True)
    missing = _shards_read(run) - set(named)
    if not missing or not folder.is_dir():
        return run
    try:
        shards = [(corpus_in_folder(prefix, folder), prefix) for prefix in find_shards(folder)]
        kept = [each for each in shards if (each[0], each[1].name) in missing]
        with quietly():
            catalog = _extended(listed, kept, blend)
            contents = Contents.build(
                catalog,
                run.slots.split,
                eod_id=blend.eod_token_id,
                max_open=blend.max_open_shards,
            )
    except (BlendTitanError, OSError):
        return run
    if not kept:
        return run
    found = counted(len(kept), "shard")
    about = f"{run.about}; {found} that the file list no longer names found in {folder}"
    contents = replace(contents, removed=run.contents.removed)  # listed shards come first
    return replace(run, contents=contents, about=about)


def _shards_read(run: OpenRun) -> set[tuple[str, str]]:
    """Corpus and name of every shard in the phases of a run."""
    return {
        (corpus, name)
        for phase in run.slots.phases
        for corpus, shards in phase.corpora.items()
        for name in shards.names
    }


def _extended(listed: Catalog, kept: list[tuple[str, Path]], blend: BlendConfig) -> Catalog:
    """A catalog of the listed shards and of those that were kept."""
    prefixes = [*listed.prefixes, *(str(prefix) for _, prefix in kept)]
    fractions = split_fractions(blend.split)
    return build_catalog(
        ShardList(
            prefixes=prefixes,
            weights=[1.0] * len(prefixes),
            corpora=[*listed.corpora, *(corpus for corpus, _ in kept)],
            signatures=[file_signature(prefix) for prefix in prefixes],
        ),
        lambda number: document_cuts(number, fractions),
        eod_id=blend.eod_token_id if blend.append_eod or blend.finds_documents else None,
        inserts_eod=blend.append_eod,
        settings=listed.settings,
    )
