"""What is put into TorchTitan 0.2's hooks, and what of TorchTitan 0.2 is relied on."""

import copy
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torchtitan.components import loss as upstream_loss
from torchtitan.config import ConfigManager
from torchtitan.models.attention import get_document_mask_mod
from torchtitan.models.llama3 import get_train_spec as llama3
from torchtitan.protocols.train_spec import TrainSpec, get_train_spec

from blendtitan import DataLoader
from blendtitan.dataset.documents import document_starts
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.state import parse_state
from blendtitan.titan02 import models
from blendtitan.titan02.data import Titan02DataLoader, Titan02Tokenizer, open_datasets
from blendtitan.titan02.losses import IS_SUMMED, LossByCorpus, row_cross_entropy
from tests.titan02.runs import SmallRun

CONFIG = ["--job.custom_config_module", "blendtitan.titan02.config"]


def parsed(run: SmallRun, *arguments: str) -> Any:
    return ConfigManager().parse_args(["--job.config_file", str(run.toml()), *CONFIG, *arguments])


def loader(run: SmallRun, *arguments: str, step: int = 0, **ranks: int) -> Titan02DataLoader:
    job = parsed(run, *arguments)
    ranks = {"dp_world_size": 1, "dp_rank": 0} | ranks
    datasets = open_datasets(
        job, Titan02Tokenizer(job), vocab_size=128, dp_world_size=ranks["dp_world_size"]
    )
    assert datasets.train is not None
    return Titan02DataLoader(job, datasets.train, step_of_run=lambda: step, **ranks)


# The configuration.


def test_the_section_has_the_keys_and_defaults_of_the_other_versions(run: SmallRun) -> None:
    section = vars(parsed(run, "--blendcorpus.seed", "7").blendcorpus)

    assert section["seed"] == 7
    assert section["split"] == "80,20,0"
    assert section["max_epochs"] == 4.0


def test_segments_are_read_from_the_file(run: SmallRun) -> None:
    text = run.toml().read_text()
    path = run.folder / "segments.toml"
    path.write_text(f"{text}\n[[blendcorpus.segment]]\nfrom_step = 3\nshares = {{ web = 0.0 }}\n")
    job = ConfigManager().parse_args(["--job.config_file", str(path), *CONFIG])

    assert job.blendcorpus.segment == [{"from_step": 3, "shares": {"web": 0.0}}]


def test_data_that_is_not_named_is_an_error(run: SmallRun) -> None:
    job = parsed(run)
    job.blendcorpus.data_file_list = None

    with pytest.raises(ConfigError, match=r"no data is configured. Set blendcorpus.data_file_list"):
        open_datasets(job, Titan02Tokenizer(job), vocab_size=128, dp_world_size=1)


