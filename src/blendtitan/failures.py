"""How a process ends with an error: a few lines on the screen, and the traceback in a file."""

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from blendtitan.errors import BlendTitanError
from blendtitan.files import read_text
from blendtitan.terminal import complain
from blendtitan.visible import counted, joined, visible_lines

MAX_LINES = 5
"""Lines of a report."""

_MAX_CHARACTERS = 400
"""Longest line of an error of another package."""

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Environment variable of a rank: the file in which torchrun looks for its error."""

INTERRUPTED_LINE = "Interrupted. The same command resumes from the last checkpoint, if any."
"""The last line of a run after Ctrl-C."""

_report: list[str] = []
"""The report of the first error of this process."""


def report(error: BaseException, command: str, folder: Path | None = None) -> list[str]:
    """What the user sees of an error: at most 5 lines, of which the last names a new file.

    Args:
        error: Its traceback is written into the file.
        command: What was run, such as ``blendtitan train``; the first line begins with it.
        folder: Folder of the run. An unforeseen error goes into its subfolder ``errors`` if it
            can be written; others go into the system's temporary folder, for a refused start must
            not change the run's folder.
    """
    text = "".join(traceback.format_exception(error))
    try:
        last = f"Traceback: {_written(text, folder, isinstance(error, BlendTitanError))}"
    except OSError as problem:
        complain(visible_lines(text))
        last = f"The traceback is above, because it cannot be written into a file: {problem}"
    first, *more = _shortened(error)
    return [f"{command}: {first}", *more, last]


def _shortened(error: BaseException) -> list[str]:
    notes = [line for note in getattr(error, "__notes__", ()) for line in note.splitlines()]
    room = MAX_LINES - 1
    if isinstance(error, BlendTitanError):
        lines = [*str(error).splitlines(), *notes]
        if len(lines) > room:  # our messages end with a summary and the remedy
            hidden = counted(len(lines) - room + 1, "more line")
            lines[room - 2 : -1] = [f"  ... {hidden}, see the file below"]
        return lines
    message = visible_lines(f"{_of_rank()}{type(error).__name__}: {error}")
    lines = [line for line in message.splitlines() if line.strip()]
    lines = [*lines[: max(1, room - len(notes))], *notes][:room]
    return [line[:_MAX_CHARACTERS] + " ..." * (len(line) > _MAX_CHARACTERS) for line in lines]


def _of_rank() -> str:
    is_alone = os.environ.get("WORLD_SIZE", "1") == "1"
    return "" if is_alone else f"rank {os.environ.get('RANK', '?')}: "


def _written(text: str, folder: Path | None, is_ours: bool) -> Path:
    if folder is not None and folder.is_dir() and not is_ours:
        with suppress(OSError):
            (folder / "errors").mkdir(exist_ok=True)
            return _write(text, folder / "errors")
    return _write(text, Path(tempfile.gettempdir()))


def _write(text: str, folder: Path) -> Path:
    prefix = f"blendtitan-{time.strftime('%Y%m%d-%H%M%S')}-rank{os.environ.get('RANK', '0')}-"
    with tempfile.NamedTemporaryFile(
        "w", dir=folder, prefix=prefix, suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"{' '.join(sys.argv)}\n\n{text}")
    return Path(file.name)


def record(error: BaseException, folder: str | None = None) -> None:
    """Record the error of a rank at once, for torchrun and for ``end``. Only the first counts.

    Args:
        error: Of PyTorch's ``CheckpointException``, the error of the first rank is recorded.
        folder: The run's output folder, if it is known.
    """
    if _report:
        return
    if failures := getattr(error, "failures", None):
        cause, _ = next(iter(failures.values()))
        for note in getattr(error, "__notes__", ()):
            cause.add_note(note)
        error = cause.with_traceback(error.__traceback__)
    _report.extend(report(error, "blendtitan train", None if folder is None else Path(folder)))
    if path := os.environ.get(ERROR_FILE):
        message = {"message": str(joined(_report)), "extraInfo": {"timestamp": int(time.time())}}
        # Otherwise ``end`` shows the report.
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": message}), encoding="utf-8")


def end() -> NoReturn:
    """End the rank with status 1. Without torchrun, its report is the last that it prints."""
    path = os.environ.get(ERROR_FILE)
    if path is None or not Path(path).is_file():
        complain(*_report)
    sys.exit(1)


def interrupted(*_: object) -> NoReturn:
    """End a rank that has not begun, with status 130: it handles Ctrl-C before its imports."""
    if os.environ.get("RANK", "0") == "0":
        complain("Interrupted before training began.")
    os._exit(130)


def ended_by(name: str) -> str:
    """The line of a run that a signal ended."""
    return (
        f"blendtitan train: ended by {name}. The same command resumes from the last checkpoint, if "
        f"any."
    )


def end_at_once(name: str | None) -> NoReturn:
    """End a rank with status 130, whatever it is doing. Rank 0 names the signal, if given one."""
    if name is not None and os.environ.get("RANK", "0") == "0":
        complain(ended_by(name))
    os._exit(130)


def recorded(path: Path) -> Sequence[str]:
    """The report in the error file of a rank, of ours or of any other program under torchrun."""
    message = json.loads(read_text(path))["message"]
    text = message["message"] if isinstance(message, dict) else message
    return visible_lines(text).splitlines()[:MAX_LINES]
