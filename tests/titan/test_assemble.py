"""Settings become the trainer's configuration."""

from pathlib import Path

import pytest
from torchtitan.components.loss import ChunkedLossWrapper
from torchtitan.components.tokenizer import HuggingFaceTokenizer
from torchtitan.components.validate import Validator
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
from torchtitan.models.common.decoder import Decoder

from blendtitan.errors import ConfigError
from blendtitan.titan.assemble import build_config
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.losses import RowChunkedLoss
from blendtitan.titan.toml import read_settings
from blendtitan.titan.trainer import BlendTrainer, settled
from blendtitan.titan.validator import BlendCorpusValidator
from tests.small_corpora import VOCAB_SIZE

DEMO = Path(__file__).parents[2] / "configs/debug.toml"


def build(tokenizer_path: Path, *arguments: str) -> BlendTrainer.Config:
    data = ["--training.dataset_path", "data", "--model.tokenizer_path", str(tokenizer_path)]
    return settled(build_config(read_settings([*data, *arguments])))


def decoder(config: BlendTrainer.Config) -> Decoder.Config:
    assert config.model_spec is not None
    assert isinstance(config.model_spec.model, Decoder.Config)
    return config.model_spec.model


def blend_loader(config: BlendTrainer.Config) -> BlendCorpusDataLoader.Config:
    assert isinstance(config.dataloader, BlendCorpusDataLoader.Config)
    return config.dataloader


def test_the_model_vocabulary_follows_the_tokenizer(tokenizer_path: Path) -> None:
    """Rounded up to a multiple of 64, in every module that knows it."""
    config = build(tokenizer_path)
    model = decoder(config)

    assert VOCAB_SIZE == 96
    assert model.vocab_size == model.tok_embeddings.num_embeddings == 128
    assert model.lm_head.out_features == blend_loader(config).vocab_size == 128
    assert config.loss.to_dict()["loss_fn"]["global_vocab_size"] == 128


def test_a_pipeline_can_be_configured_on_a_cpu(tokenizer_path: Path) -> None:
    """TorchTitan refuses CUDA graphs with pipelines, which no CPU has."""
    run = ["--training.dataset_path", "data", "--model.tokenizer_path", str(tokenizer_path)]
    config = build_config(read_settings([*run, "--parallelism.pipeline_parallel_degree", "2"]))

    assert config.training.disable_cuda_graphs


def test_a_requested_vocabulary_is_used_as_it_is(tokenizer_path: Path) -> None:
    assert decoder(build(tokenizer_path, "--model.vocab_size", "97")).vocab_size == 97


