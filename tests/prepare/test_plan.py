from pathlib import Path

import pytest

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.input_file import InputFile
from blendtitan.prepare.plan import Shard, plan_jobs, plan_shards, text_per_worker

OUTPUT = Path("out")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("web/b/1.jsonl.zst", "web/a.v2.json", "code/a.jsonl.gz", "top.gz", "readme.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def prefixes(
    *inputs: Path, keys: tuple[str, ...] = ("text",), corpus: str | None = None
) -> list[str]:
    shards = plan_shards(inputs, OUTPUT, keys=keys, corpus=corpus)
    return [str(shard.prefix) for shard in shards]


def test_files_below_a_folder_keep_their_relative_path(folder: Path) -> None:
    """First-level subfolders are therefore corpora, in the text and in the tokens."""
    assert prefixes(folder) == ["out/code/a", "out/top", "out/web/a.v2", "out/web/b/1"]


def test_a_file_named_by_itself_goes_directly_to_the_output(folder: Path) -> None:
    assert prefixes(folder / "web/b/1.jsonl.zst") == ["out/1"]


def test_a_corpus_puts_everything_into_a_subfolder(folder: Path) -> None:
    found = prefixes(folder / "code/a.jsonl.gz", folder / "web", corpus="mine")

    assert found == ["out/mine/a", "out/mine/a.v2", "out/mine/b/1"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*/a.*", ["out/code/a", "out/web/a.v2"]),
        ("web/**/*.zst", ["out/b/1"]),
        ("[ct]o*/*", ["out/code/a"]),
    ],
)
def test_a_pattern_keeps_the_path_below_its_fixed_part(
    folder: Path, pattern: str, found: list[str]
) -> None:
    """A wildcard in place of a corpus therefore gives corpora."""
    assert prefixes(folder / pattern) == found


def test_the_text_of_each_worker_is_estimated_from_compressed_sizes_too(tmp_path: Path) -> None:
    """A run uses it to decide whether a proof of the fast tokenizer tier pays off."""
    for name in ("a.jsonl", "b.jsonl.gz"):
        (tmp_path / name).write_bytes(bytes(600))
    jobs = {
        shard: plan_jobs(shard, 1000)
        for shard in plan_shards([tmp_path], tmp_path / "out", keys=["text"])
    }

    assert text_per_worker(jobs, 2) == (600 + 3 * 600) // 2


def test_several_keys_have_a_folder_each(folder: Path) -> None:
    found = prefixes(folder / "code", keys=("text", "title"), corpus="mine")

    assert found == ["out/text/mine/a", "out/title/mine/a"]


def test_a_corpus_may_have_a_key_of_its_own(folder: Path) -> None:
    """Corpora of different origin name their texts differently."""
    shards = plan_shards([folder], OUTPUT, keys=["web=content", "body"])

    assert [shard.key for shard in shards] == ["body", "body", "content", "content"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("wbe=content",), "the keys name the corpora wbe, expected only code, out, web"),
        (("web=content", "text", "title"), "expected at most one without a corpus"),
        (("web=a", "b", "web=c"), "the keys of the corpus web are a and c, expected one"),
        (("b\udcff",), "is a key or corpus, expected a name in UTF-8"),
    ],
)
def test_a_key_of_a_missing_corpus_is_an_error(
    folder: Path, keys: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prefixes(folder, keys=keys)


@pytest.mark.parametrize("keys", [(), ("text", "text"), ("text", "a/b")])
def test_keys_differ_and_several_are_folder_names(folder: Path, keys: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"expected different names|valid folder name"):
        prefixes(folder, keys=keys)


def test_outputs_of_the_command_are_not_inputs(folder: Path) -> None:
    """The output may be in the folder of the inputs."""
    (folder / "web/.blendtitan").mkdir()
    (folder / "web/.blendtitan/a.jsonl").touch()
    (folder / "web/a.rejects.jsonl").touch()

    assert prefixes(folder / "web") == ["out/a.v2", "out/b/1"]


@pytest.mark.parametrize("corpus", ["", ".", "..", "a/b", "/a"])
def test_a_corpus_is_one_folder_name(folder: Path, corpus: str) -> None:
    with pytest.raises(ConfigError, match="expected a valid folder name"):
        prefixes(folder, corpus=corpus)


@pytest.mark.parametrize(
    ("name", "num_bytes", "ranges"),
    [
        ("a.jsonl", 25, [(0, 8), (8, 16), (16, 25)]),
        ("a.jsonl", 10, [(0, 10)]),
        ("a.jsonl", 0, [(0, 0)]),
        ("a.jsonl.gz", 25, [(0, 25)]),
        ("a.zst", 25, [(0, 25)]),
    ],
)
def test_plain_files_are_cut_into_equal_jobs(
    tmp_path: Path, name: str, num_bytes: int, ranges: list[tuple[int, int]]
) -> None:
    """One huge file is work for every core; a compressed stream is read from its beginning."""
    shard = Shard(InputFile(str(tmp_path / name), num_bytes, 0), "text", tmp_path, tmp_path)

    assert [(job.start, job.stop) for job in plan_jobs(shard, 10)] == ranges


@pytest.mark.parametrize("second", ["other/a.jsonl", "code/a.json", "code/a.jsonl.gz"])
def test_two_files_cannot_become_the_same_shard(folder: Path, second: str) -> None:
    path = folder / second
    path.parent.mkdir(exist_ok=True)
    path.touch()

    with pytest.raises(ConfigError, match=r"would both become the shard out/a\b"):
        prefixes(folder / "code/a.jsonl.gz", path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "there is no such file or folder"),
        ("readme.md", r"expected a folder, or a file named \*\.jsonl"),
        ("empty", "holds no file named"),
        ("*.txt", "matches no file named"),
    ],
)
def test_an_input_that_gives_no_files_is_an_error(folder: Path, name: str, message: str) -> None:
    (folder / "empty").mkdir()

    with pytest.raises(InputError, match=message):
        prefixes(folder / name)
