"""The settings of a blend. Each field, its description and its checks are written once, here.

``BlendKeys`` holds the keys of ``[blendcorpus]`` that decide which samples are read. Two classes
inherit them: ``BlendConfig``, the frozen and checked form that the engine takes, and
``BlendSection`` in ``settings/section.py``, the whole section of a TOML file.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from blendtitan.errors import ConfigError
from blendtitan.files import url_of

SPLITS = ("train", "valid", "test")
NEED_EOD = ("append_eod", "provide_attention_mask", "eod_mask_loss")
"""The splits, in the order of their fractions and of the documents they take."""

ORIGINAL_ORDER = "blendcorpus"

MAX_INT = 2**63 - 1
"""The largest integer that a setting may have: counts are kept in 64 bits."""

MAX_SLOT = 10**15
"""End of the global order. Beyond it, a double product no longer separates neighbouring slots
reliably."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

OnChange = Literal["error", "new_segment"]
Order = Literal["blendtitan", "blendcorpus"]
DataloaderType = Literal["single", "repeating", "cyclic"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "dataloader_type": get_args(DataloaderType),
    "on_change": get_args(OnChange),
    "order": get_args(Order),
}

_AT_LEAST = {
    "seq_length": 1,
    "micro_batch_size": 1,
    "num_workers": 0,
    "eod_token_id": 0,
    "seed": 0,
    "train_samples": 1,
    "eval_samples": 0,
    "max_open_shards": 1,
    "vocab_size": 1,
}
"""Smallest value of each count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentConfig:
    """New shares, from a given slot of the run on."""

    first_slot: int
    """First slot with these shares."""

    shares: Mapping[str, float]
    """Share of each corpus; 0 drops it. A corpus that is not named keeps its share."""

    def __post_init__(self) -> None:
        check_at_least("first_slot of a segment", self.first_slot, 0)
        check_shares(self.shares, where=f"the segment from slot {self.first_slot:,}")


@dataclass(kw_only=True)
class BlendKeys:
    """The keys of ``[blendcorpus]`` that decide which samples are read, and in which order.

    In ``BlendConfig``, None never means "as the run decides": required values must be set.
    """

    data_file_list: str | Path | None = None
    """File list that names the shards, or a folder of shards; a path or a URL. None:
    ``training.dataset_path``."""

    seq_length: int | None = None
    """Length of a model input, in tokens; a sample has one token more. None: ``training.seq_len``,
    which it must equal."""

    micro_batch_size: int | None = None
    """Samples that one rank passes through the model at once. None:
    ``training.local_batch_size``, which it must equal."""

    num_workers: int = 2
    """Threads that prefetch batches. 0: read in the training thread."""

    split: str = "98,1,1"
    """Relative sizes of train, valid and test, in documents of each shard: three numbers, which
    need not sum to 100. One number alone gives all documents to train."""

    dataloader_type: DataloaderType = "single"
    """Accepted for compatibility with the original: the training stream is endless in all three
    cases."""

    shuffle_sample_in_corpus: bool = True
    """Visit the windows of an epoch in a pseudo-random order. False: in the order they have on
    disk. Synonym: ``shuffle``."""

    blend_sample_in_corpus: bool = True
    """Blend the shards of a corpus by their weights. False: read them one after the other."""

    append_eod: bool = True
    """Make every document end in EOD: if shards lack it, it is inserted while reading. A leading
    token that equals EOD, because BOS and EOD are one token, is kept."""

    provide_attention_mask: bool = False
    """Intra-document masking: positions restart after each EOD, and tokens attend only to their
    own document. If BOS and EOD are one token and all documents of a corpus begin with it, it
    belongs to the document that it begins, and positions restart at it."""

    eod_token_id: int | None = None
    """Token that ends a document. None: the tokenizer's EOS. ``BlendConfig`` needs it unless
    ``append_eod``, ``provide_attention_mask`` and ``eod_mask_loss`` are all false."""

    eod_mask_loss: bool = False
    """Exclude from the loss each label that is the first token of the next document."""

    removed_documents: str | Path | None = None
    """List of documents that are no longer read: lines ``SHARD DOCUMENT``. From the start, or from
    the checkpoint on, their tokens are read as EOD, without a loss. The list may only grow."""

    data_cache_path: str | Path | None = None
    """Folder that caches the catalog, and the index of the original's order, between runs. None:
    the catalog is built at every start."""

    seed: int = 1234
    """Determines the order of the windows of every epoch."""

    on_change: OnChange = "error"
    """Action on resume if weights, segments, corpora, data or the sequence length differ
    from the checkpoint's. ``new_segment``: continue with the current settings, each corpus from
    its current position."""

    order: Order = "blendtitan"
    """``blendcorpus``: the order of the original package, sample for sample, to finish a run that
    was started there. It depends on the number of samples and needs ``data_cache_path``."""

    train_samples: int | None = None
    """Training samples that the original's order is built for: its steps times its global batch
    size. None: ``training.steps`` times ``training.global_batch_size``."""

    eval_samples: int | None = None
    """Samples of valid, and of test, that the original's order is built for; 0 if there are none.
    None: as many as ``[validation]`` reads."""

    max_open_shards: int = 128
    """Largest number of ``.bin`` files that are open at once."""

    vocab_size: int | None = None
    """Token ids must be below this; a trainer sets it to its model's. None: not checked."""

    def __setattr__(self, name: str, value: object) -> None:
        # Slots would refuse misspelled fields, but TorchTitan's configuration class has slots, and
        # a class cannot inherit from two that do.
        if name not in self.__dataclass_fields__:
            raise AttributeError(f"{type(self).__qualname__} has no field {name!r}")
        super().__setattr__(name, value)


