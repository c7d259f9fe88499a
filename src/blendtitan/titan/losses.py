"""TorchTitan's cross entropy, which also keeps the loss of each row.

The loss and its gradients are TorchTitan's, except that the losses of labels are summed by row
first. ``metrics.RowsByCorpus`` assigns rows to corpora.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch.distributed.tensor import DTensor, Shard
from torchtitan.components.loss import (
    IGNORE_INDEX,
    BaseLoss,
    ChunkedLossWrapper,
    CrossEntropyLoss,
    LossFunction,
)
from torchtitan.config import CompileConfig
from torchtitan.distributed.spmd_types import current_spmd_mesh, spmd_mesh_size
from torchtitan.distributed.utils import get_spmd_backend
from torchtitan.trainer import Trainer

from blendtitan.corpus_losses import RowSums
from blendtitan.titan.upstream import is_main, vocabulary_parallel_losses


class RowCrossEntropyLoss(CrossEntropyLoss):
    """TorchTitan's ``CrossEntropyLoss`` that adds the losses of rows to ``rows``."""

    @dataclass(kw_only=True, slots=True)
    class Config(CrossEntropyLoss.Config):
        """TorchTitan's."""

    def __init__(self, config: Config, *, compile_config: CompileConfig | None = None) -> None:
        self.rows = RowSums()
        self.is_chunk = False
        """Whether it is called once per chunk of the sequence."""
        self.global_vocab_size = config.global_vocab_size
        self.fn = cast(LossFunction, row_cross_entropy)
        self._maybe_compile(compile_config)  # sets ``fn``
        self._losses_of = cast(Callable[..., tuple[torch.Tensor, torch.Tensor]], self.fn)
        self.fn = self._loss

    def _loss(
        self, pred: torch.Tensor, labels: torch.Tensor, *, global_vocab_size: int | None
    ) -> torch.Tensor:
        loss, row_losses = self._losses_of(pred, labels, global_vocab_size=global_vocab_size)
        if torch.is_grad_enabled():  # not while validating
            if not self.is_chunk or labels.dim() == 1:
                self.rows.begin_call()
            self.rows.add(row_losses)
        return loss


class RowChunkedLoss(ChunkedLossWrapper):
    """TorchTitan's ``ChunkedLossWrapper`` around a ``RowCrossEntropyLoss``."""

    @dataclass(kw_only=True, slots=True)
    class Config(ChunkedLossWrapper.Config):
        """TorchTitan's."""

    def __init__(self, config: Config, *, compile_config: CompileConfig | None = None) -> None:
        super().__init__(config, compile_config=compile_config)
        assert isinstance(self.loss_fn, RowCrossEntropyLoss)
        self.loss_fn.is_chunk = True
        self.rows = self.loss_fn.rows

    def __call__(
        self, pred: torch.Tensor, labels: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss, chunk by chunk."""
        # Chunks hold other rows of a flat batch, but parts of each row of (B, L).
        self.rows.parts = self.num_chunks if labels.dim() == 1 else 1
        if torch.is_grad_enabled() and labels.dim() > 1:
            self.rows.begin_call()
        return super().__call__(pred, labels, *args, **kwargs)


RowLoss = RowCrossEntropyLoss | RowChunkedLoss
"""A loss with ``rows``."""


def row_cross_entropy(
    pred: torch.Tensor, labels: torch.Tensor, *, global_vocab_size: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy summed over all labels, and over those of each row.

    Args:
        pred: Logits, shape ``(B, L, V)``, or this rank's part of the vocabulary.
        labels: Shape ``(B, L)``. In a flat batch, of shape ``(T,)``, each token is a row.
        global_vocab_size: V, where ``pred`` is a plain tensor with a part of it.

    Returns:
        A scalar, and float32 of shape ``(B,)`` without gradient.

    Source: ``cross_entropy_loss`` of torchtitan 0.3, with reduction "none" in place of "sum".
    """
    losses = _label_losses(pred, labels, global_vocab_size)
    row_losses = losses.view(len(labels), -1).sum(dim=1)
    return row_losses.sum(), row_losses.detach()


def _label_losses(
    pred: torch.Tensor, labels: torch.Tensor, global_vocab_size: int | None
) -> torch.Tensor:
    """Shape ``(B * L,)``; 0 where the label does not count."""
    flat_labels = labels.flatten()
    if isinstance(pred, DTensor) and pred.placements == (Shard(pred.ndim - 1),):
        local, group, vocab_size = pred.to_local(), pred.device_mesh.get_group("tp"), pred.shape[-1]
    elif get_spmd_backend() == "spmd_types" and spmd_mesh_size("tp") > 1:
        mesh = current_spmd_mesh()
        assert mesh is not None
        local, group, vocab_size = pred, mesh.get_group("tp"), global_vocab_size
    else:
        flat = pred.flatten(0, -2).float()
        return F.cross_entropy(flat, flat_labels, reduction="none", ignore_index=IGNORE_INDEX)
    return vocabulary_parallel_losses(local.flatten(0, -2).float(), flat_labels, group, vocab_size)


def with_rows(loss: BaseLoss.Config) -> BaseLoss.Config:
    """The configuration of the same loss with ``rows``; unchanged if there is no such loss."""
    if type(loss) is CrossEntropyLoss.Config:
        return RowCrossEntropyLoss.Config(global_vocab_size=loss.global_vocab_size)
    if type(loss) is ChunkedLossWrapper.Config:
        inner = with_rows(loss.loss_fn)
        if isinstance(inner, RowCrossEntropyLoss.Config):
            return RowChunkedLoss.Config(num_chunks=loss.num_chunks, loss_fn=inner)
    return loss


def why_without_rows(config: Trainer.Config) -> str | None:
    """The setting that prevents losses by row, if there is one."""
    if config.parallelism.spmd_backend == "full_dtensor":
        return 'parallelism.spmd_backend = "full_dtensor"'
    if config.parallelism.spmd_backend == "spmd_types" and config.debug.spmd_typechecking:
        return "debug.spmd_typechecking = true"
    if is_main() and config.parallelism.context_parallel_degree > 1:
        return "context parallelism of flat batches"
    loss = with_rows(config.loss)
    if not isinstance(loss, RowCrossEntropyLoss.Config | RowChunkedLoss.Config):
        return f"a loss other than cross entropy ({type(loss).__qualname__})"
    return None
