"""The check at the start of a run: an error or a warning, and an answer that is kept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blendtitan.config import BlendConfig
from blendtitan.errors import ConfigError, OutputError, TokenizerMismatchError
from blendtitan.files import read_file
from blendtitan.storage.atomic_files import write_atomically
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.file_list import ShardList
from blendtitan.storage.kept_catalog import shards_identity
from blendtitan.tokenizer_check.check import Findings, MadeShard, check_shards
from blendtitan.tokenizers import Tokenizer
from blendtitan.tokenizers.encoder import tokenizer_identity
from blendtitan.visible import Lines, visible_logger

logger = visible_logger(__name__)

TOKENIZER_CHECKS = ("error", "warn")
"""Values of ``blendcorpus.tokenizer_check``."""

_VERSION = 1
"""Of kept answers: those of another version are not believed."""

_MOST_BYTES = 1 << 20


class TokenizerCheck:
    """Compares the shards of a run with its tokenizer, as ``read_catalog`` calls it.

    Args:
        config: Of the run. With a ``data_cache_path``, a good answer is kept there, and holds as
            long as the shards, the tokenizer and EOD stay what they are.
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
        """What was found that is no error."""

    def __call__(self, shards: ShardList, catalog: Catalog) -> None:
        """Compare, and log the warnings.

        Raises:
            TokenizerMismatchError: Shards were made with another tokenizer.
            ShardError: A record, or a shard that is probed, cannot be read.
        """
        path = self._kept_path(shards)
        kept = None if path is None else _read_kept(path)
        if kept is None:
            findings, kept = self._compared(catalog)
            if path is not None and not findings.mismatches:
                _keep(path, kept)
        self.warnings += kept
        for warning in kept:
            logger.warning("%s", Lines(warning))

    def _compared(self, catalog: Catalog) -> tuple[Findings, list[str]]:
        columns = zip(
            catalog.prefixes,
            catalog.corpora,
            catalog.document_cuts[:, 3].tolist(),
            catalog.token_cuts[:, 3].tolist(),
            strict=True,
        )
        made = [MadeShard(*values) for values in columns]
        eod_id = self._config.eod_token_id if self._reads_eod else None
        findings = check_shards(made, self._tokenizer, eod_id=eod_id)
        corpus_of = dict(zip(catalog.prefixes, catalog.corpora, strict=True))
        where = self._config.data_file_list
        warnings = [
            f"{where}: it is not known whether the tokenizer of this run made {line}"
            for line in findings.unclear_lines(corpus_of)
        ]
        if findings.mismatches:
            lines = list(findings.mismatch_lines(corpus_of))
            text = _mismatch_lines(f"{where}", findings, lines, len(made))
            if self._action == "error":
                raise TokenizerMismatchError(*text, _REMEDY)
            warnings.append("\n".join(text))
        return findings, warnings

    @property
    def _reads_eod(self) -> bool:
        config = self._config
        return config.append_eod or config.provide_attention_mask or config.eod_mask_loss

    def _kept_path(self, shards: ShardList) -> Path | None:
        if self._config.data_cache_path is None:
            return None
        eod_id = self._config.eod_token_id if self._reads_eod else None
        tokenizer = tokenizer_identity(self._tokenizer)
        identity = shards_identity(shards, f"tokenizer check {_VERSION}, {tokenizer}, EOD {eod_id}")
        folder = Path(self._config.data_cache_path)
        return None if identity is None else folder / f"tokenizer-check-{identity}"


_REMEDY = (
    "Train with the tokenizer that made the data, or tokenise the data again. To train all the "
    'same, set blendcorpus.tokenizer_check = "warn".'
)


def _mismatch_lines(
    where: str, findings: Findings, lines: Sequence[str], num_shards: int
) -> list[str]:
    return [
        f"{where}: {len(findings.mismatches):,} of {num_shards:,} shards do not belong to the "
        f"tokenizer of this run.",
        f"  the run: {findings.tokenizer}",
        *(f"  shards: {line}" for line in lines),
    ]


def _keep(path: Path, warnings: list[str]) -> None:
    try:
        write_atomically(path, json.dumps({"warnings": warnings}).encode())
    except (OSError, OutputError) as error:
        # The run reads well without it: the folder may hold a catalog, and be read-only.
        logger.warning("The check of the tokenizer is made again at the next start: %s", error)


def _read_kept(path: Path) -> list[str] | None:
    """The warnings of a kept answer. None: there is none that can be believed."""
    try:
        kept: Any = json.loads(read_file(path, most_bytes=_MOST_BYTES))
        warnings: Any = kept["warnings"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    is_sound = isinstance(warnings, list) and all(isinstance(w, str) for w in warnings)
    return warnings if is_sound else None
