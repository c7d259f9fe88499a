"""Disks that are full and folders that are read-only, made for a test."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A file system of its own, in memory."""

    folder: Path

    def resize(self, num_bytes: int) -> None:
        """Give it so much room."""
        _mount("-o", f"remount,size={num_bytes}", self.folder)


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A disk mounted at ``folder``. Where that is not allowed, the test is skipped."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody, root neither, can write below ``folder``. Elsewhere, the test is skipped."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,ro,bind", folder)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _mount(*words: str | Path) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not let tests mount: {done.stderr.strip()}")
