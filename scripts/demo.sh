#!/usr/bin/env bash
# Sets up .venv where needed, makes the clips, then trains and compares DBLRNet and DBLRGAN on them (options/demo.yml).
# If stopped, run it again to continue. Arguments go to dblr benchmark.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
.venv/bin/python scripts/demo_clips.py
exec .venv/bin/dblr benchmark -opt options/demo.yml "$@"
