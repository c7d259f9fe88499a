"""The adapter for TorchTitan's main branch: what it yields and takes, and the record of main."""

import inspect
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.errors import ConfigError
from blendtitan.state import STATE_KEY
from blendtitan.titan import upstream
from blendtitan.titan.dataloader import CORPUS_IDS
from blendtitan.titan.losses import row_cross_entropy
from blendtitan.titan.tokenizer import BlendTokenizer
from blendtitan.titan_main.attention import DenseAttention
from blendtitan.titan_main.data import FlatDataLoader, FlatValidator
from blendtitan.titan_main.sizes import sizes_of_tokens
from tests.small_corpora import EOD
from tests.titan02.runs import SEQ_LEN, SPLIT
from tests.titan_main.record import imported_names, recorded

ROWS = 3


def flat_config(data: Path, **settings: Any) -> FlatDataLoader.Config:
    return FlatDataLoader.Config(
        data_file_list=data / "file_list.txt", split=SPLIT, tokenizer_check="warn", **settings
    )


def flat_loader(data: Path, *, dp_rank: int = 0, dp_world_size: int = 1, **settings: Any) -> Any:
    return flat_config(data, **settings).build(
        dp_rank=dp_rank,
        dp_world_size=dp_world_size,
        tokenizer=BlendTokenizer.Config().build(tokenizer_path=str(data / "tokenizer")),
        max_context_length=SEQ_LEN,
        num_tokens_per_batch=ROWS * SEQ_LEN,
    )


def engine_loader(data: Path, **settings: Any) -> DataLoader:
    config = BlendConfig(
        data_file_list=data / "file_list.txt",
        seq_length=SEQ_LEN,
        eod_token_id=EOD,
        split=SPLIT,
        **settings,
    )
    return DataLoader(build_datasets(config).train, ROWS, positions=True)


# Batches.


@pytest.mark.parametrize("masking", [False, True])
def test_a_flat_batch_is_the_rows_of_the_engine_end_to_end(data: Path, masking: bool) -> None:
    """Positions restart at every row, and with intra-document masking in every document."""
    settings = {"provide_attention_mask": masking}
    inputs, labels = next(iter(flat_loader(data, **settings)))
    rows = next(iter(engine_loader(data, **settings)))

    assert rows.positions is not None
    assert torch.equal(inputs["input"].view(ROWS, SEQ_LEN), rows.input_ids)
    assert torch.equal(inputs["positions"].view(ROWS, SEQ_LEN), rows.positions)
    assert torch.equal(labels.view(ROWS, SEQ_LEN), rows.labels)
    assert (inputs["positions"][::SEQ_LEN] == 0).all()
    assert (inputs["positions"] == 0).sum() > ROWS or not masking


def test_a_batch_has_the_keys_types_and_dimensions_of_mains_own(data: Path) -> None:
    inputs, labels = next(iter(flat_loader(data)))
    batch = inputs | {"labels": labels}
    expected = recorded()["batch"]

    assert expected.pop("values of positions") == [0, 1, 2, 0, 1, 2]  # 0 starts a document
    assert batch.keys() == expected.keys()
    for name, (dtype, shape) in expected.items():
        assert str(batch[name].dtype) == dtype
        assert batch[name].dim() == len(shape)


def test_labels_and_corpora_are_those_of_each_row(data: Path) -> None:
    """``eod_mask_loss`` masks labels within a row; corpora are given per token, for its loss."""
    settings = {"eod_mask_loss": True}
    inputs, labels = next(iter(flat_loader(data, corpus_ids=True, **settings)))
    rows = next(iter(engine_loader(data, **settings)))

    assert torch.equal(labels.view(ROWS, SEQ_LEN), rows.labels)
    assert (labels == -100).any()
    assert torch.equal(inputs[CORPUS_IDS].view(ROWS, SEQ_LEN)[:, 0], rows.corpus_ids)
    assert inputs[CORPUS_IDS].shape == labels.shape


def test_ranks_take_consecutive_samples(data: Path) -> None:
    own = iter(flat_loader(data))
    alone = [next(own)[1] for _ in range(2)]
    two = [next(iter(flat_loader(data, dp_rank=rank, dp_world_size=2)))[1] for rank in (0, 1)]

    assert all(map(torch.equal, alone, two))


def test_a_state_is_the_engines_and_moves_both_ways(data: Path) -> None:
    """The state of ``blendtitan.DataLoader`` is the state of every version's loader."""
    flat, engine = flat_loader(data), engine_loader(data)
    batches, rows = iter(flat), iter(engine)
    for _ in range(4):
        next(batches), next(rows)
    assert flat.state_dict().keys() == engine.state_dict().keys() == {STATE_KEY}
    again, back = flat_loader(data), engine_loader(data)
    again.load_state_dict(engine.state_dict())
    back.load_state_dict(flat.state_dict())
    expected = next(rows).labels

    assert torch.equal(next(iter(again))[1].view(ROWS, SEQ_LEN), expected)
    assert torch.equal(next(iter(back)).labels, expected)


