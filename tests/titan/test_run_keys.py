"""What is known of a run's keys without torch agrees with what the trainer knows."""

import pytest

from blendtitan.run.keys import KEYS
from blendtitan.run.values import fits
from blendtitan.titan.sections import SECTIONS
from blendtitan.titan.settings import Settings


@pytest.mark.parametrize("name", KEYS)
def test_a_key_has_the_trainers_default(name: str) -> None:
    """A file that leaves it out is read as the trainer reads it."""
    section, _, key = name.rpartition(".")
    hint, default = KEYS[name]

    assert key in SECTIONS[section].keys
    assert getattr(getattr(Settings(), section), key) == default
    assert fits(default, hint)