def test_documents_are_removed_only_where_a_loss_without_labels_is_not_nan(
    run: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 0.2.2, the loss of a micro batch is a mean."""
    monkeypatch.setattr("blendtitan.titan02.data.IS_SUMMED", False)

    with pytest.raises(ConfigError, match=r"removed_documents needs TorchTitan 0\.2\.2 or newer"):
        loader(run, "--blendcorpus.removed_documents", str(run.removed_documents(0)))


def test_a_token_beyond_the_models_vocabulary_is_an_error(run: SmallRun) -> None:
    job = parsed(run)
    datasets = open_datasets(job, Titan02Tokenizer(job), vocab_size=50, dp_world_size=1)

    with pytest.raises(Exception, match="50"):
        next(iter(DataLoader(datasets.train, 2)))


# The loader's place.


def test_a_batch_holds_nothing_that_the_model_is_not_given(run: SmallRun) -> None:
    inputs, labels = next(iter(loader(run)))

    assert set(inputs) == {"input"}
    assert inputs["input"].shape == labels.shape == (2, 32)


def test_a_state_moves_to_the_engine_and_back(run: SmallRun) -> None:
    first = loader(run)
    batches = iter(first)
    for _ in range(4):
        next(batches)
    state = first.state_dict()
    expected = [next(batches)[1] for _ in range(3)]

    assert parse_state(state).consumed_samples == 8
    again = loader(run, step=99)  # the state wins over what the schedule says
    again.load_state_dict(state)
    found = iter(again)
    assert all(torch.equal(labels, next(found)[1]) for labels in expected)


def test_a_place_that_is_not_the_trainers_is_an_error(run: SmallRun) -> None:
    """As when the checkpoint's step was loaded, but neither the loader nor the schedule."""
    own = loader(run)
    batches = iter(own)
    next(batches), next(batches)

    own.check_step(1)
    with pytest.raises(ResumeError, match="expected 12 at step 3"):
        own.check_step(3)


def test_without_a_state_it_continues_after_the_steps_of_the_schedule(run: SmallRun) -> None:
    own = loader(run, step=3)
    next(iter(own))

    assert own.consumed_samples == 3 * 4 + 2


def test_another_global_batch_size_continues_after_the_consumed_samples(run: SmallRun) -> None:
    first = loader(run)
    batches = iter(first)
    for _ in range(4):
        next(batches)
    again = loader(run, "--training.global_batch_size", "8")
    again.load_state_dict(first.state_dict())
    next(iter(again))

    assert again.consumed_samples == 10


def test_ranks_share_a_step(run: SmallRun) -> None:
    alone = [labels for _, labels in zip(range(2), (b[1] for b in loader(run)), strict=False)]
    two = [next(iter(loader(run, dp_world_size=2, dp_rank=rank)))[1] for rank in (0, 1)]

    assert torch.equal(torch.cat(alone), torch.cat(two))


# The losses.


def test_the_loss_is_torchtitans() -> None:
    torch.manual_seed(0)
    pred, labels = torch.randn(3, 5, 11), torch.randint(0, 11, (3, 5))
    labels[0, :3] = -100
    loss, rows = row_cross_entropy(pred, labels)

    torch.testing.assert_close(loss, upstream_loss.cross_entropy_loss(pred, labels))
    count = 1 if IS_SUMMED else (labels != -100).sum()
    torch.testing.assert_close(rows.sum() / count, loss)


def test_losses_of_corpora_follow_the_order_of_the_batches() -> None:
    torch.manual_seed(0)
    by_corpus = LossByCorpus(upstream_loss.cross_entropy_loss)
    by_corpus.begin(2)
    pred, labels = torch.randn(4, 2, 5, 11), torch.randint(0, 11, (4, 2, 5))
    for _ in range(2):
        by_corpus.corpus_ids.append(torch.tensor([0, 1]))
    with torch.no_grad():  # a validation in between
        by_corpus(pred[3], labels[3])
    by_corpus(pred[0], labels[0]), by_corpus(pred[1], labels[1])
    taken = by_corpus.take(SimpleNamespace(dp_cp_enabled=False))  # pyright: ignore

    assert taken is not None
    for corpus in (0, 1):
        rows = torch.nn.functional.cross_entropy(
            pred[:2, corpus].flatten(0, 1), labels[:2, corpus].flatten()
        )
        assert taken[0][corpus] == pytest.approx(rows.item(), rel=1e-6)
    assert taken[1] == [10, 10]
    assert not by_corpus.corpus_ids


# The models.


def test_each_language_model_is_registered_again() -> None:
    spec = get_train_spec("llama3")

    assert spec.build_dataloader_fn is not llama3().build_dataloader_fn
    assert {"debugmodel", "1B", "8B"} <= set(spec.model_args)


def test_the_vocabulary_is_the_flavors_unless_the_tokenizer_needs_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def size(own: int, *, asked: int | None, tokenizer: int) -> int:
        args = SimpleNamespace(vocab_size=own)
        model = SimpleNamespace(vocab_size=asked, name="llama3", flavor="8B")
        models._set_vocab_size(args, model, tokenizer)
        return args.vocab_size

    assert size(2048, asked=None, tokenizer=2000) == 2048
    assert size(2048, asked=None, tokenizer=4001) == 4032
    assert "The tokenizer has 4001 ids" in caplog.text
    assert size(2048, asked=5000, tokenizer=4001) == 5000
    with pytest.raises(ConfigError, match=r"model.vocab_size is 4000, expected at least 4001"):
        size(2048, asked=4000, tokenizer=4001)


def test_attention_without_masks_cannot_tell_documents_apart(run: SmallRun) -> None:
    args = copy.copy(llama3().model_args["debugmodel"])
    job = parsed(run, "--blendcorpus.provide_attention_mask")

    with pytest.raises(ConfigError, match=r"SDPA attention has no masks"):
        models._set_attention(args, job)
    job.model.attn_backend = "flex"
    models._set_attention(args, job)
    assert args.attn_mask_type == "block_causal"
    job.blendcorpus.provide_attention_mask = False
    models._set_attention(args, job)
    assert args.attn_mask_type == "causal"


def test_documents_end_in_torchtitans_masks_where_they_end_in_our_positions() -> None:
    tokens = np.random.default_rng(0).integers(0, 5, (3, 17))
    mask = get_document_mask_mod(torch.from_numpy(tokens.copy()), 2)
    places, head = torch.arange(17), torch.tensor(0)
    theirs = torch.stack(
        [mask(torch.tensor(row), head, places[:, None], places[None, :]) for row in range(3)]
    )
    starts = torch.from_numpy(document_starts(tokens, eod_id=2))

    assert torch.equal(theirs, starts[:, :, None] == starts[:, None, :])


# Interfaces that we rely on: a new version that changes them fails here.


def test_the_hooks_are_those_of_the_train_spec() -> None:
    names = set(inspect.signature(TrainSpec).parameters)

    assert names >= {
        *("model_args", "parallelize_fn", "build_tokenizer_fn", "build_dataloader_fn"),
        *("build_loss_fn", "build_metrics_processor_fn", "build_lr_schedulers_fn"),
        "build_validator_fn",
    }


def test_the_trainer_calls_the_hooks_in_the_order_that_they_need() -> None:
    import torchtitan.train as entry

    text = Path(str(entry.__file__)).read_text()
    calls = (
        "custom_import",
        "build_tokenizer_fn(",
        "build_dataloader_fn(",
        "train_spec.model_args[",
        "build_metrics_processor_fn(",
        "build_loss_fn(",
        "build_lr_schedulers_fn(",
        "CheckpointManager(\n",
        "checkpointer.load(",
        "self.batch_generator(self.dataloader)",
    )
    places = [text.index(call) for call in calls]

    assert places == sorted(places)
    assert "metrics_processor.should_log(self.step)" in text
