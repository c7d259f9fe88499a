"""What is known of a run's keys without torch agrees with what the trainer knows."""

from operator import attrgetter
from pathlib import Path

import pytest

from blendtitan.run.keys import KEYS, read_keys
from blendtitan.run.values import fits
from blendtitan.titan.resolved import write_resolved
from blendtitan.titan.sections import SECTIONS
from blendtitan.titan.settings import Settings
from blendtitan.titan.toml import read_settings


@pytest.mark.parametrize("name", KEYS)
def test_a_key_has_the_trainers_default(name: str) -> None:
    """A file that leaves it out is read as the trainer reads it."""
    section, _, key = name.rpartition(".")
    hint, default = KEYS[name]

    assert key in SECTIONS[section].keys
    assert getattr(getattr(Settings(), section), key) == default
    assert fits(default, hint)


def test_all_keys_of_the_blend_are_known() -> None:
    """So that one that is not known is a mistake, and refused."""
    assert {f"blendcorpus.{key}" for key in SECTIONS["blendcorpus"].keys} == {
        name for name in KEYS if name.startswith("blendcorpus.")
    }


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
