#!/usr/bin/env bash
# Sets up .venv with the test dependencies if need be and runs every test. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
scripts/set_up test
# The tests of one file share what they trained, so a file stays in one process.
exec .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
    --no-loadscope-reorder "$@"
