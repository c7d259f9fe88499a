from pathlib import Path

import pytest

from blendtitan.errors import InputError
from blendtitan.prepare.parts import Settings
from blendtitan.prepare.plan import plan_jobs, plan_shards
from blendtitan.prepare.workers import TokenizeConfig, run_jobs
from blendtitan.storage.file_list import find_shards
from blendtitan.tokenizers import load_tokenizer
from tests.prepare.conftest import KillingEncoder, WriteJsonl


def test_a_killed_worker_is_an_error_and_no_hang(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    shards = plan_shards([write_jsonl("a.jsonl", ["a"])], tmp_path / "out", keys=["text"])
    plan = {shard: plan_jobs(shard, 100) for shard in shards}
    shards[0].parts_folder.mkdir(parents=True)
    tokenizer = load_tokenizer(tokenizer_path)
    config = TokenizeConfig(tokenizer=tokenizer_path, workers=2)

    with pytest.raises(InputError, match=r"a worker process was killed.*fewer --workers"):
        run_jobs(plan, KillingEncoder(tokenizer), Settings.of(tokenizer), config)
    assert find_shards(tmp_path) == []


def test_there_are_no_more_processes_than_jobs(tokenizer_path: Path) -> None:
    assert TokenizeConfig(tokenizer=tokenizer_path, workers=8).num_workers(3) == 3
    assert TokenizeConfig(tokenizer=tokenizer_path).num_workers(10**6) >= 1
