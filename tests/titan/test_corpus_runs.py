"""Real training runs with per-corpus losses, on one process and on two."""

import inspect
import math
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.distributed.pipelining.schedules import _PipelineSchedule

from blendtitan import BlendConfig, BlendedDataset, build_datasets
from tests.small_corpora import EOD, write_corpora
from tests.titan.conftest import GLOBAL_BATCH_SIZE, SEQ_LEN, SPLIT, Job, small_job

pytestmark = pytest.mark.slow

CORPORA = ("code", "web")
SETS = ("held-out", "whole")
STEPS = (2, 3, 4)
VALID_STEPS = (2, 4)
VALID_SAMPLES = 5  # on two processes, the last step of one has nothing that counts

Metrics = dict[str, dict[int, float]]
"""Metric to step to value, as TensorBoard shows them."""

RUNS: dict[str, tuple[int, list[str]]] = {
    # One row at once: four micro batches per step on one process, two on two.
    "one process": (1, []),
    "FSDP": (2, []),
    "TP, loss compiled": (
        2,
        [
            *["--parallelism.tensor_parallel_degree", "2"],
            *["--compile.enable", "--compile.components", "loss", "--compile.backend", "aot_eager"],
        ],
    ),
    "PP": (
        2,
        [
            *["--parallelism.pipeline_parallel_degree", "2", "--training.local_batch_size", "4"],
            *["--parallelism.pipeline_parallel_schedule", "1F1B"],
        ],
    ),
}

NO_PIPELINES = "arg_mbs" not in inspect.signature(_PipelineSchedule.step).parameters
KINDS = pytest.mark.parametrize(
    "kind",
    [
        "one process",
        "FSDP",
        "TP, loss compiled",
        pytest.param(
            "PP",
            marks=pytest.mark.skipif(NO_PIPELINES, reason="TorchTitan's pipelines need torch 2.15"),
        ),
    ],
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Callable[..., Job]:
    """Three steps of each kind of run, all from one checkpoint; each is trained once."""
    begun = small_job(tmp_path_factory.mktemp("begun"), tokenizer_path)
    begun.run("--training.steps", "1")
    held_out = write_corpora(tmp_path_factory.mktemp("held_out"), num_documents=8)

    @cache
    def train(kind: str) -> Job:
        processes, arguments = RUNS[kind]
        job = small_job(tmp_path_factory.mktemp("corpora"), tokenizer_path)
        shutil.copytree(begun.folder / "out", job.folder / "out")
        job.settings["training"] |= {"steps": STEPS[-1], "local_batch_size": 1}
        job.settings["blendcorpus"]["eod_mask_loss"] = True
        job.settings["metrics"]["enable_tensorboard"] = True
        job.settings["validation"] = {
            **{"enable": True, "freq": 2, "samples": VALID_SAMPLES},
            "set": [
                {"name": "held-out", "path": str(held_out), "samples": VALID_SAMPLES},
                {"name": "whole", "path": str(held_out)},
            ],
        }
        job.run(*arguments, processes=processes)
        return job

    return train


def metrics_of(job: Job) -> Metrics:
    (folder,) = {path.parent for path in (job.folder / "out").glob("tb/*/*")}
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }


def dataset_of(job: Job, split: str) -> BlendedDataset:
    config = BlendConfig(
        data_file_list=job.data_file_list,
        seq_length=SEQ_LEN,
        eod_token_id=EOD,
        split=SPLIT,
        eod_mask_loss=True,
    )
    dataset = getattr(build_datasets(config), split)
    assert dataset is not None
    return dataset


def labels_of_step(dataset: BlendedDataset, step: int) -> dict[str, int]:
    """Labels that count, of each corpus that the step has samples of."""
    counts: dict[str, int] = {}
    for slot in range((step - 1) * GLOBAL_BATCH_SIZE, step * GLOBAL_BATCH_SIZE):
        sample = dataset[slot]
        counts[sample.corpus] = counts.get(sample.corpus, 0) + int((sample.labels != -100).sum())
    return counts


# Training


@KINDS
def test_the_losses_of_corpora_add_up_to_torchtitans(
    trained: Callable[..., Job], kind: str
) -> None:
    """Weighted by their labels, with gradients accumulated and labels masked."""
    metrics = metrics_of(trained(kind))
    for step in STEPS:
        of_step = {
            corpus: (metrics[f"loss_metrics/loss/{corpus}"][step], labels[step])
            for corpus in CORPORA
            if step in (labels := metrics.get(f"loss_metrics/labels/{corpus}", {}))
        }
        total = math.fsum(loss * labels for loss, labels in of_step.values())
        num_labels = sum(labels for _, labels in of_step.values())

        assert len(of_step) > 1
        assert total / num_labels == pytest.approx(
            metrics["loss_metrics/global_avg_loss"][step], rel=1e-5
        )


@KINDS
def test_labels_are_those_of_the_samples_of_the_step(
    trained: Callable[..., Job], kind: str
) -> None:
    job = trained(kind)
    metrics, dataset = metrics_of(job), dataset_of(job, "train")
    for step in STEPS:
        expected = labels_of_step(dataset, step)
        logged = {corpus: metrics[f"loss_metrics/labels/{corpus}"][step] for corpus in expected}

        assert logged == expected
        assert sum(expected.values()) < GLOBAL_BATCH_SIZE * SEQ_LEN


