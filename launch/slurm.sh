#!/usr/bin/env bash
# Train on all nodes of a Slurm job:
#   sbatch --nodes 8 --gpus-per-node 8 slurm.sh RUN [ARGUMENT...]
# RUN is a run folder or a TOML file; the arguments are those of `blendtitan train`, such as
# --training.steps 100. Set partition, account and time on the command line or here. Before the time
# ends, the run saves a checkpoint. A job that is submitted again resumes from it.
#   PORT  free port on the first node (default: derived from the job number)
#SBATCH --job-name=blendtitan
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@180
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
# Activate the environment of blendtitan here, unless it was active when the job was submitted.

read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Consecutive jobs on one node get different ports.
port=${PORT:-$((20000 + SLURM_JOB_ID % 10000))}
exec srun --nodes "$SLURM_JOB_NUM_NODES" --ntasks-per-node 1 --cpu-bind none --kill-on-bad-exit 1 \
    blendtitan train --nnodes "$SLURM_JOB_NUM_NODES" --rendezvous "$head:$port" \
    --job-id "$SLURM_JOB_ID" "$@"
