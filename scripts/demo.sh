#!/usr/bin/env bash
# Sets up .venv where needed, then trains, tests and pictures DBLRNet and DBLRGAN on real footage (see demo.py).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec .venv/bin/python scripts/demo.py "$@"
