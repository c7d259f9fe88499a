"""What TorchTitan 0.2's TOML file may hold beyond its own keys: ``job.custom_config_module``.

TorchTitan merges ``JobConfig`` into its own and adds ``--section.key`` for every field.
"""

from dataclasses import dataclass, field, make_dataclass
from typing import Any, Literal

from blendtitan.run.keys import DEFAULTS
from blendtitan.run.known_keys import HINTS

BLENDCORPUS = "blendcorpus"
"""Value of ``training.dataset`` and ``validation.dataset`` for our loader."""


@dataclass
class Model:
    """Further keys of ``[model]``."""

    tokenizer_backend: str = ""
    """``sptoken`` (the default), ``hf`` or ``tekken``. The files are in ``hf_assets_path``."""

    vocab_size: int | None = None
    """Vocabulary of the model. None: the flavor's, or the tokenizer's where that is larger."""

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


def _blendcorpus_fields() -> list[tuple[str, Any, Any]]:
    """The keys of ``[blendcorpus]``: those that TorchTitan 0.3 has, with their defaults."""
    found: list[tuple[str, Any, Any]] = []
    for key, hint in HINTS.items():
        section, _, name = key.rpartition(".")
        if section == BLENDCORPUS:
            default = DEFAULTS[key]
            is_list = isinstance(default, list)
            value = field(default_factory=list) if is_list else field(default=default)
            found.append((name, hint, value))
    return found


BlendCorpus = make_dataclass("BlendCorpus", _blendcorpus_fields())
"""The ``[blendcorpus]`` section. ``docs/configuration.md`` explains its keys."""


@dataclass
class JobConfig:
    """What is added to TorchTitan's ``JobConfig``."""

    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    validation: Validation = field(default_factory=Validation)
    blendcorpus: BlendCorpus = field(default_factory=BlendCorpus)  # pyright: ignore
