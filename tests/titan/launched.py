"""Training as ``blendtitan train`` starts it, in processes that find everything imported.

A start of Python, PyTorch and TorchTitan takes seconds in every process. Here a server imports
them once; the agent, and the ranks it starts, are copies of the server.
"""

import gc
import multiprocessing
import os
import runpy
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace

is_collecting_garbage = gc.isenabled()
gc.disable()  # while millions of objects are made; copies of the server then share them
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch's own, while torchtitan is imported
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

    from blendtitan.start.launch import launch
    from blendtitan.start.train import Ranks
    from blendtitan.titan import train as plain_train
    from tests.titan import recorded_train
gc.freeze()
if is_collecting_garbage:
    gc.enable()

Entry = Callable[..., object]

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload([__name__])


def train(*arguments: str) -> None:
    """What each rank does."""
    # Imported here because importing it needs the device to be chosen.
    from torchtitan import trainer

    # A fork inherits the agent's handlers, which a new process has not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    # Rank 0 sleeps at the end of training, which no test waits for.
    trainer.time = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    recorded_train.main(*arguments)


def train_in(folder: str, *arguments: str) -> None:
    """Train in a folder, whose modules can be named."""
    os.chdir(folder)
    sys.path.insert(0, folder)
    plain_train.main(arguments)


def script(path: str, *arguments: str) -> None:
    """Run a script, as Python does."""
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


class Launched:
    """A run that was started."""

    def __init__(self, process: ForkServerProcess, log: Path) -> None:
        self.process = process
        self.log = log

    @classmethod
    def start(
        cls,
        arguments: list[str],
        *,
        processes: int,
        record: Path,
        environment: Mapping[str, str] | None = None,
        entry: Entry = train,
    ) -> "Launched":
        """Start ``entry`` with the arguments on so many ranks."""
        log = record.with_name(f"log_of_{record.name}")
        parts = entry, arguments, processes, environment or {}, record, log
        process = _server.Process(target=_agent, args=parts)
        process.start()
        return cls(process, log)

    @classmethod
    def start_rank(
        cls,
        arguments: list[str],
        *,
        environment: Mapping[str, str],
        record: Path,
        entry: Entry = train,
    ) -> "Launched":
        """Start one rank without an agent, as srun and mpiexec do."""
        log = record.with_name(f"log_of_{record.name}_{environment['RANK']}")
        process = _server.Process(target=_rank, args=(entry, arguments, environment, record, log))
        process.start()
        return cls(process, log)

    @property
    def output(self) -> str:
        """What the agent and all ranks printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def is_alive(self) -> bool:
        """Whether the agent lives."""
        return self.process.is_alive()

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        self.process.join(timeout_s)
        assert self.process.exitcode is not None, f"still running: {self.output[-5000:]}"
        return self.process.exitcode


def _prepare(record_path: Path, log: Path) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ["RECORD"] = str(record_path)


def _rank(
    entry: Entry, arguments: list[str], environment: Mapping[str, str], record: Path, log: Path
) -> None:
    _prepare(record, log)
    os.environ.update(environment)
    entry(*arguments)


def _agent(
    entry: Entry,
    arguments: list[str],
    processes: int,
    environment: Mapping[str, str],
    record_path: Path,
    log: Path,
) -> None:
    _prepare(record_path, log)
    os.environ.update(environment)
    status = launch(
        entry,
        *arguments,
        ranks=Ranks(nproc=processes),
        start_method="fork",
        logs_specs=DefaultLogsSpecs(),  # all ranks write into the log
    )
    sys.exit(status)
