#!/usr/bin/env bash
# Trains in several processes, one for each GPU:
#
#   bash scripts/dist_train.sh NUM_PROCESSES OPTIONS.yml [arguments]
#
# On several machines the same command is run on each, with these set:
#   NNODES        number of machines
#   NODE_RANK     number of this machine, from 0
#   MASTER_ADDR   name or address of machine 0
#   PORT          a free port of machine 0 (default: 29500)
set -euo pipefail

if [ "$#" -lt 2 ]; then
    echo 'usage: [NNODES= NODE_RANK= MASTER_ADDR= PORT=] bash scripts/dist_train.sh NUM_PROCESSES OPTIONS.yml' \
        '[arguments]' >&2
    exit 2
fi
processes=$1
options=$2
shift 2

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -x "$checkout/.venv/bin/python" ]; then
    python=$checkout/.venv/bin/python
else
    python=python
fi

if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
    meeting=(--standalone) # picks a free port, so that two runs on one machine do not meet
else
    meeting=(
        --nnodes="${NNODES:-1}"
        --node-rank="${NODE_RANK:-0}"
        --master-addr="${MASTER_ADDR:-127.0.0.1}"
        --master-port="${PORT:-29500}"
    )
fi
exec "$python" -m dblr_plugin.launch "${meeting[@]}" --nproc-per-node="$processes" \
    -m dblr_plugin.train -opt "$options" "$@"
