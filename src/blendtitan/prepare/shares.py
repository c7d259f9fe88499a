"""How often each corpus of a blend is read: from epochs, tokens, shares or a temperature.

Settings of two kinds, of which a mix has one:

    --epochs, --tokens         what one pass over the blend reads of a corpus; any other corpus
                               is read once
    --shares, --temperature    fractions of the blend; corpora without one divide the rest by
                               tokens ** (1 / temperature)
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from blendtitan.errors import ConfigError

# Shares are typed in decimals, which binary fractions only come near to.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class MixConfig:
    """How a blend is made of its corpora. Numbers are by name of corpus."""

    epochs: Mapping[str, float] = field(default_factory=dict)
    """How often one pass over the blend reads a corpus."""

    tokens: Mapping[str, float] = field(default_factory=dict)
    """How many tokens of a corpus one pass over the blend reads."""

    shares: Mapping[str, float] = field(default_factory=dict)
    """Fraction of the blend that a corpus has."""

    temperature: float | None = None
    """Corpora without a share divide the rest by ``tokens ** (1 / temperature)``. None: 1."""

    max_epochs: float = 4.0
    """A corpus that is read more often is an error. 0: read as often as it may be."""

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
        absolute = self.epochs or self.tokens
        if absolute and (self.shares or self.temperature is not None):
            raise ConfigError(
                "--epochs and --tokens say how much is read of a corpus, --shares and "
                "--temperature how much of the blend it is. Use either the first two or the last."
            )
        twice = sorted(self.epochs.keys() & self.tokens.keys())
        if twice:
            raise ConfigError(
                f"corpus {twice[0]!r} has both --epochs and --tokens, expected one of them"
            )


def corpus_epochs(num_tokens: Mapping[str, int], config: MixConfig) -> dict[str, float]:
    """How often one pass over the blend reads each corpus.

    A pass over a blend of shares reads as many tokens as there are, so that its weights are
    tokens too.

    Args:
        num_tokens: Tokens of each corpus.
        config: The mix.

    Raises:
        ConfigError: A corpus is unknown, or the shares are not those of one blend.
    """
    for option in ("epochs", "tokens", "shares"):
        _check_known(f"--{option}", getattr(config, option), sorted(num_tokens))
    if not config.shares and config.temperature is None:
        from_tokens = {name: value / num_tokens[name] for name, value in config.tokens.items()}
        return {name: 1.0 for name in num_tokens} | from_tokens | dict(config.epochs)
    total = sum(num_tokens.values())
    shares = _all_shares(num_tokens, config.shares, config.temperature or 1.0)
    return {name: shares[name] * total / count for name, count in num_tokens.items()}


def horizon_from_steps(
    tokens: float | None, steps: int | None, global_batch: int | None, seq_len: int | None
) -> float | None:
    """Tokens that a run reads, from their number or from its optimizer steps.

    Raises:
        ConfigError: Both are given, or a part of the steps is missing.
    """
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
    """Numbers by corpus, from words such as ``code=2``; ``option`` starts the error.

    Raises:
        ConfigError: A word has another form, or a corpus is named twice.
    """
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
            f"--shares: they sum to {1.0 - rest:g}, and every corpus has one, expected 1. Leave "
            f"out a corpus, which then gets the rest."
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


def _check_known(option: str, names: Iterable[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}."
            raise ConfigError(f"{option}: there is no corpus {name!r}. {hint}")
