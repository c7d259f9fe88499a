#!/usr/bin/env bash
# Sets up .venv with the test dependencies if need be and runs every test. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
scripts/set_up test
exec .venv/bin/python -m pytest "$@"
