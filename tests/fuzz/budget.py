"""How long to fuzz, and what may come out."""

import contextlib
import logging
import os
import time
import tracemalloc
from collections.abc import Callable, Generator

from hypothesis import HealthCheck, settings

from blendtitan.errors import BlendTitanError

logger = logging.getLogger(__name__)

NUM_TARGETS = 7

SECONDS = float(os.environ.get("BLENDTITAN_FUZZ_SECONDS", "12"))
"""For all targets together."""

_INPUTS = 50

# What the code itself takes, whatever the input: imports, threads, the plan of a block of slots.
_OWN_BYTES = 8 << 20
_BYTES_PER_BYTE = 100


def fuzz(target: Callable[[], None]) -> None:
    """Run a property with inputs that are new each time, for its part of the time.

    A failure prints the smallest input that shows it.
    """
    target = settings(
        max_examples=_INPUTS,
        database=None,
        derandomize=False,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        print_blob=True,
    )(target)
    end = time.monotonic() + SECONDS / NUM_TARGETS
    runs = 0
    while time.monotonic() < end:
        target()
        runs += 1
    logger.info("%d inputs", runs * _INPUTS)
    assert runs


@contextlib.contextmanager
def only_our_errors(num_bytes: int) -> Generator[None]:
    """Pass over our errors, and check that memory stays in proportion to the input's bytes."""
    tracemalloc.start()
    try:
        with contextlib.suppress(BlendTitanError):
            yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < _OWN_BYTES + _BYTES_PER_BYTE * num_bytes, f"{peak:,} bytes for {num_bytes:,}"
