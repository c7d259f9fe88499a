#!/usr/bin/env bash
# Starts torchrun on one node of a job. slurm.sh and pbs.sh run it once on every node.
# Usage: launch/node.sh NODES HEAD PORT JOB_ID [ARGUMENT...]
#   NODES    number of nodes
#   HEAD     name of the node where the processes find each other
#   PORT     free port on it
#   JOB_ID   the same text on every node, another one for every job
#   ARGUMENT for the trainer: --job.config_file mine.toml --training.steps 100
# The environment may have:
#   NGPU     processes on a node, one per accelerator (default: auto, as many as there are)
#   LOG_RANK ranks of the node whose output is shown, such as 0,1 (default 0)
set -euo pipefail
nodes=$1 head=$2 port=$3 job_id=$4
shift 4

# There is one process on a node, so its rank is the node's: of Slurm; of PALS, whose mpiexec HPE
# machines have; of other launchers.
node=${SLURM_NODEID:-${PALS_RANKID:-${PMIX_RANK:-${PMI_RANK:-}}}}
if [ -z "$node" ]; then
    echo "launch/node.sh: found none of SLURM_NODEID, PALS_RANKID, PMIX_RANK, PMI_RANK, expected" \
        "the rank of this node. Start it with srun or mpiexec, once on every node" >&2
    exit 1
fi
# Said, not guessed from host names, which a node may have several of.
if [ "$node" = 0 ]; then is_host=true; else is_host=false; fi

if ! command -v torchrun >/dev/null && [ -x .venv/bin/torchrun ]; then
    PATH=$PWD/.venv/bin:$PATH
fi
export PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF:-expandable_segments:True}
exec torchrun --nnodes "$nodes" --nproc-per-node "${NGPU:-auto}" --rdzv-id "$job_id" \
    --rdzv-backend c10d --rdzv-endpoint "$head:$port" --rdzv-conf "is_host=$is_host" \
    --local-ranks-filter "${LOG_RANK:-0}" --role rank --tee 3 \
    -m blendtitan.titan.train "$@"
