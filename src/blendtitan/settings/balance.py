"""The check of ``blendcorpus.balance``."""

from blendtitan.config import ORIGINAL_ORDER, BlendKeys
from blendtitan.errors import ConfigError


def check_balance(keys: BlendKeys, *, otherwise: str = 'set balance = "none"') -> None:
    """Check that the rows of a blend are known to differ in cost.

    Args:
        keys: The blend.
        otherwise: The remedy for a blend that stays as it is.

    Raises:
        ConfigError: They are not.
    """
    if keys.order == ORIGINAL_ORDER:
        raise ConfigError(
            f'balance = "attention" needs order = "blendtitan", found order = "{keys.order}": '
            f"{otherwise}"
        )
    if not keys.provide_attention_mask:
        raise ConfigError(
            'balance = "attention" needs provide_attention_mask = true: without intra-document '
            f"masking, all rows cost the same. Set it to true, or {otherwise}"
        )
