"""The keys that the tools know without torch are those of the trainer's dataclasses."""

from operator import attrgetter
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from blendtitan.errors import ConfigError
from blendtitan.settings.known_keys import KEYS
from blendtitan.settings.toml import fits, read_keys
from blendtitan.titan.settings import Settings
from blendtitan.titan.toml import read_settings, write_resolved

SCRIPT = Path(__file__).parents[2] / "scripts/write_known_keys.py"
BY_MACHINE = "parallelism.spmd_backend"


def test_the_keys_are_made_from_the_trainers_dataclasses() -> None:
    """If this fails, run scripts/write_known_keys.py."""
    script = run_path(str(SCRIPT))
    made: dict[str, Any] = {}
    exec(script["known_keys"](), made)

    assert made["KEYS"] == KEYS
    assert list(made["KEYS"]) == list(KEYS)


def test_a_key_that_is_left_out_has_the_trainers_default() -> None:
    for name, (hint, default) in KEYS.items():
        if name != BY_MACHINE:
            assert attrgetter(name)(Settings()) == default
            assert fits(default, hint)


@pytest.mark.parametrize(
    "text",
    [
        "[trainin]\nsteps = 1",
        "[training]\nstep = 1",
        "[optimiser]\nlr = 1.0",
        "[training]\nlr = 1.0",
        "[checkpoint]\nintervall = 5",
        "[checkpoint]\ninterval = '5'",
        "[blendcorpus]\nsed = 3",
        "[training.data]\nnum_workers = 1",
        "[float8]\nrecipe = 'x'",
        "[parallelism]\nexpert_tensor_parallel_degree = 2",
        "[optimizer]\nlr = inf",
        "[optimizer]\nlr = nan",
        f"[training]\nsteps = {10**30}",
        f"[debug]\nseed = -{2**63}",
        f"[checkpoint]\nkeep_latest_k = {2**63}",
        f"[[blendcorpus.segment]]\nfrom_step = {10**20}\nshares = {{ web = 1 }}",
        "[[blendcorpus.segment]]\nfrom_step = 1\nshares = { web = inf }",
    ],
)
def test_tools_refuse_what_the_trainer_refuses_in_the_same_words(tmp_path: Path, text: str) -> None:
    """A mistyped key that only training notices costs a place in the queue."""
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as trainers:
        read_settings(["--job.config_file", str(path)])

    with pytest.raises(ConfigError) as tools:
        read_keys(path)
    assert str(tools.value) == str(trainers.value)


def test_the_settings_that_a_run_writes_are_read_as_they_are(tmp_path: Path) -> None:
    settings = read_settings(
        [
            *("--job.dump_folder", str(tmp_path), "--training.steps", "7", "--debug.seed", "9"),
            *("--blendcorpus.split", "8,1,1", "--blendcorpus.no_shuffle", "--validation.enable"),
            *("--blendcorpus.segment", '[{ from_step = 3, shares = { web = 0.5, "a b" = 0 } }]'),
        ]
    )

    assert read_keys(write_resolved(settings)) == {
        name: attrgetter(name)(settings) for name in KEYS
    }
