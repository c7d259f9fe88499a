"""TorchTitan's trainer, with what our loader needs of it: a settled configuration and a place."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torchtitan.components.checkpointer import BaseCheckpointManager
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.trainer import Trainer

from blendtitan.errors import ConfigError
from blendtitan.titan import cpu, old_torch
from blendtitan.titan.checkpoint import BlendCheckpointManager
from blendtitan.titan.dataloader import BlendCorpusDataLoader, check_split
from blendtitan.titan.metrics import LossMetrics
from blendtitan.titan.model import decoder_config, reads_positions

Batches = Iterable[tuple[dict[str, torch.Tensor], torch.Tensor]]


class BlendTrainer(Trainer):
    """Trains on any of TorchTitan's loaders, and on ours with a checked place in the data."""

    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        """TorchTitan's configuration, with our components as defaults."""

        metrics: MetricsProcessor.Config = field(default_factory=LossMetrics.Config)
        checkpoint: BaseCheckpointManager.Config = field(
            default_factory=BlendCheckpointManager.Config
        )

        def __post_init__(self) -> None:
            old_torch.check(self)
            cpu.adapt(self)
            Trainer.Config.__post_init__(self)
            for loader in (self.dataloader, self.validator.dataloader):
                if isinstance(loader, BlendCorpusDataLoader.Config):
                    _settle(loader, self)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        loader = config.validator.dataloader
        if config.validator.enable and isinstance(loader, BlendCorpusDataLoader.Config):
            # Now, not at the first validation.
            check_split(loader, seq_len=config.training.seq_len, eos_id=self.tokenizer.eos_id)

    def batch_generator(
        self, data_iterable: Batches
    ) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """Batches for training. TorchTitan asks for them once, after it loaded the checkpoint."""
        if isinstance(data_iterable, BlendCorpusDataLoader):
            local_batch_size = self.config.training.local_batch_size
            samples = local_batch_size * self.gradient_accumulation_steps
            global_batch_size = samples * data_iterable.dp_world_size
            data_iterable.align(self.step, global_batch_size=global_batch_size)
        return super().batch_generator(data_iterable)


def _settle(loader: BlendCorpusDataLoader.Config, config: Trainer.Config) -> None:
    """Complete a loader's configuration with what the model and the trainer decide.

    Raises:
        ConfigError: It contradicts them.
    """
    local_batch_size = config.training.local_batch_size
    if loader.micro_batch_size not in (None, local_batch_size):
        raise ConfigError(
            f"blendcorpus.micro_batch_size is {loader.micro_batch_size}, expected "
            f"{local_batch_size}, the value of training.local_batch_size. Leave "
            f"blendcorpus.micro_batch_size out to follow it."
        )
    loader.micro_batch_size = local_batch_size
    if config.model_spec is None:  # not chosen yet
        return
    loader.vocab_size = decoder_config(config.model_spec).vocab_size
    loader.positions = reads_positions(config.model_spec)
    if loader.provide_attention_mask and not loader.positions:
        backends = "no other backend trains on a CPU" if cpu.is_used() else "flex and varlen can"
        raise ConfigError(
            f"blendcorpus.provide_attention_mask = true, but SDPA attention has no masks and "
            f"cannot tell documents apart ({backends}). Set blendcorpus.provide_attention_mask = "
            f"false, or another model.attn_backend."
        )
