"""Files written for TorchTitan 0.1 and 0.2, and for the BlendCorpus integration with them."""

from operator import attrgetter
from pathlib import Path

import pytest

from blendtitan.errors import ConfigError
from blendtitan.settings.known_keys import KEYS
from blendtitan.settings.old_files import present_name
from blendtitan.settings.old_keys import (
    CONVERSIONS,
    MOVED_SECTIONS,
    REMOVED,
    RENAMED,
    TRANSLATED,
)
from blendtitan.settings.toml import OLD_VALUES
from blendtitan.titan.settings import Settings
from blendtitan.titan.toml import read_settings

FLOAT8 = "quantize.linear.float8"

# Every key of ``JobConfig`` in TorchTitan 0.2.2, its last release that read TOML.
LAST_TOML_RELEASE = {
    "job": "config_file dump_folder description print_config save_config_file custom_config_module",
    "profiling": "enable_profiling save_traces_folder profile_freq profiler_active profiler_warmup "
    "enable_memory_snapshot save_memory_snapshot_folder",
    "metrics": "log_freq enable_tensorboard disable_color_printing save_tb_folder "
    "save_for_all_ranks enable_wandb",
    "model": "name flavor hf_assets_path tokenizer_path converters print_after_conversion",
    "optimizer": "name lr beta1 beta2 eps weight_decay implementation early_step_in_backward",
    "lr_scheduler": "warmup_steps total_steps decay_ratio decay_type min_lr_factor",
    "training": "dataset dataset_path local_batch_size global_batch_size seq_len max_norm steps "
    "enable_cpu_offload dtype mixed_precision_param mixed_precision_reduce gc_freq gc_debug",
    "training.dataloader": "num_workers persistent_workers pin_memory prefetch_factor",
    "parallelism": "data_parallel_replicate_degree data_parallel_shard_degree "
    "fsdp_reshard_after_forward tensor_parallel_degree disable_loss_parallel "
    "enable_async_tensor_parallel pipeline_parallel_degree module_fqns_per_model_part "
    "pipeline_parallel_first_stage_less_layers pipeline_parallel_last_stage_less_layers "
    "pipeline_parallel_layers_per_stage pipeline_parallel_schedule pipeline_parallel_schedule_csv "
    "pipeline_parallel_microbatch_size pipeline_parallel_expert_parallel_overlap "
    "context_parallel_degree context_parallel_load_balancer context_parallel_rotate_method "
    "expert_parallel_degree expert_tensor_parallel_degree expert_parallel_comm_backend",
    "checkpoint": "enable enable_ft_dataloader_checkpoints folder interval initial_load_path "
    "initial_load_model_only initial_load_in_hf initial_load_in_hf_quantized last_save_model_only "
    "last_save_in_hf export_dtype async_mode keep_latest_k load_step exclude_from_loading "
    "enable_first_step_checkpoint create_seed_checkpoint load_only",
    "activation_checkpoint": "mode selective_ac_option "
    "per_op_sac_force_recompute_mm_shapes_by_fqns early_stop memory_budget "
    "visualize_memory_budget_pareto preserve_rng_state determinism_check debug",
    "compile": "enable components backend",
    "quantize.linear.float8": "enable_fsdp_float8_all_gather "
    "precompute_float8_dynamic_scale_for_fsdp recipe_name filter_fqns emulate",
    "quantize.linear.mx": "mxfp8_dim1_cast_kernel_choice recipe_name filter_fqns",
    "quantize.grouped_mm.float8": "fqns",
    "quantize.grouped_mm.mx": "recipe_name fqns",
    "comm": "init_timeout_seconds train_timeout_seconds trace_buf_size save_traces_folder "
    "save_traces_file_prefix mode",
    "memory_estimation": "enable disable_fake_mode",
    "fault_tolerance": "enable process_group process_group_timeout_ms replica_id group_size "
    "min_replica_size semi_sync_method",
    "experimental": "custom_import custom_args_module",
    "validation": "enable dataset dataset_path local_batch_size seq_len freq steps",
    "validation.dataloader": "num_workers persistent_workers pin_memory prefetch_factor",
    "debug": "seed deterministic deterministic_warn_only moe_force_load_balance",
}

