"""``tokenize --output s3://...``: the shards of a local output, complete or not there."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendtitan import remote
from blendtitan.cli import main
from blendtitan.errors import ConfigError, InputError
from blendtitan.files import io_map
from blendtitan.prepare.documents import Counts, write_part
from blendtitan.prepare.engines import Engine
from blendtitan.prepare.input_file import work_folder
from blendtitan.prepare.plan import Job, Shard
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.prepare.workers import Work, do_work
from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.reader import file_signature
from blendtitan.storage.records import read_ends
from blendtitan.storage.remote_writes import delete, upload
from tests.conftest import wait_until
from tests.object_store import BUCKET, ObjectStore
from tests.prepare.conftest import WriteJsonl

OUTPUT = f"{BUCKET}/out"


class OneProcess(Engine):
    """Works in this process, which takes no time to start."""

    def __init__(self) -> None:
        super().__init__(1)

    def run(self, work: Work) -> list[str]:
        """See ``Engine.run``."""
        return do_work(work, 0, 1)

    def started(self, work: Work, count: int) -> Any:
        """Not used."""
        raise NotImplementedError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with unfinished work."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def text(write_jsonl: WriteJsonl) -> Path:
    """Two corpora."""
    for name in ("code/0", "web/0", "web/1"):
        write_jsonl(f"text/{name}.jsonl", [f"{name} is number {n} of these" for n in range(50)])
    return write_jsonl("text/web/2.jsonl", ["the last one"]).parents[1]


@pytest.fixture
def made(text: Path, tokenizer_path: Path, store: ObjectStore) -> dict[str, bytes]:
    """The output of a first command, as objects."""
    run(text, tokenizer_path)
    store.requests.clear()
    return store.content("out")


def run(
    text: Path, tokenizer: Path, output: str | Path = OUTPUT, **more: Any
) -> dict[Shard, Counts]:
    config = TokenizeConfig(tokenizer=tokenizer, job_bytes=1000, **more)
    return tokenize([text], Path(output), config, engine=OneProcess())


def uploaded(store: ObjectStore) -> list[str]:
    """The names of the objects that were written, without the one that tests permissions."""
    start = "/bucket/out/"
    paths = [each.path for each in store.requests if each.method == "PUT"]
    names = [path.removeprefix(start) for path in paths if path.startswith(start)]
    return [name for name in names if "write-test" not in name]


def test_the_objects_are_the_files_of_a_local_output(
    made: dict[str, bytes], text: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Records too, so that an output may be copied and continued elsewhere."""
    here = tmp_path / "here"
    run(text, tokenizer_path, here)
    files = {str(path.relative_to(here)): path for path in here.rglob("*") if path.is_file()}
    assert made.keys() == files.keys()
    for name, path in files.items():
        if not name.endswith(".ends.json"):
            assert made[name] == path.read_bytes(), name


def test_documents_ends_are_recorded_for_the_objects(made: dict[str, bytes]) -> None:
    """Training then reads no sample of them."""
    for prefix in find_shards(remote.RemotePath(OUTPUT)):
        signature = file_signature(str(prefix))
        assert signature is not None
        ends = read_ends(str(prefix), signature)
        assert ends is not None
        assert ends.num_eod == ends.num_documents


def test_the_result_can_be_verified(made: dict[str, bytes], tokenizer_path: Path) -> None:
    assert main(["verify", OUTPUT, "--tokenizer", str(tokenizer_path)]) == 0


def test_the_local_copies_are_deleted(made: dict[str, bytes], cache: Path) -> None:
    left = [path.name for path in cache.rglob("*") if path.is_file()]
    assert sorted(left) == ["0.jsonl", "0.jsonl", "1.jsonl", "2.jsonl"]


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_second_command_repeats_nothing(
    made: dict[str, bytes],
    store: ObjectStore,
    text: Path,
    tokenizer_path: Path,
    cache: Path,
    is_elsewhere: bool,
) -> None:
    """On the same machine, or on one that knows only what is in the store."""
    if is_elsewhere:
        shutil.rmtree(cache)
    counts = run(text, tokenizer_path)

    assert sum(each.documents for each in counts.values()) == 151
    assert uploaded(store) == []
    assert store.content("out") == made


def test_a_changed_input_replaces_its_shard_only(
    made: dict[str, bytes], store: ObjectStore, text: Path, tokenizer_path: Path
) -> None:
    (text / "web/1.jsonl").write_text('{"text": "new"}\n')
    run(text, tokenizer_path)

    shards = [name for name in uploaded(store) if name != "shards.catalog"]
    assert {name.rpartition("/")[2].partition(".")[0] for name in shards} == {"1"}
    assert shards[-2:] == ["web/1.idx", "web/1.ends.json"]
    assert main(["verify", OUTPUT]) == 0


