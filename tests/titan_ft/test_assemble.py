"""``[fault_tolerance]``: what can be trained by replicas, and what is refused in one error."""

from dataclasses import fields, replace
from typing import Any

import pytest
from torchtitan.experiments.torchft.config.job_config import FaultTolerance
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader

from blendtitan.errors import ConfigError
from blendtitan.settings.known_models import MODELS, WITH_EXPERTS
from blendtitan.titan.assemble import build_config
from blendtitan.titan.model import build_model_spec
from blendtitan.titan.toml import read_settings
from blendtitan.titan_ft.assemble import with_replicas
from blendtitan.titan_ft.loader import ReplicaDataLoader
from blendtitan.titan_ft.settings import FaultToleranceSettings
from blendtitan.titan_ft.trainer import ReplicaTrainer
from tests.titan.conftest import Job
from tests.titan_ft.job import replica

SEMI_SYNC = {
    *("should_quantize", "fragment_sync_delay", "fragment_update_alpha"),
    *("module_fqns_per_model_fragment", "num_fragments"),
}


def config_of(job: Job, *arguments: str) -> Any:
    words = ["--fault_tolerance.enable", "--fault_tolerance.group_size", "2"]
    return build_config(
        read_settings(["--job.config_file", str(job.write_toml()), *words, *arguments])
    )


def test_the_keys_are_those_of_torchtitans_experiment_with_its_defaults() -> None:
    theirs = {field.name: getattr(FaultTolerance(), field.name) for field in fields(FaultTolerance)}
    ours = FaultToleranceSettings()
    own = {field.name: getattr(ours, field.name) for field in fields(ours)}

    assert theirs.keys() - own.keys() == SEMI_SYNC
    assert own.keys() - theirs.keys() == {"batch_policy"}
    assert {name: own[name] for name in theirs.keys() & own.keys()} == {
        name: theirs[name] for name in theirs.keys() & own.keys()
    }


def test_a_replica_has_the_configuration_of_the_run(job: Job) -> None:
    config = config_of(job, "--fault_tolerance.replica_id", "1")

    assert isinstance(config, ReplicaTrainer.Config)
    assert isinstance(config.dataloader, ReplicaDataLoader.Config)
    assert config.dataloader.split == job.settings["blendcorpus"]["split"]
    assert config.checkpoint.interval == job.settings["checkpoint"]["interval"]
    assert config.fault_tolerance.replica_id == 1


def test_the_default_global_batch_is_one_micro_batch_of_every_replica(job: Job) -> None:
    assert config_of(job, "--training.global_batch_size=-1").training.global_batch_size == 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--fault_tolerance.group_size=0"],
            r"group_size is 0, expected a whole number",
        ),
        (["--fault_tolerance.replica_id=2"], r"replica_id is 2, expected 0 to 1 .*group_size = 2"),
        (
            ["--blendcorpus.data_stage_path=/local", "--blendcorpus.data_stage_bytes=9999999"],
            r"data_stage_path cannot be used with fault_tolerance.enable = true",
        ),
        (["--fault_tolerance.min_replica_size=3"], r"min_replica_size is 3, expected 1 to 2"),
        (
            ["--fault_tolerance.semi_sync_method=adiloco"],
            r"'adiloco', expected 'diloco' or 'local_sgd', or none",
        ),
        (
            ["--fault_tolerance.semi_sync_method=diloco", "--fault_tolerance.sync_steps=3"],
            r"checkpoint\.interval is 2, expected a multiple of fault_tolerance\.sync_steps = 3",
        ),
        (["--training.global_batch_size=2"], r"global_batch_size is 2, expected at least 4"),
        (["--checkpoint.no_enable"], r"needs checkpoint\.enable = true"),
        (
            ["--training.batch_schedule=[{from_step = 1, global_batch_size = 2}]"],
            r"batch_schedule 1: global_batch_size is 2, expected at least 4",
        ),
        (["--model.name=qwen3"], r"'qwen3' cannot be trained .*experts"),
    ],
)
def test_what_replicas_cannot_train_is_refused(
    arguments: list[str], expected: str, job: Job
) -> None:
    with pytest.raises(ConfigError, match=expected):
        config_of(job, *arguments)


def test_models_are_refused_whose_experts_are_balanced_outside_the_optimizer() -> None:
    """So that the check before start, which does not import TorchTitan, knows them.

    If this fails, run scripts/write_known_models.py.
    """
    found = {
        name
        for name, flavors in MODELS.items()
        if flavors
        and build_model_spec(name, next(iter(flavors)), vocab_size=64).post_optimizer_build_fn
    }

    assert found == WITH_EXPERTS


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--parallelism.tensor_parallel_degree=2", r"tensor_parallel_degree is 2, expected 1 with"),
        ("--parallelism.data_parallel_replicate_degree=2", r"replicate_degree is 2, expected 1"),
        (
            "--fault_tolerance.semi_sync_method=diloco",
            r"2 processes, expected one with .*semi_sync",
        ),
    ],
)
def test_the_processes_of_a_replica_share_a_model_by_fsdp_alone(
    argument: str, expected: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["--training.global_batch_size=8", "--metrics.log_freq=5", "--checkpoint.interval=5"]
    config_of(job, *words)

    with pytest.raises(ConfigError, match=expected):
        config_of(job, *words, argument)


def test_a_dataset_of_torchtitan_is_refused(job: Job) -> None:
    config = config_of(job)
    plain = replace(config, dataloader=HuggingFaceTextDataLoader.Config())

    with pytest.raises(ConfigError, match=r"needs training\.dataset = 'blendcorpus'"):
        with_replicas(plain, config.fault_tolerance)


@pytest.mark.slow
def test_without_a_lighthouse_one_error_says_how_to_start_one(job: Job) -> None:
    words = ["--fault_tolerance.enable", "--fault_tolerance.group_size=1"]

    assert "Start one: torchft_lighthouse" in job.fail(*words, entry=replica)