@dataclass(kw_only=True, unsafe_hash=True)
class BlendConfig(BlendKeys):
    """The checked, frozen configuration of a blend. Change one with ``dataclasses.replace``."""

    # Required here; a mutable field of a base class may not be narrowed, but these are frozen.
    data_file_list: str | Path = field()  # pyright: ignore[reportIncompatibleVariableOverride]
    seq_length: int = field()  # pyright: ignore[reportIncompatibleVariableOverride]

    segments: tuple[SegmentConfig, ...] = ()
    """Changes of the shares, by slots of the training split, in order."""

    def __setattr__(self, name: str, value: object) -> None:
        # ``frozen=True`` needs a frozen base class, which TorchTitan's configuration cannot have.
        if name in self.__dict__:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super().__setattr__(name, value)

    def __post_init__(self) -> None:
        self._check_values()
        split_fractions(self.split)
        self._check_eod()
        if self.has_horizon or self.train_samples is not None or self.eval_samples is not None:
            from blendtitan.original_settings import check_horizon

            check_horizon(self)

    @property
    def finds_documents(self) -> bool:
        """Whether labels or masks depend on where documents end."""
        return self.provide_attention_mask or self.eod_mask_loss

    @property
    def has_horizon(self) -> bool:
        """Whether the order is built for a fixed number of samples, like the original's."""
        return self.order == ORIGINAL_ORDER

    def _check_values(self) -> None:
        for each in fields(self):
            name, value = each.name, getattr(self, each.name)
            if value is None and each.default is None:
                continue
            if name in _CHOICES and value not in _CHOICES[name]:
                expected = ", ".join(_CHOICES[name])
                raise ConfigError(f"{name} is {value!r}, expected one of {expected}")
            if name in _AT_LEAST:
                check_at_least(name, value, _AT_LEAST[name])
            if isinstance(each.default, bool) and not isinstance(value, bool):
                raise ConfigError(f"{name} is {value!r}, expected true or false")
            if isinstance(each.default, str) and not isinstance(value, str):
                raise ConfigError(f"{name} is {value!r}, expected text")
        check_is_path("data_file_list", self.data_file_list, may_be_remote=True)
        for name in ("data_cache_path", "removed_documents"):
            if getattr(self, name) is not None:
                check_is_path(name, getattr(self, name))

    def _check_eod(self) -> None:
        eod = self.eod_token_id
        needing = next((name for name in NEED_EOD if getattr(self, name)), None)
        if eod is None and needing is not None:
            raise ConfigError(
                f"eod_token_id is missing, and there is no tokenizer with an EOS to take it from, "
                f"but {needing} = true needs it. Set it to the id of the token that ends documents."
            )
        if eod is not None and self.vocab_size is not None and eod >= self.vocab_size:
            raise ConfigError(
                f"eod_token_id is {eod}, expected an id below the vocabulary size {self.vocab_size}"
            )


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
        too_many = len(numbers) > len(SPLITS)
        remedy = '"98,1,1", for example' if too_many else f'"{split},0" to have no test split'
        raise ConfigError(
            f"split is {split!r}, which has {len(numbers)} numbers. Expected three: the relative "
            f"sizes of train, valid and test. Write {remedy}."
        )
    total = math.fsum(numbers)
    train, valid, test = (number / total for number in [*numbers, 0.0, 0.0][:3])
    return train, valid, test


def check_weight(weight: float, *, where: str) -> None:
    """Check that a weight is a finite number above 0; ``where`` starts the error."""
    if not (math.isfinite(weight) and weight > 0):
        raise ConfigError(
            f"{where}: weight is {weight}, expected a finite number above 0. "
            f"To leave a shard out, delete its line."
        )


def check_shares(shares: object, *, where: str) -> None:
    """Check that shares map corpora to finite numbers of at least 0; ``where`` starts the error."""
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


def check_is_path(name: str, value: Path | str, *, may_be_remote: bool = False) -> None:
    """Check that a setting is a local path: a URL would become a folder named ``s3:``."""
    if not isinstance(value, str | Path) or value == "":
        raise ConfigError(f"{name} is {value!r}, expected a path")
    # Path("s3://bucket") is s3:/bucket.
    if _URL.match(str(value)) and not (may_be_remote and url_of(value)):
        raise ConfigError(
            f"{name} is {value}, which is a URL, expected a local path. Mount the store, "
            f"or use a local folder and copy it afterwards."
        )


def check_at_least(name: str, value: int | None, least: int) -> None:
    """Check that a setting is an integer of at least ``least`` that fits into 64 bits."""
    # bool is an int in Python, but never a count.
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {value!r}, expected a whole number of at least {least}")
    if value > MAX_INT:
        raise ConfigError(f"{name} is {value:,}, expected a whole number of at most {MAX_INT:,}")
