"""The sections and keys of a TOML file: one dataclass per section, one field per key.

Where TorchTitan has a dataclass for a section it is used as it is, so that its keys, defaults
and checks are TorchTitan's. A dataclass within a dataclass is a table of its own, such as
``[quantize.linear.float8]``. To add a key, add a field here and use it in ``assemble.py``; to add
a section, add a field to ``Settings``.
"""

from dataclasses import dataclass, field
from typing import Literal

from torchtitan.components.dataloader import ParallelAwareDataloader
from torchtitan.components.optimizer import LRSchedulersContainer
from torchtitan.components.quantization import (
    Float8GroupedExpertsConverter,
    Float8LinearConverter,
    MXFP8GroupedExpertsConverter,
    MXFP8LinearConverter,
    NVFP4LinearConverter,
)
from torchtitan.config import (
    CommConfig,
    CompileConfig,
    DebugConfig,
    ParallelismConfig,
    TrainingConfig,
)
from torchtitan.tools.profiler import Profiler

from blendtitan.titan import cpu
from blendtitan.titan.checkpoint import BlendCheckpointManager
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.metrics import LossMetrics
from blendtitan.titan.model import AttentionBackend, ExpertBackend

Converter = Literal[
    "quantize.linear.float8",
    "quantize.linear.mx",
    "quantize.linear.nvfp4",
    "quantize.grouped_mm.float8",
    "quantize.grouped_mm.mx",
]
"""A change to the model's modules, named after the section that configures it."""


@dataclass(kw_only=True, slots=True)
class JobSettings:
    """``[job]``: the run as a whole."""

    description: str = ""
    """Free text for people. It is logged at the start."""

    dump_folder: str = "./outputs"
    """Folder for everything that the run writes, its ``config.toml`` among them."""


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
    """``sptoken`` (or empty) for SentencePiece, ``hf`` for Hugging Face, ``tekken`` for Tekken."""

    tokenizer_path: str | None = None
    """File or folder of the tokenizer. None: ``hf_assets_path``."""

    hf_assets_path: str = ""
    """Folder of Hugging Face files: tokenizer, weights and their index."""

    converters: list[Converter] = field(default_factory=list)
    """Changes to the model's modules, in order. Each is configured by the section it names."""


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
    """``[training]``: TorchTitan's, with the data set, as in TorchTitan 0.2."""

    dataset: str = "blendcorpus"
    """``blendcorpus`` for this project's loader; another name for one of TorchTitan's sets."""

    dataset_path: str | None = None
    """Where the data lies, unless ``blendcorpus.data_file_list`` says so."""

    dataloader: ParallelAwareDataloader.Config = field(
        default_factory=ParallelAwareDataloader.Config
    )
    """How TorchTitan's own sets are loaded. ``[blendcorpus]`` has its own keys."""


@dataclass(kw_only=True, slots=True)
class ParallelismSettings(ParallelismConfig):
    """``[parallelism]``: TorchTitan's."""

    spmd_backend: cpu.SpmdBackend = field(default_factory=cpu.default_spmd_backend)
    """How parallel dimensions are expressed. On a CPU the default is ``partial_dtensor``."""

    expert_parallel_comm_backend: ExpertBackend = "standard"
    """How tokens are sent to their experts. No effect on a model without experts."""


@dataclass(kw_only=True, slots=True)
class ValidationSettings:
    """``[validation]``: the loss on data that is not trained on."""

    enable: bool = False
    """Validate at step 1 and every ``freq`` steps."""

    freq: int = 10
    """Steps between validations."""

    steps: int = -1
    """Steps per validation, always the same ones, of ``training.global_batch_size`` samples. -1:
    every window of the split once; the blend's loss is then the mean of the corpora's, weighted by
    their shares."""

    samples: int | None = None
    """Samples of the blend, and of each corpus, that a validation reads. None: those of
    ``steps``."""

    dataset: str | None = None
    """One of TorchTitan's sets, if ``training.dataset`` is one. None: the same set. A blend is
    always validated on its valid split, as with the BlendCorpus integration."""

    dataset_path: str | None = None
    """Where one of TorchTitan's sets lies."""

    local_batch_size: int | None = None
    """Kept for compatibility. It must equal ``training.local_batch_size``."""

    seq_len: int | None = None
    """Kept for compatibility. It must equal ``training.seq_len``."""

    dataloader: ParallelAwareDataloader.Config = field(
        default_factory=ParallelAwareDataloader.Config
    )
    """How one of TorchTitan's sets is loaded."""


