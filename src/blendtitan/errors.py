"""Every error that blendtitan raises on purpose.

    BlendTitanError
    |-- ConfigError          a setting, or a combination of settings, cannot be used
    |   `-- FileListError    a line of a file list cannot be used
    |-- ShardError           a shard cannot be used
    |   |-- MissingShardError    a file of it is absent or unreadable
    |   |-- CorruptShardError    its files contradict each other or the format
    |   |-- MixedEodError        some of its documents end in EOD, some do not
    |   `-- VocabularyError      it holds a token id outside the model's vocabulary
    |-- EmptySplitError      a split that is used has no documents
    |-- ResumeError          a saved state does not belong to this run
    `-- InputError           a text file given to `blendtitan tokenize` cannot be used

Messages name the file, the value found, the value expected and what to do.
"""


class BlendTitanError(Exception):
    """Base of all errors that blendtitan raises on purpose."""


class ConfigError(BlendTitanError, ValueError):
    """A setting, or a combination of settings, cannot be used."""


class FileListError(ConfigError):
    """A line of a file list cannot be used."""


class ShardError(BlendTitanError):
    """A shard cannot be used."""


class MissingShardError(ShardError):
    """A file of a shard is absent or cannot be read."""


class CorruptShardError(ShardError):
    """The files of a shard contradict each other or the format."""


class MixedEodError(ShardError):
    """Some documents of a shard end in EOD and some do not."""


class VocabularyError(ShardError):
    """A shard holds a token id outside the model's vocabulary."""


class EmptySplitError(BlendTitanError):
    """A split that is used has no documents."""


class ResumeError(BlendTitanError):
    """A saved state does not belong to this run."""


class InputError(BlendTitanError):
    """A text file given to ``blendtitan tokenize`` cannot be used."""
