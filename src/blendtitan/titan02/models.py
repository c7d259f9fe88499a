"""TorchTitan 0.2's models with our tokenizer, loader, losses and validator.

``experimental.custom_import`` imports this module, which registers each of TorchTitan's language
models again under its own name. For a model of your own, register ``adapted(spec)``.
"""

import copy
import importlib
import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

from torchtitan.components import metrics
from torchtitan.models import _supported_models
from torchtitan.protocols.train_spec import (  # pyright: ignore[reportMissingImports]
    TrainSpec,
    get_train_spec,
    register_train_spec,
)

from blendtitan.claims.held import check_claim, hold_claim
from blendtitan.corpus_progress import loss_metrics, progress_metrics
from blendtitan.errors import ConfigError
from blendtitan.placed_loader import is_first_rank
from blendtitan.titan.cpu import SumReduction, is_used
from blendtitan.titan.shared_catalog import from_first_rank
from blendtitan.titan02.config import BLENDCORPUS
from blendtitan.titan02.data import (
    Titan02DataLoader,
    Titan02Tokenizer,
    open_datasets,
    open_validation,
    split_of,
)
from blendtitan.titan02.losses import LossByCorpus, why_not
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

VOCAB_MULTIPLE = 64
"""A vocabulary that follows the tokenizer is rounded up to a multiple of this."""

_OTHER_DATA = {"flux"}  # makes images


def adapted(spec: TrainSpec) -> TrainSpec:
    """The same model, which trains on our data if ``training.dataset`` is ``blendcorpus``."""
    hooks = _Hooks(spec)
    parallelize = spec.parallelize_fn
    return replace(
        spec,
        model_args=hooks.model_args,
        parallelize_fn=SumReduction(parallelize) if is_used() else parallelize,
        build_tokenizer_fn=hooks.build_tokenizer,
        build_dataloader_fn=hooks.build_dataloader,
        build_loss_fn=hooks.build_loss,
        build_metrics_processor_fn=hooks.build_metrics,
        build_lr_schedulers_fn=hooks.build_lr_schedulers,
        build_validator_fn=hooks.build_validator,
    )


