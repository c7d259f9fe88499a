"""Runs in the original's order: what they ask for, and what they read."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendtitan import BlendConfig
from blendtitan.dataset.build import build_datasets, read_catalog
from blendtitan.errors import BlendTitanError, ConfigError, EmptySplitError
from blendtitan.original import build as original_build
from blendtitan.original import dataset as original_dataset
from blendtitan.runs.open import read_run
from blendtitan.titan import shared_catalog
from blendtitan.titan import shared_indices as titan_indices
from blendtitan.titan.assemble import build_config
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.toml import read_settings
from blendtitan.titan.trainer import BlendTrainer, settled
from tests.original_cases import FOLDER, case_config, case_settings, recorded
from tests.small_corpora import EOD
from tests.test_docs import ROOT, code_blocks
from tests.titan.conftest import Job

CASE = "with_validation"


def settings_of(job: Job) -> dict[str, dict[str, Any]]:
    """The settings of a run that reads a recorded case."""
    case = case_settings(CASE)
    same = ("split", "seed", "shuffle_sample_in_corpus", "blend_sample_in_corpus")
    training = {
        "dataset_path": str(FOLDER / CASE / "file_list.txt"),
        "seq_len": case["seq_length"],
        "global_batch_size": case["global_batch_size"],
        "steps": case["train_iters"],
    }
    return job.settings | {
        "training": job.settings["training"] | training,
        "model": job.settings["model"] | {"vocab_size": 5056},
        "blendcorpus": {key: case[key] for key in same}
        | {"order": "blendcorpus", "data_cache_path": str(job.folder / "cache")},
        "validation": {"enable": True, "steps": case["eval_iters"], "freq": 100},
        "checkpoint": {"enable": False},
    }


@pytest.fixture
def original(job: Job) -> Job:
    job.settings = settings_of(job)
    return job


def config_of(job: Job, *arguments: str) -> BlendTrainer.Config:
    arguments = ("--job.config_file", str(job.write_toml()), *arguments)
    return settled(build_config(read_settings(arguments)))


def blend_of(job: Job, *arguments: str) -> BlendConfig:
    loader = config_of(job, *arguments).dataloader
    assert isinstance(loader, BlendCorpusDataLoader.Config)
    return loader.blend_config(dataset_path=loader.dataset_path, seq_len=80, eos_id=EOD)


def horizon_of(job: Job, *arguments: str) -> tuple[int | None, int | None]:
    blend = blend_of(job, *arguments)
    return blend.train_samples, blend.eval_samples


def test_a_run_asks_for_its_steps_and_for_those_of_its_validation(original: Job) -> None:
    """As the original does: iterations times global batch size."""
    assert horizon_of(original) == (200, 32)
    assert horizon_of(original, "--training.steps", "30") == (120, 32)
    assert horizon_of(original, "--validation.samples", "10") == (200, 10)
    assert horizon_of(original, "--validation.no_enable") == (200, 0)


def test_the_horizon_follows_the_batch_schedule(original: Job) -> None:
    """20 steps of 4 samples, then 30 of 8. The validation still reads steps of 4."""
    original.settings["training"]["batch_schedule"] = [{"from_step": 20, "global_batch_size": 8}]
    config = config_of(original)
    validation = config.validator.dataloader
    assert isinstance(validation, BlendCorpusDataLoader.Config)

    assert horizon_of(original) == (20 * 4 + 30 * 8, 32)
    assert (validation.train_samples, validation.eval_samples) == (320, 32)
    assert read_run(original.write_toml()).blend.train_samples == 320


def test_the_keys_win_over_the_run(original: Job) -> None:
    """To finish a run with fewer steps than it was begun with."""
    keys = ["--blendcorpus.train_samples", "400", "--blendcorpus.eval_samples", "64"]

    assert horizon_of(original, *keys) == (400, 64)
    assert horizon_of(original, *keys, "--training.global_batch_size", "-1") == (400, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--training.global_batch_size", "-1"], r"Set training\.global_batch_size, or"),
        (["--validation.steps", "-1"], r"Set validation\.samples, .*or blendcorpus\.eval_samples"),
        (["--blendcorpus.data_cache_path", "none"], "data_cache_path is missing"),
        (["--blendcorpus.order", "blendtitan", "--blendcorpus.train_samples", "4"],
         "train_samples is 4, but order = 'blendtitan'"),
    ],
    ids=str,
)  # fmt: skip
def test_an_undetermined_order_is_refused(
    original: Job, arguments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        blend_of(original, *arguments)


def test_the_settings_of_the_page_equal_those_of_the_original(tmp_path: Path) -> None:
    """The mapping from its names to ours."""
    run, checkpoint = code_blocks(ROOT / "docs/moving-from-blendcorpus.md", "toml")
    (tmp_path / "run.toml").write_text(f"{run}\n{checkpoint}")
    settings = read_settings(["--job.config_file", str(tmp_path / "run.toml")])
    case = case_settings(CASE)
    same = ("split", "seed", "shuffle_sample_in_corpus", "blend_sample_in_corpus")

    assert settings.training.seq_len == case["seq_length"]
    assert settings.training.global_batch_size == case["global_batch_size"]
    assert settings.training.steps == case["train_iters"]
    assert settings.validation.steps == case["eval_iters"]
    assert {key: getattr(settings.blendcorpus, key) for key in same} == {k: case[k] for k in same}
    assert settings.checkpoint.exclude_from_loading == ["dataloader"]


def as_another_rank(monkeypatch: pytest.MonkeyPatch, message: bytes) -> None:
    monkeypatch.setattr(shared_catalog, "is_first_rank", lambda: False)
    monkeypatch.setattr(shared_catalog, "_broadcast", lambda _: message)


def test_other_ranks_read_the_index_that_rank_0_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = case_config(CASE, tmp_path)
    catalog = read_catalog(config)
    messages: list[bytes] = []
    monkeypatch.setattr(shared_catalog, "_broadcast", lambda m: messages.append(m) or m)
    indices = titan_indices.shared_indices(config, catalog)
    as_another_rank(monkeypatch, messages[0])
    for module in (original_build, original_dataset, titan_indices):
        monkeypatch.setattr(module, "original_indices", pytest.fail)

    assert titan_indices.shared_indices(config, catalog) == indices
    dataset = build_datasets(config, catalog, indices).train
    assert dataset is not None
    assert dataset[9].labels.tolist() == recorded(CASE)["train"][9, 1:].tolist()


@pytest.mark.parametrize("kind", [EmptySplitError, OSError])
def test_whatever_rank_0_meets_while_building_is_raised_by_every_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """None waits for an index that will never be there."""

    def fail(*_: object) -> None:
        raise kind("of rank 0")

    config = case_config(CASE, tmp_path)
    monkeypatch.setattr(titan_indices, "original_indices", fail)
    messages: list[bytes] = []
    monkeypatch.setattr(shared_catalog, "_broadcast", lambda m: messages.append(m) or m)
    raised: list[str] = []
    for _ in range(2):
        with pytest.raises(Exception, match="of rank 0") as caught:
            titan_indices.shared_indices(config, read_catalog(config))
        raised.append(caught.type.__name__)
        as_another_rank(monkeypatch, messages[0])

    is_ours = issubclass(kind, BlendTitanError)
    assert raised == [kind.__name__, kind.__name__ if is_ours else "RuntimeError"]


@pytest.mark.slow
def test_a_run_trains_and_validates_on_what_the_original_read(original: Job) -> None:
    """Its horizon is that of the original; it stops at its third step."""
    keys = ["--blendcorpus.train_samples", "200", "--training.steps", "3"]
    # The recorded tokens are numbers that no tokenizer made.
    output = original.run(*keys, "--blendcorpus.tokenizer_check", "warn")
    rows = recorded(CASE)["train"][:12, 1:].astype(np.int64)
    expected = [hashlib.sha256(row.tobytes()).hexdigest() for row in rows]
    read = original.samples_of_ranks()

    assert [digest for step in (1, 2, 3) for digest in read[step][0]] == expected
    assert "reads 32 samples of the blend; of each corpus alone: code 10, web 24" in output
