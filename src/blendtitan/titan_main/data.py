"""The loader and the validator of TorchTitan's main branch.

Shapes: B = rows of a micro batch, L = sequence length, T = B * L tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torchtitan.components.tokenizer import BaseTokenizer

from blendtitan.errors import ConfigError
from blendtitan.titan.dataloader import CORPUS_IDS, BaseDataLoader, BlendCorpusDataLoader
from blendtitan.titan.validator import BlendCorpusValidator
from blendtitan.titan_main.sizes import whole_samples


class FlatDataLoader(BlendCorpusDataLoader):
    """Batches of a blend: the rows of a micro batch, end to end.

    Iterating yields ``({"input": ids, "positions": positions}, labels)``, each an int64 tensor of
    shape ``(T,)``. Positions are 0 at the start of every row, so that no mask joins two rows.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BlendCorpusDataLoader.Config):
        """The keys of ``[blendcorpus]``, and settings that follow from the rest of the run."""

        repeat: bool = True
        """Whether the stream is endless. TorchTitan's validator sets this."""

        dataset_path: str | None = None
        """Another name of ``data_file_list``, which takes precedence."""

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        tokenizer: BaseTokenizer,
        max_context_length: int,
        num_tokens_per_batch: int,
    ) -> None:
        if not config.positions:
            raise ConfigError(
                "the model has SDPA attention, expected flex or varlen: TorchTitan's batches are "
                "flat, and SDPA has no masks, so it would attend across their rows. Build the "
                "model with attn_backend='flex' or 'varlen'."
            )
        num_rows = whole_samples("num_tokens_per_batch", num_tokens_per_batch, max_context_length)
        super().__init__(
            replace(config, infinite=config.infinite and config.repeat),
            dp_world_size=dp_world_size,
            dp_rank=dp_rank,
            tokenizer=tokenizer,
            seq_len=max_context_length,
            local_batch_size=num_rows,
        )

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        for inputs, labels in super().__iter__():
            ids = inputs.pop(CORPUS_IDS, None)
            flat = {name: rows.flatten() for name, rows in inputs.items()}
            if ids is not None:  # of each token
                flat[CORPUS_IDS] = ids.repeat_interleave(labels.shape[1])
            yield flat, labels.flatten()


class FlatValidator(BlendCorpusValidator):
    """Validates the blend, then each corpus, on fixed samples."""

    @dataclass(kw_only=True, slots=True)
    class Config(BlendCorpusValidator.Config):
        """A validator's configuration, with a number of samples."""

        dataloader: BaseDataLoader.Config = field(
            default_factory=lambda: FlatDataLoader.Config(split_name="valid")
        )
        """The configuration of the training loader, with ``split_name = "valid"``."""

    def __init__(self, config: Config, **arguments: Any) -> None:
        rows = arguments["num_tokens_per_batch"] // arguments["seq_len"]
        if arguments["parallel_dims"].pp_enabled:
            rows *= arguments["parallelism"].num_pp_microbatches
        super().__init__(config, local_batch_size=rows, **arguments)
