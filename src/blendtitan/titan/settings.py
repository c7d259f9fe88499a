"""The sections and keys of a TOML file: one dataclass per section, one field per key.

If TorchTitan has a dataclass for a section, it is used unchanged, with its keys, defaults and
checks. A nested dataclass is a table of its own, such as ``[quantize.linear.float8]``. To add a
key, add a field here, use it in ``assemble.py`` and run scripts/write_known_keys.py; to add a
section, add a field to ``Settings``.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from torchtitan.components.dataloader import ParallelAwareDataloader
from torchtitan.components.optimizer import LRSchedulersContainer
from torchtitan.components.quantization import (
    Float8GroupedExpertsConverter,
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

from blendtitan.settings.guards import GuardSettings
from blendtitan.titan import cpu
from blendtitan.titan.checkpoint import BlendCheckpointManager
from blendtitan.titan.converters import TensorwiseFloat8LinearConverter
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.metrics import LossMetrics
from blendtitan.titan.model import AttentionBackend, ExpertBackend
from blendtitan.titan_ft.settings import FaultToleranceSettings

Converter = Literal[
    "quantize.linear.float8",
    "quantize.linear.mx",
    "quantize.linear.nvfp4",
    "quantize.grouped_mm.float8",
    "quantize.grouped_mm.mx",
]
"""A conversion of the model's modules, named after the section that configures it."""


@dataclass(kw_only=True, slots=True)
class JobSettings:
    """``[job]``: the run as a whole."""

    description: str = ""
    """Free text, logged at the start."""

    dump_folder: str = "./outputs"
    """Folder for everything that the run writes, including its ``config.toml``."""


@dataclass(kw_only=True, slots=True)
class ModelSettings:
    """``[model]``: a model of TorchTitan, and its tokenizer."""

    name: str = "llama3"
    """Name of a model of TorchTitan."""

    flavor: str = "debugmodel"
    """Size of the model."""

    attn_backend: AttentionBackend = "flex"
    """Attention implementation. A CPU always uses ``sdpa``."""

    vocab_size: int | None = None
    """Vocabulary size of the model. None: the tokenizer's, rounded up to a multiple of 64."""

    tokenizer_backend: str = ""
    """``sptoken`` for SentencePiece, ``hf`` for Hugging Face, ``tekken`` for Tekken. Empty: the
    file name decides."""

    tokenizer_path: str | None = None
    """File or folder of the tokenizer, or its URL. None: ``hf_assets_path``."""

    hf_assets_path: str = ""
    """Folder of Hugging Face files: tokenizer, weights and their index."""

    converters: list[Converter] = field(default_factory=list)
    """Conversions of the model's modules, in order. Each is configured by the section it names."""


@dataclass(kw_only=True, slots=True)
class OptimizerSettings:
    """``[optimizer]``: one optimizer for all parameters."""

    name: Literal["Adam", "AdamW"] = "AdamW"
    """Kind of optimizer."""

    lr: float = 8e-4
    """Peak learning rate."""

    beta1: float = 0.9
    """Decay of the running mean of gradients."""

    beta2: float = 0.95
    """Decay of the running mean of squared gradients."""

    eps: float = 1e-8
    """Added to the denominator."""

    weight_decay: float = 0.1
    """Weight decay, decoupled in AdamW."""

    implementation: Literal["for-loop", "foreach", "fused", "fused_opt_states_bf16"] = "fused"
    """Implementation of the update."""


@dataclass(kw_only=True, slots=True)
class TrainingSettings(TrainingConfig):
    """``[training]``: TorchTitan's, with the data set, as in TorchTitan 0.2."""

    dataset: str = "blendcorpus"
    """``blendcorpus`` for this project's loader, or the name of a dataset of TorchTitan."""

    dataset_path: str | None = None
    """Path of the data, unless ``blendcorpus.data_file_list`` is set."""

    batch_schedule: list[dict[str, Any]] = field(default_factory=list)
    """Tables that change ``global_batch_size`` during the run: ``global_batch_size``, and
    ``from_step`` or ``from_tokens``, the steps or tokens before the change."""

    dataloader: ParallelAwareDataloader.Config = field(
        default_factory=ParallelAwareDataloader.Config
    )
    """Options for TorchTitan's own datasets. ``[blendcorpus]`` has its own keys."""


