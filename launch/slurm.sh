#!/usr/bin/env bash
# Train on all nodes of a Slurm job:
#   sbatch --nodes 8 --gpus-per-node 8 launch/slurm.sh --job.config_file configs/llama3_8b.toml
# Submit it from the folder that relative paths refer to. Set partition, account and time on the
# command line or here. A job that is submitted again resumes from the last checkpoint.
#SBATCH --job-name=blendtitan
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"

read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Consecutive jobs on one node get different ports.
port=${PORT:-$((20000 + SLURM_JOB_ID % 10000))}
exec srun --nodes "$SLURM_JOB_NUM_NODES" --ntasks-per-node 1 --cpu-bind none --kill-on-bad-exit 1 \
    launch/node.sh "$SLURM_JOB_NUM_NODES" "$head" "$port" "$SLURM_JOB_ID" "$@"
