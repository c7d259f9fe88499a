"""After any edit of ``data.toml``, a run reads exactly the text that it names."""

import logging
from pathlib import Path

import pytest

from blendtitan import cli
from blendtitan.prepare.demo import train_tokenizer
from blendtitan.start.folder import init_folder
from blendtitan.storage.file_list import read_file_list

TEXTS = [f"Document {n}. " + " ".join(f"word{n * k % 97}" for k in range(60)) for n in range(99)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A prepared run with the corpora b (1, 2, 3) and c (4, 5), which are two folders of text."""
    for name in ("A/b/1", "A/b/2", "A/b/3", "A/c/4", "A/c/5", "D/77", "D/1"):
        path = tmp_path / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"The text of {name}.")
    tokenizer = tmp_path / "tokenizer.model"
    tokenizer.write_bytes(train_tokenizer(TEXTS, vocab_size=300))
    folder = tmp_path / "run"
    init_folder(folder, [f"{tmp_path}/A"], tokenizer, template="debug")
    assert prepare(folder) == 0
    return folder


def prepare(run: Path, *more: str) -> int:
    return cli.main(["prepare", str(run), "--workers", "1", *more])


def edit(run: Path, **paths: str) -> None:
    """Set the paths of corpora; all others are dropped."""
    head = (run / "data.toml").read_text().partition("[corpora]")[0]
    lines = [f'{name} = "{run.parent}/{path}"\n' for name, path in paths.items()]
    (run / "data.toml").write_text(f"{head}[corpora]\n{''.join(lines)}")


def listed(run: Path) -> list[str]:
    prefixes = [entry.prefix for entry in read_file_list(run / "file_list.txt")]
    return sorted(str(prefix.relative_to(run / "tokens")) for prefix in prefixes)


@pytest.mark.parametrize(
    ("paths", "expected", "left"),
    [
        ({"b": "D/77.txt", "c": "A/c"}, ["b/77", "c/4", "c/5"], "3 shards of the corpus b"),
        ({"b": "A/b/2.txt", "c": "A/c"}, ["b/2", "c/4", "c/5"], "2 shards of the corpus b"),
        ({"b": "A/b/[12].txt", "c": "A/c"}, ["b/1", "b/2", "c/4", "c/5"], "1 shard of the"),
        ({"c": "A/b"}, ["c/1", "c/2", "c/3"], "2 shards of the corpus c"),
        ({"c": "A/b", "b": "A/c"}, ["b/4", "b/5", "c/1", "c/2", "c/3"], "3 shards of the corpus b"),
        ({"b": "A/b"}, ["b/1", "b/2", "b/3"], "left out of the run (not named in data.toml): c"),
    ],
    ids=["other folder", "one file", "narrowed", "renamed to another", "swapped", "dropped"],
)
def test_after_a_change_of_the_paths_old_shards_are_left_out_and_pruned(
    run: Path,
    paths: dict[str, str],
    expected: list[str],
    left: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    edit(run, **paths)

    assert prepare(run) == 0
    assert listed(run) == expected
    assert left in caplog.text
    assert prepare(run, "--prune") == 0
    assert listed(run) == expected
    made = [path.relative_to(run / "tokens") for path in (run / "tokens").rglob("*.bin")]
    assert sorted(str(path.with_suffix("")) for path in made) == expected
    catalog = (run / "tokens/shards.catalog").read_bytes()
    assert not any(f'"{name}"'.encode() in catalog for name in {"b/3", "c/4"} - {*expected})


def test_a_dropped_corpus_is_reported_with_the_option_that_deletes_its_shards(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    edit(run, b="A/b")

    assert prepare(run) == 0
    assert "data.toml): c. To delete their shards, run with --prune." in caplog.text


def test_a_renamed_file_is_read_once_and_reported_once(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its shard is that of a removed file, not of a file that is no longer named."""
    (run.parent / "A/b/3.txt").rename(run.parent / "A/b/three.txt")

    assert prepare(run) == 0
    assert caplog.text.count(f"{run}/tokens/b/3 ") == 1
    assert "b/3.txt: was removed, but its shard" in caplog.text
    assert "with 1 document still exists, and is left out of the run. Delete it" in caplog.text
    assert "not named" not in caplog.text
    assert listed(run) == ["b/1", "b/2", "b/three", "c/4", "c/5"]


def test_another_file_of_the_same_name_needs_overwrite_and_then_replaces_the_corpus(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(run, b="D", c="A/c")

    assert prepare(run) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert prepare(run, "--overwrite") == 0
    assert listed(run) == ["b/1", "b/77", "c/4", "c/5"]


def test_pruning_keeps_the_shards_of_a_corpus_with_0_epochs(run: Path) -> None:
    data = run / "data.toml"
    data.write_text(data.read_text().replace("c = 1.0", "c = 0"))

    assert prepare(run, "--prune") == 0
    assert listed(run) == ["b/1", "b/2", "b/3"]
    assert (run / "tokens/c/4.bin").exists()


def test_pruning_reports_no_shard_of_text_without_documents(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It never had one."""
    caplog.set_level(logging.INFO)
    (run.parent / "A/b/empty.txt").touch()
    assert prepare(run) == 0
    (run.parent / "A/b/empty.txt").unlink()

    assert prepare(run, "--prune") == 0
    assert "deleted" not in caplog.text


def test_an_output_of_tokenize_may_be_filled_by_several_commands(run: Path) -> None:
    """Unlike the folder of a run, whose content ``data.toml`` names."""
    output = run.parent / "shards"
    for name in ("A/b/1.txt", "A/b/2.txt"):
        words = ("--tokenizer", f"{run.parent}/tokenizer.model", "--workers", "1", "--prune")
        assert cli.main(["tokenize", f"{run.parent}/{name}", "--output", str(output), *words]) == 0

    assert sorted(path.stem for path in output.glob("*.bin")) == ["1", "2"]
