"""Merging: the same documents in the same order, in fewer shards, or nothing."""

import errno
import itertools
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.cli import main
from blendtitan.errors import ConfigError, CorruptShardError, FileListError, TokenizerMismatchError
from blendtitan.identity import TokenizerIdentity
from blendtitan.prepare.merge import SourceShard, merge, plan_merge
from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.record_files import TokenizerRecord, read_record, record_path
from blendtitan.storage.record_writer import encode_record
from blendtitan.storage.writer import ShardWriter, encode_index
from tests.conftest import WriteShard


def documents(prefix: Path) -> list[list[int]]:
    index = ShardIndex.open(prefix)
    tokens = np.fromfile(f"{prefix}.bin", index.dtype)
    starts = index.document_starts(0, index.num_documents)
    return [part.tolist() for part in np.split(tokens, starts[1:-1])]


def numbered(folder: Path) -> dict[str, list[list[int]]]:
    return {str(prefix.relative_to(folder)): documents(prefix) for prefix in find_shards(folder)}


@pytest.fixture
def folder(write_shard: WriteShard, tmp_path: Path) -> Path:
    write_shard("tokens/web/a", [[1, 2], [3]])
    write_shard("tokens/web/b", [[4, 5]])
    write_shard("tokens/web/c", [[6], [7], [8]])
    write_shard("tokens/code/a", [[9]], "<i4")
    return tmp_path / "tokens"


def test_neighbours_of_a_corpus_are_joined_in_order_up_to_the_target(
    folder: Path, tmp_path: Path
) -> None:
    merge([folder], tmp_path / "out", target_tokens=5)

    assert numbered(tmp_path / "out") == {
        "code/00000": [[9]],
        "web/00000": [[1, 2], [3], [4, 5]],
        "web/00001": [[6], [7], [8]],
    }


def test_a_file_list_gives_order_and_corpora(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("1 tokens/web/c mine\n1 tokens/web/a mine\n")

    merge([tmp_path / "list.txt"], tmp_path / "out", target_tokens=100)

    assert numbered(tmp_path / "out") == {"mine/00000": [[6], [7], [8], [1, 2], [3]]}


def test_merged_shards_have_the_bytes_of_a_shard_written_at_once(
    folder: Path, write_shard: WriteShard, tmp_path: Path
) -> None:
    merge([folder / "web" / name for name in "abc"], tmp_path / "out", target_tokens=3)
    merge([folder], tmp_path / "whole", target_tokens=100)
    whole = write_shard("right", [[1, 2], [3], [4, 5], [6], [7], [8]])

    for suffix in (".bin", ".idx"):
        right = Path(f"{whole}{suffix}").read_bytes()
        assert (tmp_path / f"whole/web/00000{suffix}").read_bytes() == right


def test_documents_keep_their_sequences(tmp_path: Path) -> None:
    """Megatron's documents may have several, or none."""
    lens, cuts = np.array([2, 0, 1, 3], np.int32), np.array([0, 2, 2, 4])
    for name in ("0", "1"):
        (tmp_path / f"{name}.bin").write_bytes(np.arange(6, dtype="<u2").tobytes())
        index = b"".join(encode_index(lens, cuts, dtype=np.dtype("<u2")))
        (tmp_path / f"{name}.idx").write_bytes(index)
    (tmp_path / "list.txt").write_text("1 0 all\n1 1 all\n")

    merge([tmp_path / "list.txt"], tmp_path / "out", target_tokens=100)

    both = np.array([0, 2, 2, 4, 6, 6, 8])
    expected = encode_index(np.tile(lens, 2), both, dtype=np.dtype("<u2"))
    assert (tmp_path / "out/all/00000.idx").read_bytes() == b"".join(expected)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    target_tokens=st.integers(1, 30),
)
def test_each_group_takes_as_many_shards_as_fit(sizes: list[int], target_tokens: int) -> None:
    sources = [
        SourceShard(Path(str(number)), "web", np.dtype("<u2"), 1, 1, size)
        for number, size in enumerate(sizes)
    ]
    groups = plan_merge(sources, Path("out"), target_tokens=target_tokens)

    assert [source for group in groups for source in group.sources] == sources
    assert all(len(g.sources) == 1 or g.num_tokens <= target_tokens for g in groups)
    for group, following in itertools.pairwise(groups):
        assert group.num_tokens + following.sources[0].num_tokens > target_tokens


