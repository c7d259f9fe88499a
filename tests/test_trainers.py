"""Recipes for other trainers: they resume on the same samples after SIGKILL.

Their losses are printed with all digits. A sample more, less or twice changes all that follow.
"""

import builtins
import multiprocessing
import os
import re
import runpy
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import EOD, WriteShard, free_port
from tests.test_docs import ROOT, code_blocks

pytestmark = pytest.mark.slow

BLEND, *SCRIPTS = code_blocks(ROOT / "docs/trainers.md", "python")
TRAINERS = dict(zip(("plain", "accelerate", "transformers", "lightning"), SCRIPTS, strict=True))
STEP = re.compile(r"^step (\d+) loss (\S+)$", re.MULTILINE)

# Runs are copies of a process that has imported what takes seconds to import.
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "blendtitan.loader",
        "transformers.trainer",
        "transformers.models.llama.modeling_llama",
        "lightning.pytorch",
    ]
)


def _run(trainer: str, folder: Path, environment: dict[str, str], kill_at: int) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    file = os.open(f"{trainer}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    prints = builtins.print

    def print_or_die(*words: object, **options: Any) -> None:
        prints(*words, **options)
        if str(words[0]).startswith(f"step {kill_at} "):
            os.kill(os.getpid(), signal.SIGKILL)

    builtins.print = print_or_die
    runpy.run_path(f"train_{trainer}.py", run_name="__main__")


class Recipes:
    """The scripts of the page in a folder with data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("blend", BLEND)
        for trainer, script in TRAINERS.items():
            self.write(f"train_{trainer}", script)

    def write(self, name: str, script: str) -> None:
        """Write a module into the folder."""
        (self.folder / f"{name}.py").write_text(script)

    def start(self, trainer: str, *, kill_at: int = 0, **environment: str) -> ForkServerProcess:
        """Start a script, which dies of SIGKILL once it printed step ``kill_at``."""
        process = _server.Process(target=_run, args=(trainer, self.folder, environment, kill_at))
        process.start()
        return process

    def losses(self, trainer: str, *, kill_at: int = 0) -> dict[int, str]:
        """Run a script, which is killed once it printed step ``kill_at``."""
        process = self.start(trainer, kill_at=kill_at)
        process.join(120)
        output = (self.folder / f"{trainer}.log").read_text()
        assert process.exitcode == (-signal.SIGKILL if kill_at else 0), output
        return {int(step): loss for step, loss in STEP.findall(output)}

    def parameters(self) -> dict[str, torch.Tensor]:
        """Of the checkpoint of the plain loop."""
        return torch.load(self.folder / "plain.pt")["model"]


@pytest.fixture
def recipes(tmp_path: Path, write_shard: WriteShard) -> Recipes:
    rng = np.random.default_rng(0)
    for corpus in ("web", "code"):
        sizes = rng.integers(10, 100, 150)
        write_shard(f"data/{corpus}", [[*rng.integers(3, 512, size), EOD] for size in sizes])
    (tmp_path / "data/list.txt").write_text("0.7 web web\n0.3 code code\n")
    return Recipes(tmp_path)


def test_every_trainer_continues_on_the_same_samples_after_it_was_killed(recipes: Recipes) -> None:
    expected = recipes.losses("plain")
    (recipes.folder / "plain.pt").unlink()

    for trainer in TRAINERS:
        killed = recipes.losses(trainer, kill_at=12)
        resumed = recipes.losses(trainer)

        assert [*killed] == [*range(1, 13)]
        assert [*resumed] == [*range(11, 21)]  # after the checkpoint of step 10
        assert killed | resumed == expected, trainer
    assert len({*expected.values()}) == len(expected) == 20


def test_a_run_of_two_ranks_continues_on_one_with_the_samples_of_each_step(
    recipes: Recipes,
) -> None:
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    ranks = [recipes.start("plain", kill_at=12, RANK=str(rank), **both) for rank in range(2)]
    ranks[0].join(120)
    ranks[1].kill()
    recipes.write("blend", BLEND.replace("micro_batch_size: int = 4", "micro_batch_size: int = 8"))
    resumed_steps = recipes.losses("plain")
    resumed = recipes.parameters()
    (recipes.folder / "plain.pt").unlink()
    recipes.losses("plain")

    assert ranks[0].exitcode == -signal.SIGKILL
    assert [*resumed_steps] == [*range(11, 21)]
    torch.testing.assert_close(resumed, recipes.parameters())


def test_a_recipe_refuses_a_checkpoint_of_other_data(recipes: Recipes) -> None:
    recipes.losses("plain", kill_at=6)
    recipes.write("blend", BLEND.replace("seed=1234", "seed=5"))

    with pytest.raises(AssertionError, match=r"seed.*1234"):
        recipes.losses("plain")
