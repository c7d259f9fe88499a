"""A TOML file and the command line become the trainer's configuration."""

from pathlib import Path

import pytest
from torchtitan.components.loss import ChunkedLossWrapper
from torchtitan.components.tokenizer import HuggingFaceTokenizer
from torchtitan.components.validate import Validator
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
from torchtitan.models.common.decoder import Decoder

from blendtitan.errors import ConfigError
from blendtitan.titan.assemble import build_config
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.losses import RowChunkedLoss
from blendtitan.titan.settings import SECTIONS, Settings
from blendtitan.titan.toml import read_settings
from blendtitan.titan.trainer import BlendTrainer
from blendtitan.titan.validator import BlendCorpusValidator
from tests.titan.conftest import VOCAB_SIZE

DEMO = Path(__file__).parents[2] / "configs/debug.toml"


def read(tmp_path: Path, text: str, *arguments: str) -> Settings:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return read_settings(["--job.config_file", str(path), *arguments])


def build(tokenizer_path: Path, *arguments: str) -> BlendTrainer.Config:
    data = ["--training.dataset_path", "data", "--model.tokenizer_path", str(tokenizer_path)]
    return build_config(read_settings([*data, *arguments]))


def decoder(config: BlendTrainer.Config) -> Decoder.Config:
    assert config.model_spec is not None
    assert isinstance(config.model_spec.model, Decoder.Config)
    return config.model_spec.model


def blend_loader(config: BlendTrainer.Config) -> BlendCorpusDataLoader.Config:
    assert isinstance(config.dataloader, BlendCorpusDataLoader.Config)
    return config.dataloader


# Keys


def test_every_section_of_the_file_is_known() -> None:
    assert list(SECTIONS) == [
        "job",
        "model",
        "optimizer",
        "lr_scheduler",
        "training",
        "parallelism",
        "checkpoint",
        "metrics",
        "validation",
        "activation_checkpoint",
        "compile",
        "blendcorpus",
    ]


def test_the_blendcorpus_keys_are_those_of_the_original_and_ours() -> None:
    """Other fields of the loader's configuration are decided elsewhere, not written down twice."""
    assert list(SECTIONS["blendcorpus"].keys) == [
        "data_file_list",
        "seq_length",
        "micro_batch_size",
        "num_workers",
        "split",
        "dataloader_type",
        "shuffle_sample_in_corpus",
        "blend_sample_in_corpus",
        "append_eod",
        "provide_attention_mask",
        "eod_token_id",
        "eod_mask_loss",
        "data_cache_path",
        "seed",
        "max_open_shards",
        "max_epochs",
    ]


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Settings()


def test_an_unknown_section_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"run\.toml: unknown section \[trainin\]. .*\[training\]"
    ):
        read(tmp_path, "[trainin]\nsteps = 1")


def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"run\.toml: unknown key training\.batch_size. .*training\.local_batch"
    ):
        read(tmp_path, "[training]\nbatch_size = 1")


def test_a_key_of_another_section_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key training\.lr. Did you mean optimizer\.lr"):
        read(tmp_path, "[training]\nlr = 1.0")