# The keys of the integration's configurations that 0.2.2 spelled otherwise or had not.
INTEGRATION = """
[job]
print_args = false
use_for_integration_test = true

[model]
name = "blendcorpus"
flavor = "Llama-2-7b"
tokenizer_backend = "sptoken"
hf_assets_path = "assets/hf/Llama-2-7b"
converters = ["float8"]

[training]
dataset = "blendcorpus"
dataset_path = "file_list.txt"
seed = 42

[experimental]
custom_args_module = "torchtitan.experiments.blendcorpus.job_config"

[parallelism]
enable_async_tensor_parallel = false

[checkpoint]
enable_checkpoint = true

[activation_checkpoint]
mode = "selective"
selective_ac_option = '2'

[float8]
enable_fsdp_float8_all_gather = false
precompute_float8_dynamic_scale_for_fsdp = false
filter_fqns = ["output"]

[validation]
enabled = true
dataset = "c4_validation"

[blendcorpus]
num_workers = 2
split = "98,1,1"
dataloader_type = "single"
shuffle = true
append_eod = true
provide_attention_mask = false
shuffle_sample_in_corpus = true
blend_sample_in_corpus = false
eod_token_id = 2
data_cache_path = "cache"
"""


def read(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return read_settings(["--job.config_file", str(path)])


SECTIONS = {key.rpartition(".")[0] for key in KEYS}


@pytest.mark.parametrize("section", LAST_TOML_RELEASE)
def test_every_key_of_the_last_release_is_read_or_explained(section: str) -> None:
    for key in LAST_TOML_RELEASE[section].split():
        name = f"{section}.{key}"
        removed = name in REMOVED or section in REMOVED
        assert removed or present_name(name) in KEYS, name


def test_the_tables_lead_to_keys_and_shadow_none() -> None:
    assert all(new in KEYS and old not in KEYS for old, new in RENAMED.items())
    assert OLD_VALUES.keys() <= KEYS.keys()
    assert all(new in KEYS and old not in KEYS for old, (new, _) in TRANSLATED.items())
    assert not any(key in KEYS or key in SECTIONS for key in REMOVED)
    assert {*MOVED_SECTIONS.values()} <= {*SECTIONS, "quantize.linear", "quantize.grouped_mm"}
    assert not MOVED_SECTIONS.keys() & SECTIONS
    tables = [*RENAMED, *TRANSLATED, *CONVERSIONS, *REMOVED]
    assert len(tables) == len({*tables})


def test_the_configurations_of_the_integration_are_read(tmp_path: Path) -> None:
    settings = read(tmp_path, INTEGRATION)

    assert (settings.model.name, settings.model.flavor) == ("llama3", "Llama-2-7b")
    assert settings.model.converters == ["quantize.linear.float8"]
    assert settings.quantize.linear.float8.filter_fqns == ["lm_head"]
    assert (settings.debug.seed, settings.debug.print_config) == (42, False)
    assert settings.checkpoint.enable
    assert settings.activation_checkpoint.selective_ac_option == "2"
    assert (settings.validation.enable, settings.validation.dataset) == (True, "c4_validation")
    assert settings.blendcorpus.shuffle_sample_in_corpus


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_spelling_means_the_same_on_the_command_line(old: str, new: str) -> None:
    texts = {bool: "true", int: "8", int | None: "8", float: "0.5"}
    words = {"parallelism.fsdp_reshard_after_forward": "never"}
    text = words.get(new) or texts.get(KEYS[new][0], "rowwise")
    compiled = "--compile.enable"  # which asynchronous tensor parallelism needs

    assert read_settings([compiled, f"--{old}", text]) == read_settings(
        [compiled, f"--{new}", text]
    )
    assert read_settings([compiled, f"--{new}", text]) != Settings()


def test_an_old_and_a_new_spelling_that_differ_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.seed and its synonym debug\.seed differ"):
        read(tmp_path, "[training]\nseed = 1\n[debug]\nseed = 2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[parallelism]\nexpert_tensor_parallel_degree = 2",
            r"parallelism\.expert_tensor_parallel_degree is 2, but TorchTitan 0\.3 has no such "
            r"setting: .*expert_parallel_degree takes its ranks\. Delete it",
        ),
        (
            "[model]\nconverters = ['mx']\n[quantize.linear.mx]\nfilter_fqns = ['output']",
            r"mx\.filter_fqns .*mx\.fqns",
        ),
        (
            "[fault_tolerance]\nnum_fragments = 2",
            r"fault_tolerance\.num_fragments .*end of a round",
        ),
        ("[experimental]\ncustom_args_module = 'mine'", r"custom_args_module .*--module"),
        (
            "[quantize.linear.float8]\nrecipe_name = 'blockwise'",
            r"'blockwise', expected 'rowwise' or 'rowwise_with_gw_hp' or 'tensorwise'",
        ),
    ],
)
def test_a_removed_key_is_an_error_that_names_its_replacement(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"run\.toml: .*{message}"):
        read(tmp_path, text)


