"""Settings of a blend: frozen, checked when made, documented field by field."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from blendtitan.errors import ConfigError

SPLITS = ("train", "valid", "test")
"""The splits, in the order of their fractions and of the documents they take."""

DATALOADER_TYPES = ("single", "repeating", "cyclic")

ORIGINAL_ORDER = "blendcorpus"

ORDERS = ("blendtitan", ORIGINAL_ORDER)
"""The orders of samples: this project's, and that of the original BlendCorpus."""

MAX_INT = 2**63 - 1
"""The largest whole number that a setting may have: counts are kept in 64 bits."""

MAX_SLOT = 10**15
"""Slots of the global order end here. Beyond it a double product no longer tells neighbouring slots
apart reliably."""

# NumPy's RandomState, which the original draws from, takes 32 bits.
_MAX_ORIGINAL_SEED = 2**32 - 1


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

ON_CHANGE = ("error", "new_segment")


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentConfig:
    """Other shares from a place of the run on."""

    first_slot: int
    """Samples of all ranks together before it."""

    shares: Mapping[str, float]
    """Share by corpus. Those not named keep theirs; 0 drops one. Need not sum to 1."""

    def __post_init__(self) -> None:
        check_at_least("first_slot of a segment", self.first_slot, 0)
        check_shares(self.shares, where=f"the segment from slot {self.first_slot:,}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendConfig:
    """What to read and in which order. The fields are those of the ``[blendcorpus]`` section."""

    data_file_list: Path | str
    """File list naming the shards, or a folder of shards."""

    seq_length: int
    """Length of a model input, in tokens. A sample has one token more."""

    micro_batch_size: int | None = None
    """Samples that one rank passes through the model at once. None: as the loader is told."""

    num_workers: int = 2
    """Threads that read ahead. 0: read in the training thread."""

    split: str = "98,1,1"
    """Relative sizes of train, valid and test, in documents of each shard: three numbers, which
    need not sum to 100. One number alone gives all documents to train."""

    dataloader_type: str = "single"
    """``single``, ``repeating`` or ``cyclic``, as the original has them. The training stream is
    endless in all three."""

    shuffle_sample_in_corpus: bool = True
    """Visit the windows of an epoch in a pseudo-random order. False: as they lie on disk."""

    blend_sample_in_corpus: bool = True
    """Blend the shards of a corpus by their weights. False: read them one after the other."""

    append_eod: bool = True
    """Every document is followed by EOD: where shards lack it, it is inserted while reading. A
    token at the beginning that is EOD as well, because BOS and EOD are one, stays where it is."""

    provide_attention_mask: bool = False
    """Tell documents apart: positions restart after each EOD, masks are block-causal. Where BOS and
    EOD are one token and all documents of a corpus begin with it, that token belongs to the
    document that it begins, and positions restart at it."""

    eod_token_id: int | None = None
    """Token that ends a document. Needed unless ``append_eod``, ``provide_attention_mask`` and
    ``eod_mask_loss`` are all false."""

    eod_mask_loss: bool = False
    """Ignore the labels that would ask to predict across a document's end."""

    data_cache_path: Path | str | None = None
    """Folder that keeps the catalog, and the index of the original's order, between runs. None:
    the catalog is built at every start."""

    seed: int = 1234
    """Chooses the order of the windows of every epoch."""

    segments: tuple[SegmentConfig, ...] = ()
    """Other shares from some slots of the training split on, in order."""

    on_change: str = "error"
    """What to do on resume where weights, segments, corpora, data or ``seq_length`` are not those
    of the checkpoint: ``error``, or ``new_segment`` to go on with what is set now."""
    order: str = "blendtitan"
    """``blendtitan``, or ``blendcorpus`` for the order of the original package, sample for
    sample. That one depends on the number of samples and needs a ``data_cache_path``."""

    train_samples: int | None = None
    """Samples that the original's order is made for: its steps times its global batch size."""

    eval_samples: int | None = None
    """Samples of valid, and of test, that the original's order is made for; 0 if none."""

    max_open_shards: int = 128
    """Most ``.bin`` files open at once."""

    vocab_size: int | None = None
    """Token ids are checked to be below this. None: not checked."""

    def __post_init__(self) -> None:
        _check_types(self)
        check_is_path("data_file_list", self.data_file_list)
        if self.data_cache_path is not None:
            check_is_path("data_cache_path", self.data_cache_path)
        check_at_least("seq_length", self.seq_length, 1)
        check_at_least("num_workers", self.num_workers, 0)
        check_at_least("max_open_shards", self.max_open_shards, 1)
        if self.micro_batch_size is not None:
            check_at_least("micro_batch_size", self.micro_batch_size, 1)
        if self.vocab_size is not None:
            check_at_least("vocab_size", self.vocab_size, 1)
        check_at_least("seed", self.seed, 0)
        if self.dataloader_type not in DATALOADER_TYPES:
            raise ConfigError(
                f"dataloader_type is {self.dataloader_type!r}, expected one of "
                f"{', '.join(DATALOADER_TYPES)}"
            )
        if self.on_change not in ON_CHANGE:
            raise ConfigError(
                f"on_change is {self.on_change!r}, expected one of {', '.join(ON_CHANGE)}"
            )
        split_fractions(self.split)
        self._check_eod()
        self._check_order()

    @property
    def has_horizon(self) -> bool:
        """Whether the order is made for a number of samples: that of the original is."""
        return self.order == ORIGINAL_ORDER

    def _check_order(self) -> None:
        if self.order not in ORDERS:
            raise ConfigError(f"order is {self.order!r}, expected one of {', '.join(ORDERS)}")
        horizon = {"train_samples": self.train_samples, "eval_samples": self.eval_samples}
        if not self.has_horizon:
            given = [name for name, value in horizon.items() if value is not None]
            if given:
                raise ConfigError(
                    f"{given[0]} is {horizon[given[0]]}, but order = {self.order!r} does not "
                    f'depend on a number of samples. Leave it out, or set order = "blendcorpus".'
                )
            return
        if self.segments or self.on_change != "error":
            raise ConfigError(
                'order = "blendcorpus" has one blend for the whole run: leave out segments and '
                'on_change, or set order = "blendtitan".'
            )
        for (name, value), least in zip(horizon.items(), (1, 0), strict=True):
            if value is None:
                raise ConfigError(
                    f'{name} is missing: order = "blendcorpus" depends on the number of samples. '
                    f"Set it to what the original was started with, steps times global batch size."
                )
            check_at_least(name, value, least)
        if self.seed > _MAX_ORIGINAL_SEED:
            raise ConfigError(
                f"seed is {self.seed}, expected at most {_MAX_ORIGINAL_SEED} with order = "
                f'"blendcorpus"'
            )
        if self.dataloader_type == "cyclic":
            raise ConfigError(
                'dataloader_type is "cyclic", which order = "blendcorpus" does not reproduce: '
                'expected "single", the original\'s default.'
            )
        if self.data_cache_path is None:
            raise ConfigError(
                'data_cache_path is missing: order = "blendcorpus" keeps an index there, which one '
                "process writes and all others read. Set it to a folder that all nodes share."
            )

    def _check_eod(self) -> None:
        needing = [
            name
            for name in ("append_eod", "provide_attention_mask", "eod_mask_loss")
            if getattr(self, name)
        ]
        if self.eod_token_id is None:
            if needing:
                raise ConfigError(
                    f"eod_token_id is missing, but {needing[0]} = true needs it. Set eod_token_id "
                    f"to the token that ends a document, or {needing[0]} = false."
                )
            return
        check_at_least("eod_token_id", self.eod_token_id, 0)
        if self.vocab_size is not None and self.eod_token_id >= self.vocab_size:
            raise ConfigError(
                f"eod_token_id is {self.eod_token_id}, expected an id below the vocabulary size "
                f"{self.vocab_size}"
            )


def _check_types(config: BlendConfig) -> None:
    """Check switches, texts and paths; numbers are checked with their ranges."""
    for field in fields(config):
        value = getattr(config, field.name)
        switch = isinstance(field.default, bool)
        text = isinstance(field.default, str)
        if switch and not isinstance(value, bool):
            raise ConfigError(f"{field.name} is {value!r}, expected true or false")
        if text and not isinstance(value, str):
            raise ConfigError(f"{field.name} is {value!r}, expected text")
    if not isinstance(config.data_file_list, str | Path):
        raise ConfigError(f"data_file_list is {config.data_file_list!r}, expected a path")


def split_fractions(split: str) -> tuple[float, float, float]:
    """Fractions of train, valid and test from text such as ``"98,1,1"``, summing to 1.

    One number alone gives all documents to train.

    Raises:
        ConfigError: The text is not three numbers, or one, of at least 0 with a sum above 0.
    """
    try:
        numbers = [float(part) for part in split.split(",")]
    except ValueError:
        numbers = []
    # The plain sum first: fsum raises OverflowError where it is infinite.
    if not (all(number >= 0 for number in numbers) and 0 < sum(numbers) < math.inf):
        raise ConfigError(
            f"split is {split!r}, expected three finite numbers of at least 0, not all of them 0: "
            f'the relative sizes of train, valid and test, such as "98,1,1"'
        )
    if len(numbers) not in (1, len(SPLITS)):
        raise ConfigError(_ambiguous_split(split, len(numbers)))
    total = math.fsum(numbers)
    train, valid, test = (number / total for number in [*numbers, 0.0, 0.0][:3])
    return train, valid, test


def _ambiguous_split(split: str, found: int) -> str:
    expected = f"split is {split!r}, which has {found} numbers. Expected three: the relative sizes "
    expected += "of train, valid and test. "
    if found > len(SPLITS):
        return f'{expected}Write, for example, "98,1,1".'
    return f'{expected}Write "{split},0" to have no test split.'


def check_weight(weight: float, *, where: str) -> None:
    """Check that a weight is a finite number above 0; ``where`` starts the error.

    Raises:
        ConfigError: It is not.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise ConfigError(
            f"{where}: weight is {weight}, expected a finite number above 0. "
            f"To leave a shard out, delete its line."
        )


def check_shares(shares: object, *, where: str) -> None:
    """Check that shares are finite numbers of at least 0 by corpus; ``where`` starts the error.

    Raises:
        ConfigError: They are not.
    """
    if not isinstance(shares, Mapping) or not shares:
        raise ConfigError(
            f"{where}: shares are {shares!r}, expected a number for one corpus at least, such as "
            f"{{ web = 0.5 }}"
        )
    for corpus, share in shares.items():
        is_number = isinstance(share, int | float) and not isinstance(share, bool)
        if not (is_number and math.isfinite(share) and share >= 0):
            raise ConfigError(
                f"{where}: the share of {corpus!r} is {share!r}, expected a finite number of at "
                f"least 0"
            )


def check_is_path(name: str, value: Path | str) -> None:
    """Check that a setting is a path of this machine: a URL would become a folder named ``s3:``.

    Raises:
        ConfigError: It is a URL.
    """
    # Path("s3://bucket") is s3:/bucket.
    if _URL.match(str(value)):
        raise ConfigError(
            f"{name} is {value}, which is a URL, expected a path of this machine. Mount the store, "
            f"or use a local folder and copy it afterwards."
        )


def check_at_least(name: str, value: int, least: int) -> None:
    """Check that a setting is a whole number of at least ``least`` that fits into 64 bits.

    Raises:
        ConfigError: It is not.
    """
    # bool is an int in Python, but never a count.
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {value!r}, expected an int of at least {least}")
    if value > MAX_INT:
        raise ConfigError(f"{name} is {value:,}, expected an int of at most {MAX_INT:,}")
