"""Shards, file lists and folders given as URLs: every command reads them as it reads local ones."""

import json
from pathlib import Path

import pytest

from blendtitan import remote
from blendtitan.cli import COMMANDS, main
from blendtitan.errors import ConfigError
from blendtitan.start.check import check_run
from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.record_writer import write_folder_catalog
from blendtitan.storage.records import CATALOG_FILE, CatalogEntry
from tests.object_store import BUCKET, ObjectStore
from tests.runs.conftest import WriteRun
from tests.runs.test_find import record_sources

pytest.importorskip("duckdb")

RUN = {"web": (0.7, [90, 50]), "code": (0.3, [70])}


@pytest.fixture
def here(write_run: WriteRun, tmp_path: Path) -> Path:
    """The folder of a run, with the shards and the file list of two corpora."""
    write_run(RUN, training={"steps": 4})
    for prefix in find_shards(tmp_path):
        record_sources(prefix)
    return tmp_path


@pytest.fixture
def there(here: Path, store: ObjectStore) -> str:
    """The URL of a copy of that folder."""
    store.upload(here, "data/")
    return f"{BUCKET}/data"


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    capsys.readouterr()
    assert main([*map(str, words)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("place", ["web/web_0", "web_code.txt", "web", ""])
@pytest.mark.parametrize(
    "words",
    [("stats",), ("verify", "--no-record"), ("find", "--where", "url LIKE '%a.org%'")],
    ids=lambda words: words[0],
)
def test_a_shard_a_list_and_a_folder_may_be_urls(
    here: Path, there: str, place: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(capsys, *words, f"{there}/{place}", "--json").replace(there, str(here))
    expected = printed(capsys, *words, here / place, "--json")
    # A folder is the corpus of shards directly in it.
    assert json.loads(found.replace('"data"', f'"{here.name}"')) == json.loads(expected)


def test_mix_lists_urls(there: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "mix", there, "--output", tmp_path / "mixed.txt")

    assert (tmp_path / "mixed.txt").read_text().splitlines()[-3:] == [
        f"70.0 {there}/code/code_0 code",
        f"90.0 {there}/web/web_0 web",
        f"50.0 {there}/web/web_1 web",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "run.toml", "--json"),
        ("explain", "run.toml", "--step", "1", "--json"),
        ("explain", "run.toml", "--document", "web/web_0:3", "--json"),
        ("find", "--run", "run.toml", "--where", "document = 3", "--json"),
        ("removed", "run.toml", "--list", "removed.txt", "--json"),
    ],
    ids=lambda words: words[0],
)
def test_a_run_that_reads_object_storage_is_inspected_as_any(
    here: Path,
    there: str,
    store: ObjectStore,
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Explained documents have their sources."""
    monkeypatch.chdir(here)
    Path("removed.txt").write_text("web/web_0 3\n")
    expected = printed(capsys, *words)
    config = Path("run.toml").read_text()
    Path("run.toml").write_text(config.replace(f"{here}/web_code", f"{there}/web_code"))
    found = printed(capsys, *words)

    assert store.requests
    assert json.loads(found.replace(there, str(here))) == json.loads(expected)
    assert words[0] != "explain" or "a.org" in found or "--document" in words


def test_verify_finds_damage_and_missing_shards_in_object_storage(
    here: Path, there: str, store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = CatalogEntry(1, 1, "uint16", "0" * 32, ((2, "0" * 32),))
    write_folder_catalog(here, {"web/web_0": entry, "web/web_9": entry})
    store.put(f"data/{CATALOG_FILE}", (here / CATALOG_FILE).read_bytes())

    assert main(["verify", there]) == 1
    error = capsys.readouterr().err
    assert f"{there}/web/web_0.idx: the checksum is" in error
    assert f"{there}/web/web_9.idx: cannot be opened" in error
    assert "2 of 4 shards are bad" in error


def test_faults_that_pass_are_survived(
    there: str, store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.faults = ["503", "reset", "truncated"] * 3
    printed(capsys, "verify", f"{there}/web")

    assert store.faults == []


def test_missing_credentials_are_one_error(
    there: str, store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.refuses = lambda method, path: True
    remote.forget()

    assert main(["stats", there]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert there in error
    assert "Check the credentials and the permissions" in error


OUTPUTS = {
    "init": "{url} --data text --tokenizer t.model",
    "prepare": "{url}",
    "train": "{url}",
    "tokenize": "text --output ftp://host/folder --tokenizer t.model",
    "stats": "ftp://host/file",
    "verify": "ftp://host/file",
    "repair": "{url} --eod-id 2",
    "merge": "web --output {url} --target-tokens 9",
    "index": "web --output {url} --eod-id 2",
    "convert": "web --output {url}",
    "mix": "web --output {url}",
    "plan": "run.toml --picture {url}",
    "explain": "{url}",
    "find": "web --where 1 --output {url}",
    "report": "run.toml --output {url}",
    "removed": "{url}",
    "audit": "{url}",
    "sweep": "{url} --config run.toml",
    "rescue": "0-4 --config run.toml --checkpoint web --output {url}",
    "export": "web --hf {url}",
    "demo": "--output {url}",
}


def test_every_command_is_tried() -> None:
    assert OUTPUTS.keys() == COMMANDS.keys()


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_url_never_becomes_a_folder_of_its_name(
    here: Path,
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(here)
    words = OUTPUTS[command].format(url="s3://bucket/out").split()
    try:
        status = main([command, *words])
    except SystemExit as error:
        status = error.code

    assert status in (1, 2)
    assert "which is a URL, expected a local path" in capsys.readouterr().err
    assert not [path for path in here.rglob("*") if path.name.endswith(":")]


def test_merge_reads_local_files_only(
    here: Path, there: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "urls.txt").write_text(f"1 {there}/web/web_0 web\n")
    words = ["merge", f"{here}/urls.txt", "--output", f"{here}/merged", "--target-tokens", "99"]

    assert main(words) == 1
    assert f"{there}/web/web_0, which is a URL, expected a local" in capsys.readouterr().err


def test_a_validation_set_may_be_a_url_and_is_not_trained_on(
    here: Path, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    held_out = (
        f"\n[validation]\nenable = true\n[[validation.set]]\nname = 'x'\npath = '{there}/code'\n"
    )
    Path("run.toml").write_text(Path("run.toml").read_text() + held_out)

    with pytest.raises(
        ConfigError, match=f"shard {there}/code/code_0 holds the documents of {here}"
    ):
        check_run(Path("run.toml"))


def test_a_run_folder_whose_list_is_a_url_needs_no_preparing(
    here: Path, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    config = Path("run.toml").read_text()
    config = config.replace(f"{here}/web_code", f"{there}/web_code")
    Path("run.toml").write_text(config)
    Path("data.toml").write_text("")

    assert check_run(Path("run.toml")) == ""


def test_init_finds_a_folder_of_shards_in_object_storage(
    here: Path, there: str, monkeypatch: pytest.MonkeyPatch, word_tokenizer: Path
) -> None:
    monkeypatch.chdir(here)
    assert main(["init", "run", "--data", there, "--tokenizer", str(word_tokenizer)]) == 0
    assert main(["prepare", "run"]) == 0

    assert f"{there}/web/web_1 web" in Path("run/file_list.txt").read_text()
