"""Tokenizers at URLs: downloaded once, and equal to local ones in every record."""

from pathlib import Path

import pytest

from blendtitan import remote
from blendtitan.cli import main
from blendtitan.errors import ConfigError
from blendtitan.tokenizers import build_tokenizer, identity_of, load_tokenizer, tokenizer_identity
from tests.conftest import EOD
from tests.object_store import BUCKET, ObjectStore, serving


@pytest.fixture
def there(
    word_tokenizer: Path, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URL of the folder of ``word_tokenizer``, beside other files of a model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store.put("words/modeling.py", b"raise SystemExit")
    store.put("words/model.safetensors", bytes(1 << 20))
    store.upload(word_tokenizer, "words/")
    return f"{BUCKET}/words"


@pytest.mark.parametrize("name", ["", "/tokenizer.json"])
def test_a_url_gives_the_tokenizer_of_the_local_files(
    there: str, name: str, word_tokenizer: Path
) -> None:
    """Shards made with either may be in one output, and are compared as equal."""
    found, expected = load_tokenizer(f"{there}{name}"), load_tokenizer(word_tokenizer)

    assert tokenizer_identity(found) == tokenizer_identity(expected)
    one, other = identity_of(found, EOD), identity_of(expected, EOD)
    assert one.is_same(other)
    assert one.name == "words/tokenizer.json"
    assert found.path.is_file()


def test_a_run_may_name_a_url(there: str) -> None:
    model = {"tokenizer_path": None, "hf_assets_path": there}

    assert build_tokenizer({"model": model}).eos_id == EOD


def test_a_web_server_is_asked_for_each_name(there: str, word_tokenizer: Path) -> None:
    with serving(word_tokenizer.parent, "") as url:
        for name in (word_tokenizer.name, f"{word_tokenizer.name}/tokenizer.json"):
            assert load_tokenizer(f"{url}/{name}").eos_id == EOD


def test_it_is_downloaded_once_and_nothing_else_is(
    there: str, store: ObjectStore, tmp_path: Path
) -> None:
    load_tokenizer(there)
    read = {each.path for each in store.requests if each.method == "GET"}
    store.requests.clear()
    remote.forget()
    load_tokenizer(there)

    assert read == {"/bucket/words/tokenizer.json", "/bucket/words/tokenizer_config.json"}
    assert {each.method for each in store.requests} == {"HEAD"}
    copied = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert copied == {"tokenizer.json", "tokenizer_config.json"}


def test_another_version_is_another_tokenizer(there: str, store: ObjectStore) -> None:
    assert load_tokenizer(there).eos_id == EOD
    store.put("words/tokenizer_config.json", b'{"eos_token": "w7"}')
    remote.forget()

    assert load_tokenizer(there).eos_id == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("words/other.json", "there is no other.json"),
        ("elsewhere", "there is no tokenizer.json or tekken.json or tokenizer.model"),
    ],
)
def test_a_missing_tokenizer_is_one_error(there: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"{BUCKET}/{name}: cannot be read \({message}\)\. Name"):
        load_tokenizer(f"{BUCKET}/{name}")


def test_missing_credentials_are_one_error(there: str, store: ObjectStore) -> None:
    store.refuses = lambda method, path: True

    with pytest.raises(ConfigError, match="Check the credentials and the permissions"):
        load_tokenizer(there)


def test_a_cache_that_cannot_be_written_is_an_error(there: str, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()

    with pytest.raises(ConfigError, match="Set XDG_CACHE_HOME to a folder that can be written"):
        load_tokenizer(there)


def test_tokenize_and_init_take_a_url(
    there: str, word_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("web.jsonl").write_text('{"text": "w5"}\n' * 99)
    for place, output in ((there, "one"), (str(word_tokenizer), "two")):
        words = ["--output", output, "--tokenizer", place, "--workers", "1"]
        assert main(["tokenize", "web.jsonl", *words]) == 0
    assert main(["init", "run", "--data", "web.jsonl", "--tokenizer", there]) == 0
    assert main(["prepare", "run", "--workers", "1"]) == 0

    made = Path("two/web.bin").read_bytes()
    assert Path("one/web.bin").read_bytes() == Path("run/tokens/web/web.bin").read_bytes() == made
    assert Path("one/web.idx").read_bytes() == Path("two/web.idx").read_bytes()
    assert f'tokenizer_path = "{there}"' in Path("run/config.toml").read_text()
    assert main(["plan", "run", "--training.global_batch_size", "2"]) == 0
    assert main(["verify", "one", "two", "--tokenizer", there]) == 0
