from dataclasses import replace
from pathlib import Path

import pytest

from blendtitan.errors import FastTierError
from blendtitan.prepare import workers
from blendtitan.prepare.documents import Settings, write_part
from blendtitan.prepare.plan import Plan, plan_jobs, plan_shards
from blendtitan.prepare.workers import Rank, do_work, jobs_from
from blendtitan.storage.list_forms import find_shards
from blendtitan.tokenizers import Encoder, load_tokenizer
from tests.prepare.conftest import WriteJsonl, planned_work


def plan_of(*job_bytes: int, folder: Path) -> Plan:
    """One shard for each number, of one job of so many bytes."""
    for at, num_bytes in enumerate(job_bytes):
        (folder / f"{at}.jsonl").write_bytes(b" " * num_bytes)
    shards = plan_shards([folder], folder / "out", keys=["text"])
    return {shard: plan_jobs(shard, 10**9) for shard in shards}


def test_large_jobs_come_first(tmp_path: Path) -> None:
    """The last one to finish is then a small one."""
    jobs = jobs_from(plan_of(10, 1000, 100, folder=tmp_path), 0)

    assert [job.num_bytes for job in jobs] == [1000, 100, 10]


@pytest.mark.parametrize(("place", "first"), [(0, 0), (0.25, 1), (0.5, 2), (0.99, 3)])
def test_each_process_starts_at_its_own_place(tmp_path: Path, place: float, first: int) -> None:
    """Thousands of processes that try the same jobs would overload the file system."""
    jobs = jobs_from(plan_of(100, 101, 102, 103, folder=tmp_path), place)

    assert [job.num_bytes - 100 for job in jobs] == [(first + n) % 4 for n in range(4)]


def test_a_part_that_vanished_before_joining_is_written_again(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a rank that seemed dead has joined the shard and removed the parts."""
    work = planned_work([write_jsonl("a.jsonl", ["a", "b"])], tmp_path / "out", tokenizer_path)
    removed: list[Path] = []

    def write_and_remove(job, *arguments):
        counts = write_part(job, *arguments)
        if not removed:
            removed.append(job.path("tokens"))
            removed[0].unlink()
        return counts

    monkeypatch.setattr(workers, "write_part", write_and_remove)

    assert do_work(work, 0, 1) == []
    assert len(removed) == 1
    assert find_shards(tmp_path / "out") == [tmp_path / "out/a"]


def test_a_faulty_fast_tier_on_one_rank_stops_the_others(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    encoder = Encoder(load_tokenizer(tokenizer_path))
    encoder.tier = "fast"
    work = planned_work([write_jsonl("a.jsonl", ["a"])], tmp_path / "out", encoder)
    work.doubt_path.write_text("gigatoken gives other ids.")

    with pytest.raises(FastTierError, match="gigatoken gives other ids"):
        do_work(work, 0, 1)
    assert find_shards(tmp_path / "out") == []


def test_a_rank_with_the_reference_tier_does_not_keep_faulty_parts(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Its own ids are right, but it would join parts of other ranks."""
    work = planned_work([write_jsonl("a.jsonl", ["a"])], tmp_path / "out", tokenizer_path)
    work = replace(work, tier="auto")
    work.doubt_path.write_text("gigatoken gives other ids.")

    with pytest.raises(FastTierError, match="gigatoken gives other ids"):
        do_work(work, 0, 1)


def test_an_input_that_cannot_be_read_is_tried_once_by_all_together(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    """Each process would otherwise read a large damaged file up to the damage."""
    (tmp_path / "a.gz").write_bytes(b"not gzip")
    work = planned_work([tmp_path / "a.gz"], tmp_path / "out", tokenizer_path)

    first = do_work(work, 0, 1)
    (tmp_path / "a.gz").unlink()
    second = do_work(work, 0, 1)

    assert first == second
    assert "a.gz: the compressed data cannot be read" in first[0]


def test_settings_name_all_that_ids_depend_on(tokenizer_path: Path) -> None:
    settings = Settings.of(load_tokenizer(tokenizer_path))

    assert (settings.eod_id, settings.dtype) == (2, "uint16")
    assert len(settings.tokenizer) == 64


def test_ranks_divide_the_plan(tmp_path: Path) -> None:
    plan = plan_of(*range(100, 112), folder=tmp_path)
    firsts = {
        jobs_from(plan, (rank + worker / 3) / 4)[0]
        for rank in (Rank(n, 4).rank for n in range(4))
        for worker in range(3)
    }

    assert len(firsts) == 12
