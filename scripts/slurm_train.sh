#!/usr/bin/env bash
# Trains on several nodes of a SLURM cluster, for as long as it takes; from the checkout:
#
#   sbatch scripts/slurm_train.sh OPTIONS.yml [arguments]
#
# Before the time limit, the run saves and stops, and the job queues again to continue from there. Adapt the lines below
# to your cluster; options given to sbatch come before them.
#SBATCH --job-name=dblr
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
set -euo pipefail

if [ "$#" -lt 1 ]; then
    echo 'usage: sbatch scripts/slurm_train.sh OPTIONS.yml [arguments]' >&2
    exit 2
fi
options=$1
shift

# sbatch runs a copy of this file, in the folder where it was called
if [ -x .venv/bin/python ]; then
    python=.venv/bin/python
else
    python=python
fi

# --ntasks-per-node=1: one torchrun a node, which starts a process for each GPU. They meet at the first node.
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))
srun --kill-on-bad-exit=1 "$python" -m dblr_plugin.launch \
    --nnodes="$SLURM_JOB_NUM_NODES" \
    --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-id="$SLURM_JOB_ID" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="$first_node:$port" \
    -m dblr_plugin.train -opt "$options" --auto_resume "$@" &
step=$!

stopped=false
stop() {
    stopped=true
    kill -TERM "$step" # srun passes it on to all nodes
}
trap stop TERM

code=0
wait "$step" || code=$?
if "$stopped"; then
    wait "$step" || true # the first wait ended with the signal, not with the run
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