@dataclass(kw_only=True, slots=True)
class ActivationCheckpointSettings:
    """``[activation_checkpoint]``: recompute activations instead of storing them."""

    mode: Literal["none", "selective", "full", "memory_budget"] = "selective"
    """Recompute nothing, what is cheap, everything but the inputs of the layers, or what
    ``torch.compile`` finds best within ``memory_budget``."""

    selective_ac_option: str = "op"
    """With ``mode = "selective"``: ``op`` chooses among operations, a number ``n`` as text
    recomputes every ``n``-th layer."""

    force_recompute_mm_shapes_by_fqns: list[str] = field(default_factory=["moe.router.gate"].copy)
    """With ``op``: modules whose matrix products are always recomputed."""

    memory_budget: float = 0.5
    """With ``mode = "memory_budget"``: from 0, as little memory as possible, to 1, as
    fast as possible."""

    visualize_memory_budget_pareto: bool = False
    """With ``mode = "memory_budget"``: draw time against memory into ``dump_folder``."""

    preserve_rng_state: bool = True
    """Recompute with the random numbers of the forward pass."""

    determinism_check: str = "default"
    """How ``torch.utils.checkpoint`` compares what it recomputed."""

    debug: bool = False
    """Record more of what is recomputed, slowly."""


@dataclass(kw_only=True, slots=True)
class QuantizeLinearSettings:
    """``[quantize.linear]``: lower precision in matrix products."""

    float8: Float8LinearConverter.Config = field(default_factory=Float8LinearConverter.Config)
    """Float8 linear modules."""

    mx: MXFP8LinearConverter.Config = field(default_factory=MXFP8LinearConverter.Config)
    """MXFP8 linear modules."""

    nvfp4: NVFP4LinearConverter.Config = field(default_factory=NVFP4LinearConverter.Config)
    """NVFP4 linear modules."""


@dataclass(kw_only=True, slots=True)
class QuantizeGroupedSettings:
    """``[quantize.grouped_mm]``: lower precision in the matrix products of experts."""

    float8: Float8GroupedExpertsConverter.Config = field(
        default_factory=Float8GroupedExpertsConverter.Config
    )
    """Float8 experts. It has no keys."""

    mx: MXFP8GroupedExpertsConverter.Config = field(
        default_factory=MXFP8GroupedExpertsConverter.Config
    )
    """MXFP8 experts."""


@dataclass(kw_only=True, slots=True)
class QuantizeSettings:
    """``[quantize]``: lower precision, where ``model.converters`` asks for it."""

    linear: QuantizeLinearSettings = field(default_factory=QuantizeLinearSettings)
    """Of linear modules."""

    grouped_mm: QuantizeGroupedSettings = field(default_factory=QuantizeGroupedSettings)
    """Of experts."""


@dataclass(kw_only=True, slots=True)
class ExperimentalSettings:
    """``[experimental]``: extensions."""

    custom_import: str = ""
    """Module that is imported before the run is built."""


@dataclass(kw_only=True, slots=True)
class OverrideSettings:
    """``[override]``: replace TorchTitan's components."""

    imports: list[str] = field(default_factory=list)
    """TorchTitan's override functions, ``module.function`` or ``module.function={JSON object}``."""


@dataclass(kw_only=True, slots=True)
class Settings:
    """A TOML file: one field per section."""

    job: JobSettings = field(default_factory=JobSettings)
    profiling: Profiler.Config = field(default_factory=Profiler.Config)
    metrics: LossMetrics.Config = field(default_factory=LossMetrics.Config)
    model: ModelSettings = field(default_factory=ModelSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    lr_scheduler: LRSchedulersContainer.Config = field(default_factory=LRSchedulersContainer.Config)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    parallelism: ParallelismSettings = field(default_factory=ParallelismSettings)
    checkpoint: BlendCheckpointManager.Config = field(default_factory=BlendCheckpointManager.Config)
    activation_checkpoint: ActivationCheckpointSettings = field(
        default_factory=ActivationCheckpointSettings
    )
    compile: CompileConfig = field(default_factory=CompileConfig)
    quantize: QuantizeSettings = field(default_factory=QuantizeSettings)
    comm: CommConfig = field(default_factory=CommConfig)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    debug: DebugConfig = field(default_factory=DebugConfig)
    experimental: ExperimentalSettings = field(default_factory=ExperimentalSettings)
    override: OverrideSettings = field(default_factory=OverrideSettings)
    blendcorpus: BlendCorpusDataLoader.Config = field(default_factory=BlendCorpusDataLoader.Config)
