"""``blendtitan mix``: write a file list from epochs, tokens, shares or a temperature.

There are two kinds of settings, and a mix uses one of them:

    --epochs, --tokens         how much of a corpus one pass over the blend reads; other corpora
                               are read once
    --shares, --temperature    fractions of the blend; corpora without a share divide the rest in
                               proportion to tokens ** (1 / temperature)
"""

import difflib
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blendtitan.config import check_is_path
from blendtitan.errors import ConfigError
from blendtitan.storage.atomic_files import remove_file_partials
from blendtitan.storage.file_list import ShardEntry
from blendtitan.storage.list_forms import NamedShard, named_shards, write_file_list
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.replaceable import check_replaceable
from blendtitan.tables import Table

_WRITTEN_BY = "Written by `blendtitan mix`."

# Shares are typed as decimals, which binary fractions only approximate.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class MixConfig:
    """The amount of each corpus in a blend. The keys of all mappings are names of corpora."""

    epochs: Mapping[str, float] = field(default_factory=dict)
    """Number of times that one pass over the blend reads a corpus."""

    tokens: Mapping[str, float] = field(default_factory=dict)
    """Number of tokens of a corpus that one pass over the blend reads."""

    shares: Mapping[str, float] = field(default_factory=dict)
    """Fraction of the blend that comes from a corpus."""

    temperature: float | None = None
    """Corpora without a share divide the rest in proportion to ``tokens ** (1 / temperature)``.
    None: 1."""

    max_epochs: float = 4.0
    """Largest number of epochs of a corpus; more is an error. 0: no limit."""

    horizon_tokens: float | None = None
    """Tokens that the run will read. None: one pass over the blend."""

    def __post_init__(self) -> None:
        for option in ("epochs", "tokens", "shares"):
            for corpus, value in getattr(self, option).items():
                _check_positive(f"--{option}: corpus {corpus!r} gets", value)
        if self.temperature is not None:
            _check_positive("--temperature is", self.temperature)
        if self.horizon_tokens is not None:
            _check_positive("--horizon-tokens is", self.horizon_tokens)
        if not self.max_epochs >= 0:
            raise ConfigError(f"--max-epochs is {self.max_epochs}, expected 0 or more")
        if (self.epochs or self.tokens) and (self.shares or self.temperature is not None):
            raise ConfigError(
                "--epochs and --tokens cannot be combined with --shares and --temperature. Use "
                "one of the two pairs."
            )
        twice = sorted(self.epochs.keys() & self.tokens.keys())
        if twice:
            raise ConfigError(
                f"corpus {twice[0]!r} has both --epochs and --tokens, expected one of them"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusMix:
    """One corpus of a mix."""

    corpus: str
    num_shards: int
    num_tokens: int

    epochs: float
    """Number of times that one pass over the whole blend reads this corpus."""

    @property
    def weight(self) -> float:
        """Tokens that one pass over the whole blend reads from this corpus."""
        return self.num_tokens * self.epochs


def mix(
    inputs: Sequence[Path],
    output: Path,
    config: MixConfig,
    *,
    overwrite: bool = False,
    is_read: Callable[[NamedShard], bool] = lambda _: True,
) -> list[CorpusMix]:
    """Write a file list. The weight of a shard is its tokens times the epochs of its corpus.

    Args:
        inputs: Shard prefixes, folders of shards, and file lists. The corpus of a shard is the one
            that a file list with this input would give. Weights in file lists are ignored.
        output: The file list to write.
        config: The amount of each corpus to read.
        overwrite: Replace a file that this function did not write.
        is_read: Whether the file list names a shard.

    Returns:
        The corpora, in the order of their first shards.

    Raises:
        ConfigError: A shard is named twice, a corpus is unknown or read too often, or the output
            exists and was not written by this function.
        ShardError: A shard cannot be opened.
    """
    check_is_path("the output", output)
    if not overwrite:
        check_replaceable(output, re.escape(_WRITTEN_BY))
    shards = [*filter(is_read, named_shards(inputs))]
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
        ShardEntry(shard.prefix, _rounded(num_tokens * epochs[shard.corpus]), shard.corpus)
        for shard, num_tokens in zip(shards, tokens, strict=True)
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_file_partials(output)
    listed = ", ".join(f"{row.corpus} {row.epochs:g}" for row in corpora)
    header = f"{_WRITTEN_BY} A weight is the tokens of the shard times the epochs of\n"
    write_file_list(output, weighted, header=f"{header}its corpus: {listed}.")
    return corpora


def _rounded(weight: float) -> float:
    """A weight with the digits that every float keeps: 0.3, not 0.30000000000000004."""
    return float(f"{weight:.{sys.float_info.dig}g}")


def corpus_epochs(num_tokens: Mapping[str, int], config: MixConfig) -> dict[str, float]:
    """The epochs of each corpus in one pass over the blend, given its tokens.

    With shares, a pass reads the total number of tokens, so weights are tokens, too.

    Raises:
        ConfigError: A corpus is unknown, or the shares do not sum to one blend.
    """
    known = sorted(num_tokens)
    for option in ("epochs", "tokens", "shares"):
        for name in getattr(config, option):
            if name not in num_tokens:
                near = difflib.get_close_matches(name, known, n=1)
                hint = (
                    f"Did you mean {near[0]!r}?" if near else f"The corpora are {', '.join(known)}."
                )
                raise ConfigError(f"--{option}: there is no corpus {name!r}. {hint}")
    if not config.shares and config.temperature is None:
        from_tokens = {name: value / num_tokens[name] for name, value in config.tokens.items()}
        return {name: 1.0 for name in num_tokens} | from_tokens | dict(config.epochs)
    total = sum(num_tokens.values())
    shares = _all_shares(num_tokens, config.shares, config.temperature or 1.0)
    return {name: shares[name] * total / count for name, count in num_tokens.items()}


def check_repetition(corpora: Sequence[CorpusMix], config: MixConfig) -> None:
    """Raise if the run (or one pass, if its length is unknown) repeats a corpus too often."""
    horizon = config.horizon_tokens or sum(row.weight for row in corpora)
    # A share that meets the limit exactly may be computed as a little more.
    limit = config.max_epochs * (1 + 1e-12) or math.inf
    often = [
        f"{row.corpus} {epochs:.3g}"
        for row, epochs in zip(corpora, epochs_at(corpora, horizon), strict=True)
        if epochs > limit
    ]
    if often:
        where = f"{horizon:,.0f} tokens" if config.horizon_tokens else "one pass over the blend"
        raise ConfigError(
            f"in {where}, corpora would be read more than {config.max_epochs:g} times: "
            f"{', '.join(often)}. Give them less weight, read fewer tokens, or raise --max-epochs "
            f"(0: no limit)."
        )


def epochs_at(corpora: Sequence[CorpusMix], horizon_tokens: float) -> list[float]:
    """The epochs of each corpus after the run has read ``horizon_tokens`` tokens of the blend."""
    pass_tokens = sum(row.weight for row in corpora)
    return [row.epochs * (horizon_tokens / pass_tokens) for row in corpora]


def mix_table(corpora: Iterable[CorpusMix], *, horizon_tokens: float | None = None) -> Table:
    """Tokens, epochs and share of each corpus, for one pass over the blend or up to a horizon.

    ``epochs`` are those of one pass, as in the header of the file list.
    """
    rows = list(corpora)
    pass_tokens = sum(row.weight for row in rows)
    read = horizon_tokens or pass_tokens
    in_run = ("in the run",) * bool(horizon_tokens)
    table = Table(("corpus", "shards", "tokens", "epochs", *in_run, "tokens read", "share"))
    for row, epochs in zip(rows, epochs_at(rows, read), strict=True):
        share = row.weight / pass_tokens
        counts = (
            row.num_shards,
            row.num_tokens,
            f"{row.epochs:g}",
            *(f"{epochs:.4g}" for _ in in_run),
        )
        table.add_row(row.corpus, *counts, f"{share * read:,.0f}", f"{share:.2%}")
    totals = sum(row.num_shards for row in rows), sum(row.num_tokens for row in rows)
    table.add_row("total", *totals, "", *("" for _ in in_run), f"{read:,.0f}", "100.00%")
    return table


def horizon_from_steps(
    tokens: float | None, steps: int | None, global_batch: int | None, seq_len: int | None
) -> float | None:
    """Tokens that a run reads, from their number or from its optimizer steps."""
    parts = {"--horizon-steps": steps, "--global-batch-size": global_batch, "--seq-length": seq_len}
    missing = [name for name, value in parts.items() if value is None]
    if len(missing) == len(parts):
        return tokens
    if tokens is not None:
        raise ConfigError("the horizon is given in tokens and in steps, expected one of them")
    if steps is None or global_batch is None or seq_len is None:
        raise ConfigError(f"a horizon in steps needs {', '.join(missing)} too")
    return float(steps * global_batch * seq_len)


def parse_numbers(option: str, words: Iterable[str]) -> dict[str, float]:
    """Numbers by corpus, from words such as ``code=2``; ``option`` is named in errors."""
    numbers: dict[str, float] = {}
    for word in words:
        corpus, equals, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (equals and corpus) or math.isnan(value):
            raise ConfigError(f"{option}: found {word!r}, expected CORPUS=NUMBER, such as code=2")
        if corpus in numbers:
            raise ConfigError(f"{option}: corpus {corpus!r} is named twice")
        numbers[corpus] = value
    return numbers


def _all_shares(
    num_tokens: Mapping[str, int], shares: Mapping[str, float], temperature: float
) -> dict[str, float]:
    others = {name: count for name, count in num_tokens.items() if name not in shares}
    rest = 1.0 - math.fsum(shares.values())
    if not others and abs(rest) > _ROUNDING:
        raise ConfigError(
            f"--shares: every corpus has one, and they sum to {1.0 - rest:g}, expected 1. Omit one "
            f"corpus, which then gets the rest."
        )
    if others and rest <= _ROUNDING:
        raise ConfigError(
            f"--shares: they sum to {1.0 - rest:g}, which leaves nothing for "
            f"{', '.join(sorted(others))}. To leave a corpus out, do not name its shards."
        )
    # Scaled by the largest, so that no power is too large for a float.
    largest = max(others.values(), default=1)
    powers = {name: (count / largest) ** (1.0 / temperature) for name, count in others.items()}
    total = math.fsum(powers.values())
    return {name: rest * power / total for name, power in powers.items()} | dict(shares)


def _check_positive(what: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(
            f"{what} {value}, expected a finite number above 0. "
            f"To leave a corpus out, do not name its shards."
        )
