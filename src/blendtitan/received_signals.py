"""What a process of a run does when ``stop_signals`` notes a signal."""

import os
import signal
import time

from blendtitan.claims.held import release_claim
from blendtitan.failures import end_at_once
from blendtitan.stop_signals import REPEAT_SECONDS, STOP_SIGNALS, StopSignals
from blendtitan.terminal import complain

_TYPED_SECONDS = 0.1
"""Time between two Ctrl-C that are not the same one, where nothing passes it on."""


def note(stop: StopSignals, number: int, *, is_shown: bool) -> None:
    """Note a signal. The second one ends the process, and so does one that may not be noted.

    Python turns the first Ctrl-C into KeyboardInterrupt, but not within an operation of PyTorch,
    which may take minutes.

    Args:
        stop: Where it is noted.
        number: The signal. Others than Ctrl-C and those that ask a run to end do nothing.
        is_shown: Whether the last line names it. If not, a launcher does, but not Ctrl-C.
    """
    is_interrupt = number == signal.SIGINT
    if not is_interrupt and number not in STOP_SIGNALS:
        return
    now, is_first, name = time.monotonic(), not stop.since, signal.Signals(number).name
    may_be_noted = is_interrupt or stop.is_noted_only
    is_same = not is_first and now - stop.since < _repeat_seconds(is_interrupt=is_interrupt)
    if is_same and may_be_noted:
        return
    if not is_first or not may_be_noted:
        release_claim()
        if is_interrupt or not (is_first or stop.received):
            name, is_shown = "SIGINT", True  # a launcher is silent, and may pass on SIGTERM
        end_at_once(name if is_shown else None)
    stop.since = now
    if not is_interrupt:
        stop.received = name
        # A step may take minutes.
        complain(f"Received {name}: the run ends after this step. A second one ends it at once.")


def _repeat_seconds(*, is_interrupt: bool) -> float:
    """The time within which a signal is the same one: launchers pass Ctrl-C on to their ranks."""
    is_alone = os.environ.get("WORLD_SIZE", "1") == "1" and "TORCHELASTIC_RUN_ID" not in os.environ
    return _TYPED_SECONDS if is_interrupt and is_alone else REPEAT_SECONDS
