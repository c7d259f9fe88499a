#!/usr/bin/env bash
# Set up .venv if necessary, and train. Arguments are passed to the trainer: --training.steps 8
#   NGPU         processes to start, one per accelerator       (default 1)
#   CONFIG_FILE  the run's TOML file                           (default: the demo)
#   LOG_RANK     ranks whose output is shown, such as 0,1      (default 0)
# Paths in the TOML file are relative to this folder.
set -euo pipefail
NGPU=${NGPU:-1}
CONFIG_FILE=${CONFIG_FILE:-}
LOG_RANK=${LOG_RANK:-0}
if [ -n "$CONFIG_FILE" ]; then CONFIG_FILE=$(realpath "$CONFIG_FILE"); fi
cd "$(dirname "$0")"
demo=$PWD/configs/debug.toml
CONFIG_FILE=${CONFIG_FILE:-$demo}

scripts/set_up
if [ "$CONFIG_FILE" = "$demo" ]; then .venv/bin/blendtitan demo --output data/demo; fi

export PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF:-expandable_segments:True}
exec .venv/bin/torchrun --nproc-per-node "$NGPU" --rdzv-backend c10d --rdzv-endpoint localhost:0 \
    --local-ranks-filter "$LOG_RANK" --role rank --tee 3 \
    -m blendtitan.titan.train --job.config_file "$CONFIG_FILE" "$@"