class _Hooks:
    """The parts of a model that one run builds, in TorchTitan's order."""

    def __init__(self, spec: TrainSpec) -> None:
        self._spec = spec
        self.model_args = {name: copy.copy(args) for name, args in spec.model_args.items()}
        self._loader: Titan02DataLoader | None = None
        self._loss: LossByCorpus | None = None
        self._lr_schedulers: Any = None

    def build_tokenizer(self, job_config: Any) -> Any:
        """Build our tokenizer, or TorchTitan's if it reads the data. Claims the run's folder first.

        TorchTitan connects the ranks just before.
        """
        from_first_rank(lambda: hold_claim(Path(job_config.job.dump_folder)))
        if _is_ours(job_config.training) or job_config.model.tokenizer_backend:
            return Titan02Tokenizer(job_config)
        build = self._spec.build_tokenizer_fn
        return None if build is None else build(job_config)

    def build_dataloader(
        self, dp_world_size: int, dp_rank: int, tokenizer: Any, job_config: Any
    ) -> Any:
        """Build our loader, or TorchTitan's, and complete the arguments of the model."""
        ranks = {"dp_world_size": dp_world_size, "dp_rank": dp_rank}
        args = self.model_args.get(job_config.model.flavor)
        if args is not None and tokenizer is not None:
            _set_vocab_size(args, job_config.model, tokenizer.get_vocab_size())
            _set_attention(args, job_config)
        if not _is_ours(job_config.training):
            return self._spec.build_dataloader_fn(
                tokenizer=tokenizer, job_config=job_config, **ranks
            )
        assert tokenizer is not None
        self._datasets = open_datasets(
            job_config,
            tokenizer,
            vocab_size=tokenizer.get_vocab_size() if args is None else args.vocab_size,
            dp_world_size=dp_world_size,
        )
        dataset = split_of(self._datasets, "train")
        if dataset.config.eod_token_id is not None:
            tokenizer.eos_id = dataset.config.eod_token_id
        if dataset.config.provide_attention_mask and dataset.eod_roles is not None:
            logger.warning(
                "Documents of some corpora begin with the token that ends documents. The masks of "
                "TorchTitan 0.2 count it as part of the previous document, those of 0.3 do not."
            )
        self._loader = Titan02DataLoader(
            job_config, dataset, step_of_run=self._step_of_run, **ranks
        )
        return self._loader

    def build_loss(self, job_config: Any, **arguments: Any) -> Any:
        """Build TorchTitan's loss, which also keeps the losses of corpora if possible."""
        plain = self._spec.build_loss_fn(job_config, **arguments)
        if self._loader is None:
            return plain
        reason = why_not(job_config, arguments["parallel_dims"], self._spec.build_loss_fn)
        if reason is not None:
            if is_first_rank():
                logger.warning(
                    "Per-corpus training losses are not logged with %s. All other metrics are.",
                    reason,
                )
            return plain
        settings = job_config.compile
        is_compiled = settings.enable and "loss" in settings.components
        backend = settings.backend if is_compiled else None
        self._loss = LossByCorpus(plain, compile_backend=backend)
        self._loss.begin(len(self._loader.dataset.corpora))
        self._loader.corpus_ids = self._loss.corpus_ids
        return self._loss

    def build_metrics(self, job_config: Any, parallel_dims: Any, model_args: Any = None) -> Any:
        """Build TorchTitan's metrics, which also log corpora and check each step.

        They check the loader's position and, before a checkpoint is saved, the claim on the folder.
        """
        upstream: Any = metrics
        build = self._spec.build_metrics_processor_fn or upstream.build_metrics_processor
        processor = build(job_config, parallel_dims, model_args)
        should_log, log = processor.should_log, processor.log

        def checked(step: int) -> bool:
            if _saves(job_config, step):
                from_first_rank(check_claim)
            if self._loader is not None:
                self._loader.check_step(step)
            return should_log(step)

        def log_all(step: int, *args: Any, **kwargs: Any) -> None:
            log(step, *args, **kwargs)
            self._log_corpora(processor, parallel_dims, step)

        processor.should_log, processor.log = checked, log_all
        return processor

    def build_lr_schedulers(self, *arguments: Any, **keywords: Any) -> Any:
        """Build TorchTitan's schedulers, which get the step from a checkpoint before the loader."""
        self._lr_schedulers = self._spec.build_lr_schedulers_fn(*arguments, **keywords)
        return self._lr_schedulers

    def build_validator(self, **arguments: Any) -> Any:
        """Build our validator, or TorchTitan's if ``validation.dataset`` is another data set."""
        if _is_ours(arguments["job_config"].validation):
            if self._loader is None:
                raise ConfigError(
                    "validation.dataset is 'blendcorpus', expected training.dataset = "
                    "'blendcorpus' as well. Set it, or name TorchTitan's data set in both."
                )
            # Imported here: TorchTitan's validator imports its own loader.
            from blendtitan.titan02.validator import Titan02Validator

            datasets = open_validation(
                arguments["job_config"], arguments["tokenizer"], self._datasets
            )
            return Titan02Validator(datasets, **arguments)
        if self._spec.build_validator_fn is None:
            raise ConfigError(
                "validation.enable is true, expected false: this model has no validator for "
                "TorchTitan's data sets. Set it, or validation.dataset = 'blendcorpus'."
            )
        return self._spec.build_validator_fn(**arguments)

    def _step_of_run(self) -> int:
        return self._lr_schedulers.schedulers[0].last_epoch

    def _log_corpora(self, processor: Any, parallel_dims: Any, step: int) -> None:
        if self._loader is None:
            return
        dataset = self._loader.dataset
        values = progress_metrics(dataset, self._loader.consumed_samples)
        taken = None if self._loss is None else self._loss.take(parallel_dims)
        if taken is not None:
            losses, labels = taken
            values |= loss_metrics(dataset.corpora, losses, labels)
            if is_first_rank():
                shown = zip(dataset.corpora, losses, labels, strict=True)
                text = ", ".join(f"{name} {loss:.4f}" for name, loss, count in shown if count)
                logger.info("step: %2d  loss of each corpus: %s", step, text)
        processor.logger.log(values, step)


