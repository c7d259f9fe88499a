#!/usr/bin/env bash
# Start torchrun on one node of a job. slurm.sh and pbs.sh run this once on every node.
# Usage: launch/node.sh NODES HEAD PORT JOB_ID [ARGUMENT...]
#   NODES    number of nodes
#   HEAD     name of the node at which the processes meet
#   PORT     free port on it
#   JOB_ID   any text that is the same on every node and different for every job
#   ARGUMENT arguments of the trainer: --job.config_file mine.toml --training.steps 100
# Environment variables:
#   NGPU     processes per node, one per accelerator (default: auto, the number of accelerators)
#   LOG_RANK ranks of the node whose output is shown, such as 0,1 (default 0)
set -euo pipefail
nodes=$1 head=$2 port=$3 job_id=$4
shift 4

# There is one process per node, so the rank of the process is the node's. The variables are those
# of Slurm, of PALS (the mpiexec of HPE machines), and of other launchers.
node=${SLURM_NODEID:-${PALS_RANKID:-${PMIX_RANK:-${PMI_RANK:-}}}}
if [ -z "$node" ]; then
    echo "launch/node.sh: found none of SLURM_NODEID, PALS_RANKID, PMIX_RANK, PMI_RANK, expected" \
        "the rank of this node. Start this script with srun or mpiexec, once on every node" >&2
    exit 1
fi
# Given explicitly: torchrun would guess it from host names, and a node may have several.
if [ "$node" = 0 ]; then is_host=true; else is_host=false; fi

if ! command -v torchrun >/dev/null && [ -x .venv/bin/torchrun ]; then
    PATH=$PWD/.venv/bin:$PATH
fi
export PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF:-expandable_segments:True}
exec torchrun --nnodes "$nodes" --nproc-per-node "${NGPU:-auto}" --rdzv-id "$job_id" \
    --rdzv-backend c10d --rdzv-endpoint "$head:$port" --rdzv-conf "is_host=$is_host" \
    --local-ranks-filter "${LOG_RANK:-0}" --role rank --tee 3 \
    -m blendtitan.titan.train "$@"