def test_a_removed_key_may_be_set_to_the_present_behaviour(tmp_path: Path) -> None:
    text = "[fault_tolerance]\nenable = false\n[activation_checkpoint]\nearly_stop = false"

    assert read(tmp_path, text) == Settings()
    assert read_settings(["--fault_tolerance.enable", "false"]) == Settings()


# --- float8 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("section", ["float8", "quantize.dense.float8", "quantize.linear.float8"])
@pytest.mark.parametrize("gathers", [True, False])
def test_a_file_without_a_recipe_scales_by_tensor_as_its_release_did(
    tmp_path: Path, section: str, gathers: bool
) -> None:
    """TorchTitan 0.3 scales by row. Weights that are gathered in float8 have one scale each."""
    enable = f"enable_fsdp_float8_all_gather = {str(gathers).lower()}"
    float8 = read(tmp_path, f"[{section}]\n{enable}").quantize.linear.float8

    assert float8.recipe_name == "tensorwise"
    assert float8.enable_fsdp_float8_all_gather == gathers


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("[model]\nconverters = ['float8']", "tensorwise"),
        ("[float8]\nfilter_fqns = ['output']", "tensorwise"),
        ("[float8]\nenable_fsdp_float8_all_gather = false\nrecipe_name = 'rowwise'", "rowwise"),
        ("[model]\nconverters = ['quantize.linear.float8']", "rowwise"),
        ("[quantize.linear.float8]\nfilter_fqns = ['output']", "rowwise"),
    ],
)
def test_present_names_have_the_present_recipe(tmp_path: Path, text: str, recipe: str) -> None:
    assert read(tmp_path, text).quantize.linear.float8.recipe_name == recipe