def _saves(job_config: Any, step: int) -> bool:
    """Whether TorchTitan saves a checkpoint after a step."""
    settings = job_config.checkpoint
    is_due = step in (1, job_config.training.steps) or step % settings.interval == 0
    return settings.enable and is_due


def _is_ours(section: Any) -> bool:
    return section.dataset == BLENDCORPUS


def _set_vocab_size(args: Any, model: Any, tokenizer_size: int) -> None:
    """Set the model's vocabulary: as configured, or else the flavor's if the tokenizer fits."""
    own = getattr(args, "vocab_size", None)
    size = own if model.vocab_size is None else model.vocab_size
    if size is None:
        return
    if size < tokenizer_size and model.vocab_size is not None:
        raise ConfigError(
            f"model.vocab_size is {size}, expected at least {tokenizer_size}, the tokenizer's. "
            f"Leave model.vocab_size out to follow the tokenizer."
        )
    if size < tokenizer_size:
        size = -(-tokenizer_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
        logger.warning(
            "The tokenizer has %s ids, more than the %s of model %s %s: the model has %s.",
            *(tokenizer_size, own, model.name, model.flavor, size),
        )
    args.vocab_size = size


def _set_attention(args: Any, job_config: Any) -> None:
    """Set the model's attention, and whether it has intra-document masking."""
    backend = job_config.model.attn_backend
    has_kinds = hasattr(args, "attn_type")  # since 0.2.1
    if backend and has_kinds:
        args.attn_type = backend
    elif backend == "varlen":
        raise ConfigError(
            "model.attn_backend is 'varlen', expected flex or sdpa in this TorchTitan."
        )
    elif backend:
        args.use_flex_attn = backend == "flex"
    kind = args.attn_type if has_kinds else "flex" if args.use_flex_attn else "sdpa"
    if not _is_ours(job_config.training):
        if backend == "flex":
            args.attn_mask_type = "block_causal"
        return
    wanted = job_config.blendcorpus.provide_attention_mask
    if kind == "sdpa" and wanted:
        raise ConfigError(
            "blendcorpus.provide_attention_mask = true, but SDPA attention has no masks and cannot "
            "separate documents. Set model.attn_backend = 'flex', choose a flavor with flex "
            "attention, or set blendcorpus.provide_attention_mask = false."
        )
    if kind == "varlen" and not wanted:
        raise ConfigError(
            "blendcorpus.provide_attention_mask = false, expected true: varlen attention always "
            "separates documents. Set it, or model.attn_backend = 'flex' or 'sdpa'."
        )
    if kind != "sdpa":
        args.attn_mask_type = "block_causal" if wanted else "causal"


def _add_flavors(name: str, spec: TrainSpec) -> None:
    """Sizes that TorchTitan 0.2 does not have."""
    if name == "llama3" and "1B" not in spec.model_args:
        args = copy.copy(spec.model_args["8B"])
        args.dim, args.n_layers, args.n_heads, args.n_kv_heads = 2048, 16, 32, 8
        args.ffn_dim_multiplier, args.multiple_of = 1.5, 256
        spec.model_args["1B"] = args  # pyright: ignore[reportIndexIssue]


def register() -> None:
    """Register TorchTitan's language models again, under their names.

    Raises:
        ConfigError: Another TorchTitan is installed.
    """
    version = importlib.metadata.version("torchtitan")
    if not version.startswith("0.2."):
        raise ConfigError(
            f"torchtitan is {version}, expected 0.2.0 to 0.2.2. For 0.3 use blendtitan.titan."
        )
    for name in sorted(_supported_models - _OTHER_DATA):
        try:
            importlib.import_module(f"torchtitan.models.{name}")
        except ImportError:
            continue  # TorchTitan reports the missing package if the model is used
        spec = get_train_spec(name)
        _add_flavors(name, spec)
        register_train_spec(name, adapted(spec))


register()
