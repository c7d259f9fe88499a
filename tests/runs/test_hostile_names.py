"""Names of corpora and files, and texts, that are markup or control a terminal: all are shown."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from blendtitan import build_datasets
from blendtitan.cli import main
from blendtitan.corpus_progress import corpus_table
from blendtitan.runs.open import read_run
from blendtitan.tables import Table, show
from tests.conftest import WriteShard
from tests.runs.conftest import WriteRun
from tests.test_visible import HOSTILE, is_safe

NAMES = [name for name in HOSTILE if name not in ("\udcff", "over\rwritten")]
"""Names that a line of a file list, which is UTF-8 text, can hold."""

MARKUP = ["[/x]", "[web]", "[bold red]x"]

Capture = pytest.CaptureFixture[str]


def file_list(run: Path) -> Path:
    """The file list of a run."""
    return Path(read_run(run).blend.data_file_list)


@pytest.fixture
def hostile_run(write_run: WriteRun, write_shard: WriteShard, tmp_path: Path) -> Path:
    """A run whose corpora have hostile names."""
    path = write_run({"plain": (1.0, [300, 200])})
    shards = [write_shard(f"shard-{i}", [[5, 6, 7, 2]] * 90) for i in range(len(NAMES))]
    lines = [f'1 {shard} "{name}"' for shard, name in zip(shards, NAMES, strict=True)]
    file_list(path).write_text("\n".join(lines))
    return path


COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "stats": lambda run, files: ["stats", str(files)],
    "plan": lambda run, files: ["plan", str(run)],
    "explain": lambda run, files: ["explain", str(run), "--step", "1"],
    "explain history": lambda run, files: ["explain", str(run)],
    "explain around": lambda run, files: ["explain", str(run), "--around", "5"],
    "sweep": lambda run, files: [
        *("sweep", str(run.parent / "sweep"), "--config", str(run)),
        *("--method", "dirichlet", "--runs", "2"),
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_shows_every_corpus_and_nothing_else(
    hostile_run: Path, capsys: Capture, command: str
) -> None:
    files = file_list(hostile_run)
    text = hostile_run.read_text() + "\n[metrics]\nenable_tensorboard = true\n"
    hostile_run.write_text(text)

    status = main(COMMANDS[command](hostile_run, files))
    shown = capsys.readouterr()

    assert status == 0, shown.err
    assert is_safe(shown.out + shown.err)
    assert all(HOSTILE[name] in shown.out for name in NAMES)


def test_mix_shows_corpora_whose_names_are_markup(
    write_shard: WriteShard, tmp_path: Path, capsys: Capture
) -> None:
    """Names with control characters cannot be written to a list, which it says."""
    lines = [f'1 {write_shard(f"shard-{i}", [[5, 2]])} "{name}"' for i, name in enumerate(MARKUP)]
    (tmp_path / "list").write_text("\n".join(lines))

    assert main(["mix", str(tmp_path / "list"), "--output", str(tmp_path / "mixed")]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in MARKUP)


def test_the_table_that_training_logs_has_every_corpus(hostile_run: Path) -> None:
    """A corpus named [/x] once ended training at its start."""
    dataset = build_datasets(read_run(hostile_run).blend).train
    assert dataset is not None
    table = corpus_table(dataset, 1000)

    assert is_safe(table)
    assert all(HOSTILE[name] in table for name in NAMES)


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "\udcff", "[web]"])
def test_folders_and_files_with_hostile_names_are_shown(
    write_shard: WriteShard, tmp_path: Path, capsys: Capture, name: str
) -> None:
    """Folders give their names to corpora; a name may hold bytes that are not UTF-8."""
    folder = tmp_path / "shards" / name
    folder.mkdir(parents=True)
    write_shard(f"shards/{name}/0", [[5, 6, 2]])

    main(["stats", str(tmp_path / "shards")])
    main(["verify", str(tmp_path / "shards")])
    assert main(["stats", str(folder / "absent")]) == 1
    shown = capsys.readouterr()
    assert is_safe(shown.out + shown.err)
    assert (HOSTILE | {"two\nlines": r"two\nlines"})[name] in shown.out + shown.err
    assert "absent: there is no such file" in shown.err


def test_json_is_data_and_holds_the_names_themselves(hostile_run: Path, capsys: Capture) -> None:
    """Control characters are escaped as in JSON."""
    files = file_list(hostile_run)
    assert main(["stats", str(files), "--json"]) == 0
    shown = capsys.readouterr().out

    assert is_safe(shown)
    assert set(json.loads(shown)["corpora"]) == set(NAMES)


def test_wrong_arguments_are_shown(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["stats", "data", "--\x1b[31m"])

    assert is_safe(capsys.readouterr().err)


def test_headings_and_cells_of_tables_are_not_markup(capsys: Capture) -> None:
    """A heading is the name of a corpus where ``explain`` counts samples of each."""
    table = Table(("[/a]", "[b]"))
    table.add_row(":smile:", "[link=http://x]c")
    show(table)

    assert capsys.readouterr().out.split() == ["[/a]", "[b]", ":smile:", "[link=http://x]c"]
