"""The ``[blendcorpus]`` section of a TOML file.

TorchTitan's loader configuration, the checks of a TOML file and docs/configuration.md are made from
its fields.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from blendtitan.config import BlendConfig, BlendKeys
from blendtitan.errors import ConfigError


@dataclass(kw_only=True)
class BlendSection(BlendKeys):
    """The ``[blendcorpus]`` section of a TOML file."""

    segment: list[dict[str, Any]] = field(default_factory=list)
    """Changes of the shares during the run: tables with ``from_step`` or ``from_tokens``, and
    ``shares`` by corpus. A corpus that is not named keeps its share; 0 drops it."""

    skip: list[dict[str, Any]] = field(default_factory=list)
    """Steps or slots to leave out, for example after a loss spike: tables with ``from_step`` and
    ``to_step``, or with ``from_slot`` and ``to_slot``. Both ends are left out, too."""

    max_epochs: float = 4.0
    """Largest number of epochs of a corpus in the whole run; more is an error at the start. 0: no
    limit."""

    tokenizer_check: Literal["error", "warn"] = "error"
    """Action at the start if shards were made with another tokenizer than the run's. Shards
    without a tokenizer record are judged by a sample of their tokens."""

    balance: Literal["none", "attention"] = "none"
    """``attention``: rows of similar attention cost run at the same time on all ranks, which then
    wait less for each other. Each step keeps its rows. Needs ``provide_attention_mask``."""

    data_stage_path: str | Path | None = None
    """Folder on a disk of each node, to which it fetches what it will read, and keeps what it reads
    more than once. None: each sample is read from its shard when it is due."""

    data_stage_bytes: int | None = None
    """Bytes of that disk that a node may use. Needed with ``data_stage_path``."""

    def blend_config(
        self, *, dataset_path: str | Path | None, seq_len: int, eos_id: int | None, **decided: Any
    ) -> BlendConfig:
        """The engine's configuration, completed with values from the rest of the run.

        Args:
            dataset_path: ``training.dataset_path``.
            seq_len: ``training.seq_len``.
            eos_id: The tokenizer's EOS, if it has one.
            decided: Further fields of ``BlendConfig``.

        Raises:
            ConfigError: No data is named, or keys contradict each other.
        """
        data_file_list = self.data_file_list or dataset_path
        if data_file_list is None:
            raise ConfigError(
                "no data is configured. Set blendcorpus.data_file_list, or training.dataset_path, "
                "to a file list or a folder of shards."
            )
        if (self.balance, self.data_stage_path, self.data_stage_bytes) != ("none", None, None):
            from blendtitan.settings.section_checks import check_section

            check_section(self)
        check_follows(
            "blendcorpus.seq_length", self.seq_length, other="training.seq_len", expected=seq_len
        )
        keys = {each.name: getattr(self, each.name) for each in fields(BlendKeys)}
        keys |= {"data_file_list": data_file_list, "seq_length": seq_len}
        keys["eod_token_id"] = eos_id if self.eod_token_id is None else self.eod_token_id
        return BlendConfig(**keys | decided)


def check_follows(key: str, value: int | None, *, other: str, expected: int) -> None:
    """Check that an optional key equals the key that it follows."""
    if value not in (None, expected):
        raise ConfigError(
            f"{key} is {value}, expected {expected}, the value of {other}. Leave {key} out to "
            f"follow it."
        )
