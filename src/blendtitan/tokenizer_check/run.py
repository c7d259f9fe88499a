"""Compare the tokenizer of a run with those of its shards, at the start of the run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from blendtitan.config import BlendConfig
from blendtitan.errors import ConfigError, OutputError, TokenizerMismatchError
from blendtitan.files import io_map, read_file
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.atomic_files import write_atomically
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.file_list import ShardList
from blendtitan.storage.kept_catalog import shards_identity
from blendtitan.storage.record_files import TokenizerRecord, read_record
from blendtitan.tokenizers import Tokenizer, identity_of, tokenizer_identity
from blendtitan.visible import Lines, some_of, visible, visible_logger

logger = visible_logger(__name__)

TOKENIZER_CHECKS = ("error", "warn")
"""Values of ``blendcorpus.tokenizer_check``."""

_VERSION = 1
"""Version of stored results. Results of another version are ignored."""

_MOST_BYTES = 1 << 20

_REMEDY = (
    "Use the tokenizer that made the shards, or make them again from their text (--overwrite of "
    'prepare and tokenize). To train anyway, set blendcorpus.tokenizer_check = "warn".'
)


class MadeShard(NamedTuple):
    """The facts about a shard that its record must match."""

    prefix: str
    corpus: str
    documents: int
    tokens: int


@dataclass(slots=True)
class Findings:
    """The result of comparing shards with a tokenizer."""

    tokenizer: str = ""
    """The tokenizer in words, if there are mismatches."""

    mismatches: dict[str, str] = field(default_factory=dict)
    unclear: dict[str, str] = field(default_factory=dict)

    num_skipped: int = 0
    """Shards about which nothing is known, because only a sample of the shards was probed."""

    def counts(self, num_shards: int) -> str:
        """The number of mismatches in words, among so many shards."""
        compared = num_shards - self.num_skipped
        of = (
            f"the {compared:,} shards that were compared"
            if self.num_skipped
            else f"{compared:,} shards"
        )
        unclear = f", and {len(self.unclear):,} are unclear" if self.unclear else ""
        rest = f"; the run has {num_shards:,}" if self.num_skipped else ""
        return (
            f"{len(self.mismatches):,} of {of} do not belong to the tokenizer of this run"
            f"{unclear}{rest}."
        )


def check_shards(
    shards: Sequence[MadeShard], tokenizer: Tokenizer, *, eod_id: int | None
) -> Findings:
    """Compare the records of shards with a tokenizer, and tokens of those without a record.

    Every record is read, and a bounded sample of the tokens. EOD is compared unless it is None.

    Raises:
        ShardError: A record, or a shard whose tokens are compared, cannot be read.
    """
    records = io_map(read_record, [shard.prefix for shard in shards])
    believed = [
        record if record and record.describes(documents=s.documents, tokens=s.tokens) else None
        for s, record in zip(shards, records, strict=True)
    ]
    # Hashing a large tokenizer.json takes most of a second, so do it only if needed.
    own = identity_of(tokenizer, eod_id) if any(believed) else None
    findings = Findings()
    unknown: dict[str, TokenizerRecord | None] = {}
    for shard, record in zip(shards, believed, strict=True):
        if record is None or own is None or not record.tokenizer.can_be_compared(own):
            unknown[shard.prefix] = record
        elif reason := _difference(record.tokenizer, own):
            findings.mismatches[shard.prefix] = reason
    if unknown:
        from blendtitan.tokenizer_check.unrecorded import probe_tokens

        probe_tokens(shards, unknown, findings, tokenizer, eod_id=eod_id)
    if findings.mismatches:
        own = own or identity_of(tokenizer, eod_id)
        findings.tokenizer = visible(f"{own}, from {tokenizer.path}")
    return findings


def _difference(found: TokenizerIdentity, own: TokenizerIdentity) -> str | None:
    if not found.gives_ids_of(own):
        return f"made with {found}"
    if own.eod_id is not None and found.eod_id not in (None, own.eod_id):
        return f"made with the same tokenizer, but documents end in EOD {found.eod_id}"
    return None


def _lines(reasons: Mapping[str, str], corpus_of: Mapping[str, str]) -> Iterator[str]:
    """Reasons in words, shards with the same reason in one line."""
    by_reason: dict[str, list[str]] = {}
    for prefix, reason in reasons.items():
        by_reason.setdefault(reason, []).append(prefix)
    for reason, prefixes in by_reason.items():
        corpora = dict.fromkeys(repr(corpus_of[prefix]) for prefix in prefixes)
        kind = "corpus" if len(corpora) == 1 else "corpora"
        yield f"{visible(some_of(prefixes))} ({kind} {some_of(list(corpora))}): {reason}"


class TokenizerCheck:
    """Compares the shards of a run with its tokenizer; ``read_catalog`` calls it.

    Args:
        config: Of the run. With a ``data_cache_path``, a good result is stored there, and remains
            valid while the shards, the tokenizer and EOD stay the same.
        tokenizer: Of the run.
        action: ``error`` or ``warn``, for shards of another tokenizer.
    """

    def __init__(self, config: BlendConfig, tokenizer: Tokenizer, *, action: str) -> None:
        if action not in TOKENIZER_CHECKS:
            raise ConfigError(
                f"tokenizer_check is {action!r}, expected one of {', '.join(TOKENIZER_CHECKS)}"
            )
        self._config = config
        self._tokenizer = tokenizer
        self._action = action
        self.warnings: list[str] = []
        """Findings that are not errors."""
        reads_eod = config.append_eod or config.finds_documents
        self._eod_id = config.eod_token_id if reads_eod else None

    def __call__(self, shards: ShardList, catalog: Catalog) -> None:
        """Compare, and log the warnings.

        Raises:
            TokenizerMismatchError: Shards were made with another tokenizer.
            ShardError: A record, or a shard whose tokens are compared, cannot be read.
        """
        path = self._stored_path(shards)
        warnings = None if path is None else _read_stored(path)
        if warnings is None:
            findings, warnings = self._compared(catalog)
            if path is not None and not findings.mismatches:
                try:
                    write_atomically(path, json.dumps({"warnings": warnings}).encode())
                except (OSError, OutputError) as error:
                    # The folder may be read-only, and the run does not need the result.
                    logger.warning(
                        "The tokenizer check will be repeated at the next start: %s", error
                    )
        self.warnings += warnings
        for warning in warnings:
            logger.warning("%s", Lines(warning))

    def _compared(self, catalog: Catalog) -> tuple[Findings, list[str]]:
        columns = zip(
            catalog.prefixes,
            catalog.corpora,
            catalog.document_cuts[:, 3].tolist(),
            (catalog.token_cuts[:, 3] - catalog.token_cuts[:, 0]).tolist(),
            strict=True,
        )
        made = [MadeShard(*values) for values in columns]
        findings = check_shards(made, self._tokenizer, eod_id=self._eod_id)
        corpus_of = dict(zip(catalog.prefixes, catalog.corpora, strict=True))
        where = self._config.data_file_list
        warnings = [
            f"{where}: cannot determine whether the tokenizer of this run made {line}"
            for line in _lines(findings.unclear, corpus_of)
        ]
        if findings.mismatches:
            text = [
                f"{where}: {findings.counts(len(made))}",
                f"  the run: {findings.tokenizer}",
                *(f"  shards: {line}" for line in _lines(findings.mismatches, corpus_of)),
            ]
            if self._action == "error":
                raise TokenizerMismatchError(*text, _REMEDY)
            warnings.append("\n".join(text))
        return findings, warnings

    def _stored_path(self, shards: ShardList) -> Path | None:
        if self._config.data_cache_path is None:
            return None
        tokenizer = tokenizer_identity(self._tokenizer)
        settings = f"tokenizer check {_VERSION}, {tokenizer}, EOD {self._eod_id}"
        identity = shards_identity(shards, settings)
        folder = Path(self._config.data_cache_path)
        return None if identity is None else folder / f"tokenizer-check-{identity}"


def _read_stored(path: Path) -> list[str] | None:
    """The warnings of a stored result. None: no usable result."""
    try:
        stored: Any = json.loads(read_file(path, most_bytes=_MOST_BYTES))
        warnings: Any = stored["warnings"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    is_sound = isinstance(warnings, list) and all(isinstance(w, str) for w in warnings)
    return warnings if is_sound else None
