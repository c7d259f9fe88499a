"""The engine's loader behind TorchTitan's interface."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torchtitan.components.validate import Validator

from blendtitan import BlendConfig, BlendedDataset, DataLoader, build_datasets
from blendtitan.config import BlendKeys
from blendtitan.errors import (
    BlendTitanError,
    ConfigError,
    CorruptShardError,
    EmptySplitError,
    TokenizerMismatchError,
)
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.record_files import TokenizerRecord, record_path
from blendtitan.storage.record_writer import encode_record
from blendtitan.titan import dataloader, shared_catalog
from blendtitan.titan.dataloader import CORPUS_IDS, BlendCorpusDataLoader
from blendtitan.titan.tokenizer import BlendTokenizer
from tests.small_corpora import EOD, VOCAB_SIZE, write_corpora
from tests.titan.conftest import GLOBAL_BATCH_SIZE, SEQ_LEN

Config = BlendCorpusDataLoader.Config

TOKENIZER: Any = SimpleNamespace(eos_id=EOD)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_file_list=str(write_corpora(tmp_path)), split="80,20,0", num_workers=0)


def build(config: Config, **arguments: Any) -> BlendCorpusDataLoader:
    defaults = {
        "dp_world_size": 1,
        "dp_rank": 0,
        "tokenizer": TOKENIZER,
        "seq_len": SEQ_LEN,
        "local_batch_size": GLOBAL_BATCH_SIZE,
    }
    return config.build(**defaults | arguments)


def blend_config(config: Config) -> BlendConfig:
    return config.blend_config(dataset_path=config.dataset_path, seq_len=SEQ_LEN, eos_id=EOD)


def dataset_of(config: Config) -> BlendedDataset:
    dataset = build_datasets(blend_config(config)).train
    assert isinstance(dataset, BlendedDataset)
    return dataset


def first(loader: BlendCorpusDataLoader) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    return next(iter(loader))


def test_its_configuration_has_the_keys_of_a_blend_with_the_same_defaults() -> None:
    keys = {each.name: each.default for each in dataclasses.fields(BlendKeys)}

    assert keys.items() <= {each.name: each.default for each in dataclasses.fields(Config)}.items()


def test_a_misspelled_field_is_an_error() -> None:
    """Slots would see to it, but TorchTitan's base class leaves no place for them."""
    with pytest.raises(AttributeError, match=r"Config has no field 'sed'"):
        Config().sed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_batches_are_those_of_the_engine(config: Config) -> None:
    blend = blend_config(config)
    expected = next(iter(DataLoader(build_datasets(blend).train, GLOBAL_BATCH_SIZE)))
    inputs, labels = first(build(config))

    assert torch.equal(inputs["input"], expected.input_ids)
    assert torch.equal(labels, expected.labels)


def test_positions_count_through_the_window_where_attention_needs_them(config: Config) -> None:
    """FlexAttention and varlen attention fail without positions; there is no masking."""
    inputs, _ = first(build(config))

    assert inputs.keys() == {"input", "positions"}
    assert torch.equal(inputs["positions"][0], torch.arange(SEQ_LEN))


def test_positions_restart_with_intra_document_masking(config: Config) -> None:
    inputs, _ = first(build(dataclasses.replace(config, provide_attention_mask=True)))

    after_eod = inputs["input"][:, :-1] == EOD
    assert after_eod.any()
    assert torch.equal(inputs["positions"][:, 1:] == 0, after_eod)


def test_without_need_for_positions_there_is_only_the_input(config: Config) -> None:
    """Every further key would go to the model's forward."""
    inputs, _ = first(build(dataclasses.replace(config, positions=False)))

    assert inputs.keys() == {"input"}


def test_corpora_are_named_for_a_trainer_that_asks_for_them(config: Config) -> None:
    inputs, _ = first(build(dataclasses.replace(config, positions=False, corpus_ids=True)))
    blend = blend_config(config)
    expected = next(iter(DataLoader(build_datasets(blend).train, GLOBAL_BATCH_SIZE)))

    assert inputs.keys() == {"input", CORPUS_IDS}
    assert torch.equal(inputs[CORPUS_IDS], expected.corpus_ids)


def test_ranks_share_the_slots_of_a_step(config: Config) -> None:
    whole, _ = first(build(config))
    halves = [
        first(build(config, dp_world_size=2, dp_rank=rank, local_batch_size=2))[0]
        for rank in (0, 1)
    ]

    assert torch.equal(torch.cat([half["input"] for half in halves]), whole["input"])


# Configuration


def test_eod_is_the_tokenizers_eos_unless_configured(config: Config) -> None:
    other = dataclasses.replace(config, eod_token_id=7)

    assert blend_config(config).eod_token_id == EOD
    assert blend_config(other).eod_token_id == 7


def test_the_data_may_be_named_by_the_dataset_path(config: Config) -> None:
    path = config.data_file_list
    renamed = dataclasses.replace(config, data_file_list=None, dataset_path=path)

    assert blend_config(renamed).data_file_list == path


def test_no_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Set blendcorpus\.data_file_list, or training\.dataset"):
        blend_config(Config())


def test_another_sequence_length_than_the_trainers_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"blendcorpus\.seq_length is 16, expected 32"):
        build(dataclasses.replace(config, seq_length=16))


# Validation


def validation(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, split_name="valid", **changes)


