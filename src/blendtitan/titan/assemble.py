"""Turns the sections of a TOML file into the trainer's configuration."""

import dataclasses
import importlib
import math
from typing import Any

from torchtitan.components.dataloader import BaseDataLoader, ParallelAwareDataloader
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import OptimizersContainer, default_adamw
from torchtitan.components.tokenizer import BaseTokenizer, HuggingFaceTokenizer
from torchtitan.components.validate import Validator
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.config.override import OverrideConfig, parse_cli_imports
from torchtitan.protocols.model_spec import ModelSpec

from blendtitan.config import MAX_INT
from blendtitan.errors import ConfigError
from blendtitan.settings.batches import check_seq_len, model_vocab_size
from blendtitan.settings.section import check_follows
from blendtitan.titan import cpu
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.model import build_model_spec
from blendtitan.titan.settings import (
    ActivationCheckpointSettings,
    OptimizerSettings,
    Settings,
)
from blendtitan.titan.tokenizer import BlendTokenizer
from blendtitan.titan.trainer import BlendTrainer
from blendtitan.titan.validator import BlendCorpusValidator
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

BLENDCORPUS = "blendcorpus"
"""Value of ``training.dataset`` that chooses this project's loader."""

_CHUNKS = 8
"""Chunks of the loss, which limit the logits in memory. TorchTitan's default."""


def build_config(settings: Settings) -> BlendTrainer.Config:
    """The trainer's configuration. Reads the tokenizer, which determines the model's vocabulary.

    Raises:
        ConfigError: The settings contradict each other, or the tokenizer cannot be used.
    """
    if settings.experimental.custom_import:
        _import_first(settings.experimental.custom_import)
    _check_agreement(settings)
    model = settings.model
    tokenizer = _tokenizer(settings)
    tokenizer_vocab_size = tokenizer.build(tokenizer_path=model.hf_assets_path).get_vocab_size()
    vocab_size = model_vocab_size(model.vocab_size, tokenizer_vocab_size=tokenizer_vocab_size)
    config = BlendTrainer.Config(
        model_spec=_model_spec(settings, vocab_size),
        loss=_loss(settings, vocab_size),
        hf_assets_path=model.hf_assets_path,
        dump_folder=settings.job.dump_folder,
        tokenizer=tokenizer,
        dataloader=_train_loader(settings),
        validator=_validator(settings),
        optimizer=_optimizer(settings.optimizer),
        lr_scheduler=settings.lr_scheduler,
        training=_training(settings),
        parallelism=ParallelismConfig(**_shared(settings.parallelism, ParallelismConfig)),
        checkpoint=settings.checkpoint,
        metrics=settings.metrics,
        profiler=settings.profiling,
        activation_checkpoint=_activation_checkpoint(settings.activation_checkpoint),
        compile=settings.compile,
        comm=settings.comm,
        guards=settings.guards,
        debug=settings.debug,
        override=_override(settings.override.imports),
    )
    if settings.fault_tolerance.enable:
        from blendtitan.titan_ft.assemble import with_replicas

        return with_replicas(config, settings.fault_tolerance)
    return config


def _training(settings: Settings) -> TrainingConfig:
    training = TrainingConfig(**_shared(settings.training, TrainingConfig))
    # Pipelines exclude CUDA graphs; TorchTitan checks this before a trainer adapts to a CPU.
    if settings.parallelism.pipeline_parallel_degree > 1 and cpu.is_used():
        training.disable_cuda_graphs = True
    return training


def _import_first(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"experimental.custom_import is {name!r}, expected a module that Python finds: {error}"
        ) from error


def _override(imports: list[str]) -> OverrideConfig:
    try:
        return OverrideConfig(imports=parse_cli_imports(imports))
    except ValueError as error:
        raise ConfigError(
            f"override.imports is {imports!r}, expected entries such as 'module.function' or "
            f"'module.function={{\"key\": 1}}': {error}"
        ) from error


def _activation_checkpoint(section: ActivationCheckpointSettings) -> Any:
    if (section.mode, section.selective_ac_option) == ("none", "op"):
        return None
    from blendtitan.titan.converters import activation_checkpointing

    return activation_checkpointing(section)


