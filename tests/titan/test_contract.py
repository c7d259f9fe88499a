"""What we rely on in the installed torchtitan. A failure here means: read its new version first."""

import ast
import hashlib
import inspect
import textwrap
import warnings
from dataclasses import dataclass, fields

import pytest
import torch
import torch.distributed.checkpoint as dcp
import torchtitan
from torch.distributed.pipelining.schedules import _PipelineSchedule
from torch.torch_version import TorchVersion
from torchtitan import trainer as titan_trainer
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.checkpointer.base import DATALOADER
from torchtitan.components.loss import (
    ChunkedLossWrapper,
    _LossParallelCrossEntropy,
    cross_entropy_loss,
)
from torchtitan.components.metrics import DeviceMemoryMonitor, MetricsProcessor
from torchtitan.components.validate import Validator
from torchtitan.config import Configurable
from torchtitan.distributed import utils as dist_utils
from torchtitan.models.common.attention import FlexAttention, ScaledDotProductAttention
from torchtitan.models.common.decoder import Decoder
from torchtitan.tools import utils
from torchtitan.trainer import Trainer

from blendtitan.errors import ConfigError
from blendtitan.state import STATE_KEY
from blendtitan.titan import checkpoint_faults, cpu, model, upstream
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.tokenizer import BlendTokenizer


def source(function: object) -> str:
    """Source text without line breaks and repeated blanks."""
    return " ".join(inspect.getsource(function).split())  # pyright: ignore


# The components


@pytest.mark.parametrize(
    "slot", ["dataloader", "tokenizer", "validator", "metrics", "loss", "checkpoint", "model_spec"]
)
def test_the_trainer_takes_components_by_these_names(slot: str) -> None:
    assert slot in {field.name for field in fields(Trainer.Config)}


def test_a_configuration_builds_the_class_it_is_declared_in() -> None:
    """Which is why each of our subclasses declares a configuration of its own."""

    class Component(Configurable):
        @dataclass(kw_only=True, slots=True)
        class Config(Configurable.Config):
            pass

        def __init__(self, config: Configurable.Config) -> None:
            self.config = config

    assert isinstance(Component.Config().build(), Component)


