from pathlib import Path

import numpy as np
import pytest

from blendtitan.cli import main
from blendtitan.errors import ConfigError, MissingShardError
from blendtitan.prepare.mix import MixConfig, mix
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
    """A pass over the whole blend therefore reads each corpus for the requested epochs."""
    corpora = mix(
        [tokens], tmp_path / "new" / "list.txt", MixConfig(epochs={"code": 2, "web": 0.1})
    )

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

    mix(
        [tmp_path / "old.txt", tokens / "web" / "a"],
        tmp_path / "list.txt",
        MixConfig(epochs={"yours": 3}),
    )

    assert weights(tmp_path / "list.txt") == {"mine:a": 10.0, "yours:b": 60.0, "a:a": 50.0}


def test_weights_are_written_without_the_errors_of_binary_fractions(
    tokens: Path, tmp_path: Path
) -> None:
    """As floats, 50 times 1.1 is 55.00000000000001."""
    mix([tokens], tmp_path / "list.txt", MixConfig(epochs={"web": 1.1, "code": 1 / 3}))

    assert "\n55.0 tokens/web/a" in (tmp_path / "list.txt").read_text()
    assert weights(tmp_path / "list.txt")["code:a"] == pytest.approx(10 / 3, rel=1e-14)


def test_a_shard_named_twice_is_an_error(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is listed twice"):
        mix([tokens, tokens / "code" / "a"], tmp_path / "list.txt", MixConfig())


def test_a_shard_that_cannot_be_opened_is_an_error(tokens: Path, tmp_path: Path) -> None:
    (tokens / "code" / "a.bin").unlink()

    with pytest.raises(MissingShardError, match=r"a\.bin"):
        mix([tokens], tmp_path / "list.txt", MixConfig())


def test_shards_divide_the_share_of_their_corpus_by_their_tokens(
    tokens: Path, tmp_path: Path
) -> None:
    mix([tokens], tmp_path / "list.txt", MixConfig(shares={"code": 0.6}))
    found = weights(tmp_path / "list.txt")

    assert found["code:b"] == 2 * found["code:a"]
    assert found["code:a"] + found["code:b"] == pytest.approx(0.6 * sum(found.values()))
    assert sum(found.values()) == pytest.approx(87)


def test_a_corpus_that_is_read_too_often_is_an_error(tokens: Path, tmp_path: Path) -> None:
    """A pass reads code 5 times; with a share of 0.6, all 87 tokens read it 1.74 times."""
    epochs, share = {"code": 5.0}, {"code": 0.6}

    with pytest.raises(ConfigError, match=r"in one pass .* more than 4 times: code 5\."):
        mix([tokens], tmp_path / "list.txt", MixConfig(epochs=epochs))
    with pytest.raises(
        ConfigError, match=r"in 1,000 tokens, .*: tokens 7\.02, code 20, web 7\.02\."
    ):
        mix([tokens], tmp_path / "list.txt", MixConfig(shares=share, horizon_tokens=1000))
    assert not (tmp_path / "list.txt").exists()

    for config in (
        MixConfig(epochs=epochs, max_epochs=5),
        MixConfig(epochs=epochs, max_epochs=0),
        MixConfig(epochs=epochs, horizon_tokens=100),
        MixConfig(shares=share, horizon_tokens=1000, max_epochs=20),
    ):
        mix([tokens], tmp_path / "list.txt", config)


def test_a_horizon_does_not_change_the_weights(tokens: Path, tmp_path: Path) -> None:
    """Only shares affect the order, and a longer run continues with the same list."""
    mix([tokens], tmp_path / "a.txt", MixConfig(epochs={"code": 2}))
    mix([tokens], tmp_path / "b.txt", MixConfig(epochs={"code": 2}, horizon_tokens=50))

    assert weights(tmp_path / "a.txt") == weights(tmp_path / "b.txt")


def test_the_command_shows_the_epochs_of_the_file_and_those_at_the_horizon(
    tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(
        [
            *("mix", str(tokens), "--output", str(tmp_path / "list.txt"), "--shares", "code=0.5"),
            *("--temperature", "1", "--horizon-steps", "3"),
            *("--global-batch-size", "2", "--seq-length", "20"),
        ]
    )
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]

    assert status == 0
    assert ["code", "2", "30", "1.45", "2", "60", "50.00%"] in rows
    assert ["total", "4", "87", "120", "100.00%"] in rows
    assert "code 1.45" in (tmp_path / "list.txt").read_text()
