from pathlib import Path

import numpy as np
import pytest

from blendtitan.errors import ConfigError, MissingShardError
from blendtitan.prepare.mix import mix, parse_epochs
from blendtitan.storage.file_list import read_file_list
from blendtitan.storage.writer import ShardWriter


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Corpora of 30 (two shards), 50 and 7 tokens; the last lies directly in the folder."""
    folder = tmp_path / "tokens"
    for name, num_tokens in (("code/a", 10), ("code/b", 20), ("web/a", 50), ("alone", 7)):
        with ShardWriter.create(folder / name, dtype=np.dtype("<u2")) as writer:
            writer.add_document(np.ones(num_tokens, dtype=np.int32))
    return folder


def weights(file_list: Path) -> dict[str, float]:
    return {
        f"{entry.corpus}:{entry.prefix.name}": entry.weight for entry in read_file_list(file_list)
    }


def test_a_weight_is_tokens_times_epochs(tokens: Path, tmp_path: Path) -> None:
    """So a pass over the whole blend reads each corpus as often as was asked for."""
    corpora = mix([tokens], tmp_path / "new" / "list.txt", {"code": 2, "web": 0.1})

    assert weights(tmp_path / "new" / "list.txt") == {
        "tokens:alone": 7.0,
        "code:a": 20.0,
        "code:b": 40.0,
        "web:a": 50 * 0.1,
    }
    found = {row.corpus: (row.num_shards, row.num_tokens, row.weight) for row in corpora}
    assert found == {"tokens": (1, 7, 7), "code": (2, 30, 60), "web": (1, 50, 50 * 0.1)}


def test_file_lists_keep_their_corpora_and_not_their_weights(tokens: Path, tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("900 tokens/code/a mine\n100 tokens/code/b yours\n")

    mix([tmp_path / "old.txt", tokens / "web" / "a"], tmp_path / "list.txt", {"yours": 3})

    assert weights(tmp_path / "list.txt") == {"mine:a": 10.0, "yours:b": 60.0, "a:a": 50.0}


def test_weights_are_written_exactly(tokens: Path, tmp_path: Path) -> None:
    mix([tokens], tmp_path / "list.txt", {"web": 1 / 3})

    assert weights(tmp_path / "list.txt")["web:a"] == 50 * (1 / 3)


def test_an_unknown_corpus_is_an_error_that_names_the_nearest(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no corpus 'cod'. Did you mean 'code'\?"):
        mix([tokens], tmp_path / "list.txt", {"cod": 2})
    with pytest.raises(ConfigError, match=r"no corpus 'xyz'. Known are code, tokens, web"):
        mix([tokens], tmp_path / "list.txt", {"xyz": 2})


@pytest.mark.parametrize("epochs", [0.0, -1.0, float("inf"), float("nan")])
def test_epochs_are_finite_and_above_0(tokens: Path, tmp_path: Path, epochs: float) -> None:
    with pytest.raises(ConfigError, match="expected a finite number above 0"):
        mix([tokens], tmp_path / "list.txt", {"code": epochs})


def test_a_shard_named_twice_is_an_error(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the same shard as"):
        mix([tokens, tokens / "code" / "a"], tmp_path / "list.txt", {})


def test_a_shard_that_cannot_be_opened_is_an_error(tokens: Path, tmp_path: Path) -> None:
    (tokens / "code" / "a.bin").unlink()

    with pytest.raises(MissingShardError, match=r"a\.bin"):
        mix([tokens], tmp_path / "list.txt", {})


def test_epochs_are_parsed_from_words() -> None:
    assert parse_epochs(["code=2", "a=b=0.5"]) == {"code": 2.0, "a=b": 0.5}


@pytest.mark.parametrize("word", ["code", "code=", "=2", "code=two", "code=nan"])
def test_a_word_of_another_form_is_an_error(word: str) -> None:
    with pytest.raises(ConfigError, match="expected CORPUS=NUMBER"):
        parse_epochs([word])


def test_a_corpus_named_twice_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'code' is named twice"):
        parse_epochs(["code=1", "code=2"])
