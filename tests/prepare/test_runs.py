"""Commands that write to one output at the same time."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blendtitan.errors import ConfigError
from blendtitan.prepare import runs
from blendtitan.prepare.demo import train_tokenizer
from blendtitan.prepare.documents import Settings
from blendtitan.prepare.plan import plan_shards
from blendtitan.prepare.runs import RUNS_FOLDER, Run, registered_run
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.tokenizers import Tier, load_tokenizer
from tests.prepare.conftest import WriteJsonl, shard_files


@pytest.fixture(scope="session")
def other_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "tokenizer.model"
    lines = Path(os.__file__).read_text(encoding="utf-8").splitlines()
    path.write_bytes(train_tokenizer(lines, vocab_size=700))
    return path


@pytest.fixture
def text(write_jsonl: WriteJsonl) -> Path:
    content = Path(os.__file__).read_text(encoding="utf-8")
    for number in range(2):
        write_jsonl(f"text/{number}.jsonl", [content] * 20)
    return write_jsonl("text/2.jsonl", ["last"]).parent


def started(
    text: Path, output: Path, tokenizer: Path, *more: str, python_path: str = ""
) -> subprocess.Popen[str]:
    words = ["tokenize", str(text), "--output", str(output), "--tokenizer", str(tokenizer)]
    words += ["--workers", "1", "--job-bytes", "200000", *more]
    paths = [python_path, str(Path(runs.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "blendtitan.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)},
    )


def without_gigatoken(folder: Path) -> str:
    """A folder for ``PYTHONPATH`` that makes importing gigatoken fail."""
    (folder / "gigatoken").mkdir(parents=True)
    (folder / "gigatoken/__init__.py").write_text("raise ImportError('not installed')")
    return str(folder)


def ended(*processes: subprocess.Popen[str]) -> tuple[list[int], str]:
    """Sorted exit statuses, and the combined stderr."""
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert not any("Traceback" in error or "[Errno" in error for error in errors), errors
    return sorted(process.returncode for process in processes), "".join(errors)


def left_over(output: Path) -> list[Path]:
    found = [path for path in output.rglob("*") if path.is_file()]
    return [path for path in found if ".partial-" in path.name or path.suffix in (".claim", ".run")]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_one_of_two_simultaneous_tokenizers_is_refused_and_the_other_finishes(
    text: Path, tokenizer_path: Path, other_tokenizer: Path, tmp_path: Path, more: list[str]
) -> None:
    """Both used to pass the check at the start, and then waited for each other or mixed shards."""
    tokenize([text], tmp_path / "a", TokenizeConfig(tokenizer=tokenizer_path))
    tokenize([text], tmp_path / "b", TokenizeConfig(tokenizer=other_tokenizer))
    output = tmp_path / "out"

    statuses, errors = ended(
        started(text, output, tokenizer_path, *more), started(text, output, other_tokenizer, *more)
    )

    assert statuses == [0, 1]
    assert re.search(r"process \d+ on .* makes shards there with tokenizer .*but this", errors)
    assert "Wait until it has ended, or use another folder" in errors
    assert shard_files(output) in (shard_files(tmp_path / "a"), shard_files(tmp_path / "b"))
    assert left_over(output) == []


@pytest.mark.slow
def test_the_same_command_twice_at_once_shares_the_work(
    text: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    config = TokenizeConfig(tokenizer=tokenizer_path, job_bytes=200_000)
    tokenize([text], tmp_path / "once", config)
    output = tmp_path / "out"

    statuses, errors = ended(*(started(text, output, tokenizer_path) for _ in range(2)))

    assert statuses == [0, 0], errors
    assert shard_files(output) == shard_files(tmp_path / "once")
    assert left_over(output) == []
    catalog = (output / "shards.catalog").read_bytes()
    assert catalog == (tmp_path / "once/shards.catalog").read_bytes()


@pytest.mark.slow
def test_a_rank_without_the_fast_tier_uses_the_reference_and_makes_the_same_shards(
    text: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Each accepts the other's output. They used to wait for each other's parts."""
    tokenize([text], tmp_path / "once", TokenizeConfig(tokenizer=tokenizer_path))
    output, ranks = tmp_path / "out", [("--rank", str(n), "--world-size", "2") for n in range(2)]

    statuses, errors = ended(
        started(text, output, tokenizer_path, *ranks[0]),
        started(
            *(text, output, tokenizer_path, *ranks[1]),
            python_path=without_gigatoken(tmp_path / "shim"),
        ),
    )

    assert statuses == [0, 0], errors
    assert shard_files(output) == shard_files(tmp_path / "once")


