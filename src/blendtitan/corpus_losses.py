"""Losses told apart by corpus, summed up on the device they are computed on.

Shapes: B = rows of a micro batch, L = sequence length, C = corpora.
"""

from collections.abc import Callable

import torch

from blendtitan.dataset.documents import IGNORE_INDEX


class CorpusLosses:
    """Sums of losses and numbers of labels of each corpus. Adding never waits for the device."""

    def __init__(self, num_corpora: int, device: torch.device | str) -> None:
        # float64 counts exactly up to 2^53, so that both travel in one all-reduce.
        self._sums = torch.zeros(2, num_corpora, dtype=torch.float64, device=device)

    def add(
        self, corpus_ids: torch.Tensor, row_losses: torch.Tensor, row_labels: torch.Tensor
    ) -> None:
        """Add the rows of a micro batch.

        Args:
            corpus_ids: Number of each row's corpus. int64, shape ``(B,)``.
            row_losses: Sum of the losses of each row's labels. Shape ``(B,)``.
            row_labels: Labels of each row that count, from ``counted_labels``. Shape ``(B,)``.
        """
        rows = torch.stack([row_losses.double(), row_labels.double()])
        self._sums.index_add_(1, corpus_ids, rows)

    def take(
        self, all_reduce: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[list[float], list[int]]:
        """Mean losses and numbers of labels since they were last taken; begin anew.

        Args:
            all_reduce: Sums a tensor over all ranks that hold parts of the batch.

        Returns:
            Two lists of C entries. The loss of a corpus without labels is not a number.
        """
        sums, counts = all_reduce(self._sums).tolist()
        self._sums.zero_()
        means = [total / n if n else float("nan") for total, n in zip(sums, counts, strict=True)]
        return means, [int(n) for n in counts]


def counted_labels(labels: torch.Tensor) -> torch.Tensor:
    """Labels of each row that count in the loss. Shapes ``(B, L)`` to ``(B,)``."""
    return (labels != IGNORE_INDEX).sum(dim=1)


class RowSums:
    """Sums of the losses of each row, for each call of a loss in one training step's pass.

    The buffers of a call are made when it first happens and are written to ever after, so that
    a CUDA graph that has captured the call writes to them when it is replayed. PyTorch's
    pipeline schedules call a loss for one micro batch after the other, in order, and once
    before all of them when they find out the shapes of gradients.
    """

    def __init__(self) -> None:
        self._buffers: list[torch.Tensor] = []
        self._call = 0
        self._is_new = False

    def restart(self) -> None:
        """Let the next call be the first again."""
        self._call = 0

    def begin_call(self) -> None:
        """The sums that are added from now on belong to the next call."""
        self._call += 1
        self._is_new = True

    def add(self, row_losses: torch.Tensor) -> None:
        """Add to the sums of the present call. Shape ``(B,)``."""
        if self._call > len(self._buffers):
            self._buffers.append(row_losses.clone())
        elif self._is_new:
            self._buffers[self._call - 1].copy_(row_losses)
        else:
            self._buffers[self._call - 1].add_(row_losses)
        self._is_new = False

    def of_last_calls(self, num_calls: int) -> list[torch.Tensor]:
        """Sums of the last calls. Each of shape ``(B,)``; the next pass overwrites them."""
        # A CUDA graph is replayed without a call of ours.
        stop = max(self._call, num_calls)
        assert stop <= len(self._buffers)
        return self._buffers[stop - num_calls : stop]
