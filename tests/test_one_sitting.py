"""A ratchet: the files that a batch passes through, from a configuration to the first batch.

A newcomer should be able to read them in one sitting. A change that adds a file to a list must say
why; lower the number of lines when it falls. ``tests/entered_files.py`` finds the files.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from blendtitan.prepare.demo import train_tokenizer, write_jsonl
from blendtitan.prepare.mix import MixConfig, mix
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from tests.entered_files import main as entered_main
from tests.titan.conftest import TIMEOUT_S
from tests.titan.launched import Launched

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/blendtitan"
FILES = {str(file.relative_to(SOURCE)) for file in SOURCE.rglob("*.py")}

ENGINE = {
    "config.py",
    "dataset/blended.py",
    "dataset/build.py",
    "dataset/rows.py",
    "files.py",
    "loader.py",
    "order/blend.py",
    "order/epoch.py",
    "order/slots.py",
    "storage/catalog.py",
    "storage/file_list.py",
    "storage/index_format.py",
    "storage/reader.py",
    "storage/records.py",
}
"""From ``BlendConfig`` to a batch."""

ENGINE_LINES = 3237

TRAINER = ENGINE | {
    "claims/held.py",
    "corpus_losses.py",
    "corpus_progress.py",
    "dataset/fixed.py",
    "dataset/progress.py",
    "identity.py",
    "placed_loader.py",
    "retries.py",
    "settings/batches.py",
    "settings/guards.py",
    "settings/section.py",
    "settings/toml.py",
    "storage/atomic_files.py",
    "stop_signals.py",
    "storage/catalog_bytes.py",
    "storage/record_files.py",
    "tables.py",
    "titan/assemble.py",
    "titan/checkpoint.py",
    "titan/cpu.py",
    "titan/dataloader.py",
    "titan/losses.py",
    "titan/metrics.py",
    "titan/model.py",
    "titan/shared_catalog.py",
    "titan/tokenizer.py",
    "titan/toml.py",
    "titan/train.py",
    "titan/trainer.py",
    "titan/upstream.py",
    "titan/validator.py",
    "tokenizer_check/run.py",
    "tokenizers/base.py",
    "tokenizers/router.py",
    "tokenizers/sp.py",
    "visible.py",
}
"""From ``configs/debug.toml`` to the first batch of the trainer."""

TRAINER_LINES = 8122


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small corpora of text with a tokenizer, prepared as users do."""
    folder = tmp_path_factory.mktemp("data")
    texts = [
        f"Document {n}. " + " ".join(f"word{n * k % 97}" for k in range(60)) for n in range(999)
    ]
    for corpus in ("code", "web"):
        write_jsonl(folder / "text" / corpus, texts)
    (folder / "tokenizer.model").write_bytes(train_tokenizer(texts, vocab_size=300))
    config = TokenizeConfig(tokenizer=folder / "tokenizer.model")
    tokenize([folder / "text"], folder / "tokens", config)
    mix([folder / "tokens"], folder / "file_list.txt", MixConfig())
    return folder


def entered_files(data: Path, *arguments: str) -> list[str]:
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    alone |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    run = Launched.start_rank(
        [*arguments], environment=alone, record=data / arguments[0], entry=entered_main
    )
    assert run.wait(TIMEOUT_S) == 0, run.output[-5000:]
    return json.loads(run.output.splitlines()[-1])


@pytest.fixture(scope="module")
def engine_files(data: Path) -> list[str]:
    """The files that a training loop of one's own enters, in the order of the first call."""
    return entered_files(data, "engine", str(data / "file_list.txt"))


def named_files(section: str) -> list[str]:
    """The files that a section of the page on the design names, in its order."""
    page = (ROOT / "docs/design.md").read_text()
    text = page.partition(f"### {section}\n")[2].partition("\n#")[0]
    return [name for name in re.findall(r"`(\w[\w/]*\.py)`", text) if name in FILES]


def num_lines(files: Iterable[str]) -> int:
    return sum(len((SOURCE / file).read_text().splitlines()) for file in files)


def test_the_engine_is_read_in_one_sitting(engine_files: list[str]) -> None:
    files = set(engine_files)

    assert files == ENGINE, files ^ ENGINE
    assert num_lines(files) <= ENGINE_LINES


def test_the_tour_of_the_page_on_the_design_visits_these_files(engine_files: list[str]) -> None:
    """The engine's in the order in which a batch meets them, then those of a run."""
    start_up = named_files("Start-up: from a configuration to a dataset")
    each_batch = named_files("Each batch: from slots to tensors")
    numbered = [f for f in start_up + each_batch if f in ENGINE]

    assert list(dict.fromkeys(numbered)) == engine_files
    assert {*named_files("Around it: a run of TorchTitan")} >= TRAINER - ENGINE


@pytest.mark.slow
def test_a_run_is_read_in_one_sitting(data: Path) -> None:
    """The whole way of the demo, with validation and checkpoints, in one process on a CPU."""
    entered = entered_files(
        data,
        "trainer",
        *("--job.config_file", str(ROOT / "configs/debug.toml")),
        *("--job.dump_folder", str(data / "run")),
        *("--model.tokenizer_path", str(data / "tokenizer.model"), "--training.steps", "2"),
        *("--blendcorpus.data_file_list", str(data / "file_list.txt")),
        *("--blendcorpus.max_epochs", "0"),
    )
    files = set(entered)

    assert files == TRAINER, files ^ TRAINER
    assert num_lines(files) <= TRAINER_LINES
