"""Every error that blendtitan raises on purpose.

::

    BlendTitanError
    |-- ConfigError          a setting, or a combination of settings, cannot be used
    |   |-- FileListError    a line of a file list cannot be used
    |   `-- MissingExtraError    an optional package is not installed
    |-- ShardError           a shard cannot be used
    |   |-- MissingShardError    one of its files is missing or unreadable
    |   |-- CorruptShardError    its files contradict each other or the format
    |   |   `-- UncountedEodError  its EODs are not counted in its lengths
    |   |-- MixedEodError        some of its documents end in EOD, some do not
    |   |-- VocabularyError      it contains a token id outside the model's vocabulary
    |   `-- TokenizerMismatchError  it was made with another tokenizer
    |-- EmptySplitError      a split that is used has no documents
    |-- ResumeError          a saved state does not belong to this run
    |-- LossError            losses of training are NaN or infinite
    |-- FastTierError        the fast tokenizer tier is absent, fails, or gives other ids
    |-- InputError           a text file given to `blendtitan tokenize` cannot be used
    `-- OutputError          a file cannot be written: the disk is full, or permission is denied

Messages name the file, the value found, the value expected and the remedy. A message of several
lines is passed line by line: ``ShardError(*problems, summary)``.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Self

from blendtitan.visible import Lines, joined


class BlendTitanError(Exception):
    """Base of these errors. Its text is safe to print: control characters are escaped."""

    def __str__(self) -> Lines:
        return joined(map(str, self.args))


class ConfigError(BlendTitanError, ValueError):
    """A setting, or a combination of settings, cannot be used."""


class FileListError(ConfigError):
    """A line of a file list cannot be used."""


class MissingExtraError(ConfigError, ImportError):
    """An optional package is not installed. The message names the extra that installs it."""


class ShardError(BlendTitanError):
    """A shard cannot be used."""


class MissingShardError(ShardError):
    """A file of a shard is missing or cannot be read."""


class CorruptShardError(ShardError):
    """The files of a shard contradict each other or the format."""

    @classmethod
    def of_index(cls, path: str, found: str, expected: str) -> Self:
        """The error for an ``.idx`` that contradicts itself."""
        return cls(
            f"{path}: {found}, expected {expected}. "
            f"Copy both files again, or tokenise the shard again."
        )


class UncountedEodError(CorruptShardError):
    """The EODs of a shard were appended to its ``.bin`` without being counted in its ``.idx``."""


class MixedEodError(ShardError):
    """Some documents of a shard end in EOD and some do not."""


class VocabularyError(ShardError):
    """A shard contains a token id outside the model's vocabulary."""


class TokenizerMismatchError(ShardError):
    """A shard was made with another tokenizer than the run's, or than its neighbours."""


class EmptySplitError(BlendTitanError):
    """A split that is used has no documents."""

    @classmethod
    def of_split(cls, name: str, blend: Any, *, most_documents: int | None = None) -> Self:
        """The error for a split of a ``BlendConfig`` that no corpus has documents in.

        ``most_documents`` is the largest number of documents in a shard, if that is known.
        """
        others = f", blendcorpus.eval_samples = {blend.eval_samples}" if blend.has_horizon else ""
        remedy = ". Give it a larger part"
        if most_documents == 1:
            remedy = (
                ', and each has only one. For .txt files, set txt = "line" in data.toml and run '
                "blendtitan prepare --overwrite"
            )
        return cls(
            f"{blend.data_file_list}: no corpus has documents in the {name} split, with "
            f"blendcorpus.split = {blend.split!r}{others}, which divides the documents of each "
            f"shard{remedy}, or, for valid, name held-out data in [[validation.set]], or set "
            f"validation.enable = false."
        )


class ResumeError(BlendTitanError):
    """A saved state does not belong to this run."""


class LossError(BlendTitanError):
    """Losses of training are NaN or infinite."""


class FastTierError(BlendTitanError):
    """The fast tokenizer tier is absent, fails, or gives other ids than the reference.

    If it is raised in the middle of a run, no ids of the fast tier can be trusted. Shards that were
    written with them must be made again with the reference tier.
    """


class InputError(BlendTitanError):
    """A text file given to ``blendtitan tokenize`` cannot be used."""


class OutputError(BlendTitanError):
    """A file cannot be written: the disk is full, or permission is denied."""


@contextmanager
def requires_extra(
    extra: str,
    user: str,
    *,
    error: type[BlendTitanError] = MissingExtraError,
    exits: bool = False,
) -> Generator[None]:
    """Turn a failed import in the block into a one-line error that names the extra.

    Args:
        extra: The extra of ``pyproject.toml`` that installs the imports of the block.
        user: The command, setting or Python name that needs it; the message begins with it.
        error: The type of the error.
        exits: End the process with this line instead of a traceback, as entry points do.
    """
    try:
        yield
    except ImportError as cause:
        package = (cause.name or "").partition(".")[0]
        if package == "blendtitan":
            raise
        is_absent = isinstance(cause, ModuleNotFoundError)
        problem = (
            f"{package}, which is not installed"
            if is_absent
            else f"packages of the extra {extra}, which cannot be imported ({cause})"
        )
        message = f"{user} needs {problem}: pip install 'blendtitan[{extra}]'"
        if exits:
            sys.exit(message)
        raise error(message) from (None if is_absent else cause)