def test_one_pass_over_the_valid_split_ends_on_all_ranks_together(config: Config) -> None:
    """A rank with one batch more would wait for the others forever."""
    config = validation(config, infinite=False)
    lens = {
        len(list(build(config, dp_world_size=2, dp_rank=rank, local_batch_size=4)))
        for rank in (0, 1)
    }
    blend = blend_config(config)
    valid = build_datasets(blend).valid

    assert valid is not None
    assert lens == {-(-valid.num_windows // 8)}


def test_a_pass_holds_whole_micro_batches_of_the_trainer(config: Config) -> None:
    """Pipelines read several batches per step; a step that ends early would be dropped."""
    config = validation(config, infinite=False, micro_batch_size=8)

    assert len(list(build(config, local_batch_size=2))) % 4 == 0


@pytest.mark.parametrize("dp_world_size", [1, 2])
def test_one_corpus_alone_has_so_many_samples_on_all_ranks_together(
    config: Config, dp_world_size: int
) -> None:
    """The same ones whatever the number of ranks; rows that fill up have no labels."""
    config = validation(config, corpus="code", num_samples=3, infinite=True)
    batches = [
        list(build(config, dp_world_size=dp_world_size, dp_rank=rank, local_batch_size=2))
        for rank in range(dp_world_size)
    ]
    rows = [tuple(row) for of_rank in batches for _, labels in of_rank for row in labels.tolist()]
    counted = {row for row in rows if row != (-100,) * SEQ_LEN}
    valid = build_datasets(blend_config(config)).valid
    assert valid is not None

    assert len(rows) == 4
    assert counted == {tuple(valid.only("code")[slot].labels.tolist()) for slot in range(3)}


def test_every_validation_sees_the_same_samples(config: Config) -> None:
    loader = build(validation(config, infinite=False))
    runs = [[labels for _, labels in loader] for _ in range(2)]

    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_rebuilding_the_loader_reads_nothing_again(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validator rebuilds it for every validation."""
    build(config)
    monkeypatch.setattr(dataloader, "shared_catalog", pytest.fail)

    build(validation(config, infinite=False))


def test_an_empty_valid_split_is_refused(config: Config) -> None:
    config = validation(config, split="100,0,0")
    with pytest.raises(EmptySplitError, match=r"valid split, .*validation\.enable = false"):
        build(config)


def test_the_validator_accepts_the_configuration(config: Config) -> None:
    """It sets ``infinite`` on it, which TorchTitan's base configuration does not have."""
    validator = Validator.Config(enable=True, steps=-1, dataloader=config)

    assert dataclasses.replace(validator.dataloader, infinite=False).infinite is False


# State


def taken(loader: BlendCorpusDataLoader, num_batches: int) -> BlendCorpusDataLoader:
    batches = iter(loader)
    for _ in range(num_batches):
        next(batches)
    return loader


def test_a_loaded_state_continues_with_the_next_batch(config: Config) -> None:
    saved = taken(build(config), 3)
    resumed = build(config)
    resumed.load_state_dict(saved.state_dict())
    resumed.align(3, global_batch_size=GLOBAL_BATCH_SIZE)

    assert torch.equal(first(resumed)[1], first(saved)[1])


def test_the_state_is_one_key_and_the_same_on_every_rank(config: Config) -> None:
    states = [
        taken(build(config, dp_world_size=2, dp_rank=rank, local_batch_size=2), 3).state_dict()
        for rank in (0, 1)
    ]

    assert states[0] == states[1]
    assert states[0].keys() == {"blendtitan"}


# Damaged data


def test_a_token_beyond_the_vocabulary_is_refused(config: Config) -> None:
    with pytest.raises(BlendTitanError, match=r"expected ids from 0 to 47"):
        taken(build(dataclasses.replace(config, vocab_size=VOCAB_SIZE // 2)), 10)


def test_shards_of_another_tokenizer_are_an_error_on_every_rank(
    config: Config, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 compares, inside the one broadcast: nobody trains, and nobody waits."""
    tokenizer = BlendTokenizer(
        BlendTokenizer.Config(path=str(tokenizer_path)), tokenizer_path=str(tokenizer_path)
    )
    identity = TokenizerIdentity(
        hash="1:0", name="other.model", kind="sentencepiece", vocab_size=96, eod_id=EOD
    )
    for prefix in find_shards(Path(config.data_file_list or "").parent):
        index = ShardIndex.open(prefix)
        record = TokenizerRecord(identity, index.num_documents, index.num_tokens)
        record_path(prefix).write_bytes(encode_record(record))
    messages: list[bytes] = []

    def noted(message: bytes) -> bytes:
        messages.append(message)
        return message

    monkeypatch.setattr(shared_catalog, "_broadcast", noted)
    with pytest.raises(TokenizerMismatchError, match="4 of 4 shards do not belong"):
        build(config, tokenizer=tokenizer)
    monkeypatch.setattr(shared_catalog, "is_first_rank", lambda: False)
    monkeypatch.setattr(shared_catalog, "_broadcast", lambda _: messages[0])
    with pytest.raises(TokenizerMismatchError, match="4 of 4 shards do not belong"):
        build(config, tokenizer=tokenizer)

    assert len(messages) == 1
    monkeypatch.undo()
    build(dataclasses.replace(config, tokenizer_check="warn"), tokenizer=tokenizer)


def test_other_ranks_raise_the_error_of_rank_0(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They read nothing themselves; the error travels in place of the catalog."""
    prefix = Path(config.data_file_list or "").parent / "web_0"
    Path(f"{prefix}.idx").write_bytes(b"")
    blend = blend_config(config)
    with pytest.raises(BlendTitanError) as of_rank_0:
        shared_catalog.shared_catalog(blend)
    message = shared_catalog._message_of(of_rank_0.value)
    monkeypatch.setattr(shared_catalog, "is_first_rank", lambda: False)
    monkeypatch.setattr(shared_catalog, "_broadcast", lambda _: message)

    with pytest.raises(CorruptShardError, match=r"web_0\.idx"):
        shared_catalog.shared_catalog(blend)
