"""Run the engine or the trainer up to its first batch and list the files that it enters.

Prints a JSON list of files of the package in which a function was called, in the order of the first
call. What runs while a module is imported does not count.
"""

import inspect
import json
import os
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import blendtitan

PACKAGE = Path(blendtitan.__file__).parent


class EnteredFiles:
    """A profile function that notes the files whose functions are called.

    It ends the process when ``stop_at`` gives its first value.
    """

    def __init__(self, stop_at: str | None = None) -> None:
        self.stop_at = stop_at
        self.files: dict[str, None] = {}
        self._names: dict[CodeType, str | None] = {}

    def start(self) -> None:
        """Profile this thread and those that are started from now on."""
        threading.setprofile(self)
        sys.setprofile(self)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note a call."""
        code = frame.f_code
        if event == "call" and (name := self._name(code)) is not None:
            if name not in self.files and not is_importing(frame):
                self.files[name] = None
        elif event == "return" and argument is not None and code.co_qualname == self.stop_at:
            self.finish()

    def finish(self) -> None:
        """Print the files and end the process."""
        sys.setprofile(None)
        sys.stdout.write(json.dumps([*self.files]) + "\n")
        sys.stdout.flush()
        os._exit(0)

    def _name(self, code: CodeType) -> str | None:
        """The file of a function of the package; None for everything else, and class bodies."""
        if code not in self._names:
            path = Path(code.co_filename)
            is_ours = path.is_relative_to(PACKAGE) and code.co_flags & inspect.CO_OPTIMIZED
            self._names[code] = str(path.relative_to(PACKAGE)) if is_ours else None
        return self._names[code]


def is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported further up the stack."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def main(kind: str, *arguments: str) -> None:
    """Run ``"engine"`` with a file list, or ``"trainer"`` with the words of a command line."""
    {"engine": run_engine, "trainer": run_trainer}[kind](*arguments)


def run_engine(file_list: str) -> None:
    """Read a batch in a training loop of one's own."""
    from blendtitan import BlendConfig, DataLoader, build_datasets

    entered = EnteredFiles()
    entered.start()
    config = BlendConfig(data_file_list=file_list, seq_length=64, eod_token_id=2)
    dataset = build_datasets(config).train
    assert dataset is not None
    next(iter(DataLoader(dataset, 2, dp_rank=0, dp_world_size=1)))
    entered.finish()


def run_trainer(*arguments: str) -> None:
    """Train as ``blendtitan.titan.train`` does."""
    from blendtitan.titan import train

    EnteredFiles("BlendCorpusDataLoader.__iter__").start()
    train.main(arguments)
