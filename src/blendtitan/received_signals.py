"""What a process of a run does when ``stop_signals`` notes a signal."""

import time

from blendtitan.claims.held import release_claim
from blendtitan.failures import end_at_once
from blendtitan.stop_signals import REPEAT_SECONDS, StopSignals
from blendtitan.terminal import complain

_STOPS = ("SIGTERM", "SIGUSR1")


def note(stop: StopSignals, name: str, *, is_shown: bool) -> None:
    """Note a signal. The second one ends the process, and so does one that may not be noted.

    Python turns the first Ctrl-C into KeyboardInterrupt, but not within an operation of PyTorch,
    which may take minutes.

    Args:
        stop: Where it is noted.
        name: Such as ``SIGTERM``. Others than those that ask a run to end do nothing.
        is_shown: Whether the last line names it. If not, a launcher does, which also ends its ranks
            after Ctrl-C.
    """
    now, is_first = time.monotonic(), not stop.since
    is_known = name in _STOPS or (name == "SIGINT" and is_shown)
    if not is_known or (not is_first and now - stop.since < REPEAT_SECONDS):
        return
    may_be_noted = stop.is_noted_only or name == "SIGINT"
    if not is_first or not may_be_noted:
        release_claim()
        end_at_once(name if is_shown else None)
    stop.since = now
    if name != "SIGINT":
        stop.received = name
        # A step may take minutes.
        complain(f"Received {name}: the run ends after this step. A second one ends it at once.")
