"""Tests of training with TorchTitan 0.2. ``./run_tests.sh --titan 0.2`` installs it and runs them.

They are left out where another TorchTitan is installed.
"""

import importlib.metadata
from pathlib import Path

import pytest

from tests.small_corpora import write_data
from tests.titan02.runs import SmallRun

if not importlib.metadata.version("torchtitan").startswith("0.2."):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two corpora and their tokenizer."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run(tmp_path: Path, data: Path) -> SmallRun:
    """A run that has not begun."""
    return SmallRun(tmp_path, data)
