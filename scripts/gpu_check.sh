#!/usr/bin/env bash
# Checks and times everything on this machine's GPU, in under 25 minutes; one step's failure does not stop the next.
#
#   bash scripts/gpu_check.sh OUT           results in OUT/<device>/: <step>.log and .json, summary.tsv
#   bash scripts/gpu_check.sh --toy OUT     the same steps in small, on any machine
#
# A machine without network needs the packages beside the checkout: on a machine like it, with network,
#   pip download -c constraints.txt -d wheels '.[dev]' setuptools wheel cython
# and they are installed from there into .venv. Without that folder, $PYTHON (.venv/bin/python) is taken as it is.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
toy=''
if [ "${1:-}" = --toy ]; then
    toy=yes
    shift
fi
out=$(realpath -m "${1:?give a folder for the results}")
if [ -d wheels ] && [ ! -x .venv/bin/python ]; then
    "${PYTHON:-python3}" -m venv .venv
    offline=(.venv/bin/python -m pip install -q --no-index --find-links wheels -c constraints.txt)
    "${offline[@]}" setuptools wheel cython && "${offline[@]}" --no-build-isolation -e '.[dev]' || exit 1
fi
python=${PYTHON:-.venv/bin/python}
[ -x .venv/bin/python ] && [ -z "${PYTHON:-}" ] && python=$PWD/.venv/bin/python

device=$("$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")')
device=${device//[^A-Za-z0-9]/_}
out=$out/$device
mkdir -p "$out"
printf 'step\tstatus\tseconds\n' >"$out/summary.tsv"
failed=0

# step NAME SECONDS COMMAND...: runs it for so long at most
step() {
    local name=$1 limit=$2 start=$SECONDS status=0
    shift 2
    timeout "$limit" "$@" >"$out/$name.log" 2>&1 || status=$?
    printf '%s\t%s\t%s\n' "$name" "$status" $((SECONDS - start)) | tee -a "$out/summary.tsv"
    [ "$status" -eq 0 ] || failed=1
}

if [ -n "$toy" ]; then
    seconds=0 size=() programs=(metrics) demo=(
        network_g:num_feat=8 network_g:num_block=1 datasets:train:gt_size=32 train:total_iter=2
        train:scheduler:periods=[2] train:warmup_iter=-1 train:amp=bf16 val:val_freq=2 logger:print_freq=1
        logger:save_checkpoint_freq=2
    )
    clips='make_clips(find_footage(), Path("datasets/demo"), (0, 0, 64, 96))'
else
    seconds=40 size=(--size 1280x720) programs=(inference train validation data metrics)
    demo=(train:amp=bf16 train:compile=true)
    clips='make_clips(find_footage(), Path("datasets/demo"))'
fi

step tests 600 "$python" -m pytest -p no:cacheprovider -q -m cuda tests/test_cuda.py
for program in "${programs[@]}"; do
    more=()
    [ "$program" = inference ] && more=("${size[@]}")
    step "$program" 300 "$python" "scripts/speed/$program.py" --seconds "$seconds" --json "$out/$program.json" \
        ${more[@]+"${more[@]}"}
done

root=$PWD
export PYTHONPATH=$root:$root/scripts${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$out/demo" && cd "$out/demo" || exit 1
step clips 120 "$python" -c "from pathlib import Path; from demo_clips import find_footage, make_clips; $clips"
step demo_training 400 "$python" -m dblr_plugin train -opt "$root/options/demo_DBLRNet.yml" --force_yml "${demo[@]}"
exit "$failed"
