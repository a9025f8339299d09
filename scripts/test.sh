#!/usr/bin/env bash
# Sets up .venv if needed, then runs the tests in two processes (TEST_PROCESSES); arguments go to pytest.
#   --fast        leaves out tests that take seconds and most inputs of the others, to run while you work
#   --thorough    tries every damaged input on every command that reads it, and kills more often
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
# Hundreds of processes are started, and each would compile the package anew.
unset PYTHONDONTWRITEBYTECODE
# Small networks lose more to threads that wait for each other than they gain.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec .venv/bin/python -m pytest --numprocesses "${TEST_PROCESSES:-2}" --dist worksteal --durations 10 "$@"
