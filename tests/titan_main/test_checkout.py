"""Training with a checkout of TorchTitan's main branch. ``scripts/try_titan_main PATH``."""

import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.models.common.attention import ScaledDotProductAttention
from torchtitan.models.llama3 import model_registry

from blendtitan.errors import ConfigError
from blendtitan.grain_source import BlendSource
from blendtitan.titan.losses import RowChunkedLoss, why_without_rows, with_rows
from blendtitan.titan.model import decoder_config
from blendtitan.titan.trainer import BlendTrainer, settled
from blendtitan.titan_main import config_registry
from tests.titan02.runs import GLOBAL_BATCH_SIZE, SEQ_LEN, Ended
from tests.titan_main.record import record, recorded
from tests.titan_main.runs import STEPS, SmallRun
from tests.titan_main.test_adapter import ROWS, engine_loader, flat_config, flat_loader

VALIDATES = ("--validator.enable", "--validator.freq", "3", "--validator.steps", "2")


def test_the_record_is_of_this_checkout() -> None:
    """Otherwise: ``scripts/try_titan_main --record PATH``, and read what has changed."""
    expected = recorded()
    expected.pop("commit")

    assert record() == expected


def test_masks_separate_rows_and_documents_as_the_engines_mask_does(data: Path) -> None:
    """Positions of the right shape, and only these, make the right mask."""
    inputs, _ = next(iter(flat_loader(data, provide_attention_mask=True)))
    rows = next(iter(engine_loader(data, provide_attention_mask=True)))
    with torch.device("meta"):
        model = model_registry("debugmodel").model.build()
    mask = model.get_attention_masks(positions=inputs["positions"])
    size = ROWS * SEQ_LEN
    dense = create_mask(mask.mask_mod, 1, 1, size, size, device="cpu")[0, 0]

    assert rows.attention_mask is not None
    assert torch.equal(dense, torch.block_diag(*rows.attention_mask[:, 0]).bool())


def test_sdpa_of_main_attends_within_a_token() -> None:
    """So it is refused even for one row: it takes the heads of a flat batch for tokens."""
    attention = ScaledDotProductAttention(ScaledDotProductAttention.Config())
    q, k, v = torch.randn(3, 5, 2, 4)
    changed = v.clone()
    changed[0] += 1
    difference = attention(q, k, changed) - attention(q, k, v)

    assert difference[0].any()
    assert not difference[1:].any()


def test_a_model_with_sdpa_is_refused(data: Path) -> None:
    config = config_registry.with_blend(
        BlendTrainer.Config(model_spec=model_registry("debugmodel")), flat_config(data)
    )
    assert config.model_spec is not None
    for layer in decoder_config(config.model_spec).layers:
        layer.attention.inner_attention = ScaledDotProductAttention.Config()
    loader = settled(config).dataloader

    assert not loader.positions  # pyright: ignore
    with pytest.raises(ConfigError, match="the model has SDPA attention, expected flex or varlen"):
        loader.build(
            dp_rank=0,
            dp_world_size=1,
            tokenizer=None,
            max_context_length=SEQ_LEN,
            num_tokens_per_batch=ROWS * SEQ_LEN,
        )


@pytest.mark.parametrize("num_chunks", [1, 4, 8])
def test_a_chunked_loss_keeps_the_loss_of_each_token(num_chunks: int) -> None:
    """A chunk may hold parts of a row, or several."""
    torch.manual_seed(0)
    config = ChunkedLossWrapper.Config(num_chunks=num_chunks, loss_fn=CrossEntropyLoss.Config())
    loss_fn = with_rows(config).build()
    assert isinstance(loss_fn, RowChunkedLoss)
    head = torch.nn.Linear(6, 11)
    loss_fn.set_lm_head(head)
    for _ in range(2):  # two micro batches
        hidden = torch.randn(16, 6, requires_grad=True)
        labels = torch.randint(0, 11, (16,))
        labels[:2] = -100
        loss, _ = loss_fn(hidden, labels, torch.tensor(1))
        loss.backward()
    first, second = loss_fn.rows.of_last_calls(2)

    assert first.shape == second.shape == (16,)
    expected = torch.nn.functional.cross_entropy(head(hidden), labels, reduction="none")
    torch.testing.assert_close(second, expected.detach())


def test_losses_of_corpora_are_left_out_with_context_parallelism() -> None:
    """It shares out the tokens of a flat batch, so a rank no longer knows whose they are."""
    config = BlendTrainer.Config(loss=CrossEntropyLoss.Config())
    assert why_without_rows(config) is None
    config.parallelism.context_parallel_degree = 2

    assert "context parallelism" in str(why_without_rows(config))


# Grain.


@pytest.mark.parametrize("rows", [1, 3])
def test_mains_own_loader_reads_our_order(data: Path, rows: int) -> None:
    """One rank reads the global order; of several, each reads a part of it."""
    from torchtitan.components.data import GrainDataLoader, SingleDatasetConfig, TextCollator

    class Rows(TextCollator):
        @dataclass(kw_only=True, slots=True)
        class Config(TextCollator.Config):
            pass

        def num_rows_per_batch(self) -> int:
            return rows

    source = BlendSource(engine_loader(data).dataset.config, num_samples=30)
    config = GrainDataLoader.Config(
        dataset=SingleDatasetConfig(source=source), collator=Rows.Config(), shuffle=False
    )
    loader = config.build(
        dp_world_size=1,
        dp_rank=0,
        tokenizer=None,
        max_context_length=SEQ_LEN,
        num_tokens_per_batch=rows * SEQ_LEN,
    )
    batches = iter(loader)
    for first in range(0, 12, rows):
        inputs, labels = next(batches)
        expected = [source[slot] for slot in range(first, first + rows)]
        assert labels.tolist() == [n for row in expected for n in row.labels.tolist()]
        assert inputs["positions"].tolist() == [n for r in expected for n in r.positions.tolist()]
    loader.close()