def test_a_vocabulary_below_the_tokenizers_is_refused(tokenizer_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.vocab_size is 95, expected at least 96"):
        build(tokenizer_path, "--model.vocab_size", "95")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.name", "llama"], r"model\.name is 'llama', .*Did you mean llama3"),
        (["--model.flavor", "8b"], r"model\.flavor is '8b', .*Did you mean 8B"),
        (
            ["--experimental.custom_import", "no.such"],
            r"custom_import is 'no\.such', expected a mod",
        ),
        (["--override.imports", "a.b={"], r"override\.imports is \['a\.b={'\], expected entries"),
        (
            ["--blendcorpus.micro_batch_size", "3"],
            r"blendcorpus\.micro_batch_size is 3, expected 8, .*training\.local_batch_size",
        ),
    ],
)
def test_contradictions_are_refused(
    tokenizer_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(tokenizer_path, *arguments)


def test_masks_are_refused_where_attention_has_none(tokenizer_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Set blendcorpus\.provide_attention_mask = false"):
        build(
            tokenizer_path,
            *["--blendcorpus.provide_attention_mask", "--model.attn_backend", "sdpa"],
        )


def test_validation_reads_the_same_blend_from_the_valid_split(tokenizer_path: Path) -> None:
    config = build(tokenizer_path, "--validation.enable", "--validation.steps", "3")
    loader = config.validator.dataloader

    assert isinstance(config.validator, BlendCorpusValidator.Config)
    assert isinstance(loader, BlendCorpusDataLoader.Config)
    assert (config.validator.enable, config.validator.steps) == (True, 3)
    assert (loader.dataset_path, loader.split_name) == ("data", "valid")
    assert blend_loader(config).split_name == "train"


def test_a_validation_step_has_as_many_samples_as_a_training_step(tokenizer_path: Path) -> None:
    """So that validation reads the same on any number of ranks, as training does."""
    validator = build(tokenizer_path, "--training.global_batch_size", "64").validator

    assert isinstance(validator, BlendCorpusValidator.Config)
    assert (validator.global_batch_size, validator.samples) == (64, None)


def test_the_number_of_validation_samples_reaches_the_validator(tokenizer_path: Path) -> None:
    validator = build(tokenizer_path, "--validation.samples", "7").validator

    assert isinstance(validator, BlendCorpusValidator.Config)
    assert validator.samples == 7
    with pytest.raises(
        ConfigError, match=r"validation\.samples is 0, expected a whole number of at least"
    ):
        build(tokenizer_path, "--validation.samples", "0")


def test_per_corpus_losses_are_logged_unless_a_setting_prevents_it(tokenizer_path: Path) -> None:
    config = build(tokenizer_path)
    without = build(tokenizer_path, "--parallelism.spmd_backend", "full_dtensor")

    assert isinstance(config.loss, RowChunkedLoss.Config)
    assert blend_loader(config).corpus_ids
    assert not isinstance(without.loss, RowChunkedLoss.Config)
    assert not blend_loader(without).corpus_ids


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--validation.seq_len", "8"],
            r"validation\.seq_len is 8, expected 2048, the value of training\.seq_len",
        ),
        (
            ["--validation.local_batch_size", "1"],
            r"validation\.local_batch_size is 1, expected 8",
        ),
        (
            ["--training.dataloader.num_workers", "1"],
            r"\[training\.dataloader\] .* Set blendcorpus\.num_workers",
        ),
        (
            ["--validation.dataloader.pin_memory"],
            r"\[validation\.dataloader\] .* Set blendcorpus\.num_workers",
        ),
        (
            ["--training.dataset", "c4", "--validation.dataset", "blendcorpus"],
            r"validation\.dataset is 'blendcorpus', expected one of TorchTitan's",
        ),
    ],
)
def test_keys_that_another_key_decides_must_agree(
    tokenizer_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(tokenizer_path, *arguments)


def test_a_blend_is_validated_on_its_valid_split(
    tokenizer_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever set is named: files of the BlendCorpus integration name one that it did not read."""
    config = build(tokenizer_path, "--validation.dataset", "c4_validation", "--validation.enable")
    loader = config.validator.dataloader

    assert isinstance(loader, BlendCorpusDataLoader.Config)
    assert loader.split_name == "valid"
    assert "validation.dataset = 'c4_validation' is ignored" in caplog.text


def test_every_other_section_reaches_the_trainer_as_it_is(tokenizer_path: Path) -> None:
    config = build(
        tokenizer_path,
        *[
            "--comm.train_timeout_seconds",
            "7",
            "--debug.seed",
            "7",
            "--profiling.profile_freq",
            "7",
        ],
        *["--metrics.log_freq", "7", "--compile.backend", "eager", "--lr_scheduler.warmup_steps=7"],
        *["--checkpoint.interval", "7", "--override.imports", 'a.b={"c": 7}'],
        *["--parallelism.tensor_parallel_degree", "7", "--training.steps", "7"],
    )

    assert config.comm.train_timeout_seconds == config.debug.seed == 7
    assert config.profiler.profile_freq == config.metrics.log_freq == 7
    assert config.lr_scheduler.warmup_steps == config.training.steps == 7
    assert config.parallelism.tensor_parallel_degree == 7
    assert config.compile.backend == "eager"
    assert config.checkpoint.to_dict()["interval"] == 7
    assert config.override.imports == [("a.b", {"c": 7})]


def test_a_module_can_be_imported_first(
    tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_first.py").write_text("raise KeyError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyError, match="imported"):
        build(tokenizer_path, "--experimental.custom_import", "imported_first")


def test_another_dataset_is_torchtitans_own(tmp_path: Path) -> None:
    vocabulary = '{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}'
    (tmp_path / "tokenizer.json").write_text(vocabulary)
    arguments = ["--training.dataset", "c4_test", "--model.hf_assets_path", str(tmp_path)]
    config = build_config(read_settings([*arguments, "--training.dataloader.pin_memory"]))

    assert isinstance(config.dataloader, HuggingFaceTextDataLoader.Config)
    assert isinstance(config.validator.dataloader, HuggingFaceTextDataLoader.Config)
    assert isinstance(config.tokenizer, HuggingFaceTokenizer.Config)
    assert config.dataloader.dataset == config.validator.dataloader.dataset == "c4_test"
    assert (config.dataloader.pin_memory, config.dataloader.infinite) == (True, True)
    assert type(config.validator) is Validator.Config
    assert type(config.loss) is ChunkedLossWrapper.Config
    with pytest.raises(
        ConfigError, match=r"validation\.samples is 3, but TorchTitan reads .*validation\.steps"
    ):
        build_config(read_settings([*arguments, "--validation.samples", "3"]))


def test_optimizer_keys_reach_the_optimizer(tokenizer_path: Path) -> None:
    config = build(
        tokenizer_path,
        *["--optimizer.name", "Adam", "--optimizer.lr", "0.5", "--optimizer.beta2", "0.9"],
    )

    (group,) = config.optimizer.param_groups
    assert group.optimizer_name == "Adam"
    assert group.optimizer_kwargs == {
        "lr": 0.5,
        "betas": (0.9, 0.9),
        "eps": 1e-8,
        "weight_decay": 0.1,
    }


def test_the_demo_configuration_is_usable(tokenizer_path: Path) -> None:
    settings = read_settings(
        ["--job.config_file", str(DEMO), "--model.tokenizer_path", str(tokenizer_path)]
    )
    config = build_config(settings)

    assert config.training.steps == 40
    assert config.validator.enable
    assert config.checkpoint.enable