@dataclass(kw_only=True, slots=True)
class ParallelismSettings(ParallelismConfig):
    """``[parallelism]``: TorchTitan's."""

    spmd_backend: cpu.SpmdBackend = field(default_factory=cpu.default_spmd_backend)
    """Representation of parallel dimensions. On a CPU the default is ``partial_dtensor``."""

    expert_parallel_comm_backend: ExpertBackend = "standard"
    """Communication between tokens and experts. No effect on a model without experts."""


@dataclass(kw_only=True, slots=True)
class ValidationSettings:
    """``[validation]``: the loss on held-out data."""

    enable: bool = False
    """Validate at step 1 and every ``freq`` steps."""

    freq: int = 10
    """Steps between validations."""

    steps: int = -1
    """Steps of ``training.global_batch_size`` samples per validation, always on the same samples.
    -1: every window of the split once; the blend's loss is then the mean of the corpora's losses,
    weighted by their shares."""

    samples: int | None = None
    """Samples of the blend, and of each corpus, that a validation reads. None: see ``steps``."""

    set: list[dict[str, Any]] = field(default_factory=list)
    """Held-out data beside the blend's valid split: tables with ``name``, ``path`` (a file list or
    a folder of shards), and, if need be, ``samples`` (every window once) and ``allow_overlap``."""

    dataset: str | None = None
    """A dataset of TorchTitan, if ``training.dataset`` is one. None: the same dataset. A blend is
    always validated on its valid split, as in the BlendCorpus integration."""

    dataset_path: str | None = None
    """Path of a dataset of TorchTitan."""

    local_batch_size: int | None = None
    """Accepted for compatibility. It must equal ``training.local_batch_size``."""

    seq_len: int | None = None
    """Accepted for compatibility. It must equal ``training.seq_len``."""

    dataloader: ParallelAwareDataloader.Config = field(
        default_factory=ParallelAwareDataloader.Config
    )
    """Options for a dataset of TorchTitan."""


@dataclass(kw_only=True, slots=True)
class ActivationCheckpointSettings:
    """``[activation_checkpoint]``: recompute activations instead of storing them."""

    mode: Literal["none", "selective", "full", "memory_budget"] = "selective"
    """Recompute nothing, cheap operations, everything except the inputs of layers, or the best
    choice that ``torch.compile`` finds within ``memory_budget``."""

    selective_ac_option: str = "op"
    """With ``mode = "selective"``: ``op`` selects operations; a number ``n``, as text, recomputes
    every ``n``-th layer."""

    force_recompute_mm_shapes_by_fqns: list[str] = field(default_factory=["moe.router.gate"].copy)
    """With ``op``: modules whose matrix products are always recomputed."""

    memory_budget: float = 0.5
    """With ``mode = "memory_budget"``: from 0 (least memory) to 1 (fastest)."""

    visualize_memory_budget_pareto: bool = False
    """With ``mode = "memory_budget"``: plot time against memory, in ``dump_folder``."""

    preserve_rng_state: bool = True
    """Reuse the random numbers of the forward pass."""

    determinism_check: str = "default"
    """Comparison of recomputed values, see ``torch.utils.checkpoint``."""

    debug: bool = False
    """Record details of recomputation; slow."""


@dataclass(kw_only=True, slots=True)
class QuantizeLinearSettings:
    """``[quantize.linear]``: lower precision in matrix products."""

    float8: TensorwiseFloat8LinearConverter.Config = field(
        default_factory=TensorwiseFloat8LinearConverter.Config
    )
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
    """``[quantize]``: lower precision, if ``model.converters`` names it."""

    linear: QuantizeLinearSettings = field(default_factory=QuantizeLinearSettings)
    """Linear modules."""

    grouped_mm: QuantizeGroupedSettings = field(default_factory=QuantizeGroupedSettings)
    """Experts."""


@dataclass(kw_only=True, slots=True)
class ExperimentalSettings:
    """``[experimental]``: extensions."""

    custom_import: str = ""
    """Module to import before the run is built."""


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
    guards: GuardSettings = field(default_factory=GuardSettings)
    debug: DebugConfig = field(default_factory=DebugConfig)
    fault_tolerance: FaultToleranceSettings = field(default_factory=FaultToleranceSettings)
    experimental: ExperimentalSettings = field(default_factory=ExperimentalSettings)
    override: OverrideSettings = field(default_factory=OverrideSettings)
    blendcorpus: BlendCorpusDataLoader.Config = field(default_factory=BlendCorpusDataLoader.Config)