def arguments_of(call: str, function: object) -> set[str]:
    """Names of the keyword arguments that a function gives in its first ``call(...)``."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # pyright: ignore
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    first = next(node for node in calls if ast.unparse(node.func) == call)
    return {str(keyword.arg) for keyword in first.keywords}


def test_the_trainer_builds_the_loader_with_these_arguments() -> None:
    assert arguments_of("config.dataloader.build", Trainer.__init__) == {
        "dp_world_size",
        "dp_rank",
        "tokenizer",
        "seq_len",
        "local_batch_size",
        "snapshot_every_n_steps",
    }


def test_the_validator_builds_the_loader_with_these_arguments() -> None:
    assert arguments_of("self.dl_config.build", Validator.validate) == {
        "dp_world_size",
        "dp_rank",
        "tokenizer",
        "seq_len",
        "local_batch_size",
    }


def test_our_loader_takes_what_it_is_built_with() -> None:
    taken = inspect.signature(BlendCorpusDataLoader.__init__).parameters

    assert arguments_of("config.dataloader.build", Trainer.__init__) <= taken.keys()


def test_the_tokenizer_is_built_with_the_folder_of_assets() -> None:
    assert arguments_of("config.tokenizer.build", Trainer.__init__) == {"tokenizer_path"}
    assert "tokenizer_path" in inspect.signature(BlendTokenizer.__init__).parameters


def test_with_pipelines_the_loader_gets_the_size_of_a_pipeline_micro_batch() -> None:
    """So ``micro_batch_size`` is compared with ``training.local_batch_size`` by the trainer."""
    assert (
        "config.parallelism.pipeline_parallel_microbatch_size if parallel_dims.pp_enabled else "
        "config.training.local_batch_size"
    ) in source(Trainer.__init__)


# Batches


def test_every_key_but_input_goes_to_the_models_forward() -> None:
    assert 'k: v for k, v in input_dict.items() if k != "input"' in source(
        Trainer.post_dataloading_process
    )
    assert list(inspect.signature(Decoder.forward).parameters) == [
        "self",
        "tokens",
        "positions",
        "attention_masks",
    ]


def test_documents_start_where_positions_are_zero() -> None:
    from torchtitan.models.common.attention import get_document_mask_mod

    positions = torch.tensor([[0, 1, 2, 0, 1]])
    same_document = get_document_mask_mod(positions)

    row = torch.zeros((), dtype=torch.long)
    assert [bool(same_document(row, row, torch.tensor(4), torch.tensor(k))) for k in range(5)] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_sdpa_takes_no_masks() -> None:
    attention = ScaledDotProductAttention(ScaledDotProductAttention.Config())
    with pytest.raises(ValueError, match="does not support attention_masks"):
        attention(*[torch.zeros(1, 2, 1, 4)] * 3, attention_masks=object())


def test_the_validator_sets_infinite_on_the_loaders_configuration() -> None:
    assert "replace(config.dataloader, infinite=config.steps != -1)" in source(Validator.__init__)


# Losses


def test_a_step_takes_its_batches_first_and_passes_each_through_the_hook() -> None:
    """The hook is where rows and their corpora part; then comes the loss."""
    step, without_pipeline = source(Trainer.train_step), source(Trainer.forward_backward_step)

    assert step.index("next(data_iterator)") < step.index("self.forward_backward_step(")
    assert "self.post_dataloading_process(input_dict, labels)" in without_pipeline
    assert "self.post_dataloading_process( input_dict, labels )" in source(
        Trainer.pp_forward_backward_step
    )


def test_the_loss_gets_labels_as_the_hook_returns_them() -> None:
    assert "self.loss_fn( pred, labels, global_valid_tokens" in source(
        Trainer._forward_backward_body
    )
    assert "target_mbs.append(labels)" in source(Trainer.pp_forward_backward_step)


def test_pipelines_call_the_loss_in_the_order_of_the_micro_batches() -> None:
    """The schedule itself finds the loss of a micro batch by its number."""
    assert "self._internal_losses.append(loss)" in source(_PipelineSchedule._maybe_compute_loss)
    assert "return self._internal_losses[mb_index]" in source(_PipelineSchedule._maybe_get_loss)


def test_a_chunked_loss_calls_the_loss_of_chunks_with_their_labels() -> None:
    assert "self.loss_fn( logits, label_chunk, global_valid_tokens" in source(
        ChunkedLossWrapper.__call__
    )


def test_cross_entropy_has_the_branches_that_ours_has() -> None:
    """``row_cross_entropy`` follows it: change both together."""
    digest = hashlib.sha256(inspect.getsource(cross_entropy_loss).encode()).hexdigest()

    assert digest[:16] == "86c78e933a24fd45"
    assert 'if reduction == "none": return result' in source(_LossParallelCrossEntropy.forward)


def test_the_validator_reads_so_many_steps_and_logs_once() -> None:
    """``BlendCorpusValidator`` runs it for each corpus and catches what it would log."""
    validate = source(Validator.validate)

    assert "self.config.steps != -1 and num_steps >= self.config.steps" in validate
    assert validate.count("self.metrics_processor.") == 2
    assert "self.metrics_processor.ntokens_since_last_log += labels.numel()" in validate
    assert "self.metrics_processor.log_validation(loss=global_avg_loss, step=step)" in validate


# The place in the data


def test_training_asks_for_batches_once_after_loading_the_checkpoint() -> None:
    train = source(titan_trainer.Trainer.train)

    assert train.count("self.batch_generator(self.dataloader)") == 1
    assert train.index("self.checkpointer.load(") < train.index("self.batch_generator(")


def test_the_step_is_restored_with_the_checkpoint() -> None:
    assert "step" in source(Trainer.state_dict)
    assert DATALOADER == "dataloader"
    assert "DATALOADER: dataloader" in source(CheckpointManager.__init__)


def test_a_missing_key_is_refused_with_this_message(tmp_path: object) -> None:
    """``BlendCheckpointManager`` recognises checkpoints of other loaders by it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of not being distributed
        dcp.save({"step": 1}, checkpoint_id=str(tmp_path))
        with pytest.raises(dcp.api.CheckpointException) as caught:
            dcp.load({DATALOADER: {STATE_KEY: ""}}, checkpoint_id=str(tmp_path))

    assert checkpoint_faults._MISSING_KEY in str(caught.value)


