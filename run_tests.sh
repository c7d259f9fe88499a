#!/usr/bin/env bash
# Sets up .venv with the test dependencies if need be and runs every test. Arguments go to pytest.
# --quick runs only tests of the core: no training, no other processes but short ones.
# --titan 0.2 (or 0.2.0, 0.2.1) runs the tests of that TorchTitan line instead. It is installed
# beside .venv, whose other packages they use.
set -euo pipefail
cd "$(dirname "$0")"
titan=
quick=
if [ "${1:-}" = --quick ]; then
    quick=yes
    shift
elif [ "${1:-}" = --titan ]; then
    titan=$2
    shift 2
fi
scripts/set_up test
# Tests start Python hundreds of times. Where it may not keep what it compiled, as in many images,
# each start compiles all of PyTorch and TorchTitan, which doubles its time.
unset PYTHONDONTWRITEBYTECODE
if [ -n "$titan" ]; then
    case $titan in
    0.2) titan=0.2.2 ;;
    0.2.[012]) ;;
    *) echo "--titan is $titan, expected 0.2, 0.2.0, 0.2.1 or 0.2.2" >&2 && exit 2 ;;
    esac
    site=$(scripts/set_up_titan02 "$titan")
    # `python -m pytest` from here; what PYTHONPATH names comes before what .venv holds.
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
    # Importing the older ones warns of what today's PyTorch deprecates.
    exec .venv/bin/python -m pytest -W default::DeprecationWarning tests/titan02 "$@"
fi
# Every core is busy already.
export OMP_NUM_THREADS=1
xdist=(-n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder)
if [ -n "$quick" ]; then
    exec .venv/bin/python -m pytest "${xdist[@]}" -m "not slow and not gpu" "$@" \
        tests/order tests/storage tests/dataset tests/history tests/original \
        tests/test_{loader,loader_faults,state,config,changes,weights,layers,cli}.py \
        tests/prepare/test_{tokenize,mix}.py
fi
# The tests of one file share what they trained, so a file stays in one process.
exec .venv/bin/python -m pytest "${xdist[@]}" --durations 10 "$@"
