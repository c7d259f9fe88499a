"""The sections and keys of a TOML file: one dataclass per section, one field per key.

Where TorchTitan has a dataclass for a section it is used as it is, so that its keys, defaults
and checks are TorchTitan's. To add a key, add a field here and use it in ``assemble.py``; to add
a section, add a field to ``Settings``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_type_hints

from torchtitan.components.optimizer import LRSchedulersContainer
from torchtitan.config import CompileConfig, ParallelismConfig, TrainingConfig

from blendtitan.titan import cpu
from blendtitan.titan.checkpoint import BlendCheckpointManager
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.metrics import LossMetrics
from blendtitan.titan.model import AttentionBackend


@dataclass(kw_only=True, slots=True)
class JobSettings:
    """``[job]``: the run as a whole."""

    description: str = ""
    """Free text for people. It is logged at the start."""

    dump_folder: str = "./outputs"
    """Folder for everything that the run writes."""

    print_config: bool = False
    """Log the whole configuration at the start."""

    save_config_file: str | None = None
    """File below ``dump_folder`` that the whole configuration is written to."""


@dataclass(kw_only=True, slots=True)
class ModelSettings:
    """``[model]``: TorchTitan's model, and the tokenizer it is trained with."""

    name: str = "llama3"
    """Which of TorchTitan's models."""

    flavor: str = "debugmodel"
    """Which size of it."""

    attn_backend: AttentionBackend = "flex"
    """How attention is computed. A CPU always uses ``sdpa``."""

    vocab_size: int | None = None
    """Vocabulary of the model. None: the tokenizer's, rounded up to a multiple of 64."""

    tokenizer_backend: str = ""
    """``sptoken`` (or empty) for SentencePiece, ``hf`` for Hugging Face."""

    tokenizer_path: str | None = None
    """File or folder of the tokenizer. None: ``hf_assets_path``."""

    hf_assets_path: str = ""
    """Folder of Hugging Face files: tokenizer, weights and their index."""


@dataclass(kw_only=True, slots=True)
class OptimizerSettings:
    """``[optimizer]``: one optimizer for all parameters."""

    name: Literal["Adam", "AdamW"] = "AdamW"
    """Kind of optimizer."""

    lr: float = 8e-4
    """Learning rate at its highest."""

    beta1: float = 0.9
    """Decay of the mean of gradients."""

    beta2: float = 0.95
    """Decay of the mean of squared gradients."""

    eps: float = 1e-8
    """Added to the denominator."""

    weight_decay: float = 0.1
    """Decay of the weights, decoupled in AdamW."""

    implementation: Literal["for-loop", "foreach", "fused", "fused_opt_states_bf16"] = "fused"
    """How the update is computed."""


@dataclass(kw_only=True, slots=True)
class TrainingSettings(TrainingConfig):
    """``[training]``: TorchTitan's, with the data set and the reproducibility of TorchTitan 0.2."""

    dataset: str = "blendcorpus"
    """``blendcorpus`` for this project's loader; another name for one of TorchTitan's sets."""

    dataset_path: str | None = None
    """Where the data lies, unless ``blendcorpus.data_file_list`` says so."""

    seed: int | None = None
    """Seed of the weights. The order of the data has its own, ``blendcorpus.seed``."""

    deterministic: bool = False
    """Use deterministic kernels only, where they exist."""


@dataclass(kw_only=True, slots=True)
class ParallelismSettings(ParallelismConfig):
    """``[parallelism]``: TorchTitan's."""

    spmd_backend: cpu.SpmdBackend = field(default_factory=cpu.default_spmd_backend)
    """How parallel dimensions are expressed. On a CPU the default is ``partial_dtensor``."""


@dataclass(kw_only=True, slots=True)
class ValidationSettings:
    """``[validation]``: the loss on data that is not trained on."""

    enable: bool = False
    """Validate at step 1 and every ``freq`` steps."""

    freq: int = 10
    """Steps between validations."""

    steps: int = -1
    """Steps per validation, always the same ones, of ``training.global_batch_size`` samples. -1:
    the whole split, once."""

    samples: int | None = None
    """Samples of the blend, and of each corpus, that a validation reads. None: those of
    ``steps``."""

    dataset: str | None = None
    """One of TorchTitan's sets, if ``training.dataset`` is one. None: the same set."""

    dataset_path: str | None = None
    """Where it lies."""


@dataclass(kw_only=True, slots=True)
class ActivationCheckpointSettings:
    """``[activation_checkpoint]``: recompute activations instead of storing them."""

    mode: Literal["none", "selective", "full"] = "selective"
    """Recompute nothing, what is cheap, or everything but the inputs of the layers."""


@dataclass(kw_only=True, slots=True)
class Settings:
    """A TOML file: one field per section."""

    job: JobSettings = field(default_factory=JobSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    lr_scheduler: LRSchedulersContainer.Config = field(default_factory=LRSchedulersContainer.Config)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    parallelism: ParallelismSettings = field(default_factory=ParallelismSettings)
    checkpoint: BlendCheckpointManager.Config = field(default_factory=BlendCheckpointManager.Config)
    metrics: LossMetrics.Config = field(default_factory=LossMetrics.Config)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    activation_checkpoint: ActivationCheckpointSettings = field(
        default_factory=ActivationCheckpointSettings
    )
    compile: CompileConfig = field(default_factory=CompileConfig)
    blendcorpus: BlendCorpusDataLoader.Config = field(default_factory=BlendCorpusDataLoader.Config)


# Fields that are no keys, because other sections and the rest of the run decide them.
_NO_KEYS = {
    "blendcorpus": {
        "dataset",
        "dataset_path",
        "vocab_size",
        "split_name",
        "infinite",
        "num_samples",
        "corpus",
        "corpus_ids",
        "positions",
    }
}

_SYNONYMS = {"blendcorpus": {"shuffle": "shuffle_sample_in_corpus"}}


@dataclass(frozen=True, slots=True)
class Section:
    """What a section may hold."""

    settings: type
    """The dataclass that holds its values."""

    keys: Mapping[str, Any]
    """Type of each key."""

    synonyms: Mapping[str, str]
    """Key that each further name stands for."""


def _section(name: str, settings: type) -> Section:
    hints = get_type_hints(settings)
    names = (f.name for f in fields(settings) if f.name not in _NO_KEYS.get(name, ()))
    keys = {key: hints[key] for key in names}
    return Section(settings, keys, _SYNONYMS.get(name, {}))


SECTIONS: Mapping[str, Section] = {
    name: _section(name, settings) for name, settings in get_type_hints(Settings).items()
}
"""Every section by name."""
