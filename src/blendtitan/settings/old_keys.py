"""Keys of older TOML files that TorchTitan 0.3 spells differently or no longer has.

They come from TorchTitan 0.1 and 0.2, and from the BlendCorpus integration with them. To accept
another old spelling, add a line to ``RENAMED``; to explain a removed key, add one to ``REMOVED``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RENAMED: Mapping[str, str] = {
    "job.print_args": "debug.print_config",
    "job.print_config": "debug.print_config",
    "job.save_config_file": "debug.save_config_file",
    "lr_scheduler.lr_min": "lr_scheduler.min_lr_factor",
    "training.batch_size": "training.local_batch_size",
    "training.compile": "compile.enable",
    "training.deterministic": "debug.deterministic",
    "training.seed": "debug.seed",
    "training.warmup_steps": "lr_scheduler.warmup_steps",
    "parallelism.enable_async_tensor_parallel": "compile.enable_async_tensor_parallel",
    "checkpoint.enable_checkpoint": "checkpoint.enable",
    "checkpoint.initial_load_model_weights_only": "checkpoint.initial_load_model_only",
    "checkpoint.last_save_model_weights_only": "checkpoint.last_save_model_only",
    "checkpoint.model_weights_only": "checkpoint.last_save_model_only",
    "activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns": (
        "activation_checkpoint.force_recompute_mm_shapes_by_fqns"
    ),
    "float8.emulate": "quantize.linear.float8.emulate",
    "float8.filter_fqns": "quantize.linear.float8.filter_fqns",
    "float8.recipe_name": "quantize.linear.float8.recipe_name",
    "validation.enabled": "validation.enable",
    "blendcorpus.shuffle": "blendcorpus.shuffle_sample_in_corpus",
}
"""Old spelling to the present key."""


@dataclass(frozen=True)
class Removed:
    """A key, or a whole section, that no longer exists."""

    instead: str
    """Its replacement."""

    without_effect: tuple[Any, ...] = ()
    """Values that match the present behaviour, and so are accepted."""


_SCALED_BY_ROW = Removed(
    "float8 scales by row, and no weights are gathered in float8. See "
    "quantize.linear.float8.recipe_name",
    (False,),
)
_ADD_KEYS_IN_PYTHON = Removed(
    "the keys of [blendcorpus] are built in. For other keys, write a function that returns a "
    "configuration and train with --module",
    ("", "torchtitan.experiments.blendcorpus.job_config"),
)
_ALL_EXPERTS = Removed("all experts are converted", ("experts", ["experts"]))

REMOVED: Mapping[str, Removed] = {
    "job.config_file": Removed("it is given on the command line only"),
    "job.custom_config_module": _ADD_KEYS_IN_PYTHON,
    "job.use_for_integration_test": Removed("it has no effect", (True, False)),
    "model.print_after_conversion": Removed(
        "debug.print_config = true logs the model after conversion", (False,)
    ),
    "optimizer.early_step_in_backward": Removed(
        "the optimizer steps after the backward pass", (False,)
    ),
    "parallelism.disable_loss_parallel": Removed(
        "with tensor parallelism the loss is always computed in parallel", (False,)
    ),
    "parallelism.enable_compiled_autograd": Removed("see [compile]", (False,)),
    "parallelism.pipeline_parallel_split_points": Removed(
        "list the modules of each stage in parallelism.module_fqns_per_model_part", ([],)
    ),
    "parallelism.pipeline_parallel_expert_parallel_overlap": Removed(
        "the two kinds of communication are not overlapped", (False,)
    ),
    "parallelism.context_parallel_rotate_method": Removed(
        "keys and values are gathered once", ("allgather",)
    ),
    "parallelism.expert_tensor_parallel_degree": Removed(
        "experts are not split by tensor parallelism: parallelism.expert_parallel_degree takes "
        "its ranks",
        (1,),
    ),
    "checkpoint.enable_ft_dataloader_checkpoints": Removed(
        "there is no TorchFT, and checkpoints always hold the loader's state", (True, False)
    ),
    "activation_checkpoint.early_stop": Removed("recomputation does not stop early", (False,)),
    "float8.enable_fsdp_float8_all_gather": _SCALED_BY_ROW,
    "float8.precompute_float8_dynamic_scale_for_fsdp": _SCALED_BY_ROW,
    "float8.moe_fqns_prototype": _ALL_EXPERTS,
    "quantize.linear.float8.enable_fsdp_float8_all_gather": _SCALED_BY_ROW,
    "quantize.linear.float8.precompute_float8_dynamic_scale_for_fsdp": _SCALED_BY_ROW,
    "quantize.linear.mx.mxfp8_dim1_cast_kernel_choice": Removed("torchao chooses its kernels"),
    "quantize.linear.mx.recipe_name": Removed("there is only one recipe"),
    "quantize.linear.mx.filter_fqns": Removed(
        "name the modules that are converted, not those that are not, in quantize.linear.mx.fqns"
    ),
    "quantize.grouped_mm.float8.fqns": _ALL_EXPERTS,
    "quantize.grouped_mm.mx.fqns": _ALL_EXPERTS,
    "mx": Removed("see [quantize.linear.mx]"),
    "memory_estimation.enable": Removed("memory is not estimated", (False,)),
    "memory_estimation": Removed("memory is not estimated"),
    "fault_tolerance.enable": Removed("TorchFT is only an experiment of TorchTitan", (False,)),
    "fault_tolerance": Removed("TorchFT is only an experiment of TorchTitan"),
    "experimental.custom_args_module": _ADD_KEYS_IN_PYTHON,
    "debug.batch_invariant": Removed("it is an inference setting", (False,)),
}
"""Keys and sections that TorchTitan 0.3 does not have."""
