"""Replicas of small training runs. Without torchft, no test of this folder is collected."""

from importlib.util import find_spec

from tests.titan.conftest import job, tokenizer_path

__all__ = ["job", "tokenizer_path"]

collect_ignore_glob = [] if find_spec("torchft") else ["test_*.py"]
