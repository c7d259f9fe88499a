"""A file list whose weights make one pass over the blend read each corpus so many times."""

import difflib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blendtitan.errors import ConfigError
from blendtitan.storage.file_list import ShardEntry, read_file_list, write_file_list
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


def mix(inputs: Sequence[Path], output: Path, epochs: Mapping[str, float]) -> list[CorpusMix]:
    """Write a file list in which a shard weighs its tokens times the epochs of its corpus.

    Args:
        inputs: Shard prefixes, folders of shards, and file lists. Weights they give are not
            used; the corpus of a shard is the one that a file list with this input would give.
        output: The file list to write.
        epochs: Epochs by corpus. A corpus that is not named gets 1.

    Returns:
        The corpora, in the order of their first shards.

    Raises:
        ConfigError: A shard is named twice, a corpus is unknown, or its epochs no positive number.
        ShardError: A shard cannot be opened.
    """
    found = [entry for path in inputs for entry in _entries(path)]
    _check_unique(found)
    _check_epochs(epochs, known=sorted({entry.corpus for entry in found}))
    tokens = [ShardIndex.open(entry.prefix).num_tokens for entry in found]
    weighted = [
        ShardEntry(entry.prefix, num_tokens * epochs.get(entry.corpus, 1.0), entry.corpus)
        for entry, num_tokens in zip(found, tokens, strict=True)
    ]
    corpora = _corpora(found, tokens, epochs)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_file_list(output, weighted, header=_header(corpora))
    return corpora


def parse_epochs(words: Iterable[str]) -> dict[str, float]:
    """Epochs by corpus, from words such as ``code=2``.

    Raises:
        ConfigError: A word has another form, or a corpus is named twice.
    """
    epochs: dict[str, float] = {}
    for word in words:
        corpus, equals, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (equals and corpus) or math.isnan(value):
            raise ConfigError(f"--epochs: found {word!r}, expected CORPUS=NUMBER, such as code=2")
        if corpus in epochs:
            raise ConfigError(f"--epochs: corpus {corpus!r} is named twice")
        epochs[corpus] = value
    return epochs


def _entries(path: Path) -> Sequence[ShardEntry]:
    if Path(f"{path}.idx").exists():
        return [ShardEntry(path, 1.0, path.name)]
    return read_file_list(path)


def _check_unique(entries: Iterable[ShardEntry]) -> None:
    seen: dict[str, Path] = {}
    for entry in entries:
        file = os.path.realpath(f"{entry.prefix}.bin")
        if file in seen:
            raise ConfigError(
                f"{entry.prefix} is the same shard as {seen[file]}. Name it once, and give its "
                f"corpus more epochs."
            )
        seen[file] = entry.prefix


def _check_epochs(epochs: Mapping[str, float], *, known: Sequence[str]) -> None:
    for corpus, value in epochs.items():
        if corpus not in known:
            near = difflib.get_close_matches(corpus, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}."
            raise ConfigError(f"--epochs: there is no corpus {corpus!r}. {hint}")
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(
                f"--epochs: corpus {corpus!r} gets {value}, expected a finite number above 0. "
                f"To leave a corpus out, do not name its shards."
            )


def _corpora(
    entries: Sequence[ShardEntry], tokens: Sequence[int], epochs: Mapping[str, float]
) -> list[CorpusMix]:
    by_corpus: dict[str, list[int]] = {}
    for entry, num_tokens in zip(entries, tokens, strict=True):
        by_corpus.setdefault(entry.corpus, []).append(num_tokens)
    return [
        CorpusMix(
            corpus=corpus,
            num_shards=len(counts),
            num_tokens=sum(counts),
            epochs=epochs.get(corpus, 1.0),
        )
        for corpus, counts in by_corpus.items()
    ]


def _header(corpora: Iterable[CorpusMix]) -> str:
    epochs = ", ".join(f"{row.corpus} {row.epochs:g}" for row in corpora)
    return (
        f"Written by `blendtitan mix`. A weight is the tokens of the shard times the epochs of\n"
        f"its corpus: {epochs}."
    )
