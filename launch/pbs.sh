#!/usr/bin/env bash
# Train on all nodes of a PBS job, with the mpiexec of PALS:
#   qsub -l select=8 -v ARGUMENTS="RUN --training.steps 100" pbs.sh
# RUN is a run folder or a TOML file; the other arguments are those of `blendtitan train`. Set queue,
# project and time on the command line or here. Before the time ends, the run saves a checkpoint. A job
# that is submitted again resumes from it.
#   PORT  free port on the first node (default: derived from the job number)
#PBS -N blendtitan
#PBS -l select=2
#PBS -l place=scatter:excl
#PBS -l walltime=24:00:00
#PBS -j oe
set -euo pipefail
cd "$PBS_O_WORKDIR"
# Activate the environment of blendtitan here: a PBS job does not inherit it.

# One line per chunk; a node with several chunks is listed several times.
nodes=$(sort -u "$PBS_NODEFILE" | wc -l)
read -r head <"$PBS_NODEFILE"
job_number=${PBS_JOBID%%[!0-9]*}
# Consecutive jobs on one node get different ports.
port=${PORT:-$((20000 + job_number % 10000))}
# PBS sends SIGTERM seconds before SIGKILL, so the ranks watch the clock.
walltime=$(qstat -f "$PBS_JOBID" | sed -n 's/^ *Resource_List.walltime = *//p') || true
if [[ $walltime =~ ^([0-9]+):([0-9]+):([0-9]+)$ ]]; then
    seconds=$((10#${BASH_REMATCH[1]} * 3600 + 10#${BASH_REMATCH[2]} * 60 + 10#${BASH_REMATCH[3]}))
    export BLENDTITAN_END_TIME=$(($(date +%s) + seconds))
elif [ -z "${BLENDTITAN_END_TIME:-}" ]; then
    echo "qstat reports no wall time: set guards.wall_time_minutes to save before it ends" >&2
fi
# qsub passes no arguments to a script, so they are words of one variable.
read -ra arguments <<<"${ARGUMENTS:-}"
exec mpiexec -n "$nodes" --ppn 1 --hostfile "$PBS_NODEFILE" --cpu-bind none \
    blendtitan train --nnodes "$nodes" --rendezvous "$head:$port" --job-id "$PBS_JOBID" \
    "${arguments[@]}" "$@"