@pytest.mark.slow
def test_work_that_the_fast_tier_began_is_finished_without_it(
    text: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    """The ids are the same. This used to fail, because finished work was no longer accepted."""
    output = tmp_path / "out"
    first = started(text / "0.jsonl", output, tokenizer_path)
    assert ended(first)[0] == [0]

    shim = without_gigatoken(tmp_path / "shim")
    statuses, errors = ended(
        started(text / "0.jsonl", output, tokenizer_path, python_path=shim),
        started(text / "1.jsonl", output, tokenizer_path, python_path=shim),
    )

    assert statuses == [0, 0], errors


# --- without other processes ------------------------------------------------------------------


BeginRun = Callable[..., Run]


@pytest.fixture
def begin(tokenizer_path: Path, tmp_path: Path, write_jsonl: WriteJsonl) -> BeginRun:
    """Runs of this process, distinguished by their settings."""
    settings = Settings.of(load_tokenizer(tokenizer_path))

    def run(*, eod_id: int = 2, tier: Tier = "auto", name: str = "text/a.jsonl") -> Run:
        path = write_jsonl(name, ["a"])
        (shards, output) = plan_shards([path], tmp_path / "out", keys=["text"]), tmp_path / "out"
        context = registered_run(
            shards,
            output,
            tokenizer=tokenizer_path,
            settings=Settings(settings.tokenizer, eod_id, settings.dtype),
            inputs=[path],
            tier=tier,
        )
        found = context.__enter__()
        contexts.append(context)
        return found

    contexts = []
    return run


def run_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "out/.blendtitan" / RUNS_FOLDER).iterdir())


def test_a_run_of_the_same_settings_is_admitted_and_another_is_refused(begin: BeginRun) -> None:
    begin()
    begin()

    with pytest.raises(ConfigError, match=r"eod_id 2.*this command uses .*eod_id 3"):
        begin(eod_id=3)


def test_the_same_shards_of_another_input_are_refused(begin: BeginRun) -> None:
    begin(name="text/a.jsonl")
    begin(name="text/b.jsonl")

    with pytest.raises(ConfigError, match="from another input, key or --keep"):
        begin(name="more/a.jsonl")


def test_a_killed_run_does_not_block_others(begin: BeginRun, tmp_path: Path) -> None:
    run = begin()
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    name = re.sub(r"-\d+-\d+\.", f"-{killed.pid}-1.", run.path.name, count=1)
    run.path.rename(run.path.with_name(name))

    other = begin(eod_id=3)

    assert run_files(tmp_path) == [other.path]


def test_a_silent_run_of_another_machine_blocks_others_for_a_lease(
    begin: BeginRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LEASE_SECONDS", 0.3)
    run = begin()
    elsewhere = run.path.rename(
        run.path.with_name(re.sub(r"-\w+-(\d+-\d+\.)", r"-0000aaaa-\1", run.path.name, count=1))
    )
    with pytest.raises(ConfigError, match=socket.gethostname()):
        begin(eod_id=3)
    time.sleep(0.4)

    other = begin(eod_id=3)

    assert not elsewhere.exists()
    assert other.path.exists()


def test_auto_uses_the_reference_beside_a_run_that_requires_it(begin: BeginRun) -> None:
    begin(tier="reference")

    assert begin(tier="auto").tier == "reference"
    with pytest.raises(ConfigError, match="Use one tier in all commands"):
        begin(tier="fast")


@pytest.mark.parametrize("tier", ["auto", "fast"])
def test_the_reference_tier_is_refused_beside_an_earlier_run_of_another_tier(
    begin: BeginRun, tier: Tier
) -> None:
    """Otherwise it would wait for the parts of the other run, and make them again."""
    begin(tier=tier)

    with pytest.raises(ConfigError, match=rf"tier '{tier}', but this command .* 'reference'"):
        begin(tier="reference")


def test_a_run_that_gives_up_the_fast_tier_becomes_one_of_the_reference_tier(
    begin: BeginRun,
) -> None:
    begin().give_up_fast_tier()

    assert begin(tier="reference").tier == "reference"
    assert begin().tier == "reference"


def test_a_command_deletes_what_killed_ones_were_writing_to_register(
    text: Path, tmp_path: Path, other_tokenizer: Path
) -> None:
    code = "from blendtitan.storage.atomic_files import Process; print(Process.current().name)"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    folder = tmp_path / "out/.blendtitan" / RUNS_FOLDER
    folder.mkdir(parents=True)
    (folder / f"01-{ended}.run.partial-{ended}").touch()
    config = TokenizeConfig(tokenizer=other_tokenizer)
    tokenize([str(text)], tmp_path / "out", config)

    assert not list(tmp_path.rglob("*partial*"))
