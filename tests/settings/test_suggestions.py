"""The error about an unknown key suggests the right one, or none."""

import re
from collections import Counter
from pathlib import Path

import pytest

from blendtitan.errors import ConfigError
from blendtitan.settings.known_keys import KEYS
from blendtitan.settings.old_files import present_name
from blendtitan.settings.other_names import EXPLAINED, OTHER_NAMES, OTHER_SECTIONS
from blendtitan.settings.suggestions import nearest
from blendtitan.settings.toml import read_values, typed_values

NAMES = [name for names in [*OTHER_NAMES.values(), *EXPLAINED] for name in names.split()]


def refused(key: str) -> str:
    """The error about a key of the command line, after the part that names the key."""
    with pytest.raises(ConfigError, match=r"unknown (key|section)") as error:
        typed_values({key: "1"})
    return re.split(r"unknown key [\w.]+\. |unknown section \S+ ", str(error.value))[1]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        # of other trainers
        ("optimizer.learning_rate", "optimizer.lr"),
        ("training.learning_rate", "optimizer.lr"),
        ("training.lr", "optimizer.lr"),
        ("optimizer.max_lr", "optimizer.lr"),
        ("training.weight_decay", "optimizer.weight_decay"),
        ("training.grad_clip", "training.max_norm"),
        ("optimizer.clip_grad", "training.max_norm"),
        ("training.seq_length", "training.seq_len"),
        ("training.sequence_length", "training.seq_len"),
        ("model.max_seq_len", "training.seq_len"),
        ("blendcorpus.seq_len", "training.seq_len"),
        ("training.micro_batch_size", "training.local_batch_size"),
        ("training.per_device_train_batch_size", "training.local_batch_size"),
        ("training.global_batch", "training.global_batch_size"),
        ("training.max_steps", "training.steps"),
        ("training.train_iters", "training.steps"),
        ("training.total_steps", "training.steps"),
        ("lr_scheduler.warmup", "lr_scheduler.warmup_steps"),
        ("training.lr_warmup_iters", "lr_scheduler.warmup_steps"),
        ("checkpoint.freq", "checkpoint.interval"),
        ("checkpoint.steps", "checkpoint.interval"),
        ("training.save_every", "checkpoint.interval"),
        ("checkpoint.dir", "checkpoint.folder"),
        ("training.output_dir", "job.dump_folder"),
        ("training.eval_interval", "validation.freq"),
        ("validation.interval", "validation.freq"),
        ("validation.eval_iters", "validation.steps"),
        ("training.log_interval", "metrics.log_freq"),
        ("metrics.tensorboard", "metrics.enable_tensorboard"),
        ("metrics.wandb", "metrics.enable_wandb"),
        ("model.compile", "compile.enable"),
        ("training.bf16", "training.mixed_precision_param"),
        ("parallelism.tp", "parallelism.tensor_parallel_degree"),
        ("parallelism.context_parallel_size", "parallelism.context_parallel_degree"),
        ("training.fsdp", "parallelism.data_parallel_shard_degree"),
        ("training.tokenizer", "model.tokenizer_path"),
        ("training.data_path", "blendcorpus.data_file_list"),
        ("training.num_workers", "blendcorpus.num_workers"),
        # of sections that there are not
        ("trainer.max_steps", "training.steps"),
        ("optim.learning_rate", "optimizer.lr"),
        ("tokenizer.path", "model.tokenizer_path"),
        ("dataloader.num_workers", "blendcorpus.num_workers"),
        ("data.path", "blendcorpus.data_file_list"),
        ("data.seq_length", "training.seq_len"),
        ("eval.interval", "validation.freq"),
        # mistyped
        ("training.seqlen", "training.seq_len"),
        ("training.stpes", "training.steps"),
        ("training.step", "training.steps"),
        ("training.loacl_batch_size", "training.local_batch_size"),
        ("training.batchsize", "training.local_batch_size"),
        ("training.wieght_decay", "optimizer.weight_decay"),
        ("blendcorpus.micro_batchsize", "training.local_batch_size"),
        ("checkpoint.enabled", "checkpoint.enable"),
        ("model.flavour", "model.flavor"),
        ("trainin.steps", "training.steps"),
    ],
)
def test_an_unknown_key_is_refused_with_the_key_that_was_meant(typed: str, meant: str) -> None:
    assert refused(typed) == f"Did you mean {meant}?"


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("blendcorpus.weights", ["blendcorpus.data_file_list", "[epochs] in data.toml"]),
        ("optimizer.min_lr", ["lr_scheduler.min_lr_factor", "a fraction of optimizer.lr"]),
        ("optimizer.betas", ["optimizer.beta1", "optimizer.beta2"]),
        ("training.epoch", ["training.steps", "blendcorpus.max_epochs"]),
        ("training.num_train_epochs", ["training.steps", "blendcorpus.max_epochs"]),
        ("training.eval_steps", ["validation.freq", "validation.steps"]),
        ("model.seed", ["debug.seed", "blendcorpus.seed"]),
        ("model.dtype", ["training.mixed_precision_param", "training.dtype"]),
        ("training.gradient_accumulation_steps", ["training.global_batch_size"]),
        ("parallelism.dp", ["data_parallel_shard_degree", "data_parallel_replicate_degree"]),
        ("wandb.project", ["metrics.enable_wandb", "WANDB_PROJECT"]),
        ("training.nproc", ["`blendtitan train RUN --nproc N`"]),
    ],
)
def test_a_name_that_no_single_key_replaces_is_explained(typed: str, named: list[str]) -> None:
    advice = refused(typed)

    assert [each for each in named if each not in advice] == []
    assert "Did you mean" not in advice


