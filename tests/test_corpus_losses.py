"""Losses summed up by corpus."""

import math

import torch

from blendtitan.corpus_losses import CorpusLosses, RowSums, counted_labels


def alone(sums: torch.Tensor) -> torch.Tensor:
    """There is one rank."""
    return sums


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_losses_are_means_over_the_labels_of_each_corpus() -> None:
    """Not means of the means of rows: rows may have labels masked."""
    losses = CorpusLosses(3, "cpu")
    losses.add(torch.tensor([2, 0, 2]), numbers(6.0, 1.0, 2.0), torch.tensor([3, 1, 1]))
    losses.add(torch.tensor([0, 0, 0]), numbers(2.0, 4.0, 5.0), torch.tensor([1, 1, 1]))
    means, labels = losses.take(alone)

    assert means[0] == 12 / 4
    assert math.isnan(means[1])
    assert means[2] == 8 / 4
    assert labels == [4, 0, 4]


def test_counted_time_is_not_counted_again() -> None:
    losses = CorpusLosses(1, "cpu")
    losses.add(torch.tensor([0]), numbers(6.0), torch.tensor([3]))
    losses.take(alone)
    losses.add(torch.tensor([0]), numbers(5.0), torch.tensor([1]))

    assert losses.take(alone) == ([5.0], [1])


def test_one_reduction_brings_the_ranks_together() -> None:
    """Means of sums, not of means: the other rank has 1 label of loss 9."""
    calls = []

    def with_other_rank(sums: torch.Tensor) -> torch.Tensor:
        calls.append(sums.shape)
        return sums + torch.tensor([[9.0], [1.0]], dtype=sums.dtype)

    losses = CorpusLosses(1, "cpu")
    losses.add(torch.tensor([0]), numbers(3.0), torch.tensor([3]))

    assert losses.take(with_other_rank) == ([12 / 4], [4])
    assert len(calls) == 1


def test_masked_labels_do_not_count() -> None:
    labels = torch.tensor([[1, 2, -100], [-100, -100, -100], [0, 0, 0]])

    assert counted_labels(labels).tolist() == [2, 0, 3]


def test_rows_are_summed_over_the_parts_of_a_call() -> None:
    """As when the sequence is cut into chunks; another call is another micro batch."""
    rows = RowSums()
    for scale in (1.0, 10.0):
        rows.begin_call()
        rows.add(scale * numbers(1.0, 2.0))
        rows.add(scale * numbers(3.0, 4.0))

    assert [sums.tolist() for sums in rows.of_last_calls(2)] == [[4.0, 6.0], [40.0, 60.0]]


def test_a_call_before_those_of_the_micro_batches_is_left_out() -> None:
    """A pipeline makes one in its first step, with numbers that mean nothing."""
    rows = RowSums()
    for value in (math.nan, 1.0, 2.0):
        rows.begin_call()
        rows.add(numbers(value))

    assert [sums.tolist() for sums in rows.of_last_calls(2)] == [[1.0], [2.0]]


def test_a_pass_without_calls_of_python_has_the_sums_of_the_first() -> None:
    """So a CUDA graph is replayed: it writes to the memory of the call it has captured."""
    rows = RowSums()
    rows.begin_call()
    rows.add(numbers(1.0))
    (captured,) = rows.of_last_calls(1)
    rows.restart()
    captured.copy_(numbers(5.0))

    assert [sums.tolist() for sums in rows.of_last_calls(1)] == [[5.0]]


def test_the_next_pass_writes_to_the_same_memory() -> None:
    """A CUDA graph that has captured a call goes on writing there."""
    rows = RowSums()
    rows.begin_call()
    rows.add(numbers(1.0, 2.0))
    (before,) = rows.of_last_calls(1)
    rows.restart()
    rows.begin_call()
    rows.add(numbers(3.0, 4.0))
    (after,) = rows.of_last_calls(1)

    assert before is after
    assert after.tolist() == [3.0, 4.0]
