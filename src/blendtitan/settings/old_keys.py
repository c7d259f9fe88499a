"""Keys of older TOML files that TorchTitan 0.3 spells differently or no longer has.

They come from TorchTitan 0.1 and 0.2, the months before, and the BlendCorpus integration with
them. To accept another old spelling, add a line to ``RENAMED`` or, if its values differ too, to
``TRANSLATED``; to explain a removed key, add one to ``REMOVED``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOVED_SECTIONS: Mapping[str, str] = {
    "global": "job",
    "float8": "quantize.linear.float8",
    "mx": "quantize.linear.mx",
    "quantize.dense": "quantize.linear",
    "quantize.moe": "quantize.grouped_mm",
}
"""Old section to the present one."""

_FROM_TRAINING = ("tensor_parallel_degree", "data_parallel_replicate_degree")
_FROM_TRAINING += ("data_parallel_shard_degree", "fsdp_reshard_after_forward")
_FROM_EXPERIMENTAL = ("context_parallel_degree", "pipeline_parallel_schedule")
_FROM_EXPERIMENTAL += ("pipeline_parallel_degree", "pipeline_parallel_schedule_csv")

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
    "training.checkpoint_interval": "checkpoint.interval",
    "training.debug_moe_force_load_balance": "debug.moe_force_load_balance",
    "training.data_parallel_degree": "parallelism.data_parallel_shard_degree",
    "training.sequence_parallel_degree": "parallelism.tensor_parallel_degree",
    "training.pipeline_parallel_degree": "parallelism.pipeline_parallel_degree",
    **{f"training.{name}": f"parallelism.{name}" for name in _FROM_TRAINING},
    **{f"experimental.{name}": f"parallelism.{name}" for name in _FROM_EXPERIMENTAL},
    "experimental.enable_async_tensor_parallel": "compile.enable_async_tensor_parallel",
    "parallelism.enable_async_tensor_parallel": "compile.enable_async_tensor_parallel",
    "checkpoint.enable_checkpoint": "checkpoint.enable",
    "checkpoint.initial_load_model_weights_only": "checkpoint.initial_load_model_only",
    "checkpoint.last_save_model_weights_only": "checkpoint.last_save_model_only",
    "checkpoint.model_weights_only": "checkpoint.last_save_model_only",
    "activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns": (
        "activation_checkpoint.force_recompute_mm_shapes_by_fqns"
    ),
    "profiling.profile_every_x_iter": "profiling.profile_freq",
    "profiling.run_profiler": "profiling.enable_profiling",
    "validation.enabled": "validation.enable",
    "blendcorpus.shuffle": "blendcorpus.shuffle_sample_in_corpus",
}
"""Old spelling to the present key."""


TRANSLATED: Mapping[str, tuple[str, Mapping[bool, Any]]] = {
    "metrics.enable_color_printing": (
        "metrics.disable_color_printing",
        {True: False, False: True},
    ),
    "metrics.rank_0_only": ("metrics.save_for_all_ranks", {True: False, False: True}),
    "model.use_flex_attn": ("model.attn_backend", {True: "flex", False: "sdpa"}),
    "optimizer.fused": ("optimizer.implementation", {True: "fused", False: "foreach"}),
}
"""Old key to the present one, and its values to the present ones."""

CONVERSIONS: Mapping[str, str] = {
    "float8.enable_float8_linear": "quantize.linear.float8",
    "training.enable_float8_linear": "quantize.linear.float8",
    "training.enable_fp8_linear": "quantize.linear.float8",
    "training.fp8_linear": "quantize.linear.float8",
    "float8.moe_fqns": "quantize.grouped_mm.float8",
    "float8.moe_fqns_prototype": "quantize.grouped_mm.float8",
}
"""Old key to the entry of ``model.converters`` that it asks for."""


@dataclass(frozen=True)
class Removed:
    """A key, or a whole section, that no longer exists."""

    instead: str
    """Its replacement."""

    without_effect: tuple[Any, ...] = ()
    """Values that match the present behaviour, and so are accepted."""

    is_only_faster: bool = False
    """Whether its other values changed the speed only, and so are accepted with a warning."""


_COMPUTED_LATER = "scales are computed when FSDP gathers the weights, with the same result"
_FLUX = Removed(
    "it configures flux, which generates images and is trained with TorchTitan's own trainer"
)
_FLUX_TRAINING = ("img_size", "guidance", "classifier_free_guidance_prob")
_FLUX_TRAINING += ("classifer_free_guidance_prob",)
_FLUX_VALIDATION = ("enable_classifier_free_guidance", "classifier_free_guidance_scale")
_FLUX_VALIDATION += ("denoising_steps", "save_img_count", "save_img_folder", "all_timesteps")
_SEMI_SYNC = Removed("replicas exchange the whole model in full precision at the end of a round")
_SEMI_SYNC_KEYS = ("should_quantize", "fragment_sync_delay", "fragment_update_alpha")
_SEMI_SYNC_KEYS += ("module_fqns_per_model_fragment", "num_fragments")
_EXPERIMENT = Removed("it configures an experiment that only TorchTitan 0.2 trains")
_STEPS = Removed("checkpoint.interval counts steps", ("steps",))
_LOSS_PARALLEL = "with tensor parallelism the loss is always computed in parallel"
_SPLIT_POINTS = Removed(
    "list the modules of each stage in parallelism.module_fqns_per_model_part", ([],)
)
_DYNAMIC = Removed("scales are always dynamic", ("dynamic",))
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
    "metrics.use_for_integration_test": Removed("it has no effect", (True, False)),
    "model.norm_type": Removed(
        "models have the normalisation of their published weights",
        ("rmsnorm", "fused_rmsnorm", "compiled_rmsnorm"),
    ),
    "model.attn_mask_type": Removed(
        "blendcorpus.provide_attention_mask = true restricts attention to a token's document",
        ("causal",),
    ),
    "training.checkpoint_folder": Removed(
        "set checkpoint.folder, and checkpoint.enable = true", ("",)
    ),
    "training.checkpoint_interval_type": _STEPS,
    "checkpoint.interval_type": _STEPS,
    "training.enable_selective_ac": Removed("see activation_checkpoint.mode"),
    "training.warmup_pct": Removed("set lr_scheduler.warmup_steps"),
    "model.print_after_conversion": Removed(
        "debug.print_config = true logs the model after conversion", (False,)
    ),
    "optimizer.early_step_in_backward": Removed(
        "the optimizer steps after the backward pass", (False,)
    ),
    "parallelism.disable_loss_parallel": Removed(_LOSS_PARALLEL, (False,)),
    "training.disable_loss_parallel": Removed(_LOSS_PARALLEL, (False,)),
    "training.enable_loss_parallel": Removed(_LOSS_PARALLEL, (True,)),
    "parallelism.enable_compiled_autograd": Removed("see [compile]", (False,)),
    "parallelism.pipeline_parallel_split_points": _SPLIT_POINTS,
    "experimental.pipeline_parallel_split_points": _SPLIT_POINTS,
    "experimental.pipeline_parallel_split_mode": Removed(_SPLIT_POINTS.instead, ("manual",)),
    "experimental.pipeline_parallel_microbatches": Removed(
        "set parallelism.pipeline_parallel_microbatch_size"
    ),
    "experimental.enable_compiled_autograd": Removed("see [compile]", (False,)),
    "experimental.context_parallel_rotate_method": Removed(
        "keys and values are gathered once", ("allgather",)
    ),
    "experimental.custom_model_path": Removed("see experimental.custom_import", ("",)),
    "experimental.torch_spmd": Removed("see parallelism.spmd_backend", (False,)),
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
        "checkpoints always hold the loader's state, which is the same for all replicas",
        (True, False),
    ),
    "activation_checkpoint.early_stop": Removed("recomputation does not stop early", (False,)),
    "quantize.linear.float8.precompute_float8_dynamic_scale_for_fsdp": Removed(
        _COMPUTED_LATER, (False,), is_only_faster=True
    ),
    "quantize.linear.float8.force_recompute_fp8_weight_in_bwd": Removed(
        "see [activation_checkpoint]", (False,)
    ),
    "quantize.linear.float8.scaling_type_input": _DYNAMIC,
    "quantize.linear.float8.scaling_type_weight": _DYNAMIC,
    "quantize.linear.float8.scaling_type_grad_output": _DYNAMIC,
    "quantize.linear.mx.mxfp8_dim1_cast_kernel_choice": Removed("torchao chooses its kernels"),
    "quantize.linear.mx.use_fp8_dim1_cast_triton_kernel": Removed("torchao chooses its kernels"),
    "quantize.linear.mx.recipe_name": Removed("there is only one recipe"),
    "quantize.linear.mx.filter_fqns": Removed(
        "name the modules that are converted, not those that are not, in quantize.linear.mx.fqns"
    ),
    "quantize.grouped_mm.float8.fqns": _ALL_EXPERTS,
    "quantize.grouped_mm.mx.fqns": _ALL_EXPERTS,
    "memory_estimation.enabled": Removed("memory is not estimated", (False,)),
    "memory_estimation.enable": Removed("memory is not estimated", (False,)),
    "memory_estimation": Removed("memory is not estimated"),
    **{f"fault_tolerance.{name}": _SEMI_SYNC for name in _SEMI_SYNC_KEYS},
    "experimental.custom_args_module": _ADD_KEYS_IN_PYTHON,
    "data": _EXPERIMENT,
    "hf_transformers": _EXPERIMENT,
    "encoder": _FLUX,
    "eval": _FLUX,
    "eval.eval_freq": _FLUX,
    "inference": _FLUX,
    "inference.local_batch_size": _FLUX,
    **{f"training.{name}": _FLUX for name in _FLUX_TRAINING},
    **{f"validation.{name}": _FLUX for name in _FLUX_VALIDATION},
    "debug.batch_invariant": Removed("it is an inference setting", (False,)),
}
"""Keys and sections that TorchTitan 0.3 does not have."""
