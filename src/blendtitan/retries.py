"""Retries of failed reads: a file server that fails over answers again some seconds later."""

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

T = TypeVar("T")

# A server that fails over, or a disk that reads a weak sector again: EIO, EREMOTEIO.
# NFS knows the file under another handle by now: ESTALE.
# Mounts with a time limit; Lustre, Ceph and FUSE when a client is evicted or a server is down:
# ETIMEDOUT to ENETRESET. A signal or a shortage in the kernel: the rest.
_PASSING_NAMES = (
    "EIO EREMOTEIO ESTALE ETIMEDOUT ENOTCONN ESHUTDOWN ECONNRESET ECONNREFUSED ECONNABORTED "
    "EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENETRESET EAGAIN EINTR EBUSY ENOMEM ENOBUFS"
)
PASSING = frozenset(getattr(errno, n) for n in _PASSING_NAMES.split() if hasattr(errno, n))
"""Errors that may pass within seconds, so that the read is repeated."""

PAUSES = tuple(0.1 * 2**i for i in range(9))
"""Seconds before each retry, 51 in all. The other ranks of a run wait 100 s for a reading rank
(TorchTitan's ``comm.train_timeout_seconds``), and must receive the error before that."""


class Retries:
    """Repeats reads that fail for a moment, and counts the retries.

    A server that fails over answers again some seconds later, and a run on thousands of nodes must
    not end because of it.
    """

    def __init__(
        self, pauses: tuple[float, ...] = PAUSES, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self.pauses = pauses
        self.sleep = sleep
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """Retries so far, of all files."""
        with self._lock:
            return self._counts.total()

    def again(self, attempt: Callable[[], T], error: OSError, *, path: str) -> T:
        """Repeat ``attempt`` until the error of the first attempt has passed; return its result.

        Args:
            attempt: Repeated after growing pauses, as long as it fails with passing errors.
            error: The error of the first attempt.
            path: The file, for the log.

        Raises:
            OSError: An error that does not pass, or the last one after all pauses.
        """
        for pause in self.pauses:
            if error.errno not in PASSING:
                break
            self._log(path, error, pause)
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
        return f"{text}, even after {len(self.pauses)} retries in {sum(self.pauses):.0f} s"

    def _log(self, path: str, error: OSError, pause: float) -> None:
        with self._lock:
            self._counts[path] += 1
            count, total = self._counts[path], self._counts.total()
        # The 1st, 10th, 100th retry: many files may fail for long.
        if str(count).strip("0") == "1":
            logger.warning(
                "%s: an attempt failed (%s); retry %d for this file, %d in total, in %.1f s. If "
                "this continues, check the disk or network.",
                *(path, error.strerror, count, total, pause),
            )


RETRIES = Retries()
"""The retries of this process."""
