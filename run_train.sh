#!/usr/bin/env bash
# Set up .venv if necessary, and train. Arguments are passed on: --training.steps 8
#   NGPU         processes to start, one per accelerator       (default 1)
#   CONFIG_FILE  run folder, or the run's TOML file            (default: the demo)
#   LOG_RANK     ranks whose output is shown, such as 0,1      (default 0)
#   VENV         an environment to use as it is, such as $CONDA_PREFIX, or /usr in an NGC image
#   PYTHON       interpreter: used as it is if blendtitan is installed for it, or else to make .venv
# Paths in the TOML file are relative to this folder.
set -euo pipefail
CONFIG_FILE=${CONFIG_FILE:-}
if [ -n "$CONFIG_FILE" ]; then CONFIG_FILE=$(realpath "$CONFIG_FILE"); fi
if [ -n "${VENV:-}" ]; then VENV=$(realpath "$VENV"); fi
cd "$(dirname "$0")"
demo=$PWD/configs/debug.toml
CONFIG_FILE=${CONFIG_FILE:-$demo}

can_train() {
    "$1" -c 'import sys; from importlib.util import find_spec as find
sys.exit(not all(map(find, ("blendtitan", "torch", "torchtitan"))))'
}
if [ -n "${VENV:-}" ]; then
    python=$VENV/bin/python
    [ -x "$python" ] || python=$VENV/bin/python3
    if ! can_train "$python"; then
        echo "run_train.sh: VENV is $VENV, in which blendtitan, torch or torchtitan is missing." \
            "Install them: $python -m pip install -e '.[train]'" >&2
        exit 1
    fi
elif [ -n "${PYTHON:-}" ] && can_train "$PYTHON"; then
    python=$PYTHON
else
    scripts/set_up
    python=.venv/bin/python
fi

if [ "$CONFIG_FILE" = "$demo" ]; then "$python" -m blendtitan demo --output data/demo; fi
exec "$python" -m blendtitan train "$CONFIG_FILE" --nproc "${NGPU:-1}" "$@"
