"""Start the ranks of a run on this machine under PyTorch's elastic agent, which torchrun runs too.

torchrun ends a failed run with a page about each rank. Here it ends with the first error only.
"""

import dataclasses
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import (
    DefaultLogsSpecs,
    SignalException,
    Std,
)
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from blendtitan.errors import ConfigError
from blendtitan.failures import INTERRUPTED_LINE, ended_by, recorded
from blendtitan.start.train import Ranks
from blendtitan.stop_signals import REPEAT_SECONDS, STOP_FILE, STOP_SIGNALS
from blendtitan.terminal import complain

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

# The agent leaves these signals to ``_pass_on_signals``. It then only ends ranks that hang.
_SIGNALS: dict[str, Any] = {"signals_to_handle": "SIGINT,SIGHUP,SIGQUIT", "shutdown_timeout": 10}
if not {field.name for field in dataclasses.fields(LaunchConfig)} >= _SIGNALS.keys():
    _SIGNALS = {}  # an older PyTorch, whose agent passes SIGTERM on to the ranks

_KILLED = {"SIGKILL", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE"}
"""Signals that are a cause: other ranks fail only because this one is gone."""


def launch(entry: Callable[..., Any] | str, *arguments: str, ranks: Ranks, **more: Any) -> int:
    """Run a function or a program on each rank; the exit status.

    The first error of any rank is the last that is printed, in at most 5 lines.

    Args:
        entry: The function, or the path of the program.
        arguments: Its arguments.
        ranks: The ranks to start.
        more: Further settings of ``torch.distributed.launcher.api.LaunchConfig``.
    """
    # The agent would print what the report says, and warn that the run ends.
    for name in ("agent.server.api", "multiprocessing.api", "multiprocessing.errors"):
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        **{
            "min_nodes": ranks.nnodes,
            "max_nodes": ranks.nnodes,
            "nproc_per_node": ranks.nproc,
            "run_id": ranks.job_id or uuid.uuid4().hex,
            "role": "rank",  # lines of several ranks begin with [rank0]:
            "rdzv_backend": "c10d",
            "rdzv_endpoint": ranks.rendezvous,
            "rdzv_configs": _is_host(ranks),
            "max_restarts": 0,
            "logs_specs": _logs(ranks),
        }
        | _SIGNALS
        | more
    )
    assert config.logs_specs is not None
    logs, keeps_logs = Path(str(config.logs_specs.root_log_dir)), False
    if _SIGNALS:
        _pass_on_signals(logs / "stop")
    try:
        elastic_launch(config, entry)(*arguments)
    except ChildFailedError as error:
        rank, failure = _first_failure(error)
        if failure.exitcode == INTERRUPTED:
            _tell_interrupted(ranks)
            return INTERRUPTED
        is_killed = failure.signal_name() in _KILLED
        lines = [] if is_killed else _first_report(logs)
        output = next(logs.rglob(f"{failure.local_rank}/stderr.log"), None)
        keeps_logs = not lines and output is not None
        complain(*(lines or _without_report(rank, failure, output)))
        return 1
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            _tell_interrupted(ranks)
        else:
            complain(ended_by(signal.Signals(error.sigval).name))
        return 128 + error.sigval
    except RendezvousError as error:
        raise ConfigError(
            f"the machines of the run did not meet at {ranks.rendezvous} ({error}). Start this "
            f"command on all {ranks.nnodes} with the same --rendezvous and --job-id."
        ) from error
    finally:
        if not keeps_logs:
            shutil.rmtree(logs, ignore_errors=True)
    return 0


def _tell_interrupted(ranks: Ranks) -> None:
    """Say that the run can be resumed, if rank 0, which says it, is hidden by ``LOG_RANK``."""
    if ranks.shown and 0 not in ranks.shown and ranks.is_host is not False:
        complain(INTERRUPTED_LINE)


def _pass_on_signals(file: Path) -> None:
    """Tell the ranks of the first signal by a file. A second one ends them with the agent.

    The agent would give them 30 s to save a checkpoint, and then kill them.
    """
    received: list[float] = []

    def note(number: int, _: object) -> None:
        now = time.monotonic()
        if not received:
            file.write_text(signal.Signals(number).name)
        elif now - received[0] >= REPEAT_SECONDS:
            raise SignalException(f"received {number} again", sigval=signal.Signals(number))
        received.append(now)

    if threading.current_thread() is threading.main_thread():
        os.environ[STOP_FILE] = str(file)
        for number in STOP_SIGNALS:
            signal.signal(number, note)


def _is_host(ranks: Ranks) -> dict[str, str]:
    return {} if ranks.is_host is None else {"is_host": str(ranks.is_host).lower()}


def _logs(ranks: Ranks) -> DefaultLogsSpecs:
    """Hidden ranks write into files; a single shown rank writes to the terminal itself."""
    return DefaultLogsSpecs(
        log_dir=tempfile.mkdtemp(prefix="blendtitan-ranks-"),
        redirects={rank: Std.ALL for rank in range(ranks.nproc) if rank not in ranks.shown},
        tee={rank: Std.ALL for rank in ranks.shown} if len(ranks.shown) > 1 else Std.NONE,
    )


def _first_failure(error: ChildFailedError) -> tuple[int, ProcessFailure]:
    """The failure that others follow from: a rank that was killed, or the first in time."""
    killed = [item for item in error.failures.items() if item[1].signal_name() in _KILLED]
    return killed[0] if killed else error.get_first_failure()


def _first_report(logs: Path) -> list[str]:
    """The report that was written first. Ranks that fail later often fail because of it."""
    files = sorted(logs.rglob("error.json"), key=lambda path: path.stat().st_mtime_ns)
    return list(recorded(files[0])) if files else []


def _without_report(rank: int, failure: ProcessFailure, output: Path | None) -> list[str]:
    name = failure.signal_name()
    if failure.exitcode < 0:
        lines = [f"blendtitan train: rank {rank} was ended by {name}."]
    else:
        lines = [f"blendtitan train: rank {rank} ended with status {failure.exitcode}."]
    if name == "SIGKILL":
        lines.append("The system kills processes when memory runs out: see dmesg.")
    return [*lines, "Its output is above." if output is None else f"Its output: {output.parent}"]
