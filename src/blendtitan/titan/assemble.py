"""From settings to the trainer's configuration, section by section."""

import dataclasses
import math
from typing import Any

from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import OptimizersContainer, default_adamw
from torchtitan.components.tokenizer import BaseTokenizer, HuggingFaceTokenizer
from torchtitan.components.validate import Validator
from torchtitan.config import DebugConfig
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader

from blendtitan.errors import ConfigError
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.model import build_model_spec, model_vocab_size
from blendtitan.titan.settings import OptimizerSettings, Settings
from blendtitan.titan.tokenizer import BlendTokenizer
from blendtitan.titan.trainer import BlendTrainer
from blendtitan.titan.validator import BlendCorpusValidator

BLENDCORPUS = "blendcorpus"
"""Value of ``training.dataset`` that chooses this project's loader."""

_CHUNKS = 8
"""Parts that the loss is computed in, to hold fewer logits at once. TorchTitan's default."""


def build_config(settings: Settings) -> BlendTrainer.Config:
    """The trainer's configuration. Reads the tokenizer, whose vocabulary the model follows.

    Raises:
        ConfigError: The settings contradict each other, or the tokenizer cannot be used.
    """
    model, training, job = settings.model, settings.training, settings.job
    tokenizer = _tokenizer(settings)
    tokenizer_vocab_size = tokenizer.build(tokenizer_path=model.hf_assets_path).get_vocab_size()
    vocab_size = model_vocab_size(model.vocab_size, tokenizer_vocab_size=tokenizer_vocab_size)
    activation_checkpoint = {"none": None, "selective": SelectiveAC.Config, "full": FullAC.Config}[
        settings.activation_checkpoint.mode
    ]
    return BlendTrainer.Config(
        model_spec=build_model_spec(
            model.name, model.flavor, vocab_size=vocab_size, attn_backend=model.attn_backend
        ),
        loss=_loss(settings, vocab_size),
        hf_assets_path=model.hf_assets_path,
        dump_folder=job.dump_folder,
        tokenizer=tokenizer,
        dataloader=_train_loader(settings),
        validator=_validator(settings),
        optimizer=_optimizer(settings.optimizer),
        lr_scheduler=settings.lr_scheduler,
        training=training,
        parallelism=settings.parallelism,
        checkpoint=settings.checkpoint,
        metrics=settings.metrics,
        activation_checkpoint=activation_checkpoint and activation_checkpoint(),
        compile=settings.compile,
        debug=DebugConfig(
            seed=training.seed,
            deterministic=training.deterministic,
            print_config=job.print_config,
            save_config_file=job.save_config_file,
        ),
    )


def _tokenizer(settings: Settings) -> BaseTokenizer.Config:
    if settings.training.dataset != BLENDCORPUS:
        return HuggingFaceTokenizer.Config()
    model = settings.model
    return BlendTokenizer.Config(backend=model.tokenizer_backend, path=model.tokenizer_path)


def _train_loader(settings: Settings) -> BaseDataLoader.Config:
    training = settings.training
    if training.dataset == BLENDCORPUS:
        return dataclasses.replace(settings.blendcorpus, dataset_path=training.dataset_path)
    return HuggingFaceTextDataLoader.Config(
        dataset=training.dataset, dataset_path=training.dataset_path
    )


def _valid_loader(settings: Settings) -> BaseDataLoader.Config:
    if settings.training.dataset == BLENDCORPUS:
        return dataclasses.replace(_train_loader(settings), split_name="valid")
    validation = settings.validation
    return HuggingFaceTextDataLoader.Config(
        dataset=validation.dataset or settings.training.dataset,
        dataset_path=validation.dataset_path,
        infinite=False,
    )


def _validator(settings: Settings) -> Validator.Config:
    validation = settings.validation
    loader = _valid_loader(settings)
    common: dict[str, Any] = {
        "enable": validation.enable,
        "freq": validation.freq,
        "steps": validation.steps,
        "dataloader": loader,
    }
    if isinstance(loader, BlendCorpusDataLoader.Config):
        return BlendCorpusValidator.Config(samples=validation.samples, **common)
    if validation.samples is not None:
        raise ConfigError(
            f"validation.samples is {validation.samples}, but training.dataset = "
            f"{settings.training.dataset!r} is read by TorchTitan, which counts validation.steps. "
            f"Set these instead."
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
