"""A TOML file and the command line become settings: every key known, every type checked."""

from pathlib import Path

import pytest

from blendtitan.cli import parsed
from blendtitan.errors import ConfigError
from blendtitan.settings.known_keys import KEYS
from blendtitan.titan.settings import Settings
from blendtitan.titan.toml import read_settings
from tests.test_docs import COMMAND_REFERENCE, PAGES, ROOT, commands_shown


def read(tmp_path: Path, text: str, *arguments: str) -> Settings:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return read_settings(["--job.config_file", str(path), *arguments])


# Keys


def test_every_section_of_the_file_is_known() -> None:
    """A dot leads to a table within a table."""
    assert [*dict.fromkeys(key.rpartition(".")[0] for key in KEYS)] == [
        "job",
        "profiling",
        "metrics",
        "model",
        "optimizer",
        "lr_scheduler",
        "training",
        "training.dataloader",
        "parallelism",
        "checkpoint",
        "activation_checkpoint",
        "compile",
        "quantize.linear.float8",
        "quantize.linear.mx",
        "quantize.linear.nvfp4",
        "quantize.grouped_mm.mx",
        "comm",
        "validation",
        "validation.dataloader",
        "guards",
        "debug",
        "fault_tolerance",
        "experimental",
        "override",
        "blendcorpus",
    ]


def test_the_blendcorpus_keys_are_those_of_the_original_and_ours() -> None:
    """Other fields of the loader's configuration are decided elsewhere, not written down twice."""
    section = "blendcorpus."
    assert [key.removeprefix(section) for key in KEYS if key.startswith(section)] == [
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
        "removed_documents",
        "data_cache_path",
        "seed",
        "on_change",
        "order",
        "train_samples",
        "eval_samples",
        "max_open_shards",
        "segment",
        "skip",
        "max_epochs",
        "tokenizer_check",
        "balance",
        "data_stage_path",
        "data_stage_bytes",
    ]


def test_omitted_settings_have_their_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Settings()


def test_an_unknown_section_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"run\.toml: unknown section \[trainin\]. .*\[training\]"
    ):
        read(tmp_path, "[trainin]\nsteps = 1")


def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"run\.toml: unknown key training\.stpes\. Did you mean training\.steps"
    ):
        read(tmp_path, "[training]\nstpes = 1")


def test_a_key_of_another_section_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key training\.lr. Did you mean optimizer\.lr"):
        read(tmp_path, "[training]\nlr = 1.0")


def test_a_table_within_a_section_is_a_section(tmp_path: Path) -> None:
    settings = read(tmp_path, "[training.dataloader]\nnum_workers = 3", "--training.steps", "2")

    assert settings.training.dataloader.num_workers == 3


def test_an_unknown_table_within_a_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown key training\.data\.num_workers. .*num_workers"
    ):
        read(tmp_path, "[training.data]\nnum_workers = 3")


def test_none_is_written_as_a_word(tmp_path: Path) -> None:
    """TOML has no such value."""
    text = '[parallelism]\ncontext_parallel_load_balancer = "none"\n[job]\ndescription = "none"'
    settings = read(tmp_path, text)

    assert settings.parallelism.context_parallel_load_balancer is None
    assert settings.job.description == "none"


def test_a_key_of_the_command_line_without_its_value_is_refused() -> None:
    """Otherwise the folder would be called "true"."""
    message = r"--job\.dump_folder has no value, expected a string after it"

    with pytest.raises(ConfigError, match=message):
        read_settings(["--job.dump_folder", "--training.steps", "3"])
    assert read_settings(["--checkpoint.enable", "--training.steps=3"]).checkpoint.enable


def test_a_value_outside_of_a_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"steps is outside of a section"):
        read(tmp_path, "steps = 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[training]\nsteps = "8"', r"training\.steps is '8', expected a whole number"),
        ("[training]\nsteps = 8.0", r"training\.steps is 8\.0, expected a whole number"),
        ("[training]\nsteps = true", r"training\.steps is True, expected a whole number"),
        ("[training]\nseed = 'x'", r"training\.seed is 'x', expected a whole number"),
        ("[debug]\nseed = 'x'", r"debug\.seed is 'x', expected a whole number"),
        ("[model]\nconverters = ['x']", r"model\.converters is \['x'\], expected a list of 'quan"),
        ("[model]\nconverters = [{}]", r"model\.converters is \[\{\}\], expected a list of 'quan"),
        ("[training.dataloader]\nnum_workers = 'x'", r"dataloader\.num_workers is 'x', expected a"),
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


@pytest.mark.parametrize("text", ["a = " + "[" * 3000, "[job]\na = " + "9" * 5000])
def test_a_file_that_the_parser_cannot_hold_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.toml: not a TOML file"):
        read(tmp_path, text)


def test_a_whole_number_is_a_number(tmp_path: Path) -> None:
    assert read(tmp_path, "[optimizer]\nweight_decay = 0").optimizer.weight_decay == 0


def test_torchtitans_errors_are_shown_with_their_section(tmp_path: Path) -> None:
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
    with pytest.raises(ConfigError, match=r"blendcorpus\.shuffle and its synonym blendcorpus"):
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
        (["--debug.seed", "none"], "debug", "seed", None),
        (["--training.seed", "8"], "debug", "seed", 8),
        (["--training.local-batch-size", "2"], "training", "local_batch_size", 2),
        (["--checkpoint.no_last_save_model_only"], "checkpoint", "last_save_model_only", False),
        (["--model.converters", "float8"], "model", "converters", ["quantize.linear.float8"]),
        (["--override.imports=a.b,c.d"], "override", "imports", ["a.b", "c.d"]),
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
        (["--steps", "1"], r"command line: found '--steps', expected --section\.key value"),
        (["--compile.enable", "--steps"], r"found '--steps', expected --section\.key value"),
    ],
)
def test_command_line_mistakes_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(arguments)


def test_the_runs_that_the_pages_show_have_settings_that_there_are() -> None:
    starts = [
        parsed(words)
        for page in {*PAGES} - {COMMAND_REFERENCE}
        for name, *words in commands_shown(page)
        if name == "blendtitan" and words[0] == "train"
    ]
    from_repository = [options for options in starts if (ROOT / options.run).is_file()]

    assert from_repository
    for options in starts:
        is_here = options in from_repository
        file = [f"--job.config_file={ROOT / options.run}"] if is_here else []
        overrides = [word.replace("$PWD", str(ROOT)) for word in options.overrides]
        read_settings([*file, *overrides])
