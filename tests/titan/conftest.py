"""Training runs small enough for a laptop, in processes of their own."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendtitan import BlendConfig, BlendedDataset, build_datasets
from blendtitan.failures import MAX_LINES
from blendtitan.settings.toml import toml_of
from tests.conftest import wait_until
from tests.small_corpora import EOD, train_tokenizer, write_corpora
from tests.titan.launched import Entry, Launched, train

SEQ_LEN = 32
SPLIT = "90,10,0"
GLOBAL_BATCH_SIZE = 4
TIMEOUT_S = 240


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model of 96 ids; EOS is 2."""
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@dataclass
class Job:
    """A training run in a folder of its own, started and started again."""

    folder: Path
    settings: dict[str, dict[str, Any]]
    records: list[Path] = field(default_factory=list)
    output: str = ""
    """What the last run printed."""

    @property
    def data_file_list(self) -> Path:
        """The file list of its corpora."""
        return self.folder / "file_list.txt"

    def launch(
        self,
        *arguments: str,
        processes: int = 1,
        entry: Entry = train,
        environment: Mapping[str, str] | None = None,
    ) -> Launched:
        """Start it, with what it imports already imported; ``arguments`` win over its settings."""
        words = self._words(arguments)
        return Launched.start(
            words,
            processes=processes,
            record=self.records[-1],
            environment=environment,
            entry=entry,
        )

    def run(self, *arguments: str, processes: int = 1, entry: Entry = train) -> str:
        """Run it to its end and return what it printed."""
        run = self.launch(*arguments, processes=processes, entry=entry)
        assert run.wait(TIMEOUT_S) == 0, run.output[-5000:]
        self.output = run.output
        return self.output

    def fail(self, *arguments: str, processes: int = 1, entry: Entry = train) -> str:
        """Run it, expecting one error and no process that is left; what it printed.

        The error is its last lines, at most five; no rank prints a traceback.
        """
        run = self.launch(*arguments, processes=processes, entry=entry)
        assert run.wait(TIMEOUT_S) > 0, run.output[-5000:]
        self.wait_until_gone()
        before, error = run.output.rsplit("blendtitan train: ", 1)
        assert len(error.splitlines()) <= MAX_LINES
        assert "blendtitan train: " not in before
        assert "Traceback (most recent call last)" not in run.output
        return run.output

    def _words(self, arguments: tuple[str, ...]) -> list[str]:
        self.records.append(self.folder / f"record_{len(self.records)}")
        return ["--job.config_file", str(self.write_toml()), *arguments]

    def pids(self) -> dict[int, int]:
        """Process of each rank of the last run."""
        return {entry["rank"]: entry["pid"] for entry in self.entries() if "pid" in entry}

    def wait_until_gone(self) -> None:
        """Check that no rank of the last run outlives its agent for long."""
        wait_until(lambda: not any(map(_is_running, self.pids().values())))

    def entries(self, run: int = -1) -> list[dict[str, Any]]:
        """What all ranks recorded in one run, each entry with its ``rank``."""
        record = self.records[run]
        files = sorted(record.parent.glob(f"{record.name}.*"))
        return [
            json.loads(line) | {"rank": int(file.suffix[1:])}
            for file in files
            for line in file.read_text().splitlines()
        ]

    def losses(self, kind: str, run: int = -1) -> dict[int, float]:
        """Loss of each step that one run logged."""
        return {entry["step"]: entry[kind] for entry in self.entries(run) if kind in entry}

    def samples(self, run: int = -1) -> dict[int, list[str]]:
        """Digests of the samples of each step of one run, of all ranks, sorted."""
        return {
            step: sorted(digest for digests in of_rank.values() for digest in digests)
            for step, of_rank in self.samples_of_ranks(run).items()
        }

    def samples_of_ranks(self, run: int = -1) -> dict[int, dict[int, list[str]]]:
        """Step to rank to the digests of the samples it read, in the order read."""
        steps: dict[int, dict[int, list[str]]] = {}
        for entry in self.entries(run):
            if "samples" in entry:
                of_rank = steps.setdefault(entry["step"], {})
                of_rank.setdefault(entry["rank"], []).extend(entry["samples"])
        return steps

    def expected_samples(self, step: int) -> list[str]:
        """Digests of the samples that the global order has for a step, sorted."""
        return self.samples_at(range((step - 1) * GLOBAL_BATCH_SIZE, step * GLOBAL_BATCH_SIZE))

    def samples_at(self, slots: Iterable[int]) -> list[str]:
        """Digests of the samples that the global order has at these slots, sorted."""
        return digests_of(self.train_dataset(), slots)

    def train_dataset(self, **settings: Any) -> BlendedDataset:
        """What it trains on, with more settings of the blend."""
        config = BlendConfig(
            data_file_list=self.data_file_list,
            seq_length=SEQ_LEN,
            eod_token_id=EOD,
            split=SPLIT,
            **settings,
        )
        dataset = build_datasets(config).train
        assert isinstance(dataset, BlendedDataset)
        return dataset

    def write_toml(self) -> Path:
        """Its settings as a file."""
        path = self.folder / "run.toml"
        path.write_text(
            "\n".join(
                f"[{section}]\n" + "\n".join(f"{k} = {toml_of(v)}" for k, v in values.items())
                for section, values in self.settings.items()
            )
        )
        return path


@pytest.fixture
def job(tmp_path: Path, tokenizer_path: Path) -> Job:
    """A run that has not begun."""
    return small_job(tmp_path, tokenizer_path)


def small_job(folder: Path, tokenizer_path: Path) -> Job:
    """The debug model on two small corpora: 6 steps of 4 samples, a checkpoint every 2."""
    settings: dict[str, dict[str, Any]] = {
        "job": {"dump_folder": str(folder / "out")},
        "model": {"tokenizer_path": str(tokenizer_path)},
        "optimizer": {"lr": 1e-3},
        "lr_scheduler": {"warmup_steps": 2, "total_steps": 20},
        "training": {
            "dataset_path": str(write_corpora(folder)),
            "seq_len": SEQ_LEN,
            "local_batch_size": 2,
            "global_batch_size": GLOBAL_BATCH_SIZE,
            "steps": 6,
            "mixed_precision_param": "float32",
            "seed": 1,
            "deterministic": True,
        },
        # The tokens are numbers in order, which no tokenizer makes.
        "blendcorpus": {"split": SPLIT, "tokenizer_check": "warn"},
        "checkpoint": {
            "enable": True,
            "interval": 2,
            "last_save_model_only": False,
            "keep_latest_k": 0,
        },
        "metrics": {"log_freq": 1},
        "activation_checkpoint": {"mode": "none"},
    }
    return Job(folder, settings)


def digests_of(dataset: BlendedDataset, slots: Iterable[int]) -> list[str]:
    """Digests of the samples that a dataset has at these slots, sorted."""
    labels = (np.ascontiguousarray(dataset[slot].labels) for slot in slots)
    return sorted(hashlib.sha256(row.tobytes()).hexdigest() for row in labels)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
