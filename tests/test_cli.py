import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blendtitan.cli import COMMANDS, main, parsed
from blendtitan.prepare.demo import train_tokenizer
from tests.conftest import WriteBlend

SLOW_TO_IMPORT = ("torch", "torchtitan", "transformers", "sentencepiece", "rich")


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    """Two corpora of one file each, and a tokenizer beside them."""
    lines = Path(json.__file__).read_text(encoding="utf-8").splitlines()
    (tmp_path / "tokenizer.model").write_bytes(train_tokenizer(lines, vocab_size=600))
    for corpus, texts in (("code", ["x = 1", "y = 2"]), ("web", ["hello"])):
        (tmp_path / "text" / corpus).mkdir(parents=True)
        file = tmp_path / "text" / corpus / "a.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return tmp_path


def tokenized(folder: Path, *more: str) -> int:
    return main(
        [
            *("tokenize", f"{folder}/text", "--output", f"{folder}/tokens"),
            *("--tokenizer", f"{folder}/tokenizer.model", "--workers", "1", *more),
        ]
    )


def rows(table: str) -> dict[str, list[str]]:
    return {words[0]: words[1:] for line in table.splitlines() if (words := line.split())}


def test_text_becomes_shards_and_shards_a_file_list(
    text_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tokenized(text_folder) == 0
    counts = rows(capsys.readouterr().out)
    mixed = main(
        [
            *("mix", f"{text_folder}/tokens", "--output", f"{text_folder}/list.txt"),
            *("--epochs", "code=2", "web=0.5", "--epochs", "web2=1"),
        ]
    )
    unknown = capsys.readouterr().err
    assert main(["mix", f"{text_folder}/tokens", "--output", f"{text_folder}/list.txt"]) == 0

    assert mixed == 1
    assert "there is no corpus 'web2'. Did you mean 'web'?" in unknown
    assert counts["code"][:2] == ["1", "2"]
    assert counts["web"][:2] == ["1", "1"]
    assert rows(capsys.readouterr().out)["total"][1] == counts["total"][2]
    assert (text_folder / "list.txt").read_text().count("tokens/") == 2


def test_a_bad_line_fails_the_command_unless_it_is_allowed(
    text_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (text_folder / "text" / "web" / "a.jsonl").write_text('{"text": "a"}\n{"text": 1}\n')

    assert tokenized(text_folder) == 1
    reason = "web/a.jsonl, byte 14: 'text' is of type int, expected a string"
    assert reason in capsys.readouterr().err
    assert tokenized(text_folder, "--max-rejects", "1") == 0


def test_an_error_is_one_message_without_a_traceback(
    text_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (text_folder / "tokenizer.model").unlink()

    status = tokenized(text_folder)

    assert status == 1
    found = capsys.readouterr()
    assert found.err.startswith("blendtitan tokenize: ")
    assert "tokenizer.model: no such file" in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_manual_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])

    assert f"example:\n  blendtitan {command} " in capsys.readouterr().out


def test_wrong_arguments_exit_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["tokenize"])

    assert "required: INPUT, --output, --tokenizer" in capsys.readouterr().err


def test_without_a_command_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])

    shown = capsys.readouterr().err
    assert all(f"\n    {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("trian my-run", "unknown command 'trian'. Did you mean train?"),
        (
            "explain r --training.steps 5",
            "explain takes no keys. Set steps in [training] of the run",
        ),
        ("resume my-run", "unknown command 'resume'. A run resumes with: blendtitan train RUN"),
        ("xyz", "unknown command 'xyz', expected one of init, prepare, train, "),
        ("report my-run --outptu a", "unrecognized arguments: --outptu. Did you mean --output?"),
        ("train my-run --nprocs=4", "unrecognized arguments: --nprocs=4. Did you mean --nproc?"),
        ("train my-run --steps 9", "--steps. A key of the run has its section: --training.steps"),
        ("train my-run --epochs 1", "has its section. training.steps sets the length of the run"),
        ("plan my-run --lr 1e-4", "has its section. Did you mean --optimizer.lr?"),
    ],
)
def test_a_mistyped_word_is_an_error_that_names_the_nearest(
    words: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words.split())

    assert answer in capsys.readouterr().err


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys; from blendtitan.cli import main\n"
        "try: main(['--help'])\n"
        f"finally: print([name for name in {SLOW_TO_IMPORT} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["rich", "print"])
def test_a_printing_command_ends_quietly_when_its_output_is_closed(
    write_blend: WriteBlend, tmp_path: Path, options: list[str]
) -> None:
    """As with ``| head``."""
    write_blend({"web": (1.0, [40, 40])}, seq_length=8)
    command = [sys.executable, "-m", "blendtitan.cli", "stats", str(tmp_path / "web"), *options]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)

    assert (done.stderr, done.returncode) == (b"", 1)


def test_an_empty_path_is_not_the_current_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tokenize", "text", "--output", "", "--tokenizer", "tokenizer.model"])

    assert "argument --output: the value is empty, expected a path" in capsys.readouterr().err


def test_a_key_of_a_run_may_be_negative() -> None:
    words = ["--training.global_batch_size", "-1"]

    assert parsed(["train", "run", *words]).overrides == words