@pytest.mark.parametrize("is_elsewhere", [False, True])
@pytest.mark.parametrize("lost", ["web/1.bin", "web/1.idx", "web/1.docs.parquet"])
def test_a_shard_that_is_not_complete_is_made_again(
    made: dict[str, bytes],
    store: ObjectStore,
    text: Path,
    tokenizer_path: Path,
    cache: Path,
    lost: str,
    is_elsewhere: bool,
) -> None:
    """As after an upload that was interrupted."""
    store.delete(f"out/{lost}")
    if is_elsewhere:
        shutil.rmtree(cache)
    run(text, tokenizer_path)

    found = store.content("out")
    assert {name: data for name, data in found.items() if "ends" not in name} == {
        name: data for name, data in made.items() if "ends" not in name
    }


def test_an_interrupted_upload_leaves_no_idx(
    store: ObjectStore,
    text: Path,
    tokenizer_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parts stay, so the next command only uploads."""
    store.refuses = lambda method, path: method == "PUT" and path.endswith(".docs.parquet")
    with pytest.raises(PermissionError, match=r"Check the credentials"):
        run(text, tokenizer_path)
    names = store.content("out").keys()
    assert any(name.endswith(".bin") for name in names)
    assert not any(name.endswith(".idx") for name in names)

    done = {*cache.rglob("*.tokens")}
    assert len(done) > 1

    def write_new_part(job: Job, *more: Any) -> Counts:
        assert job.path("tokens") not in done
        return write_part(job, *more)

    monkeypatch.setattr("blendtitan.prepare.workers.write_part", write_new_part)
    store.refuses = lambda method, path: False
    run(text, tokenizer_path)
    assert main(["verify", OUTPUT]) == 0


def test_faults_that_pass_are_survived(
    store: ObjectStore, text: Path, tokenizer_path: Path
) -> None:
    store.upload_faults = ["503", "reset", "429"] * 4
    run(text, tokenizer_path)

    assert store.upload_faults == []
    assert main(["verify", OUTPUT]) == 0


def test_processes_may_write_one_object_at_once(store: ObjectStore) -> None:
    """As the catalog, of which the last one counts. Each compares only what it wrote itself."""
    contents = [bytes(size) for size in range(40)]

    def write(content: bytes) -> None:
        for _ in range(3):
            upload(f"{OUTPUT}/shared", content)
            delete(f"{OUTPUT}/shared")

    io_map(write, contents)


def test_a_large_file_is_sent_in_parts(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 20)
    store.upload_faults = ["reset", "503"]
    upload(f"{OUTPUT}/large", path)

    assert store.content("out")["large"] == path.read_bytes()
    assert len(uploaded(store)) == 3 + 2


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".docs.parquet"])
def test_a_file_of_another_program_is_only_overwritten_when_asked(
    store: ObjectStore, text: Path, tokenizer_path: Path, suffix: str
) -> None:
    store.put(f"out/web/1{suffix}", b"mine")
    store.requests.clear()
    with pytest.raises(ConfigError, match=rf"{OUTPUT}/web/1{suffix}: exists already, and was not"):
        run(text, tokenizer_path)
    assert uploaded(store) == []

    run(text, tokenizer_path, overwrite=True)
    assert main(["verify", OUTPUT]) == 0


def test_other_settings_are_an_error_unless_overwritten(
    made: dict[str, bytes], store: ObjectStore, text: Path, tokenizer_path: Path, cache: Path
) -> None:
    shutil.rmtree(cache)
    with pytest.raises(ConfigError, match=rf"{OUTPUT}/code/0 and 3 more shards were made with"):
        run(text, tokenizer_path, bos=True)
    assert store.content("out") == made

    run(text, tokenizer_path, bos=True, overwrite=True)
    assert store.content("out")["web/1.bin"] != made["web/1.bin"]
    assert main(["verify", OUTPUT]) == 0


def test_shards_of_removed_inputs_are_pruned(
    made: dict[str, bytes], store: ObjectStore, text: Path, tokenizer_path: Path
) -> None:
    (text / "web/1.jsonl").unlink()
    run(text, tokenizer_path, prune=True)

    assert not [name for name in store.content("out") if "web/1." in name]
    assert b"web/1" not in store.content("out")["shards.catalog"]


def test_rejected_texts_are_listed_beside_the_shard(
    store: ObjectStore, text: Path, tokenizer_path: Path
) -> None:
    (text / "web/1.jsonl").write_text('{"text": "good"}\n{"text": ""}\n')
    run(text, tokenizer_path, max_rejects=1)
    assert b"empty" in store.content("out")["web/1.rejects.jsonl"]

    (text / "web/1.jsonl").write_text('{"text": "good"}\n')
    run(text, tokenizer_path)
    assert "web/1.rejects.jsonl" not in store.content("out")


def test_too_many_rejected_texts_upload_nothing_of_their_shard(
    store: ObjectStore, text: Path, tokenizer_path: Path
) -> None:
    (text / "web/1.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(InputError, match="rejected"):
        run(text, tokenizer_path)

    assert not [name for name in store.content("out") if "web/1." in name]


def test_an_input_without_documents_has_a_record_only(
    made: dict[str, bytes], store: ObjectStore, text: Path, tokenizer_path: Path
) -> None:
    (text / "web/1.jsonl").write_text("")
    run(text, tokenizer_path)
    store.requests.clear()
    run(text, tokenizer_path)

    assert [name for name in store.content("out") if "web/1." in name] == [
        ".blendtitan/web/1.jsonl"
    ]
    assert uploaded(store) == []


@pytest.mark.parametrize(
    ("output", "refused", "message"),
    [
        (OUTPUT, "GET PUT HEAD", r"s3://bucket/out/: cannot be searched .*Check the credentials"),
        (OUTPUT, "PUT", r"s3://bucket/out: cannot be written .*Check the credentials"),
        (f"{BUCKET}2/out", "", r"s3://bucket2/out/: cannot be searched .*a bucket that exists"),
        ("https://host/out", "", r"a URL of a web server, expected a local path, or a URL such as"),
        ("ftp://host/out", "", r"which is a URL, expected a local path"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_error_before_any_work(
    store: ObjectStore,
    text: Path,
    tokenizer_path: Path,
    output: str,
    refused: str,
    message: str,
    cache: Path,
) -> None:
    store.refuses = lambda method, path: method in refused
    with pytest.raises(ConfigError, match=message):
        run(text, tokenizer_path, output)

    assert not [*cache.rglob("*.parts")]


def command(text: Path | str, tokenizer: Path, *more: str) -> list[str]:
    words = ["tokenize", str(text), "--output", OUTPUT, "--tokenizer", str(tokenizer)]
    return [sys.executable, "-m", "blendtitan", *words, *more]


def test_a_killed_command_is_continued(
    store: ObjectStore, text: Path, tokenizer_path: Path, cache: Path, tmp_path: Path
) -> None:
    """Killed in the middle of an upload; the second one has two processes."""
    store.seconds = 0.05
    first = subprocess.Popen(
        command(text, tokenizer_path, "--workers", "1"), start_new_session=True
    )
    wait_until(lambda: any(each.path.endswith("0.bin") for each in store.requests))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not any(name.endswith(".idx") for name in store.content("out"))

    store.seconds = 0.0
    subprocess.run(command(text, tokenizer_path, "--workers", "2"), check=True)
    run(text, tokenizer_path, tmp_path / "here")
    expected = {str(p.relative_to(tmp_path / "here")): p for p in (tmp_path / "here").rglob("*.*")}
    found = store.content("out")
    for name in expected:
        if name.endswith((".bin", ".idx", ".parquet")):
            assert found[name] == expected[name].read_bytes()


def test_ranks_share_the_work_folder(
    store: ObjectStore, text: Path, tokenizer_path: Path, cache: Path
) -> None:
    ranks = [
        subprocess.Popen(
            command(
                text, tokenizer_path, "--workers", "1", "--rank", str(rank), "--world-size", "2"
            )
        )
        for rank in range(2)
    ]
    assert [each.wait() for each in ranks] == [0, 0]

    assert main(["verify", OUTPUT]) == 0
    assert not [path for path in work_folder(Path(OUTPUT)).rglob("*.parts") if path.is_dir()]


def test_text_may_be_in_the_store_too(
    store: ObjectStore, text: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Read by ranges, with the extra `remote` alone; other packages of fsspec come first."""
    table = pa.table({"text": [f"row {n}" for n in range(100)]})
    pq.write_table(table, text / "web/3.parquet", row_group_size=10)
    (text / "code/1.jsonl.gz").write_bytes(gzip.compress((text / "code/0.jsonl").read_bytes()))
    (text / "README.md").touch()
    run(text, tokenizer_path, tmp_path / "here")
    store.upload(text, "text/")
    words = ["--workers", "2", "--job-bytes", "1000"]
    for place in (f"{BUCKET}/text", f"{BUCKET}/text/*/*"):
        subprocess.run(command(place, tokenizer_path, *words), check=True)

    found = store.content("out")
    for path in find_shards(tmp_path / "here"):
        for suffix in (".bin", ".idx"):
            name = f"{path.relative_to(tmp_path / 'here')}{suffix}"
            assert found[name] == Path(f"{path}{suffix}").read_bytes(), name
    assert uploaded(store).count("web/3.idx") == 1
