"""Reads that fail for a moment: which errors may pass, and when to try again.

A file server that fails over, a client that it has thrown out, a full queue in the kernel: such a
read succeeds some seconds later, and a run on thousands of nodes must not end because of it.
"""

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

T = TypeVar("T")

_PASSING_NAMES = (
    # A server that fails over, or a disk that reads a weak sector again. It may stay, too.
    *("EIO", "EREMOTEIO"),
    # NFS: the server knows the file under another handle by now. It is opened again.
    "ESTALE",
    # A mount with a time limit, and what Lustre, Ceph and FUSE answer when a client is thrown
    # out, or a server or the network is down.
    *("ETIMEDOUT", "ENOTCONN", "ESHUTDOWN", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED"),
    *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET"),
    # Nothing is wrong with the file: a signal, or a shortage in the kernel.
    *("EAGAIN", "EINTR", "EBUSY", "ENOMEM", "ENOBUFS"),
)
# All others stay until somebody acts: absent, forbidden, a folder, too many open files.
PASSING = frozenset(getattr(errno, name) for name in _PASSING_NAMES if hasattr(errno, name))
"""Error numbers of reads that are tried again. Not every system has all of them."""

PAUSES = tuple(0.1 * 2**i for i in range(9))
"""Seconds before each new try: 51 in all. The other ranks of a run wait 100 for one that reads
(TorchTitan's ``comm.train_timeout_seconds``), and must hear the error before."""


class Retries:
    """Tries reads again, and counts how often."""

    def __init__(
        self, pauses: tuple[float, ...] = PAUSES, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self.pauses = pauses
        self.sleep = sleep
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """How often anything was tried again."""
        with self._lock:
            return self._counts.total()

    def tried(self, attempt: Callable[[], T], *, path: str) -> T:
        """What ``attempt`` returns, now or once the error it meets has passed; as ``again``."""
        try:
            return attempt()
        except OSError as error:
            return self.again(attempt, error, path=path)

    def again(self, attempt: Callable[[], T], error: OSError, *, path: str) -> T:
        """What ``attempt`` returns, once the error of the first one has passed.

        Args:
            attempt: Tried again as long as it fails with errors that may pass.
            error: How the first attempt failed.
            path: The file, for the log.

        Raises:
            OSError: One that does not pass, or the last one after all pauses.
        """
        for pause in self.pauses:
            if error.errno not in PASSING:
                break
            self._note(path, error, pause)
            self.sleep(pause)
            try:
                return attempt()
            except OSError as next_error:
                error = next_error
        raise error

    def described(self, error: OSError) -> str:
        """An error of ``again`` in words."""
        text = error.strerror or str(error)
        if error.errno not in PASSING or not self.pauses:
            return text
        return f"{text}, also after {len(self.pauses)} more tries in {sum(self.pauses):.0f} s"

    def _note(self, path: str, error: OSError, pause: float) -> None:
        with self._lock:
            self._counts[path] += 1
            count, total = self._counts[path], self._counts.total()
        # The 1st, 10th, 100th time: many files may fail for long.
        if str(count).strip("0") == "1":
            logger.warning(
                "%s: a read failed (%s); trying again in %.1f s. This is the %d. time for this "
                "file, the %d. for all. If it goes on, check the disk or network.",
                *(path, error.strerror, pause, count, total),
            )


RETRIES = Retries()
"""Those of all files of this process."""
