r"""Text that is safe to print or log: names and documents cannot control the terminal.

Names and documents may hold escape sequences that recolour or clear a terminal, line breaks that
forge a line of a log, and marks that turn the direction of writing. They are shown as Python
escapes them: ``\x1b``, ``\n``, ``\u202e``. All other characters stay unchanged.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Number
from typing import Any

# Control characters (C0, DEL, C1), line separators, direction marks, invisible operators, and the
# halves of surrogate pairs that stand for bytes of file names that are not UTF-8.
_UNSAFE = (
    r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff"
)
_IN_A_LINE = re.compile(f"[{_UNSAFE}]")
_IN_LINES = re.compile(rf"(?![\n\t])[{_UNSAFE}]")
# TorchTitan colours its own lines (metrics.enable_color_printing).
_IN_COLOURED_LINES = re.compile(rf"(?!\x1b\[[0-9;]*m|[\n\t])[{_UNSAFE}]")

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


class Lines(str):
    """Text of several lines that is safe to print: ``visible`` does not change it."""

    __slots__ = ()

    def __str__(self) -> "Lines":
        return self


def visible(text: str) -> str:
    """``text`` on one line, with all characters escaped that a terminal would act on."""
    return text if isinstance(text, Lines) else _IN_A_LINE.sub(_spelled, text)


def visible_lines(text: str) -> Lines:
    """``visible`` text that keeps line breaks and tabs."""
    return text if isinstance(text, Lines) else Lines(_IN_LINES.sub(_spelled, text))


def _spelled(match: re.Match[str]) -> str:
    character = match.group()
    number = ord(character)
    return _SHORT.get(character) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def joined(lines: Iterable[str]) -> Lines:
    """Lines, each made visible, as one text."""
    return Lines("\n".join(map(visible, lines)))


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: ``1 shard``, ``2,000 shards``."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def some_of(names: Sequence[str], shown: int = 3) -> str:
    """The first names of many, and the number of the others."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def visible_logger(name: str) -> logging.Logger:
    """The logger of a module of this package, whose records are safe to print."""
    logger = logging.getLogger(name)
    logger.addFilter(_spell_out)
    return logger


def spell_out_logs() -> None:
    """Escape the records of all packages in the handlers of this process."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_spell_out_foreign)


def drop_logs(pattern: str) -> None:
    """Drop records that begin with a pattern from the handlers of this process."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: re.match(pattern, record.getMessage()) is None)


_is_quiet: ContextVar[bool] = ContextVar("_is_quiet", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """Log only errors of this package within the block, in this thread."""
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


def _spell_out(record: logging.LogRecord) -> bool:
    """Line breaks of a message are ours; those of its arguments come from names."""
    if _is_quiet.get() and record.levelno < logging.ERROR:
        return False
    record.msg = visible_lines(str(record.msg))
    if isinstance(record.args, tuple):
        record.args = tuple(map(_spelled_argument, record.args))
    elif record.args:
        record.args = {key: _spelled_argument(value) for key, value in record.args.items()}
    return True


def _spell_out_foreign(record: logging.LogRecord) -> bool:
    """Other packages format their messages themselves, and may colour them."""
    if not isinstance(record.msg, Lines):
        record.msg = _IN_COLOURED_LINES.sub(_spelled, record.getMessage())
        record.args = ()
    return True


def _spelled_argument(value: Any) -> Any:
    return value if isinstance(value, Number) else visible(str(value))