def test_without_repetition_every_window_is_read_once(data: Path) -> None:
    """TorchTitan's validator sets ``repeat = False`` to validate on everything."""
    loader = flat_loader(data, split_name="valid", repeat=False)

    assert len(list(loader)) == -(-loader.dataset.num_windows // ROWS)


# What is refused.


def test_attention_without_masks_is_refused(data: Path) -> None:
    """The trainer sets ``positions`` to whether the attention reads them; SDPA does not."""
    with pytest.raises(ConfigError, match="it would attend across their rows"):
        flat_loader(data, positions=False)


def run_of(**training: int) -> SimpleNamespace:
    sizes = {
        "max_context_length": 32,
        "num_tokens_per_microbatch_per_dp_rank": 64,
        "num_tokens_per_train_step": -1,
    }
    return SimpleNamespace(
        training=SimpleNamespace(**sizes | training),
        parallelism=SimpleNamespace(num_pp_microbatches=4, pipeline_parallel_degree=1),
    )


def test_tokens_are_counted_in_samples() -> None:
    run = run_of(num_tokens_per_train_step=256)
    assert sizes_of_tokens(run) == (32, 2, 8)
    run.parallelism.pipeline_parallel_degree = 2
    assert sizes_of_tokens(run) == (32, 8, 8)
    assert sizes_of_tokens(run_of()) == (32, 2, -1)


@pytest.mark.parametrize(
    "name", ["num_tokens_per_microbatch_per_dp_rank", "num_tokens_per_train_step"]
)
def test_tokens_that_are_not_whole_samples_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"training\.{name} is 100, expected a multiple of 32"):
        sizes_of_tokens(run_of(**{name: 100}))


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (6, 1)])
def test_positions_of_another_shape_are_refused(shape: tuple[int, int]) -> None:
    """In flat batches and in those of 0.3; TorchTitan would mask wrong spans."""
    flat = torch.zeros(6, dtype=torch.long)
    batch = {"input": flat, "positions": flat.view(shape)}
    with pytest.raises(ConfigError, match=rf"'positions' of shape \({shape[0]}, {shape[1]}\)"):
        upstream.checked((batch, flat))


# Losses and attention.


def test_the_loss_of_a_flat_batch_is_kept_for_each_token() -> None:
    torch.manual_seed(0)
    pred, labels = torch.randn(10, 7), torch.randint(0, 7, (10,))
    labels[:3] = -100
    loss, tokens = row_cross_entropy(pred, labels)

    torch.testing.assert_close(loss, F.cross_entropy(pred, labels, reduction="sum"))
    torch.testing.assert_close(tokens, F.cross_entropy(pred, labels, reduction="none"))


def test_dense_attention_attends_to_what_the_mask_allows_and_has_gradients() -> None:
    """Two rows in a flat batch are as if each were alone."""
    torch.manual_seed(0)
    attention = DenseAttention(DenseAttention.Config())
    q, k, v = (torch.randn(8, 2, 4, requires_grad=True) for _ in range(3))
    mask = create_block_mask(
        lambda b, h, i, j: (i >= j) & (i // 4 == j // 4), None, None, 8, 8, device="cpu"
    )
    out = attention(q, k, v, attention_masks=mask)
    row = [x[4:].transpose(0, 1)[None] for x in (q, k, v)]
    alone = F.scaled_dot_product_attention(*row, is_causal=True)[0].transpose(0, 1)

    torch.testing.assert_close(out[4:], alone)
    out[4:].sum().backward()
    assert k.grad is not None
    assert not k.grad[:4].any()
    with pytest.raises(ConfigError, match="needs out_transform"):
        attention(q, k, v, attention_masks=mask, out_transform=lambda out, lse: out)


# The record of main.


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_main_had_every_name_that_is_imported() -> None:
    assert set(imported_names()) <= set(recorded()["names"])


@pytest.mark.parametrize("call", ["trainer builds loader", "validator builds loader"])
def test_the_loader_takes_what_main_builds_it_with(call: str) -> None:
    assert set(recorded()["keywords"][call]) == parameters(FlatDataLoader.__init__) - {
        "self",
        "config",
    }


def test_the_loader_has_the_field_that_mains_validator_changes(data: Path) -> None:
    changed = {name: False for name in recorded()["keywords"]["validator changes loader"]}

    assert not replace(flat_config(data), **changed).repeat


def test_the_validator_gets_what_it_reads() -> None:
    given = set(recorded()["keywords"]["trainer builds validator"])

    assert {"num_tokens_per_batch", "seq_len", "parallel_dims", "parallelism"} <= given
    names = {field.name for field in fields(FlatValidator.Config)}
    assert set(recorded()["fields"]["torchtitan.components.validate Validator.Config"]) <= names


def test_sizes_are_read_from_fields_that_main_has() -> None:
    run, found = run_of(), recorded()["fields"]

    assert vars(run.training).keys() <= set(found["torchtitan.config.configs TrainingConfig"])
    assert vars(run.parallelism).keys() <= set(found["torchtitan.config.configs ParallelismConfig"])


def test_methods_that_we_override_take_the_same_arguments() -> None:
    found = recorded()["parameters"]

    def named(name: str) -> list[str]:
        return found[f"torchtitan.{name}"]

    manager = "components.checkpointer CheckpointManager"
    assert named(f"{manager}._load") == ["self", "step"]
    assert named(f"{manager}._save") == ["self", "curr_step", "last_step"]
    assert named(f"{manager}._find_load_step") == ["self", "folder"]
    assert named(f"{manager}.dcp_save")[:4] == ["self", "state_dict", "checkpoint_id", "async_mode"]
    assert named(f"{manager}.dcp_load")[:3] == ["self", "state_dict", "checkpoint_id"]
    assert named("components.metrics MetricsProcessor.log")[1:3] == ["step", "global_avg_loss"]
    assert named("trainer Trainer.post_dataloading_process") == ["self", "input_dict", "labels"]
    assert named("models.common.decoder Decoder.forward") == [
        "self",
        "tokens",
        "positions",
        "attention_masks",
    ]