def test_bytes_are_read_and_written_if_the_kernel_cannot_copy(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example between two file systems."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    merge([folder / "web" / "a", folder / "web" / "b"], tmp_path / "out", target_tokens=3)

    assert numbered(tmp_path / "out") == {"a/00000": [[1, 2], [3]], "b/00000": [[4, 5]]}


def test_shards_of_one_corpus_have_one_type(
    folder: Path, write_shard: WriteShard, tmp_path: Path
) -> None:
    write_shard("tokens/web/d", [[9]], "<i4")

    with pytest.raises(ConfigError, match=r"web/d holds .* int32, .*web/a of type uint16"):
        merge([folder], tmp_path / "out", target_tokens=5)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("corpus", ["..", "a/b"])
def test_a_corpus_that_cannot_name_a_folder_is_an_error(
    folder: Path, tmp_path: Path, corpus: str
) -> None:
    (tmp_path / "list.txt").write_text(f"1 tokens/web/a {corpus}\n")

    with pytest.raises(ConfigError, match="Rename the corpus in the file list"):
        merge([tmp_path / "list.txt"], tmp_path / "out", target_tokens=5)


@pytest.mark.parametrize("target_tokens", [0, -1, float("nan")])
def test_a_target_is_at_least_one_token(folder: Path, target_tokens: float) -> None:
    with pytest.raises(ConfigError, match="expected 1 or more"):
        merge([folder], folder / "out", target_tokens=target_tokens)


def test_inputs_are_never_overwritten(write_shard: WriteShard, tmp_path: Path) -> None:
    """Even under another name."""
    write_shard("out/web/00000", [[1]])
    (tmp_path / "link").symlink_to(tmp_path / "out")

    with pytest.raises(ConfigError, match="is an input and would be overwritten"):
        merge([tmp_path / "out"], tmp_path / "link", target_tokens=5)
    assert numbered(tmp_path / "out") == {"web/00000": [[1]]}


def test_other_shards_in_the_folder_are_an_error(folder: Path, tmp_path: Path) -> None:
    """Shards of an earlier merge would otherwise have their documents in the folder twice."""
    merge([folder], tmp_path / "out", target_tokens=5)

    with pytest.raises(ConfigError, match=r"holds .*web/00001, which this command does not write"):
        merge([folder], tmp_path / "out", target_tokens=100)
    merge([folder], tmp_path / "out", target_tokens=5)


def test_a_shard_that_merge_did_not_make_is_replaced_only_with_overwrite(
    folder: Path, write_shard: WriteShard, tmp_path: Path
) -> None:
    """Even if only its tokens differ: documents cut to one length have the same index."""
    write_shard("out/web/00000", [[1, 2], [3], [4, 9]])
    before = numbered(tmp_path / "out")

    with pytest.raises(ConfigError, match=r"web/00000\.bin: exists already.*--overwrite"):
        merge([folder], tmp_path / "out", target_tokens=5)
    assert numbered(tmp_path / "out") == before
    merge([folder], tmp_path / "out", target_tokens=5, overwrite=True)

    assert numbered(tmp_path / "out")["web/00000"] == [[1, 2], [3], [4, 5]]


@pytest.mark.parametrize("suffix", [".idx", ".bin", ".tokenizer.json"])
def test_a_lone_file_of_a_shards_name_is_not_replaced_by_merge(
    folder: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"out/web/00001{suffix}"
    path.parent.mkdir(parents=True)
    path.write_text("mine")

    with pytest.raises(ConfigError, match=rf"web/00001\{suffix}: exists already"):
        merge([folder], tmp_path / "out", target_tokens=5)
    assert [entry for entry in (tmp_path / "out").rglob("*.*")] == [path]


def test_a_repeated_merge_keeps_finished_shards(folder: Path, tmp_path: Path) -> None:
    merge([folder], tmp_path / "out", target_tokens=5)
    kept, lost = (tmp_path / f"out/web/0000{number}.bin" for number in range(2))
    inode = kept.stat().st_ino
    lost.unlink()
    merge([folder], tmp_path / "out", target_tokens=5)

    assert kept.stat().st_ino == inode
    assert lost.exists()


def test_a_shard_that_contradicts_itself_is_refused(folder: Path, tmp_path: Path) -> None:
    """Copied unchanged, it would move the boundaries of the shards after it."""
    with (folder / "web" / "a.idx").open("r+b") as idx:
        idx.seek(34)
        idx.write(b"\x01")

    with pytest.raises(
        CorruptShardError, match=r"web/a\.idx: sequence 1 starts at byte 4, expected 2"
    ):
        merge([folder / "web" / "a"], tmp_path / "out", target_tokens=5)
    assert list((tmp_path / "out").rglob("*.*")) == []


def test_a_shard_named_twice_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileListError, match="is listed twice"):
        merge([folder, folder / "web" / "a"], tmp_path / "out", target_tokens=5)


def test_the_command_shows_the_merged_shards(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["merge", str(folder), "--output", str(tmp_path / "out"), "--target-tokens", "1e9"]

    assert main(words) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [f"{tmp_path}/out/web/00000", "3", "6", "8"] in rows


# Merges into an empty folder, or with "over" over other shards of the same names, again and again,
# killed before its first change of the folder, then before its second, and so on, until one is not
# killed.
KILLED_AT_EVERY_STEP = """
import os, shutil, signal, sys
from pathlib import Path
from blendtitan.prepare.merge import merge
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.record_files import TokenizerRecord, read_record, record_path
from blendtitan.storage.record_writer import encode_record
from blendtitan.storage.writer import ShardWriter

source, output, overwrite = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "over"
for step in range(1000):
    shutil.rmtree(output, ignore_errors=True)
    if overwrite:
        merge([source], output, target_tokens=1)
        for path in output.glob("web/00002.*"):
            path.unlink()
    child = os.fork()
    if child == 0:
        steps = iter(range(step))
        def hook(event, arguments):
            if event in ("open", "os.rename", "os.remove") and next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        merge([source], output, target_tokens=5, overwrite=overwrite)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    for idx in output.rglob("*.idx"):
        ShardIndex.open(Path(str(idx)[:-4]))
    killed = not os.WIFEXITED(status)
    merge([source], output, target_tokens=5, overwrite=overwrite)
    names = sorted(str(path.relative_to(output)) for path in output.rglob("*.*"))
    assert not [name for name in names if "partial" in name], step
    if not killed:
        assert os.waitstatus_to_exitcode(status) == 0
        break
print(*names)
"""


@pytest.mark.parametrize("output", ["empty", pytest.param("over", marks=pytest.mark.slow)])
def test_a_killed_merge_leaves_whole_shards_and_can_be_repeated(
    folder: Path, tmp_path: Path, output: str
) -> None:
    """Every visible ``.idx`` has a readable shard; partial files are removed."""
    words = [str(folder), str(tmp_path / "out"), output]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EVERY_STEP, *words],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    names = ["code/00000", "web/00000", "web/00001"]
    assert done.stdout.split() == [f"{name}{end}" for name in names for end in (".bin", ".idx")]


@pytest.mark.slow
def test_merging_many_shards_takes_little_memory_and_few_files(tmp_path: Path) -> None:
    """Two thousand shards of 5,000 documents, whose ``.idx`` files have 200 MB together."""
    folder = tmp_path / "tokens"
    folder.mkdir()
    index = b"".join(encode_index(np.ones(5_000, np.int32), dtype=np.dtype("<u2")))
    (tmp_path / "one.idx").write_bytes(index)
    (tmp_path / "one.bin").write_bytes(bytes(10_000))
    for number, suffix in itertools.product(range(2000), (".bin", ".idx")):
        os.link(tmp_path / f"one{suffix}", folder / f"{number:04d}{suffix}")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from blendtitan.prepare.merge import merge\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"merge([Path({str(folder)!r})], Path({str(tmp_path / 'out')!r}), target_tokens=1e9)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )

    assert int(done.stdout) < 100_000, "kilobytes"
    assert ShardIndex.open(tmp_path / "out/tokens/00000").num_documents == 10_000_000


# --- the record of the tokenizer ---------------------------------------------------------------

A = TokenizerIdentity(hash="1:aa", name="a/t.model", kind="sentencepiece", vocab_size=9, eod_id=2)
B = replace(A, hash="1:bb", name="b/t.model")


def write_recorded(prefix: Path, tokenizer: TokenizerIdentity | None) -> None:
    with ShardWriter.create(prefix, dtype=np.dtype("<u2"), tokenizer=tokenizer) as writer:
        writer.add_document(np.array([3, 2]))


def test_a_merged_shard_keeps_the_tokenizer_of_its_sources(tmp_path: Path) -> None:
    write_recorded(tmp_path / "in/web/a", A)
    write_recorded(tmp_path / "in/web/b", A)
    merge([tmp_path / "in"], tmp_path / "out", target_tokens=100)

    assert read_record(tmp_path / "out/web/00000") == TokenizerRecord(A, documents=2, tokens=4)


@pytest.mark.parametrize("other", [B, replace(A, eod_id=0), replace(A, kind="huggingface")])
def test_shards_of_different_tokenizers_are_not_merged(
    tmp_path: Path, other: TokenizerIdentity
) -> None:
    write_recorded(tmp_path / "in/web/a", A)
    write_recorded(tmp_path / "in/web/b", other)

    with pytest.raises(TokenizerMismatchError, match=rf"web/a was made with {re.escape(str(A))}"):
        merge([tmp_path / "in"], tmp_path / "out", target_tokens=100)
    assert not (tmp_path / "out").exists()


def test_a_merged_shard_claims_no_tokenizer_that_a_source_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the record of one source there is none, so a run probes the merged shard."""
    write_recorded(tmp_path / "in/web/a", A)
    write_recorded(tmp_path / "in/web/b", None)
    write_recorded(tmp_path / "in/code/a", A)
    merge([tmp_path / "in"], tmp_path / "out", target_tokens=100)

    assert read_record(tmp_path / "out/web/00000") is None
    assert read_record(tmp_path / "out/code/00000") is not None
    assert "1 of 3 shards have no record of their tokenizer" in caplog.text


def test_a_record_that_describes_another_shard_is_not_merged(tmp_path: Path) -> None:
    """As when another program has replaced our shard."""
    write_recorded(tmp_path / "in/web/a", A)
    record = TokenizerRecord(A, documents=1, tokens=7)
    record_path(tmp_path / "in/web/a").write_bytes(encode_record(record))
    merge([tmp_path / "in"], tmp_path / "out", target_tokens=100)

    assert read_record(tmp_path / "out/web/00000") is None
