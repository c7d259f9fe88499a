"""The settings of a blend: frozen, with each field defined once."""

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from blendtitan.config import BlendConfig, BlendKeys
from blendtitan.errors import ConfigError
from blendtitan.settings.section import BlendSection

BLEND = BlendConfig(data_file_list="list.txt", seq_length=8, eod_token_id=2)


def test_a_blend_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError, match="'seed'"):
        BLEND.seed = 3

    assert replace(BLEND, seed=3).seed == 3
    assert len({BLEND, replace(BLEND), replace(BLEND, seed=3)}) == 2


def test_a_section_has_the_keys_of_a_blend_with_the_same_defaults() -> None:
    keys = {each.name: each.default for each in fields(BlendKeys)}

    assert keys.items() <= {each.name: each.default for each in fields(BlendSection)}.items()
    assert keys.keys() <= {each.name for each in fields(BlendConfig)}


def test_a_section_is_completed_by_the_run_and_stays_as_it_is() -> None:
    section = BlendSection(seed=3)
    blend = section.blend_config(dataset_path="list.txt", seq_len=8, eos_id=2)

    assert blend == replace(BLEND, seed=3)
    assert section == BlendSection(seed=3)


def test_a_section_that_contradicts_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="seq_length is 9, expected 8, the value of training"):
        BlendSection(seq_length=9).blend_config(dataset_path="a", seq_len=8, eos_id=2)