def _model_spec(settings: Settings, vocab_size: int) -> ModelSpec:
    model = settings.model
    spec = build_model_spec(
        model.name,
        model.flavor,
        vocab_size=vocab_size,
        attn_backend=model.attn_backend,
        expert_backend=settings.parallelism.expert_parallel_comm_backend,
    )
    check_seq_len(settings.training.seq_len, getattr(spec.model, "max_seq_len", MAX_INT))
    if model.converters:
        from blendtitan.titan.converters import convert, converters_of

        convert(spec, converters_of(settings))
    return spec


def _check_agreement(settings: Settings) -> None:
    """Check keys that repeat others, and keys of unused loaders."""
    training, validation = settings.training, settings.validation
    for key in ("local_batch_size", "seq_len"):
        check_follows(
            f"validation.{key}",
            getattr(validation, key),
            other=f"training.{key}",
            expected=getattr(training, key),
        )
    if training.dataset != BLENDCORPUS:
        if validation.dataset == BLENDCORPUS:
            raise ConfigError(
                f"validation.dataset is {BLENDCORPUS!r}, expected one of TorchTitan's datasets, "
                f"because training.dataset is {training.dataset!r}"
            )
        return
    for name, section in (("training", training), ("validation", validation)):
        if section.dataloader != ParallelAwareDataloader.Config():
            raise ConfigError(
                f"[{name}.dataloader] is for TorchTitan's own datasets, but the run reads a blend. "
                f"Set blendcorpus.num_workers for the threads that read it."
            )
    if validation.enable and validation.dataset not in (None, BLENDCORPUS):
        logger.warning(
            "validation.dataset = %r is ignored: a blend is validated on its valid split.",
            validation.dataset,
        )


def _shared(settings: Any, kind: type) -> dict[str, Any]:
    """Values of a section for the fields of one of TorchTitan's dataclasses."""
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)}


def _tokenizer(settings: Settings) -> BaseTokenizer.Config:
    if settings.training.dataset != BLENDCORPUS:
        return HuggingFaceTokenizer.Config()
    model = settings.model
    return BlendTokenizer.Config(backend=model.tokenizer_backend, path=model.tokenizer_path)


def _train_loader(settings: Settings) -> BaseDataLoader.Config:
    training = settings.training
    if training.dataset == BLENDCORPUS:
        return dataclasses.replace(
            settings.blendcorpus,
            dataset_path=training.dataset_path,
            batch_schedule=training.batch_schedule,
        )
    from blendtitan.titan.torchtitan_data import torchtitans_loader

    return torchtitans_loader(training, training.dataset)


def _valid_loader(settings: Settings) -> BaseDataLoader.Config:
    if settings.training.dataset == BLENDCORPUS:
        return dataclasses.replace(_train_loader(settings), split_name="valid")
    validation = settings.validation
    from blendtitan.titan.torchtitan_data import torchtitans_loader

    dataset = validation.dataset or settings.training.dataset
    return torchtitans_loader(validation, dataset, infinite=False)


def _validator(settings: Settings) -> Validator.Config:
    validation = settings.validation
    common = {key: getattr(validation, key) for key in ("enable", "freq", "steps")}
    common["dataloader"] = loader = _valid_loader(settings)
    if isinstance(loader, BlendCorpusDataLoader.Config):
        common["samples"] = validation.samples
        if validation.set:
            from blendtitan.titan.sets_validator import with_sets

            return with_sets(validation.set, common)
        return BlendCorpusValidator.Config(**common)
    for key in ("samples", "set"):
        if found := getattr(validation, key):
            raise ConfigError(
                f"validation.{key} is {found}, but TorchTitan reads training.dataset = "
                f"{settings.training.dataset!r}. Delete it, and set validation.steps instead."
            )
    return Validator.Config(**common)


def _optimizer(settings: OptimizerSettings) -> OptimizersContainer.Config:
    config = default_adamw(
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    config.implementation = settings.implementation
    config.param_groups[0].optimizer_name = settings.name
    return config


def _loss(settings: Settings, vocab_size: int) -> ChunkedLossWrapper.Config:
    # Chunks of the tokens that one context-parallel rank holds; they must be equally long.
    local_seq_len = settings.training.seq_len // settings.parallelism.context_parallel_degree
    return ChunkedLossWrapper.Config(
        num_chunks=math.gcd(local_seq_len, _CHUNKS),
        loss_fn=CrossEntropyLoss.Config(global_vocab_size=vocab_size),
    )
