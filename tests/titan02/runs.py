"""Runs of TorchTitan 0.2 small enough for a laptop; those of several processes use torchrun."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from blendtitan import BlendConfig, BlendedDataset, build_datasets
from blendtitan.dataset.stretches import document_of
from blendtitan.settings.toml import toml_of
from tests.small_corpora import EOD

SEQ_LEN = 32
SPLIT = "80,20,0"
GLOBAL_BATCH_SIZE = 4
STEPS = 6
TIMEOUT_S = 300

ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
ALONE |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
"""What torchrun tells the only rank; it sets its own where it starts several."""

ROOT = Path(__file__).parents[2]


@dataclass
class SmallRun:
    """The debug model on two small corpora: 6 steps of 4 samples, a checkpoint every 2."""

    folder: Path
    data: Path
    validation: dict[str, Any] = field(default_factory=dict)
    """Its section of this name."""

    def settings(self) -> dict[str, dict[str, Any]]:
        """What its TOML file holds."""
        return {
            "job": {"dump_folder": str(self.folder / "out")},
            "model": {
                "name": "llama3",
                "flavor": "debugmodel",
                "vocab_size": 128,
                "hf_assets_path": str(self.data / "tokenizer"),
            },
            "optimizer": {"lr": 1e-3},
            "lr_scheduler": {"warmup_steps": 2},
            "training": {
                "seq_len": SEQ_LEN,
                "local_batch_size": 2,
                "global_batch_size": GLOBAL_BATCH_SIZE,
                "steps": STEPS,
                "mixed_precision_param": "float32",
            },
            # The tokens are numbers in order, which no tokenizer makes.
            "blendcorpus": {
                "data_file_list": str(self.data / "file_list.txt"),
                "split": SPLIT,
                "tokenizer_check": "warn",
            },
            "checkpoint": {
                "enable": True,
                "interval": 2,
                "last_save_model_only": False,
                "keep_latest_k": 0,
            },
            "metrics": {"log_freq": 1, "disable_color_printing": True},
            "activation_checkpoint": {"mode": "none"},
            "validation": self.validation,
        }

    @property
    def entry(self) -> str:
        """The module that trains and records."""
        return "tests.titan02.recorded_train"

    def arguments(self) -> list[str]:
        """Its settings, on the command line."""
        return ["--job.config_file", str(self.toml()), *seeded()]

    def toml(self) -> Path:
        """Its settings as a file."""
        path = self.folder / "run.toml"
        path.write_text(
            "\n".join(
                f"[{section}]\n" + "\n".join(f"{k} = {toml_of(v)}" for k, v in values.items())
                for section, values in self.settings().items()
            )
        )
        return path

    def start(self, *arguments: str, processes: int = 1, record: str = "record") -> "Ended":
        """Train to the end, or to the death that is asked for."""
        agent = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", f"{processes}"]
        words = [*(agent if processes > 1 else []), "-m", self.entry, *self.arguments()]
        return started([*words, *arguments], record=self.folder / record)

    def dataset(self, removed: Path | None = None) -> BlendedDataset:
        """Its training split, without the documents of a list."""
        config = BlendConfig(
            data_file_list=self.data / "file_list.txt",
            seq_length=SEQ_LEN,
            eod_token_id=EOD,
            split=SPLIT,
            removed_documents=removed,
        )
        dataset = build_datasets(config).train
        assert isinstance(dataset, BlendedDataset)
        return dataset

    def removed_documents(self, *slots: int) -> Path:
        """A list of the first document of each slot."""
        dataset, path = self.dataset(), self.folder / "documents.txt"
        places = dataset.order.places(np.array(slots))
        found = [
            document_of(dataset.rows, row, start)
            for row, start in zip(places.rows.tolist(), places.starts.tolist(), strict=True)
        ]
        prefixes = dataset.catalog.prefixes
        path.write_text("".join(f"{prefixes[shard]} {document}\n" for shard, document in found))
        return path

    def expected_samples(self, step: int, removed: Path | None = None) -> list[str]:
        """Digests of the samples that the global order has for a step, sorted."""
        dataset = self.dataset(removed)
        slots = range((step - 1) * GLOBAL_BATCH_SIZE, step * GLOBAL_BATCH_SIZE)
        labels = (np.ascontiguousarray(dataset[slot].labels) for slot in slots)
        return sorted(hashlib.sha256(row.tobytes()).hexdigest() for row in labels)


def started(words: list[str], *, record: Path, **variables: str) -> "Ended":
    """Run Python with these arguments and environment variables, to its end."""
    settings = {"RECORD": str(record), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words],
        env=os.environ | ALONE | settings | variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout, record)


def seeded() -> list[str]:
    """The arguments that make a run repeatable. TorchTitan 0.2.0 has them in [training]."""
    from torchtitan.config import JobConfig

    section = "debug" if hasattr(JobConfig(), "debug") else "training"
    return [f"--{section}.seed", "1", f"--{section}.deterministic"]


@dataclass
class Ended:
    """A run that has ended."""

    code: int
    output: str
    record: Path

    def entries(self) -> list[dict[str, Any]]:
        """What all ranks recorded."""
        files = sorted(self.record.parent.glob(f"{self.record.name}.*"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def samples(self) -> dict[int, list[str]]:
        """Digests of the samples of each step, of all ranks, sorted."""
        steps: dict[int, list[str]] = {}
        for entry in self.entries():
            if "samples" in entry:
                steps.setdefault(entry["step"], []).extend(entry["samples"])
        return {step: sorted(samples) for step, samples in steps.items()}

    def losses(self, kind: str = "training") -> dict[int, float]:
        """Loss of each step that was logged."""
        return {entry["step"]: entry[kind] for entry in self.entries() if kind in entry}
