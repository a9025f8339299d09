#!/usr/bin/env bash
# Creates .venv in the checkout with the versions of constraints.txt and the plugin in development mode.
# It is reused until the checkout moves or the files that describe it change.
#
#   PYTHON=/path/to/python3.11   uses this interpreter instead of the first suitable one
#
# pip's own settings (PIP_INDEX_URL and the like) are left as they are, so they can select another build of torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

suitable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate candidates=(python3 python3.11 python3.12 python3.13 python3.14)
    if [ -n "${PYTHON:-}" ]; then
        candidates=("$PYTHON")
    fi
    for candidate in "${candidates[@]}"; do
        if suitable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    candidate=${candidates[0]}
    echo "setup: Python 3.11 or later is needed, $candidate is $("$candidate" --version 2>&1 || true)." \
        'Install one, or name it: PYTHON=/path/to/python3.11' >&2
    return 1
}

ensure_venv() {
    if suitable .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; then
        return
    fi
    local python
    python=$(find_python)
    if ! "$python" -m venv --clear .venv; then
        echo "setup: $python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        return 1
    fi
}

# A line for each step; what the programs say goes to the log, whose end is shown if one fails.
log=.venv/setup.log
step() {
    echo "setup: $1"
    shift
    if ! "$@" >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "setup: the last step failed; all that it said is in $log" >&2
        return 1
    fi
}

pip_run() {
    local command=$1
    shift
    .venv/bin/python -m pip "$command" --disable-pip-version-check --constraint constraints.txt "$@"
}

# The path is part of the fingerprint because a development install points at the checkout.
fingerprint=$({ pwd; cat setup.cfg pyproject.toml constraints.txt; } | cksum)
stamp=.venv/setup-complete
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$fingerprint" ]; then
    exit 0
fi

# Where the disk fills halfway, pip says so after minutes, of one package; that is told before. It is no error, because
# torch's build for CPUs, which another PIP_INDEX_URL selects, takes less.
tell_little_space() {
    local free_gb
    free_gb=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1024 / 1024))
    if [ "$free_gb" -lt 8 ]; then
        echo "setup: .venv takes about 7 GB with CUDA's libraries, and $free_gb GB are free in $PWD"
    fi
}

if [ ! -x .venv/bin/python ]; then
    tell_little_space
fi
ensure_venv
rm -f "$stamp"
: >"$log"
# basicsr comes as a source distribution that asks for torch, numpy and cython to be built. Without isolation it is
# built with the ones installed here instead of downloading torch a second time.
step 'torch and what builds BasicSR, into .venv (the first time a few GB are downloaded)' \
    pip_run install torch torchvision numpy cython setuptools wheel
if .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then
    echo "setup: basicsr 1.4.2's setup.py reads its version in a way that Python 3.13 ended;" \
        'scripts/basicsr_setup/sitecustomize.py corrects that while basicsr is built'
fi
(
    export PYTHONPATH="$PWD/scripts/basicsr_setup"
    # The source distribution is kept for the tests: it is what a checkout of BasicSR holds.
    step "BasicSR's sources" \
        pip_run download --no-deps --no-binary :all: --no-build-isolation --dest .venv/sources basicsr
    step 'BasicSR' pip_run install --no-build-isolation .venv/sources/basicsr-*.tar.gz
)
step 'the plugin and what its tests and demo need' pip_run install --no-build-isolation --editable '.[dev]'
step 'a first import' .venv/bin/python -c 'import dblr_plugin'
echo "$fingerprint" >"$stamp"
echo "setup: done; the log is $log"