# Runs.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Ended:
    """A run from its first step to its last, with validations."""
    run = SmallRun(tmp_path_factory.mktemp("whole"), data)
    ended = run.start(*VALIDATES)
    assert ended.code == 0, ended.output[-5000:]
    return ended


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> SmallRun:
    """A run killed by SIGKILL in step 5; its last checkpoint is that of step 4."""
    run = SmallRun(tmp_path_factory.mktemp("killed"), data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIE_AT", "5")
        ended = run.start()
    assert ended.code != 0
    assert (run.folder / "out/checkpoint/step-4/.metadata").exists(), ended.output[-3000:]
    return run


def test_a_run_reads_the_global_order_and_learns(killed: SmallRun, whole: Ended) -> None:
    expected = {step: killed.expected_samples(step) for step in range(1, STEPS + 1)}

    assert whole.samples() == expected
    assert whole.losses()[STEPS] < whole.losses()[1]
    assert sorted(whole.losses("validation")) == [1, 3, 6]


def test_the_losses_of_corpora_make_up_the_loss(whole: Ended) -> None:
    """Every label counts, and every row has as many, so a step's loss is the mean of its rows'."""
    for step, loss in whole.losses().items():
        line = re.search(rf"step: +{step}  loss of each corpus: (.+)", whole.output)
        assert line is not None
        losses = dict(re.findall(r"(\w+) ([\d.]+)", line[1]))
        values = [float(value) for value in losses.values()]

        mixtures = [
            sum(n * value for n, value in zip(counts, values, strict=True)) / GLOBAL_BATCH_SIZE
            for counts in ([[GLOBAL_BATCH_SIZE]] if len(values) == 1 else [[1, 3], [2, 2], [3, 1]])
        ]
        assert any(math.isclose(loss, mixture, abs_tol=2e-4) for mixture in mixtures)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_resumes_exactly(killed: SmallRun, whole: Ended, processes: int) -> None:
    folder = killed.folder / f"copy_{processes}"
    shutil.copytree(killed.folder / "out", folder)
    record_name = f"resumed_{processes}"
    # Two ranks share the samples of each step; each takes one micro batch of it.
    after = killed.start("--dump_folder", str(folder), processes=processes, record=record_name)

    assert after.code == 0, after.output[-5000:]
    assert "Training starts at step 5" in after.output
    assert after.samples() == {step: killed.expected_samples(step) for step in (5, 6)}
    expected = whole.losses()
    tolerance = 0 if processes == 1 else 1e-3
    for step, loss in after.losses().items():
        assert math.isclose(loss, expected[step], abs_tol=tolerance)


def test_a_run_leaves_out_documents_from_the_checkpoint_on(killed: SmallRun) -> None:
    """Rank 0 reads the list; two ranks read the samples without the documents."""
    folder = killed.folder / "removed"
    shutil.copytree(killed.folder / "out", folder)
    removed = killed.removed_documents(17, 22)
    arguments = ("--dump_folder", str(folder), "--dataloader.removed_documents", str(removed))
    after = killed.start(*arguments, processes=2, record="removed")

    assert after.code == 0, after.output[-5000:]
    assert "Removed documents from slot 16 on:" in after.output
    assert after.samples() == {step: killed.expected_samples(step, removed) for step in (5, 6)}
    assert all(rows != killed.expected_samples(step) for step, rows in after.samples().items())


def test_other_data_is_an_error(killed: SmallRun) -> None:
    """What the state says is compared, as with every version."""
    folder = killed.folder / "other"
    shutil.copytree(killed.folder / "out", folder)
    after = killed.start("--dump_folder", str(folder), "--dataloader.seed", "7", record="other")

    assert after.code != 0
    assert "seed" in after.output.rpartition("blendtitan train: ")[2]


def test_a_toml_file_is_an_error_that_says_what_to_use(killed: SmallRun) -> None:
    killed.arguments = lambda: ["--job.config_file", "run.toml"]  # pyright: ignore
    after = killed.start(record="toml")
    del killed.arguments

    assert "needs --module blendtitan.titan_main" in after.output


def test_before_the_wall_time_ends_a_run_saves_a_checkpoint_and_ends(
    tmp_path: Path, data: Path
) -> None:
    """The guards of TorchTitan 0.3, here after the first step."""
    run = SmallRun(tmp_path, data)
    ended = run.start("--guards.wall-time-minutes", "0", processes=2, record="ended")

    assert ended.code != 0
    assert "The wall time is about to end: saving a checkpoint of step 1 before" in ended.output
    assert sorted(ended.samples()) == [1]
    resumed = run.start(processes=2, record="resumed")
    assert resumed.code == 0, resumed.output[-5000:]
    assert sorted(resumed.samples()) == list(range(2, STEPS + 1))