@pytest.mark.parametrize(
    ("text", "converters"),
    [
        ("[float8]\nenable_float8_linear = true", [FLOAT8]),
        ("[training]\nenable_fp8_linear = true", [FLOAT8]),
        ("[training]\nfp8_linear = 'dynamic'", [FLOAT8]),
        ("[training]\nfp8_linear = ''", []),
        ("[float8]\nenable_float8_linear = true\n[model]\nconverters = ['float8']", [FLOAT8]),
        ("[model]\nconverters = 'float8,quantize.dense.mx'", [FLOAT8, "quantize.linear.mx"]),
        ("[model]\nconverters = ''", []),
        ("[model]\nconverters = ['quantize.moe.float8']", ["quantize.grouped_mm.float8"]),
        (
            "[model]\nconverters = ['float8']\n[float8]\nmoe_fqns = ['experts']",
            [FLOAT8, "quantize.grouped_mm.float8"],
        ),
        ("[float8]\nmoe_fqns = ['experts']", []),
    ],
)
def test_old_switches_of_float8_list_its_converters(
    tmp_path: Path, text: str, converters: list[str]
) -> None:
    assert read(tmp_path, text).model.converters == converters


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[float8]\nenable_float8_linear = false\n[model]\nconverters = ['float8']",
            r"float8\.enable_float8_linear is false, but model\.converters decides about it",
        ),
        ("[float8]\nenable_float8_linear = 'yes'", r'is "yes", but model\.converters'),
        ("[float8]\nenable_float8_linear = 1", r"is 1, but model\.converters"),
        ("[float8]\nmoe_fqns = ['w1']", r'is \["w1"\], but model\.converters'),
        ("[model]\nconverters = 8", r"model\.converters is 8, expected a list"),
        ("[model]\nconverters = ['float9']", r"model\.converters is \['float9'\], expected a list"),
        ("[metrics]\nenable_color_printing = 'yes'", r"'yes', expected true or false"),
        ("[model]\nuse_flex_attn = 1", r"use_flex_attn is 1, expected 'flex'"),
        ("[training]\ncompile = 'no'\n[compile]\nenable = true", r"'no', expected true or false"),
        (
            "[metrics]\nenable_color_printing = true\ndisable_color_printing = true",
            r"enable_color_printing and its synonym metrics\.disable_color_printing differ",
        ),
        (
            "[training]\ndata_parallel_shard_degree = 2\n"
            "[parallelism]\ndata_parallel_shard_degree = 4",
            r"training\.data_parallel_shard_degree and its synonym parallelism\.",
        ),
        ("[training]\ncheckpoint_folder = 'here'", r"checkpoint\.enable = true"),
        ("[checkpoint]\ninterval_type = 'seconds'", r"checkpoint\.interval counts steps"),
        ("[model]\nnorm_type = 'layernorm'", r"the normalisation of their published weights"),
        ("[experimental]\nnorm_type = 'rmsnorm'", r"unknown key experimental\.norm_type"),
        ("[mx]\nmoe_fqns = ['experts']", r"unknown key mx\.moe_fqns"),
        ("[quantize.float8]\nemulate = true", r"unknown key quantize\.float8\.emulate"),
    ],
)
def test_what_an_old_file_cannot_mean_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize("key", CONVERSIONS)
def test_the_command_line_does_not_replace_the_converters_of_the_file(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"command line: {key} is .*model\.converters"):
        read_settings([f"--{key}", "true"])


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "[training]\ncompile = false\n[compile]\nenable = true",
            "training.compile (compile.enable = true replaces it)",
        ),
        (
            "[float8]\nmoe_fqns = ['experts']",
            "float8.moe_fqns ('quantize.linear.float8' is not in model.converters)",
        ),
        (
            "[mx]\nfilter_fqns = ['output']",
            "mx.filter_fqns ('quantize.linear.mx' is not in model.converters; name the modules "
            "that are converted, not those that are not, in quantize.linear.mx.fqns)",
        ),
        (
            "[float8]\nprecompute_float8_dynamic_scale_for_fsdp = true",
            "float8.precompute_float8_dynamic_scale_for_fsdp (scales are computed when FSDP "
            "gathers the weights, with the same result)",
        ),
    ],
)
def test_a_key_without_effect_in_its_file_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, warning: str
) -> None:
    read(tmp_path, text)

    (record,) = [each for each in caplog.records if each.name.startswith("blendtitan")]
    path = tmp_path / "run.toml"
    assert record.getMessage() == f"{path}: these keys have no effect: {warning}"


def test_the_section_of_torch_compile_wins_over_the_key_that_it_replaced(tmp_path: Path) -> None:
    """Files of TorchTitan 0.2 kept both for a while, and it read the section."""
    settings = read(tmp_path, "[training]\ncompile = false\n[compile]\nenable = true")

    assert settings.compile.enable


@pytest.mark.parametrize("old", TRANSLATED)
@pytest.mark.parametrize("value", [True, False])
def test_an_old_key_with_other_values_means_the_same(tmp_path: Path, old: str, value: bool) -> None:
    new, values = TRANSLATED[old]
    section, _, key = old.partition(".")
    text = f"[{section}]\n{key} = {str(value).lower()}"

    assert attrgetter(new)(read(tmp_path, text)) == values[value]
    assert attrgetter(new)(read_settings([f"--{old}", str(value)])) == values[value]
