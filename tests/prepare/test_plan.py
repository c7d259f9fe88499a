from pathlib import Path

import pytest

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.plan import plan_jobs

OUTPUT = Path("out")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("web/b/1.jsonl.zst", "web/a.v2.json", "code/a.jsonl.gz", "top.gz", "readme.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def prefixes(*inputs: Path, corpus: str | None = None) -> list[str]:
    return [str(job.prefix) for job in plan_jobs(inputs, OUTPUT, corpus=corpus)]


def test_files_below_a_folder_keep_their_relative_path(folder: Path) -> None:
    """So first-level subfolders are corpora, in the text as in the tokens."""
    assert prefixes(folder) == ["out/code/a", "out/top", "out/web/a.v2", "out/web/b/1"]


def test_a_file_named_by_itself_goes_directly_to_the_output(folder: Path) -> None:
    assert prefixes(folder / "web/b/1.jsonl.zst") == ["out/1"]


def test_a_corpus_puts_everything_into_a_subfolder(folder: Path) -> None:
    found = prefixes(folder / "code/a.jsonl.gz", folder / "web", corpus="mine")

    assert found == ["out/mine/a", "out/mine/a.v2", "out/mine/b/1"]


@pytest.mark.parametrize("corpus", ["", ".", "..", "a/b", "/a"])
def test_a_corpus_is_one_folder_name(folder: Path, corpus: str) -> None:
    with pytest.raises(ConfigError, match="expected the name of one folder"):
        prefixes(folder, corpus=corpus)


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
    ],
)
def test_an_input_that_gives_no_files_is_an_error(folder: Path, name: str, message: str) -> None:
    (folder / "empty").mkdir()

    with pytest.raises(InputError, match=message):
        prefixes(folder / name)