@pytest.mark.parametrize(
    "typed",
    [
        "optimizer.momentum",
        "optimizer.beta3",
        "training.debug",
        "training.interval",
        "training.batches",
        "checkpoint.no_such",
        "checkpoint.callbacks",
        "parallelism.sequence_parallel_degree",
        "quantize.no_such",
        "metrics.enable",
        "metrics.enable_mlflow",
        "comm.timeout",
        "compile.mode",
        "activation_checkpoint.type",
        "training.device",
        "training.compute",
    ],
)
def test_a_key_that_resembles_none_is_refused_with_the_keys_of_its_section(typed: str) -> None:
    """Digits, and each part of a name, must agree: another key of its kind is no suggestion."""
    section = typed.partition(".")[0]
    keys = [key.partition(".")[2] for key in KEYS if key.startswith(f"{section}.")]

    assert refused(typed) == f"The keys of [{section}] are {', '.join(keys)}."


@pytest.mark.parametrize(
    ("section", "advice"),
    [
        ("trainin", r"Did you mean \[training\]\?"),
        ("trainer", r"Did you mean \[training\]\?"),
        ("scheduler", r"Did you mean \[lr_scheduler\]\?"),
        ("nothing", "The sections are job, profiling, metrics, .*, blendcorpus."),
    ],
)
def test_an_unknown_section_of_a_file_is_refused_with_the_one_that_was_meant(
    section: str, advice: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f"[{section}]\nx = 1")

    with pytest.raises(ConfigError, match=rf"unknown section \[{section}\]\. {advice}"):
        read_values(path)


def test_the_tables_name_keys_and_sections_that_there_are() -> None:
    sentences = " ".join(EXPLAINED.values()).replace("data.toml", "")
    named = {*OTHER_NAMES, *re.findall(r"\b[a-z_]+\.\w+", sentences)}

    assert named - KEYS.keys() == set()
    assert OTHER_SECTIONS.keys() - {key.partition(".")[0] for key in KEYS} == set()


def test_each_name_of_the_tables_has_one_meaning_and_is_not_a_key() -> None:
    spelled = Counter(name.replace("_", "") for name in NAMES)

    assert [name for name, number in spelled.items() if number > 1] == []
    assert [name for name in NAMES if present_name(name) in KEYS] == []


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("8b", "8B"),
        ("gc_fre", "gc_freq"),
        ("lora", None),
        ("llama", "llama3"),
        ("llama2", None),
        ("log_freq", None),
        ("gcfreq", "gc_freq"),
    ],
)
def test_a_name_is_near_if_a_typing_mistake_explains_it(typed: str, found: str | None) -> None:
    assert nearest(typed, ["8B", "70B", "llama3", "gc_freq", "load"]) == found
