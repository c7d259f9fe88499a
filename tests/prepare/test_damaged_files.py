"""Damaged files of ``blendtitan tokenize`` are written again, or refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from blendtitan.errors import BlendTitanError, OutputError
from blendtitan.prepare import claims
from blendtitan.prepare.documents import RejectLimit, Settings, Signals, write_part
from blendtitan.prepare.engines import LocalEngine
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.tokenizers import Encoder, load_tokenizer
from tests.prepare.conftest import WriteJsonl, planned_work, shard_files

VALUES = {
    "empty": b"",
    "array": b"[]",
    "null": b"null",
    "object": b"{}",
    "number": b"-1",
    "huge number": b"1" * 5000,
    "infinity": b'{"format": Infinity, "counts": 1e999}',
    "text": b'"text"',
    "bytes": bytes(range(128, 256)),
    "nested types": b'{"format": 2, "source": 1, "key": [], "settings": {"tokenizer": null}}',
    "arrays as numbers": b'{"documents": [], "tokens": {}, "tier": [1], "digests": null}',
    "deep": b"[" * 100_000,
    "large": b" " * (2 << 20),
    "surrogate": b'{"host": "\\ud800", "process": "\\ud800-1-1", "key": "\\ud800"}',
    "many lines": b"{}\n[]\nnull\n",
}


# A number gives each file a value of its own, beginning with this one; a name gives all the same.
SEVERAL = [0, 5, 10, *(pytest.param(name, marks=pytest.mark.slow) for name in VALUES)]


@pytest.fixture
def finished(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> Callable[[], dict[str, bytes]]:
    """Tokenise two files, each of two jobs, into ``out``; one text is left out."""
    monkey_lines = ["one", "", *(f"number {n}" for n in range(20))]
    folder = write_jsonl("text/a.jsonl", monkey_lines).parent
    write_jsonl("text/b.jsonl", ["two", "three"] * 10)
    config = TokenizeConfig(
        tokenizer=tokenizer_path, max_rejects=1, job_bytes=300, tier="reference"
    )

    def run() -> dict[str, bytes]:
        tokenize([folder], tmp_path / "out", config, engine=LocalEngine(1))
        return shard_files(tmp_path / "out")

    return run


def interrupt(tmp_path: Path, tokenizer_path: Path) -> None:
    """Leave the files of a command that was killed before it joined its parts."""
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    encoder = Encoder(load_tokenizer(tokenizer_path))
    work = planned_work([tmp_path / "text"], tmp_path / "out", encoder, job_bytes=300)
    for jobs in work.plan.values():
        for job in jobs:
            settings = Settings.of(load_tokenizer(tokenizer_path))
            limit = RejectLimit(1, tmp_path / "stop")
            write_part(job, encoder, settings, Signals(), limit)
        for name in ("join.claim", "failed", "placing"):
            (jobs[0].shard.parts_folder / name).write_text("{}")


def bookkeeping(output: Path) -> list[Path]:
    found = [path for path in (output / ".blendtitan").rglob("*") if path.is_file()]
    doubt = output / ".blendtitan/0123.fast-tier-is-wrong"
    return [*found, output / "shards.catalog", *output.glob("*.rejects.jsonl"), doubt]


def damage(output: Path, value: int | str) -> None:
    values = [*VALUES.values()]
    for number, path in enumerate(sorted(bookkeeping(output))):
        if isinstance(value, str):
            path.write_bytes(VALUES[value])
        else:
            path.write_bytes(values[(value + number) % len(values)])


@pytest.mark.parametrize("value", SEVERAL)
def test_damaged_files_of_a_finished_output_do_not_affect_its_shards(
    finished: Callable[[], dict[str, bytes]], tmp_path: Path, value: int | str
) -> None:
    whole = finished()
    damage(tmp_path / "out", value)

    assert finished() == whole
    assert json.loads((tmp_path / "out/shards.catalog").read_bytes())["shards"].keys() == {"a", "b"}


@pytest.mark.parametrize("value", SEVERAL)
def test_damaged_files_of_an_interrupted_output_do_not_affect_its_shards(
    finished: Callable[[], dict[str, bytes]],
    tokenizer_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: int | str,
) -> None:
    """No process waits for a minute, as it would for a claim without a holder."""
    monkeypatch.setattr(claims, "_UNREADABLE_SECONDS", 0.05)
    whole = finished()
    interrupt(tmp_path, tokenizer_path)
    damage(tmp_path / "out", value)

    assert finished() == whole


@pytest.mark.parametrize("name", ["shards.catalog", ".blendtitan/a.jsonl"])
def test_a_folder_in_place_of_a_file_is_an_error_that_names_it(
    finished: Callable[[], dict[str, bytes]], tmp_path: Path, name: str
) -> None:
    finished()
    path = tmp_path / "out" / name
    path.unlink()
    (path / "more").mkdir(parents=True)
    (tmp_path / "out/b.bin").unlink()

    with pytest.raises(BlendTitanError, match=path.name):
        finished()


@pytest.mark.parametrize(
    "suffix", [".bin", ".idx", ".tokenizer.json", ".ends.json", ".rejects.jsonl"]
)
def test_a_folder_in_place_of_a_file_of_a_shard_is_an_error_that_names_it(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path, suffix: str
) -> None:
    (tmp_path / f"out/a{suffix}/more").mkdir(parents=True)
    config = TokenizeConfig(tokenizer=tokenizer_path, overwrite=True)

    with pytest.raises(OutputError, match=rf"out/a\{suffix}: cannot be written: Is a directory"):
        tokenize([write_jsonl("a.jsonl", ["one"])], tmp_path / "out", config, engine=LocalEngine(1))
