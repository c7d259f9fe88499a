import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.tokenize import tokenize
from blendtitan.prepare.workers import TokenizeConfig
from blendtitan.storage.file_list import find_shards

WriteJsonl = Callable[[str, Iterable[str]], Path]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def text_folder(write_jsonl: WriteJsonl) -> Path:
    for name, count in (
        ("text/code/a.jsonl", 30),
        ("text/code/b.jsonl", 3),
        ("text/web/a.json", 9),
    ):
        write_jsonl(name, (f"{name} document {number}" for number in range(count)))
    return write_jsonl("text/web/empty.jsonl", []).parents[1]


def test_the_result_is_the_same_for_any_number_of_processes(
    text_folder: Path, tokenizer_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {
        workers: TokenizeConfig(tokenizer=tokenizer_path, workers=workers) for workers in (1, 2)
    }

    files = {
        workers: tokenize([text_folder], tmp_path / f"{workers}", config[workers])
        for workers in (1, 2)
    }

    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert sorted(contents(tmp_path / "1")) == [
        f"{shard}.{suffix}" for shard in ("code/a", "code/b", "web/a") for suffix in ("bin", "idx")
    ]
    assert [file.num_documents for file in files[2]] == [30, 3, 9, 0]
    assert "empty.jsonl: holds no documents" in caplog.text


def test_bad_lines_of_all_files_fail_the_command_together(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """The allowance is for the command; no file has more, so both shards are complete and stay."""
    for name in ("a", "b"):
        write_jsonl(f"text/{name}.jsonl", ["good", ""])
    config = TokenizeConfig(tokenizer=tokenizer_path, workers=1, max_rejects=1)

    with pytest.raises(InputError) as caught:
        tokenize([tmp_path / "text"], tmp_path / "out", config)

    assert f"{tmp_path}/text/a.jsonl:2: 'text' is an empty string" in str(caught.value)
    assert f"{tmp_path}/text/b.jsonl:2: 'text' is an empty string" in str(caught.value)
    assert "2 bad lines, 1 allowed" in str(caught.value)
    assert len(find_shards(tmp_path / "out")) == 2


def test_allowed_bad_lines_are_logged(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_jsonl("a.jsonl", ["good", ""])
    config = TokenizeConfig(tokenizer=tokenizer_path, workers=1, max_rejects=1)

    tokenize([path], tmp_path / "out", config)

    assert f"left out: {path}:2: 'text' is an empty string" in caplog.text


def test_a_file_that_fails_leaves_the_old_shard_and_the_other_files(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    config = TokenizeConfig(tokenizer=tokenizer_path, workers=2)
    text, out = write_jsonl("text/a.jsonl", ["old"]).parent, tmp_path / "out"
    tokenize([text], out, config)
    old = contents(out)
    write_jsonl("text/a.jsonl", ["new", ""])
    write_jsonl("text/b.jsonl", ["other"])
    (text / "c.gz").write_bytes(b"not gzip")

    with pytest.raises(InputError, match=r"c\.gz: the compressed data"):
        tokenize([text], out, config)

    assert {name: contents(out)[name] for name in old} == old
    assert sorted(contents(out)) == ["a.bin", "a.idx", "b.bin", "b.idx"]


def test_a_tokenizer_without_eos_is_an_error(write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    Tokenizer(models.BPE({"a": 0}, [])).save(str(tokenizer))

    with pytest.raises(ConfigError, match="has no EOS to put after each document"):
        tokenize(
            [write_jsonl("a.jsonl", ["a"])], tmp_path / "out", TokenizeConfig(tokenizer=tokenizer)
        )


@pytest.mark.parametrize("setting", [{"max_rejects": -1}, {"workers": 0}])
def test_a_setting_out_of_range_is_an_error(setting: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        TokenizeConfig(tokenizer=Path("t"), **setting)  # pyright: ignore[reportArgumentType]


# --- interrupted ------------------------------------------------------------------------------


def started(text: Path, tokenizer_path: Path, output: Path) -> subprocess.Popen[str]:
    """A command in a process group of its own, once it has begun to write a shard."""
    words = ["tokenize", str(text), "--output", str(output), "--tokenizer", str(tokenizer_path)]
    code = f"import sys; from blendtitan.cli import main; sys.exit(main({words!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_until(lambda: any(path.stat().st_size for path in output.glob("large.bin*")))
    return process


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def large_folder(write_jsonl: WriteJsonl) -> Path:
    """One file that takes many seconds, and more files than processes."""
    text = Path(os.__file__).read_text(encoding="utf-8")
    for number in range(5):
        write_jsonl(f"text/{number}.jsonl", [text] * 200)
    return write_jsonl("text/large.jsonl", [text] * 3000).parent


def test_a_killed_command_leaves_no_half_shard_and_no_process(
    large_folder: Path, write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """SIGKILL of the parent alone: a worker that waited for it would stay for ever."""
    output = tmp_path / "out"
    process = started(large_folder, tokenizer_path, output)
    process.kill()
    process.communicate()
    wait_until(lambda: group_is_gone(process.pid))

    assert output / "large" not in find_shards(output)
    assert not (output / "large.bin").exists()

    for path in large_folder.iterdir():
        write_jsonl(f"text/{path.name}", ["small"])
    config = TokenizeConfig(tokenizer=tokenizer_path, workers=1)
    assert all(file.num_documents == 1 for file in tokenize([large_folder], output, config))


def test_an_interrupted_command_cleans_up_and_says_so_in_one_line(
    large_folder: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Ctrl-C in a terminal is sent to all processes of the group."""
    output = tmp_path / "out"
    process = started(large_folder, tokenizer_path, output)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)

    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "blendtitan tokenize: interrupted"
    assert "Traceback" not in stderr
    assert not list(output.glob("*partial*"))
