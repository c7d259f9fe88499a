"""Additional keys of TorchTitan 0.2's TOML file: ``job.custom_config_module``.

TorchTitan merges ``JobConfig`` into its own and adds ``--section.key`` for every field.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from blendtitan.settings.section import BlendSection

BLENDCORPUS = "blendcorpus"
"""Value of ``training.dataset`` and ``validation.dataset`` for our loader."""


@dataclass
class Model:
    """Further keys of ``[model]``."""

    tokenizer_backend: str = ""
    """``sptoken``, ``hf`` or ``tekken``. Empty: recognised by the names of the files in
    ``hf_assets_path``."""

    vocab_size: int | None = None
    """Vocabulary size of the model. None: the flavor's, or the tokenizer's if that is larger."""

    attn_backend: Literal["", "flex", "varlen", "sdpa"] = ""
    """Kind of attention. Empty: the flavor's."""


@dataclass
class Training:
    """Changes of ``[training]``."""

    dataset: str = BLENDCORPUS
    """``blendcorpus``, or a data set that TorchTitan reads with its own loader."""


@dataclass
class Validation:
    """Changes of ``[validation]``."""

    dataset: str = BLENDCORPUS
    """``blendcorpus``, or a data set that TorchTitan reads with its own loader."""

    samples: int | None = None
    """Samples of the blend, and of each corpus. None: ``steps`` steps of one micro batch of every
    rank; with ``steps = -1``, every window once."""

    set: list[dict[str, Any]] = field(default_factory=list)
    """Held-out data beside the blend's valid split; see ``ValidationSet``."""


@dataclass
class JobConfig:
    """Sections and keys that are added to TorchTitan's ``JobConfig``."""

    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    validation: Validation = field(default_factory=Validation)
    blendcorpus: BlendSection = field(default_factory=BlendSection)
