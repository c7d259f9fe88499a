#!/usr/bin/env bash
# Train with replicas that may fail and start again:
#   fault_tolerant.sh RUN REPLICAS [ARGUMENT...]
# RUN is a run folder or a TOML file, REPLICAS the number of replicas on this machine. The arguments
# are those of `blendtitan train`, such as --training.steps 100. A replica that ends with an error is
# started again; one that fails three times within a minute of its start is given up. Each writes
# into LOGS/replica_N.log.
#   LOGS    folder of the output (default: fault_tolerant_logs)
#   PORT    port of the lighthouse (default: 29510)
#   NPROC   processes of each replica, which share one copy of the model by FSDP (default: 1)
# On several machines, start the lighthouse on one of them, in a place that does not fail:
#   torchft_lighthouse --min_replicas 1
# Then start this script on each machine with
#   TORCHFT_LIGHTHOUSE=http://HOST:29510   address of the lighthouse
#   ALL_REPLICAS=N                         replicas on all machines together
#   FIRST_REPLICA=N                        number of the first replica here, from 0
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: fault_tolerant.sh RUN REPLICAS [ARGUMENT...]" >&2
    exit 2
fi
run=$1 replicas=$2
shift 2
logs=${LOGS:-fault_tolerant_logs} nproc=${NPROC:-1}
mkdir -p "$logs"

children=() lighthouse=
# End the lighthouse last: replicas that save a checkpoint still need it.
end() {
    trap - EXIT
    kill ${children[@]+"${children[@]}"} 2>/dev/null || true
    wait ${children[@]+"${children[@]}"} || true
    if [ -n "$lighthouse" ]; then kill "$lighthouse" 2>/dev/null || true; fi
    wait
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -z "${TORCHFT_LIGHTHOUSE:-}" ]; then
    torchft_lighthouse --bind "[::]:${PORT:-29510}" --min_replicas 1 >"$logs/lighthouse.log" 2>&1 &
    lighthouse=$!
    export TORCHFT_LIGHTHOUSE="http://$(hostname):${PORT:-29510}"
fi

# Train as one replica, on GPUs of its own, until it ends without an error.
replica() {
    local place=$1 quick=0 child status start
    shift
    IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((replicas * nproc - 1)))}"
    CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${gpus[*]:place * nproc:nproc}")
    export CUDA_VISIBLE_DEVICES
    trap 'kill "$child" 2>/dev/null; wait "$child"; exit 143' TERM INT
    while :; do
        start=$SECONDS
        blendtitan train "$run" --nproc "$nproc" --fault_tolerance.enable \
            --fault_tolerance.group_size "${ALL_REPLICAS:-$replicas}" \
            --fault_tolerance.replica_id $((${FIRST_REPLICA:-0} + place)) "$@" \
            > >(grep --line-buffered -v '\[INFO\] \[torchft::') 2>&1 &
        child=$!
        status=0
        wait "$child" || status=$?
        case $status in 0 | 2 | 130) return $status ;; esac
        quick=$((SECONDS - start < 60 ? quick + 1 : 0))
        if [ $quick -ge 3 ]; then return $status; fi
        sleep 1
    done
}

for ((place = 0; place < replicas; place++)); do
    replica "$place" "$@" >>"$logs/replica_$((${FIRST_REPLICA:-0} + place)).log" 2>&1 &
    children+=($!)
done
status=0
for child in "${children[@]}"; do
    wait "$child" || status=$?
done
exit $status
