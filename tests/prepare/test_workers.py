import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import pytest

from blendtitan.errors import InputError
from blendtitan.prepare.plan import Job
from blendtitan.prepare.workers import TokenizeConfig, run_jobs
from blendtitan.storage.file_list import find_shards
from blendtitan.tokenizers import SPTokenizer


class KillingTokenizer(SPTokenizer):
    """Ends its process as the kernel does when memory runs out."""

    def encode_batch(self, texts: list[str]) -> NoReturn:
        """Does not return."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_killed_worker_is_an_error_and_no_hang(
    write_jsonl: Callable[[str, Iterable[str]], Path], tokenizer_path: Path, tmp_path: Path
) -> None:
    jobs = [Job(write_jsonl(f"{name}.jsonl", ["a"]), tmp_path / name) for name in "abc"]
    config = TokenizeConfig(tokenizer=tokenizer_path, workers=2)

    with pytest.raises(InputError, match=r"a worker process was killed.*fewer --workers"):
        run_jobs(jobs, KillingTokenizer(tokenizer_path), config)
    assert find_shards(tmp_path) == []


def test_there_are_no_more_processes_than_files(tokenizer_path: Path) -> None:
    assert TokenizeConfig(tokenizer=tokenizer_path, workers=8).num_workers(3) == 3
    assert TokenizeConfig(tokenizer=tokenizer_path).num_workers(10**6) >= 1