@KINDS
def test_every_kind_of_run_has_the_losses_of_one_process(
    trained: Callable[..., Job], kind: str
) -> None:
    """In the first step, before sums in another order can make a difference."""
    one, other = metrics_of(trained("one process")), metrics_of(trained(kind))
    for corpus in CORPORA:
        name = f"loss_metrics/loss/{corpus}"
        assert other[name][STEPS[0]] == pytest.approx(one[name][STEPS[0]], rel=1e-4)


# Validation


@KINDS
def test_validation_has_the_same_samples_on_any_number_of_ranks(
    trained: Callable[..., Job], kind: str
) -> None:
    """Their number need not be divisible by the number of ranks."""
    one, other = metrics_of(trained("one process")), metrics_of(trained(kind))
    for name in ("", *(f"/{name}" for name in (*CORPORA, *SETS))):
        loss = other[f"validation_metrics/loss{name}"]
        expected = one[f"validation_metrics/loss{name}"][VALID_STEPS[0]]
        perplexity = other[f"validation_metrics/perplexity{name}"]

        assert tuple(loss) == tuple(perplexity) == VALID_STEPS
        assert loss[VALID_STEPS[0]] == pytest.approx(expected, rel=1e-3)
        assert perplexity[4] == pytest.approx(math.exp(loss[4]), rel=1e-4)


def test_a_run_without_a_valid_split_validates_on_its_sets(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    (tmp_path / "held_out").mkdir()
    held_out = write_corpora(tmp_path / "held_out", num_documents=8)
    job = small_job(tmp_path, tokenizer_path)
    job.settings["blendcorpus"]["split"] = "100,0,0"
    job.settings["metrics"]["enable_tensorboard"] = True
    job.settings["validation"] = {
        **{"enable": True, "freq": 2},
        "set": [{"name": "held-out", "path": str(held_out), "samples": 4}],
    }
    job.run("--training.steps", "2")
    metrics = metrics_of(job)

    assert tuple(metrics["validation_metrics/loss/held-out"]) == (1, 2)
    assert "validation_metrics/loss" not in metrics


def test_a_set_that_training_reads_is_refused_before_training(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    job = small_job(tmp_path, tokenizer_path)
    overlapping = {"name": "held-out", "path": str(job.data_file_list)}
    job.settings["validation"] = {"enable": True, "set": [overlapping]}
    output = job.fail("--training.steps", "2", processes=2)

    assert "validation set 'held-out': shard" in output
    assert "is also read for training: 36 of its 40 documents. Choose other shards" in output
    assert not job.losses("training")


# Progress


def test_tokens_epochs_and_shares_come_from_the_order(trained: Callable[..., Job]) -> None:
    job = trained("FSDP")
    metrics, dataset = metrics_of(job), dataset_of(job, "train")
    configured = {"code": 2 / 3, "web": 1 / 3}
    for step in STEPS:
        plan = dataset.plan(np.arange(step * GLOBAL_BATCH_SIZE))
        counts = np.bincount(plan.corpora, minlength=2)
        for i, corpus in enumerate(CORPORA):
            tokens = int(counts[i]) * SEQ_LEN
            expected = {
                "data/tokens": tokens,
                "data/epochs": tokens / dataset.corpus_tokens[i],
                "data/share": counts[i] / len(plan.slots),
                "data/configured_share": configured[corpus],
            }
            for metric, value in expected.items():
                assert metrics[f"{metric}/{corpus}"][step] == pytest.approx(value)
        assert metrics["data/samples_per_second"][step] > 0
        assert metrics["data/wait_seconds"][step] >= 0


@KINDS
def test_the_console_shows_them_once(trained: Callable[..., Job], kind: str) -> None:
    output = trained(kind).output

    assert output.count("The whole run:") == 1
    assert output.count("loss of each corpus: code ") == len(STEPS)
    assert output.count("loss of each corpus and set: code ") == len(VALID_STEPS)
    assert output.count(" (perplexity ") == len(CORPORA + SETS) * len(VALID_STEPS)
    assert output.count("Each validation reads 5 samples of the blend") == 1
    assert output.count("Samples of each validation set: held-out 5, whole ") == 1
    assert "losses are not logged with" not in output


def test_a_corpus_read_too_often_ends_the_run_before_its_first_step(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    job = small_job(tmp_path, tokenizer_path)
    output = job.fail("--training.steps", "1000", processes=2)

    assert "'code' " in output
    assert "max_epochs = 4 allows" in output
    assert not job.losses("training")


def test_without_per_corpus_losses_it_warns_once_and_trains(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    """Labels that are distributed tensors are not looked into."""
    job = small_job(tmp_path, tokenizer_path)
    job.settings["metrics"]["enable_tensorboard"] = True
    output = job.run(
        *["--training.steps", "2", "--parallelism.spmd_backend", "full_dtensor"], processes=2
    )

    warning = "Per-corpus training losses are not logged with parallelism.spmd_backend"
    assert output.count(warning) == 1
    assert len(job.losses("training")) == 2
    assert "data/tokens/code" in metrics_of(job)
    assert "loss_metrics/loss/code" not in metrics_of(job)
