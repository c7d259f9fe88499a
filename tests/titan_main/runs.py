"""Runs of TorchTitan's main branch small enough for a laptop."""

from dataclasses import dataclass

from tests.titan02.runs import GLOBAL_BATCH_SIZE, SEQ_LEN, SPLIT
from tests.titan02.runs import SmallRun as SmallRun02

STEPS = 6


@dataclass
class SmallRun(SmallRun02):
    """The run of the tests of TorchTitan 0.2, with main: two layers, 6 steps of 4 samples."""

    @property
    def entry(self) -> str:
        """The module that trains and records."""
        return "tests.titan_main.recorded_train"

    def arguments(self) -> list[str]:
        """Its settings, on the command line."""
        data = {
            "data_file_list": self.data / "file_list.txt",
            "split": SPLIT,
            "tokenizer_check": "warn",
        }
        settings = {
            "dump_folder": self.folder / "out",
            "hf_assets_path": self.data / "tokenizer",
            "training.max_context_length": SEQ_LEN,
            "training.num_tokens_per_microbatch_per_dp_rank": 2 * SEQ_LEN,
            "training.num_tokens_per_train_step": GLOBAL_BATCH_SIZE * SEQ_LEN,
            "training.steps": STEPS,
            "training.mixed_precision_param": "float32",
            "checkpoint.interval": 2,
            "checkpoint.keep_latest_k": 0,
            "debug.seed": 1,
            **{f"dataloader.{key}": value for key, value in data.items()},
            **{f"validator.dataloader.{key}": value for key, value in data.items()},
        }
        words = ["--module", "blendtitan.titan_main", "--config", "llama3_debugmodel"]
        words += ["--checkpoint.enable", "--checkpoint.no-last-save-model-only"]
        words += ["--debug.deterministic"]
        for key, value in settings.items():
            words += [f"--{key}", str(value)]
        return words
