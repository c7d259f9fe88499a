"""The training loss of each corpus: TorchTitan 0.2's cross entropy, summed by row first."""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torchtitan.components import loss as upstream_loss
from torchtitan.distributed import ParallelDims

from blendtitan.corpus_losses import CorpusLosses, counted_labels
from blendtitan.dataset.documents import IGNORE_INDEX

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# 0.2.2 sums the losses and divides by the labels of all ranks; before, each micro batch had a mean.
IS_SUMMED = hasattr(upstream_loss, "IGNORE_INDEX")


class LossByCorpus:
    """A loss function that also adds up the losses of each corpus.

    The corpora of the rows come from the loader, in the order in which TorchTitan computes the
    losses of the batches.
    """

    def __init__(self, plain: Loss, *, compile_backend: str | None = None) -> None:
        self.plain = plain
        """TorchTitan's loss, used without known corpora and while validating."""
        self.corpus_ids: deque[torch.Tensor] = deque()
        """Corpora of the rows of batches that were delivered, not yet trained on."""
        self.losses: CorpusLosses | None = None
        self._num_corpora = 0
        self._by_row = row_cross_entropy
        if compile_backend is not None:
            self._by_row = torch.compile(row_cross_entropy, backend=compile_backend)

    def begin(self, num_corpora: int) -> None:
        """Set the number of corpora."""
        self._num_corpora = num_corpora

    def __call__(self, pred: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss, as TorchTitan's function returns it."""
        if not self.corpus_ids or not torch.is_grad_enabled():
            return self.plain(pred, labels)
        loss, rows = self._by_row(pred, labels)
        if self.losses is None:
            self.losses = CorpusLosses(self._num_corpora, rows.device)
        ids = self.corpus_ids.popleft().to(rows.device, non_blocking=True)
        self.losses.add(ids, rows, counted_labels(labels))
        return loss

    def take(self, parallel_dims: ParallelDims) -> tuple[list[float], list[int]] | None:
        """Mean losses and labels of each corpus on all ranks, since the last call."""
        if self.losses is None:
            return None
        group = _loss_group(parallel_dims)

        def summed(sums: torch.Tensor) -> torch.Tensor:
            if group is not None:
                dist.all_reduce(sums, group=group)
            return sums

        return self.losses.take(summed)


def row_cross_entropy(
    pred: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """TorchTitan's cross entropy, and the sum of the losses of each row.

    Args:
        pred: Logits, shape ``(B, L, V)``.
        labels: Shape ``(B, L)``.

    Returns:
        A scalar, and float32 of shape ``(B,)`` without gradient.

    Source: ``cross_entropy_loss`` of torchtitan 0.2, with reduction "none".
    """
    losses = F.cross_entropy(
        pred.flatten(0, 1).float(),
        labels.flatten(0, 1),
        reduction="none",
        ignore_index=IGNORE_INDEX,
    )
    rows = losses.view(labels.shape).sum(dim=1)
    total = rows.sum() if IS_SUMMED else rows.sum() / (labels != IGNORE_INDEX).sum()
    return total, rows.detach()


def why_not(job_config: Any, parallel_dims: ParallelDims, build_loss: object) -> str | None:
    """The setting that rules out per-corpus losses, if there is one."""
    upstream: Any = upstream_loss
    if build_loss is not upstream.build_cross_entropy_loss:
        return "a loss other than TorchTitan's cross entropy"
    if parallel_dims.pp_enabled:
        return "pipeline parallelism"
    if parallel_dims.tp_enabled and not job_config.parallelism.disable_loss_parallel:
        return "parallelism.disable_loss_parallel = false"
    return None


def _loss_group(parallel_dims: Any) -> dist.ProcessGroup | None:
    """The ranks that hold parts of a batch."""
    if not parallel_dims.dp_cp_enabled:
        return None
    if hasattr(parallel_dims, "get_optional_mesh"):
        return parallel_dims.get_optional_mesh("loss").get_group()
    return parallel_dims.world_mesh["dp_cp"].get_group()  # 0.2.0
