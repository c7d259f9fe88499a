"""Intra-document masking: compared with a dense mask, and with single documents."""

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import and_masks, create_mask
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.models.common.attention import (
    create_varlen_metadata_for_document,
    get_causal_mask_mod,
    get_efficient_causal_mask_mod_for_packed_document,
)
from torchtitan.models.common.decoder import Decoder

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.dataset.documents import IGNORE_INDEX
from blendtitan.errors import ConfigError
from blendtitan.loader import Batch
from blendtitan.titan import cpu
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.model import AttentionBackend, build_model_spec, decoder_config
from blendtitan.titan.trainer import BlendTrainer, settled
from tests.small_corpora import EOD, VOCAB_SIZE, write_corpora
from tests.titan import shard_context
from tests.titan.launched import Launched
from tests.titan.recorded_train import NUM_LAYERS

SEQ_LEN = 128  # one block of FlexAttention
ROWS = 2
QUARTERS = torch.arange(SEQ_LEN).view(4, -1)
PLACES = {
    "none": [QUARTERS[[0, 1]].flatten(), QUARTERS[[2, 3]].flatten()],
    "headtail": [QUARTERS[[0, 3]].flatten(), QUARTERS[[1, 2]].flatten()],
}
"""Places in a row of the tokens of each of two context-parallel ranks, by load balancer."""


class DenseAttention(torch.nn.Module):
    """SDPA with a mask that names every pair of tokens, in place of TorchTitan's attention."""

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **arguments: Any
    ) -> torch.Tensor:
        """Attend; every tensor has the shape ``(B, L, N, H)``."""
        heads_first = (tensor.transpose(1, 2) for tensor in (q, k, v))
        attended = F.scaled_dot_product_attention(
            *heads_first,
            attn_mask=arguments["attention_masks"],
            scale=arguments["scale"],
            enable_gqa=arguments["enable_gqa"],
        )
        return attended.transpose(1, 2)


@pytest.fixture
def data_file_list(tmp_path: Path) -> Path:
    return write_corpora(tmp_path)


@pytest.fixture
def batch(data_file_list: Path) -> Batch:
    """Rows of several documents each, with positions, a dense mask, and no label across ends."""
    config = BlendConfig(
        data_file_list=data_file_list,
        seq_length=SEQ_LEN,
        eod_token_id=EOD,
        split="100,0,0",
        provide_attention_mask=True,
        eod_mask_loss=True,
        num_workers=0,
    )
    return next(iter(DataLoader(build_datasets(config).train, ROWS)))


def model(name: str, attn_backend: AttentionBackend, weights: Decoder | None = None) -> Decoder:
    spec = build_model_spec(name, "debugmodel", vocab_size=VOCAB_SIZE, attn_backend=attn_backend)
    del decoder_config(spec).layers[NUM_LAYERS:]
    built = spec.model.build()
    assert isinstance(built, Decoder)
    torch.manual_seed(1)
    built.init_states(buffer_device=torch.device("cpu"))
    if weights is not None:
        built.load_state_dict(weights.state_dict())
    return built.eval()


def with_dense_attention(weights: Decoder, name: str) -> Decoder:
    dense = model(name, "sdpa", weights)
    for layer in dense.layers.values():
        layer.attention.inner_attention = DenseAttention()
    return dense


def told_apart(batch: Batch) -> torch.Tensor:
    """The positions of a batch. Shape ``(B, L)``."""
    assert batch.positions is not None
    return batch.positions


def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss of each label, 0 where it is masked. Shape ``(B, L)``."""
    flat = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORE_INDEX
    )
    return flat.view(labels.shape)


def losses_alone(
    alone: Decoder, input_ids: torch.Tensor, labels: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss and number of labels of each document of a row, each passed through alone.

    The model has causal attention and no masks; the other arguments have the shape ``(L,)``.
    """
    means, counts = [], []
    for place in documents(positions):
        count = (labels[place] != IGNORE_INDEX).sum()
        if count:
            means.append(losses(alone(input_ids[None, place]), labels[None, place]).sum() / count)
            counts.append(count)
    return torch.stack(means), torch.stack(counts)


