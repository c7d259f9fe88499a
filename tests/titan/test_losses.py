"""TorchTitan's cross entropy, with the losses of rows kept."""

from typing import Any

import pytest
import torch
from torch import nn
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss, MSELoss
from torchtitan.config import CompileConfig, DebugConfig
from torchtitan.trainer import Trainer

from blendtitan.titan.losses import (
    RowChunkedLoss,
    RowCrossEntropyLoss,
    RowLoss,
    why_without_rows,
    with_rows,
)

# PyTorch's own, while it compiles.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

COMPILED = CompileConfig(enable=True, components=["loss"], backend="aot_eager")
EAGER = CompileConfig()
B, L, D, V = 3, 8, 4, 11


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of three rows, and labels, some of which are masked in one row."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, V, (B, L), generator=generator)
    labels[1, 2:5] = -100
    return torch.randn(B, L, D, generator=generator, requires_grad=True), labels


def plain(compile_config: CompileConfig, *, kept: bool) -> Any:
    config = CrossEntropyLoss.Config(global_vocab_size=V)
    return (with_rows(config) if kept else config).build(compile_config=compile_config)


def chunked(compile_config: CompileConfig, *, kept: bool) -> Any:
    config = ChunkedLossWrapper.Config(num_chunks=4)
    return (with_rows(config) if kept else config).build(compile_config=compile_config)


def head() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(D, V)


def passed(loss_fn: Any, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss, and the gradients of hidden states and of the weights of the head."""
    hidden, labels = batch(seed)
    lm_head = head()
    pred = hidden
    if isinstance(loss_fn, ChunkedLossWrapper):
        loss_fn.set_lm_head(lm_head)
    else:
        pred = lm_head(hidden)
    loss, _ = loss_fn(pred, labels, torch.tensor(20))
    loss.backward()
    assert hidden.grad is not None
    assert isinstance(lm_head.weight.grad, torch.Tensor)
    return loss.detach(), hidden.grad, lm_head.weight.grad


def expected_rows(seed: int = 0) -> list[float]:
    hidden, labels = batch(seed)
    return [
        nn.functional.cross_entropy(head()(hidden[row]), labels[row], reduction="sum").item()
        for row in range(B)
    ]


LOSSES = pytest.mark.parametrize("build", [plain, chunked])
COMPILE = pytest.mark.parametrize("compile_config", [EAGER, COMPILED], ids=["eager", "compiled"])


@LOSSES
@COMPILE
def test_the_loss_and_its_gradients_are_torchtitans(
    build: Any, compile_config: CompileConfig
) -> None:
    ours = passed(build(compile_config, kept=True))
    theirs = passed(build(compile_config, kept=False))

    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)


@LOSSES
@COMPILE
def test_the_losses_of_rows_are_kept(build: Any, compile_config: CompileConfig) -> None:
    """Sums over the labels of each row, not divided by anything."""
    loss_fn = build(compile_config, kept=True)
    loss, *_ = passed(loss_fn)
    (rows,) = loss_fn.rows.of_last_calls(1)

    assert rows.tolist() == pytest.approx(expected_rows(), rel=1e-5)
    assert not rows.requires_grad
    assert loss.item() == pytest.approx(sum(expected_rows()) / 20, rel=1e-5)


@LOSSES
def test_micro_batches_are_kept_apart_in_their_order(build: Any) -> None:
    """As a pipeline's last stage calls the loss. The next step starts from zero."""
    loss_fn = build(EAGER, kept=True)
    for step in (0, 2):
        loss_fn.rows.restart()
        for micro_batch in range(2):
            passed(loss_fn, seed=step + micro_batch)
        kept = loss_fn.rows.of_last_calls(2)

        for micro_batch in range(2):
            assert kept[micro_batch].tolist() == pytest.approx(
                expected_rows(step + micro_batch), rel=1e-5
            )


@LOSSES
def test_validation_leaves_no_trace(build: Any) -> None:
    """It may call the loss with other numbers of rows, between any two steps."""
    loss_fn = build(EAGER, kept=True)
    passed(loss_fn)
    before = loss_fn.rows.of_last_calls(1)[0].tolist()
    hidden, labels = batch(seed=1)
    with torch.no_grad():
        pred = hidden.detach() if build is chunked else head()(hidden)
        loss_fn(pred[:1], labels[:1])

    assert loss_fn.rows.of_last_calls(1)[0].tolist() == before


# Which settings have it


def test_cross_entropy_is_replaced_plain_and_chunked() -> None:
    replaced = with_rows(ChunkedLossWrapper.Config(num_chunks=2))

    assert isinstance(replaced, RowChunkedLoss.Config)
    assert replaced.num_chunks == 2
    assert isinstance(replaced.loss_fn, RowCrossEntropyLoss.Config)
    assert with_rows(replaced) is replaced
    assert isinstance(replaced.build(), RowLoss)


def test_the_trainer_sees_a_chunked_loss() -> None:
    """It gives the output layer to losses of this class."""
    assert issubclass(RowChunkedLoss, ChunkedLossWrapper)


@pytest.mark.parametrize(
    "loss", [MSELoss.Config(), ChunkedLossWrapper.Config(loss_fn=MSELoss.Config())]
)
def test_another_loss_is_left_alone(loss: Any) -> None:
    config = Trainer.Config(loss=loss)

    assert with_rows(loss) is loss
    assert "a loss other than cross entropy" in f"{why_without_rows(config)}"


def test_settings_that_keep_labels_in_tensors_of_their_own_are_named() -> None:
    config = Trainer.Config(loss=CrossEntropyLoss.Config())
    assert why_without_rows(config) is None

    config.parallelism.spmd_backend = "full_dtensor"
    assert why_without_rows(config) == 'parallelism.spmd_backend = "full_dtensor"'

    config.parallelism.spmd_backend = "spmd_types"
    config.debug = DebugConfig(spmd_typechecking=True)
    assert why_without_rows(config) == "debug.spmd_typechecking = true"
