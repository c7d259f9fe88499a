"""What one process is asked to measure."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Request:
    """One engine, opened on one source from nothing in a process of its own."""

    section: str
    engine: str
    """A file of ``engines/``."""

    source: str
    """Name of a source."""

    variant: str = ""
    """What sets this use of the engine apart, see its file."""

    batch: int = 8
    seq_len: int = 4096
    first_sample: int = 0
    """Where to begin, as after so many samples of an earlier run."""

    cold: bool = False
    """Without what the engine keeps between starts, and with no ``.idx`` in the page cache."""

    seconds: float = 0.0
    """How long to read after the first batch."""

    prefetch: int = 0
    workers: int = 0
    step_ms: float = 0.0
    """How long a training step sleeps between batches."""

    max_files: int | None = None
    """Limit of open files, as ``ulimit -n``."""
