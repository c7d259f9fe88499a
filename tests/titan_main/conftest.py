"""Tests of training with TorchTitan's main branch: ``scripts/try_titan_main PATH`` for a checkout.

Without a checkout, the adapter runs with TorchTitan 0.3, and is compared with a record of main.
"""

from pathlib import Path

import pytest

from blendtitan.titan.upstream import is_main
from tests.small_corpora import write_data

if not is_main():
    collect_ignore_glob = ["test_checkout*.py"]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two corpora and their tokenizer."""
    return write_data(tmp_path_factory.mktemp("data"))
