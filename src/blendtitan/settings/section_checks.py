"""Checks of keys of ``[blendcorpus]`` that few runs set."""

from blendtitan.config import ORIGINAL_ORDER, check_at_least, check_is_path
from blendtitan.errors import ConfigError
from blendtitan.settings.balance import check_balance
from blendtitan.settings.section import BlendSection


def check_section(section: BlendSection) -> None:
    """Check ``balance`` and the keys of staging.

    Raises:
        ConfigError: One of them cannot be used, or lacks another.
    """
    if section.balance != "none":
        check_balance(section)
    if section.data_stage_path is not None or section.data_stage_bytes is not None:
        _check_staging(section)


def _check_staging(section: BlendSection) -> None:
    path, num_bytes = section.data_stage_path, section.data_stage_bytes
    if path is None or num_bytes is None:
        found, lacking = ("bytes", "path") if path is None else ("path", "bytes")
        raise ConfigError(
            f"data_stage_{found} is set, but data_stage_{lacking} is not: expected both, a folder "
            f"on a disk of each node and the bytes of it that may be used"
        )
    check_is_path("data_stage_path", path)
    check_at_least("data_stage_bytes", num_bytes, 1)
    if section.order == ORIGINAL_ORDER:
        raise ConfigError(
            f'data_stage_path needs order = "blendtitan", found order = "{section.order}". Leave '
            f"data_stage_path out."
        )