def documents(positions: torch.Tensor) -> list[slice]:
    """Where the documents of one row lie. ``positions``: shape ``(L,)``."""
    starts = [*torch.nonzero(positions == 0).flatten().tolist(), len(positions)]
    return [slice(start, stop) for start, stop in pairwise(starts)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama3", "qwen3"])
@torch.no_grad()
def test_a_packed_row_is_its_documents_one_by_one(batch: Batch, name: str) -> None:
    """FlexAttention, with masks made from positions, sees what a dense mask shows it.

    And no document is changed by those it is packed with. Forward only: it has no CPU backward.
    """
    flex = model(name, "flex")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, while it compiles for a CPU
        masks = flex.get_attention_masks(batch.positions)
        logits = flex(batch.input_ids, batch.positions, masks)

    dense = with_dense_attention(flex, name)
    expected = dense(batch.input_ids, batch.positions, batch.attention_mask)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    alone = model(name, "sdpa", flex)
    for row_losses, *row in zip(
        losses(logits, batch.labels), batch.input_ids, batch.labels, batch.positions, strict=True
    ):
        means, counts = losses_alone(alone, *row)
        assert len(means) > 2
        torch.testing.assert_close(
            row_losses.sum() / counts.sum(), (means * counts).sum() / counts.sum()
        )
    mixed = losses(alone(batch.input_ids), batch.labels)
    assert (mixed - losses(logits, batch.labels)).abs().max() > 0.01


@pytest.mark.parametrize("rows", [1, 2], ids=["one row", "several rows"])
def test_torchtitans_masks_are_the_engines(batch: Batch, rows: int) -> None:
    """What the positions mean to FlexAttention, pair by pair. TorchTitan has two ways to say it."""
    positions = told_apart(batch)[:rows]
    same_document = get_efficient_causal_mask_mod_for_packed_document(positions)
    mask = create_mask(
        and_masks(get_causal_mask_mod(), same_document), rows, None, SEQ_LEN, SEQ_LEN, device="cpu"
    )

    assert batch.attention_mask is not None
    assert torch.equal(mask, batch.attention_mask[:rows])


def test_varlen_attention_is_given_the_documents(batch: Batch) -> None:
    """Its kernels need an accelerator; their arguments do not."""
    positions = told_apart(batch)
    metadata = create_varlen_metadata_for_document(positions)
    places = [(row, place) for row in range(ROWS) for place in documents(positions[row])]

    starts = [row * SEQ_LEN + place.start for row, place in places]
    assert metadata.cu_seq_q.tolist() == [*starts, ROWS * SEQ_LEN]
    assert metadata.max_q == max(place.stop - place.start for _, place in places)


def test_labels_across_the_ends_of_documents_are_masked_with_it(batch: Batch) -> None:
    """A document's last token has no label, as in a single document."""
    positions = told_apart(batch)
    ends = torch.zeros_like(positions, dtype=torch.bool)
    ends[:, :-1] = positions[:, 1:] == 0
    ends[:, -1] = batch.input_ids[:, -1] == EOD

    assert torch.equal(batch.labels == IGNORE_INDEX, ends)
    assert torch.equal(batch.input_ids == EOD, ends)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_sdpa_cannot_tell_documents_apart_and_the_error_names_the_setting(
    data_file_list: Path, monkeypatch: pytest.MonkeyPatch, on_cpu: bool
) -> None:
    monkeypatch.setattr(cpu, "is_used", lambda: on_cpu)
    loader = BlendCorpusDataLoader.Config(
        data_file_list=str(data_file_list), provide_attention_mask=True
    )
    spec = build_model_spec("llama3", "debugmodel", vocab_size=VOCAB_SIZE, attn_backend="sdpa")
    with pytest.raises(ConfigError, match=r"provide_attention_mask = true, but SDPA") as caught:
        settled(BlendTrainer.Config(model_spec=spec, dataloader=loader))

    assert "Set blendcorpus.provide_attention_mask = false" in str(caught.value)
    assert "model.attn_backend" in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"training": TrainingConfig()},
            r"disable_cuda_graphs is false, expected true with .*varlen",
        ),
        (
            {"parallelism": ParallelismConfig(context_parallel_degree=2)},
            r"'varlen' cannot be split by context parallelism. Set it to 'flex'",
        ),
    ],
    ids=["CUDA graphs", "context parallelism"],
)
def test_varlen_attention_is_refused_where_it_cannot_separate_documents(
    data_file_list: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], message: str
) -> None:
    """TorchTitan would stop later, on every rank, with an error of its own."""
    monkeypatch.setattr(cpu, "is_used", lambda: False)
    loader = BlendCorpusDataLoader.Config(
        data_file_list=str(data_file_list), provide_attention_mask=True
    )
    spec = build_model_spec("llama3", "debugmodel", vocab_size=VOCAB_SIZE, attn_backend="varlen")
    graphless = TrainingConfig(disable_cuda_graphs=True)

    settled(BlendTrainer.Config(model_spec=spec, dataloader=loader, training=graphless))
    with pytest.raises(ConfigError, match=message):
        settled(BlendTrainer.Config(model_spec=spec, dataloader=loader, **setting))


@pytest.mark.parametrize(("degree", "has_positions"), [(1, False), (2, True)])
def test_context_parallelism_has_positions_also_without_masks(
    data_file_list: Path, monkeypatch: pytest.MonkeyPatch, degree: int, has_positions: bool
) -> None:
    """TorchTitan splits them with the tokens, whatever the attention."""
    monkeypatch.setattr(cpu, "is_used", lambda: False)
    spec = build_model_spec("llama3", "debugmodel", vocab_size=VOCAB_SIZE, attn_backend="sdpa")
    config = BlendTrainer.Config(
        model_spec=spec,
        dataloader=BlendCorpusDataLoader.Config(data_file_list=str(data_file_list)),
        parallelism=ParallelismConfig(context_parallel_degree=degree),
    )

    loader = settled(config).dataloader
    assert isinstance(loader, BlendCorpusDataLoader.Config)
    assert loader.positions is has_positions


@pytest.mark.slow
def test_context_parallel_ranks_get_the_positions_of_their_tokens(
    batch: Batch, tmp_path: Path
) -> None:
    """Whichever tokens a rank is given: a run of them, or one from each end of the row."""
    whole = {"input": batch.input_ids, "labels": batch.labels, "positions": told_apart(batch)}
    torch.save(whole, tmp_path / "batch")
    words = [str(tmp_path / "batch"), *PLACES]
    run = Launched.start(words, processes=2, record=tmp_path / "parts", entry=shard_context.main)
    assert run.wait(120) == 0, run.output

    for rank in (0, 1):
        parts = torch.load(tmp_path / f"parts.{rank}")
        for balancer, places in PLACES.items():
            assert parts[balancer].keys() == whole.keys()
            for name, tensor in whole.items():
                assert torch.equal(parts[balancer][name], tensor[:, places[rank]])