# Metrics


def test_losses_reach_the_metrics_in_these_arguments() -> None:
    assert list(inspect.signature(MetricsProcessor.log).parameters)[1:3] == [
        "step",
        "global_avg_loss",
    ]
    assert list(inspect.signature(MetricsProcessor.log_validation).parameters)[1:3] == [
        "loss",
        "step",
    ]


# Models


def test_models_are_made_by_their_registries() -> None:
    assert "llama3" in model.MODELS
    spec = model.build_model_spec("llama3", "debugmodel", vocab_size=128)

    assert model.decoder_config(spec).vocab_size == 128
    assert any(True for _ in spec.traverse(FlexAttention.Config))


# The CPU


@pytest.mark.skipif(not cpu.is_used(), reason="there is an accelerator")
def test_on_a_cpu_torchtitan_uses_our_device() -> None:
    """It copies these two when it is imported; ``DeviceMemoryMonitor`` asks them everything."""
    assert utils.device_type == "cpu"
    assert utils.device_module is upstream.CpuDevice
    assert titan_trainer.utils.get_local_device.__module__ == utils.__name__

    stats = DeviceMemoryMonitor("cpu").get_peak_stats()
    assert stats.max_reserved_gib > 0
    assert 0 < stats.max_reserved_pct < 100


def test_time_outs_wait_at_a_barrier_with_a_device_index() -> None:
    assert "device_ids=[device_module.current_device()]" in source(dist_utils.set_pg_timeouts)
    assert isinstance(upstream.CpuDevice.current_device(), int)


def test_the_default_backend_is_the_one_we_name() -> None:
    from torchtitan.config import ParallelismConfig

    (backend,) = (f for f in fields(ParallelismConfig) if f.name == "spmd_backend")
    assert backend.default == "spmd_types"


# Versions


@pytest.mark.parametrize(
    ("line", "titan_version", "torch_version", "expected"),
    [
        ("0.3", "0.2.2", "2.13.0", r"blendtitan\.titan\.train is for TorchTitan 0\.3, found 0\.2"),
        ("0.2", "0.3.0", "2.13.0", r"Start blendtitan\.titan\.train, or install .*==0\.2\.\*"),
        ("0.3", "0.3.0", "2.11.0+cu130", r"needs PyTorch 2\.13 or newer, found 2\.11\.0\+cu130"),
    ],
)
def test_versions_that_do_not_fit_name_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    titan_version: str,
    torch_version: str,
    expected: str,
) -> None:
    """Pip checks neither: TorchTitan does not declare the PyTorch that it needs."""
    monkeypatch.setattr(torchtitan, "__version__", titan_version)
    monkeypatch.setattr(torch, "__version__", TorchVersion(torch_version))

    with pytest.raises(ConfigError, match=expected):
        upstream.check_versions(line)


@pytest.mark.parametrize(
    ("line", "titan_version", "torch_version"),
    [("0.3", "0.3.0", "2.13.0+cpu"), ("0.3", "0.4.0.dev1", "2.16.0"), ("0.2", "0.2.2", "2.9.1")],
)
def test_versions_that_fit_are_accepted(
    monkeypatch: pytest.MonkeyPatch, line: str, titan_version: str, torch_version: str
) -> None:
    monkeypatch.setattr(torchtitan, "__version__", titan_version)
    monkeypatch.setattr(torch, "__version__", TorchVersion(torch_version))

    upstream.check_versions(line)