def test_a_value_outside_of_a_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"steps stands outside of a section"):
        read(tmp_path, "steps = 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[training]\nsteps = "8"', r"training\.steps is '8', expected a whole number"),
        ("[training]\nsteps = 8.0", r"training\.steps is 8\.0, expected a whole number"),
        ("[training]\nsteps = true", r"training\.steps is True, expected a whole number"),
        ("[training]\nseed = 'x'", r"training\.seed is 'x', expected a whole number"),
        ("[optimizer]\nlr = 'x'", r"optimizer\.lr is 'x', expected a number"),
        ("[optimizer]\nname = 'SGD'", r"optimizer\.name is 'SGD', expected 'Adam' or 'AdamW'"),
        ("[compile]\nenable = 1", r"compile\.enable is 1, expected true or false"),
        ("[compile]\ncomponents = [1]", r"compile\.components is \[1\], expected a list"),
        ("[job]\ndump_folder = 1", r"job\.dump_folder is 1, expected a string"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_a_whole_number_is_a_number(tmp_path: Path) -> None:
    assert read(tmp_path, "[optimizer]\nweight_decay = 0").optimizer.weight_decay == 0


def test_what_torchtitan_refuses_is_told_with_its_section(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.toml: section \[checkpoint\]: .*at least 1 step"):
        read(tmp_path, "[checkpoint]\ninterval = 0")


@pytest.mark.parametrize(
    ("text", "message"), [("[training", "not a TOML file"), (None, "cannot be read")]
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "run.toml"
    if text is not None:
        path.write_text(text)

    with pytest.raises(ConfigError, match=rf"run\.toml: {message}"):
        read_settings(["--job.config_file", str(path)])


# Synonyms


def test_shuffle_is_a_synonym(tmp_path: Path) -> None:
    settings = read(tmp_path, "[blendcorpus]\nshuffle = false")

    assert settings.blendcorpus.shuffle_sample_in_corpus is False


def test_synonyms_that_differ_are_refused(tmp_path: Path) -> None:
    text = "[blendcorpus]\nshuffle = false\nshuffle_sample_in_corpus = true"
    with pytest.raises(ConfigError, match=r"and its synonym blendcorpus\.shuffle differ"):
        read(tmp_path, text)


# Command line


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    settings = read(tmp_path, "[training]\nsteps = 1\nseq_len = 8", "--training.steps", "2")

    assert (settings.training.steps, settings.training.seq_len) == (2, 8)


@pytest.mark.parametrize(
    ("arguments", "section", "key", "value"),
    [
        (["--training.steps=8"], "training", "steps", 8),
        (["--training.global_batch_size", "-1"], "training", "global_batch_size", -1),
        (["--optimizer.lr", "3e-4"], "optimizer", "lr", 3e-4),
        (["--validation.enable"], "validation", "enable", True),
        (["--validation.enable", "--training.steps", "1"], "validation", "enable", True),
        (["--validation.enable", "False"], "validation", "enable", False),
        (["--job.description", "8"], "job", "description", "8"),
        (["--training.seed", "none"], "training", "seed", None),
        (["--compile.components", "model,loss"], "compile", "components", ["model", "loss"]),
        (["--blendcorpus.shuffle", "false"], "blendcorpus", "shuffle_sample_in_corpus", False),
    ],
)
def test_command_line_values_are_read_by_the_type_of_their_key(
    arguments: list[str], section: str, key: str, value: object
) -> None:
    assert getattr(getattr(read_settings(arguments), section), key) == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--training.step", "1"], r"command line: unknown key training\.step. .*training\.steps"),
        (["--trainin.steps", "1"], r"command line: unknown section \[trainin\]"),
        (["--training.steps", "many"], r"command line: training\.steps is 'many'"),
        (["steps"], r"command line: found 'steps', expected --section\.key value"),
    ],
)
def test_command_line_mistakes_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(arguments)


# The trainer's configuration


def test_the_model_vocabulary_follows_the_tokenizer(tokenizer_path: Path) -> None:
    """Rounded up to a multiple of 64, in every module that knows it."""
    config = build(tokenizer_path)
    model = decoder(config)

    assert VOCAB_SIZE == 96
    assert model.vocab_size == model.tok_embeddings.num_embeddings == 128
    assert model.lm_head.out_features == blend_loader(config).vocab_size == 128
    assert config.loss.to_dict()["loss_fn"]["global_vocab_size"] == 128


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
    with pytest.raises(ConfigError, match=r"validation\.samples is 0, expected an int of at least"):
        build(tokenizer_path, "--validation.samples", "0")


def test_losses_are_told_apart_unless_a_setting_cannot(tokenizer_path: Path) -> None:
    config = build(tokenizer_path)
    without = build(tokenizer_path, "--parallelism.spmd_backend", "full_dtensor")

    assert isinstance(config.loss, RowChunkedLoss.Config)
    assert blend_loader(config).corpus_ids
    assert not isinstance(without.loss, RowChunkedLoss.Config)
    assert not blend_loader(without).corpus_ids


def test_another_dataset_is_torchtitans_own(tmp_path: Path) -> None:
    vocabulary = '{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}'
    (tmp_path / "tokenizer.json").write_text(vocabulary)
    arguments = ["--training.dataset", "c4_test", "--model.hf_assets_path", str(tmp_path)]
    config = build_config(read_settings(arguments))

    assert isinstance(config.dataloader, HuggingFaceTextDataLoader.Config)
    assert isinstance(config.validator.dataloader, HuggingFaceTextDataLoader.Config)
    assert isinstance(config.tokenizer, HuggingFaceTokenizer.Config)
    assert config.dataloader.dataset == "c4_test"
    assert type(config.validator) is Validator.Config
    assert type(config.loss) is ChunkedLossWrapper.Config
    with pytest.raises(ConfigError, match=r"validation\.samples is 3, but .*validation\.steps"):
        build_config(read_settings([*arguments, "--validation.samples", "3"]))


@pytest.mark.parametrize(
    ("mode", "policy"),
    [("none", type(None)), ("selective", SelectiveAC.Config), ("full", FullAC.Config)],
)
def test_activation_checkpoint_modes(tokenizer_path: Path, mode: str, policy: type) -> None:
    config = build(tokenizer_path, "--activation_checkpoint.mode", mode)

    assert type(config.activation_checkpoint) is policy


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
