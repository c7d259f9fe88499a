"""Training on a machine without an accelerator."""

import logging

import pytest
import torch
from torch import nn
from torch.distributed.pipelining import schedules
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.distributed.activation_checkpoint import SelectiveAC

from blendtitan.errors import ConfigError
from blendtitan.titan import cpu
from blendtitan.titan.model import build_model_spec, reads_positions
from blendtitan.titan.settings import ParallelismSettings
from blendtitan.titan.trainer import BlendTrainer, settled
from tests.titan.conftest import Job

pytestmark = pytest.mark.skipif(not cpu.is_used(), reason="there is an accelerator")


def config(**changes: object) -> BlendTrainer.Config:
    spec = build_model_spec("llama3", "debugmodel", vocab_size=128)
    return BlendTrainer.Config(model_spec=spec, **changes)  # pyright: ignore[reportArgumentType]


def test_a_configuration_is_adapted_and_the_log_says_how(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        adapted = settled(config())

    assert adapted.model_spec is not None
    assert not reads_positions(adapted.model_spec)
    assert adapted.training.disable_cuda_graphs
    assert isinstance(adapted.model_spec.parallelize_fn, cpu.SumReduction)
    assert "No accelerator found" in caplog.text


def test_it_is_adapted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    adapted = settled(config())
    caplog.clear()

    again = settled(adapted)
    assert again.model_spec is not None
    assert adapted.model_spec is not None
    assert again.model_spec.parallelize_fn is adapted.model_spec.parallelize_fn
    assert "accelerator" not in caplog.text


def test_gradients_are_reduced_by_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gloo has no pre-multiplied sum."""
    forced: list[bool] = []
    monkeypatch.setattr(cpu, "FSDPModule", nn.Linear)
    monkeypatch.setattr(
        nn.Linear,
        "set_force_sum_reduction_for_comms",
        lambda _, enable: forced.append(enable),
        raising=False,
    )
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())

    assert cpu.SumReduction(lambda model, **_: model)(model) is model
    assert forced == [True]


def test_models_with_masks_of_their_own_are_refused() -> None:
    """With causal attention only they would be other models."""
    spec = build_model_spec("gpt_oss", "debugmodel", vocab_size=128)
    with pytest.raises(ConfigError, match=r"gpt_oss needs its own attention masks"):
        settled(BlendTrainer.Config(model_spec=spec))


def test_context_parallelism_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"context_parallel_degree is 2, expected 1 on a CPU"):
        settled(config(parallelism=ParallelismConfig(context_parallel_degree=2)))


def test_pipelines_are_refused_where_pytorch_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    class OldSchedule:
        def step(self, *args: object) -> None: ...

    monkeypatch.setattr(schedules, "_PipelineSchedule", OldSchedule)
    with pytest.raises(ConfigError, match=r"pipeline_parallel_degree is 2, expected 1 with PyTor"):
        settled(
            config(
                training=TrainingConfig(disable_cuda_graphs=True),
                parallelism=ParallelismConfig(pipeline_parallel_degree=2),
            )
        )


def test_time_outs_can_be_set_with_every_supported_pytorch() -> None:
    assert callable(torch.distributed.set_timeout)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_qwen3_trains_without_any_flag(job: Job, processes: int) -> None:
    """As llama3 does, with which the other training runs of the tests are made."""
    job.settings["model"] |= {"name": "qwen3", "flavor": "debugmodel"}
    job.settings["validation"] = {"enable": True, "freq": 2, "samples": 4}
    output = job.run("--training.steps", "2", processes=processes)

    assert job.samples() == {step: job.expected_samples(step) for step in (1, 2)}
    assert "mfu: N/A" in job.output, "no CPU has a known peak"
    assert job.losses("validation").keys() == {1, 2}
    assert "No accelerator found: training on the CPU, with SDPA attention" in output
    assert "mfu: N/A" in output


def test_the_spmd_backend_is_chosen_unless_configured() -> None:
    assert ParallelismSettings().spmd_backend == "partial_dtensor"
    assert ParallelismSettings(spmd_backend="spmd_types").spmd_backend == "spmd_types"


def test_torchtitans_configuration_stays_as_it_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "is_used", lambda: False)
    untouched = config(activation_checkpoint=SelectiveAC.Config())

    assert untouched.model_spec is not None
    assert reads_positions(untouched.model_spec)
    assert not untouched.training.disable_cuda_graphs
