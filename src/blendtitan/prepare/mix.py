"""A file list whose weights are the tokens that one pass over the blend reads of each shard."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blendtitan.errors import ConfigError
from blendtitan.prepare.shares import MixConfig, corpus_epochs
from blendtitan.storage.atomic_files import check_replaceable, remove_file_partials
from blendtitan.storage.file_list import ShardEntry
from blendtitan.storage.list_forms import named_shards, write_file_list
from blendtitan.storage.reader import ShardIndex


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusMix:
    """One corpus of a mix."""

    corpus: str
    num_shards: int
    num_tokens: int

    epochs: float
    """How often one pass over the whole blend reads this corpus."""

    @property
    def weight(self) -> float:
        """Tokens that one pass over the whole blend reads from this corpus."""
        return self.num_tokens * self.epochs


_WRITTEN_BY = "Written by `blendtitan mix`."


def mix(
    inputs: Sequence[Path], output: Path, config: MixConfig, *, overwrite: bool = False
) -> list[CorpusMix]:
    """Write a file list in which a shard weighs its tokens times the epochs of its corpus.

    Args:
        inputs: Shard prefixes, folders of shards, and file lists. Weights they give are not
            used; the corpus of a shard is the one that a file list with this input would give.
        output: The file list to write.
        config: How often each corpus is read.
        overwrite: Replace a file that this function did not write.

    Returns:
        The corpora, in the order of their first shards.

    Raises:
        ConfigError: A shard is named twice, a corpus is unknown, or is read too often; or the
            output is a file of somebody else.
        ShardError: A shard cannot be opened.
    """
    if not overwrite:
        check_replaceable(output, re.escape(_WRITTEN_BY))
    shards = named_shards(inputs)
    tokens = [ShardIndex.open(shard.prefix).num_tokens for shard in shards]
    by_corpus: dict[str, list[int]] = {}
    for shard, num_tokens in zip(shards, tokens, strict=True):
        by_corpus.setdefault(shard.corpus, []).append(num_tokens)
    epochs = corpus_epochs({name: sum(counts) for name, counts in by_corpus.items()}, config)
    corpora = [
        CorpusMix(corpus=name, num_shards=len(counts), num_tokens=sum(counts), epochs=epochs[name])
        for name, counts in by_corpus.items()
    ]
    check_repetition(corpora, config)
    weighted = [
        ShardEntry(shard.prefix, num_tokens * epochs[shard.corpus], shard.corpus)
        for shard, num_tokens in zip(shards, tokens, strict=True)
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_file_partials(output)
    write_file_list(output, weighted, header=_header(corpora))
    return corpora


def epochs_at(corpora: Sequence[CorpusMix], horizon_tokens: float) -> list[float]:
    """How often each corpus has been read when the run has read so many tokens of the blend."""
    pass_tokens = sum(row.weight for row in corpora)
    return [row.epochs * (horizon_tokens / pass_tokens) for row in corpora]


def check_repetition(corpora: Sequence[CorpusMix], config: MixConfig) -> None:
    """Check how often the run, or one pass where its length is not known, reads each corpus.

    Raises:
        ConfigError: A corpus is read more than ``config.max_epochs`` times.
    """
    horizon = config.horizon_tokens or sum(row.weight for row in corpora)
    # A share that stands for the cap exactly may be computed as a little more.
    cap = config.max_epochs * (1 + 1e-12) or math.inf
    often = [
        f"{row.corpus} {epochs:.3g}"
        for row, epochs in zip(corpora, epochs_at(corpora, horizon), strict=True)
        if epochs > cap
    ]
    if often:
        where = f"{horizon:,.0f} tokens" if config.horizon_tokens else "one pass over the blend"
        raise ConfigError(
            f"in {where}, corpora would be read more than {config.max_epochs:g} times: "
            f"{', '.join(often)}. Give them less weight, read fewer tokens, or raise --max-epochs "
            f"(0: no limit)."
        )


def _header(corpora: Iterable[CorpusMix]) -> str:
    epochs = ", ".join(f"{row.corpus} {row.epochs:g}" for row in corpora)
    return (
        f"{_WRITTEN_BY} A weight is the tokens of the shard times the epochs of\n"
        f"its corpus: {epochs}."
    )
