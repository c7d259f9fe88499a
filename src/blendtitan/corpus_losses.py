"""Training losses by corpus, summed on the device that computes them.

Shapes: B = rows of a micro batch, L = sequence length, C = corpora.
"""

from collections.abc import Callable

import torch

from blendtitan.dataset.documents import IGNORE_INDEX


class CorpusLosses:
    """Sums of losses and numbers of labels of each corpus. Adding never waits for the device."""

    def __init__(self, num_corpora: int, device: torch.device | str) -> None:
        # float64 counts exactly up to 2^53, so that both travel in one all-reduce.
        self.sums = torch.zeros(2, num_corpora, dtype=torch.float64, device=device)

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
        self.sums.index_add_(1, corpus_ids, rows)

    def take(
        self, all_reduce: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[list[float], list[int]]:
        """Mean losses and numbers of labels since the last call.

        Args:
            all_reduce: Sums a tensor over all ranks that hold parts of the batch.

        Returns:
            Two lists of C entries. The loss of a corpus without labels is NaN.
        """
        sums, counts = all_reduce(self.sums).tolist()
        self.sums.zero_()
        means = [total / n if n else float("nan") for total, n in zip(sums, counts, strict=True)]
        return means, [int(n) for n in counts]


def counted_labels(labels: torch.Tensor) -> torch.Tensor:
    """Number of labels of each row that count. Shapes ``(B, L)`` or ``(B,)`` to ``(B,)``."""
    return (labels != IGNORE_INDEX).view(len(labels), -1).sum(dim=1)


class RowSums:
    """Sums of the losses of each row, for each call of a loss within a training step.

    The buffer of a call is created at the first such call and reused, so that a CUDA graph that
    captured the call writes to it when replayed. PyTorch's pipeline schedules call a loss once per
    micro batch, in order, and once before all of them to find the shapes of gradients.
    """

    def __init__(self) -> None:
        self.parts = 1
        """Calls that compute the losses of one micro batch, each of some of its rows."""
        self._buffers: list[torch.Tensor] = []
        self._call = 0
        self._is_new = False

    def restart(self) -> None:
        """Start over: the next call is the first one."""
        self._call = 0

    def begin_call(self) -> None:
        """Start the next call."""
        self._call += 1
        self._is_new = True

    def add(self, row_losses: torch.Tensor) -> None:
        """Add to the sums of the current call. Shape ``(B,)``."""
        if self._call > len(self._buffers):
            self._buffers.append(row_losses.clone())
        elif self._is_new:
            self._buffers[self._call - 1].copy_(row_losses)
        else:
            self._buffers[self._call - 1].add_(row_losses)
        self._is_new = False

    def of_last_calls(self, num_micro_batches: int) -> list[torch.Tensor]:
        """Sums of the last micro batches, each of shape ``(B,)``. The next pass overwrites them."""
        num_calls = num_micro_batches * self.parts
        # A CUDA graph is replayed without calling us.
        stop = max(self._call, num_calls)
        assert stop <= len(self._buffers)
        sums = self._buffers[stop - num_calls : stop]
        if self.parts == 1:
            return sums
        return [torch.cat(sums[i : i + self.parts]) for i in range(0, num_calls, self.parts)]
