#!/usr/bin/env bash
# Sets up .venv where needed, makes the demo's clips, then trains and compares all methods (options/benchmark_demo.yml).
# Arguments go to dblr benchmark.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
.venv/bin/python scripts/demo_clips.py
exec .venv/bin/dblr benchmark -opt options/benchmark_demo.yml "$@"
