"""Signals that ask a run to end: the first one is noted, and a second one ends the process.

A thread watches for them, so that a rank that is stuck in a collective operation notices them, too.
"""

import os
import select
import signal
import threading
import time
from pathlib import Path

from blendtitan.files import read_text

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

STOP_FILE = "BLENDTITAN_STOP_FILE"
"""Environment variable of a rank: a file into which its launcher writes the signal it received."""

REPEAT_SECONDS = 2.0
"""A signal within this time is the same one: some schedulers send it to launcher and ranks."""


class StopSignals:
    """The signals that this process received. There is one, ``STOP``."""

    def __init__(self) -> None:
        self.started = time.time()
        self.received = ""
        """Name of the first signal; empty if there was none."""
        self.is_noted_only = False
        """Whether the first signal is only noted. Before training saves, it ends the process."""
        self.since = 0.0
        """When it was received, or the first Ctrl-C, of ``time.monotonic``."""

    def watch(self) -> None:
        """Watch from now on. Under an elastic agent, also end when the agent is killed."""
        if threading.current_thread() is not threading.main_thread():
            return  # where Python sets no handlers
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)
        agent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        threading.Thread(target=self._watch, args=(reader, agent), daemon=True).start()

    def _watch(self, reader: int, agent: int | None) -> None:
        from blendtitan.received_signals import note

        file = Path(os.environ.get(STOP_FILE, os.devnull))
        while agent in (None, os.getppid()):
            if select.select([reader], [], [], 1)[0]:
                for number in os.read(reader, 64):
                    # A launcher that ends its ranks tells why.
                    is_shown = STOP_FILE not in os.environ
                    note(self, number, is_shown=is_shown)
            elif not self.received and file.is_file() and (name := read_text(file)):
                note(self, signal.Signals[name], is_shown=True)
        os.kill(os.getpid(), signal.SIGKILL)  # a restarted run would write the same checkpoints


STOP = StopSignals()
